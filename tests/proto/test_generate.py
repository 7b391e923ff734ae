"""The interface definitions: right on the wire, and the generated code fresh."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor

from csi_model.generated import csi_pb2, pluginregistration_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "csi_model" / "generated"


def _kind(field: FieldDescriptor) -> str:
    named = field.message_type or field.enum_type
    if field.message_type and field.message_type.GetOptions().map_entry:
        return "map"
    names = {getattr(FieldDescriptor, name): name[5:].lower() for name in dir(FieldDescriptor) if name.startswith("TYPE_")}
    kind = named.full_name.removeprefix("csi.v1.") if named else names[field.type]
    return f"repeated:{kind}" if field.is_repeated else kind


def _fields(message: Descriptor) -> Iterator[str]:
    for field in message.fields:
        oneof = ":oneof" if field.containing_oneof else ""
        # protoc types the extension as a plain field descriptor, which mypy takes for no extension at all.
        secret: bool = field.GetOptions().Extensions[csi_pb2.csi_secret]  # type: ignore[index]
        yield f"{field.name}={field.number}:{_kind(field)}{oneof}{':secret' if secret else ''}"


def _enum(enum: EnumDescriptor) -> str:
    return f"enum {enum.full_name.removeprefix('csi.v1.')}: " + " ".join(f"{value.name}={value.number}" for value in enum.values)


def _message(message: Descriptor) -> Iterator[str]:
    if message.GetOptions().map_entry:
        return
    yield f"message {message.full_name.removeprefix('csi.v1.')}: {' '.join(_fields(message))}".rstrip()
    for enum in message.enum_types:
        yield _enum(enum)
    for nested in message.nested_types:
        yield from _message(nested)


def _wire(file: FileDescriptor) -> list[str]:
    lines = [line for message in file.message_types_by_name.values() for line in _message(message)]
    lines += [_enum(enum) for enum in file.enum_types_by_name.values()]
    lines += [
        f"service {service.name}: {' '.join(method.name for method in service.methods)}" for service in file.services_by_name.values()
    ]
    return sorted(lines)


def test_csi_is_the_specification_on_the_wire() -> None:
    """Every name, number, kind and secret mark is that of CSI 1.13.0."""
    expected = [line for line in (Path(__file__).parent / "csi_wire.txt").read_text().splitlines() if not line.startswith("#")]
    assert _wire(csi_pb2.DESCRIPTOR) == sorted(expected)


def test_registration_is_kubelets_on_the_wire() -> None:
    """Kubelet finds Registration in a package without a version, with its field numbers."""
    assert pluginregistration_pb2.DESCRIPTOR.package == "pluginregistration"
    assert _wire(pluginregistration_pb2.DESCRIPTOR) == sorted(
        [
            "message pluginregistration.InfoRequest:",
            "message pluginregistration.PluginInfo: type=1:string name=2:string endpoint=3:string supported_versions=4:repeated:string",
            "message pluginregistration.RegistrationStatus: plugin_registered=1:bool error=2:string",
            "message pluginregistration.RegistrationStatusResponse:",
            "service Registration: GetInfo NotifyRegistrationStatus",
        ]
    )


def test_numbers_of_removed_and_alpha_parts_stay_reserved() -> None:
    """The numbers that the specification once used, or uses in alpha, cannot be given another meaning here."""
    source = (ROOT / "proto" / "csi.proto").read_text()
    for reserved in ("reserved 11, 12, 13, 15, 16, 17;", "reserved 4, 5;", "reserved 6, 7;"):
        assert reserved in source
    response = source.split("message NodeGetVolumeStatsResponse {")[1].split("}")[0]
    assert "reserved 2;" in response


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    """What is committed is what proto/generate.py writes today."""
    subprocess.run([sys.executable, str(ROOT / "proto" / "generate.py"), str(tmp_path)], check=True, timeout=100)
    fresh = {path.name: path.read_text() for path in (tmp_path / "csi_model" / "generated").iterdir()}
    committed = {path.name: path.read_text() for path in GENERATED.iterdir() if path.is_file()}
    assert fresh.keys() == committed.keys()
    assert [name for name in fresh if fresh[name] != committed[name]] == []


def test_grpc_stubs_name_what_the_modules_hold() -> None:
    """The type stubs that we write ourselves promise exactly the classes and functions that the gRPC modules have."""
    for name in ("csi_pb2_grpc", "pluginregistration_pb2_grpc"):
        module = importlib.import_module(f"csi_model.generated.{name}")
        promised = {
            line.split()[1].split("(")[0].rstrip(":")
            for line in (GENERATED / f"{name}.pyi").read_text().splitlines()
            if line.startswith(("class ", "def "))
        }
        assert promised
        assert all(hasattr(module, item) for item in promised)
