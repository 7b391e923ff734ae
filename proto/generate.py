# ruff: noqa: INP001 - a script, not a package
"""Generate ``csi_model/generated`` from the files beside this one: ``python proto/generate.py [DIRECTORY]``.

protoc writes messages, their type stubs and the gRPC classes. It writes no type stubs for the latter, so they are written here.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

SOURCES = Path(__file__).resolve().parent
PACKAGE = "csi_model/generated"
NAMES = ("csi", "pluginregistration")


def generate(root: Path) -> None:
    """Write the package ``csi_model/generated`` below ``root``."""
    target = root / PACKAGE
    target.mkdir(parents=True, exist_ok=True)
    (target / "__init__.py").write_text('"""Generated from proto/ by proto/generate.py; not edited by hand."""\n')
    with tempfile.TemporaryDirectory() as scratch:
        described = Path(scratch) / "described"
        # The mapping gives the sources their place in our package, so that generated imports are absolute.
        arguments = [
            f"-I{PACKAGE}={SOURCES}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--python_out={root}",
            f"--pyi_out={root}",
            f"--grpc_python_out={root}",
            f"--descriptor_set_out={described}",
            *(f"{PACKAGE}/{name}.proto" for name in NAMES),
        ]
        if protoc.main(["protoc", *arguments]):
            sys.exit("protoc failed; its message is above")
        described_files = FileDescriptorSet.FromString(described.read_bytes())
    for name, file in zip(NAMES, described_files.file, strict=True):
        (target / f"{name}_pb2_grpc.pyi").write_text(grpc_stub(name, file))


def grpc_stub(name: str, file: FileDescriptorProto) -> str:
    """The type stub of ``<name>_pb2_grpc``: for each service a client, a base class to serve it, and the function that adds it."""
    lines = ["import grpc", "", f"from {PACKAGE.replace('/', '.')} import {name}_pb2 as messages", ""]
    for service in file.service:
        methods = [
            (method.name, *(text.rpartition(".")[2] for text in (method.input_type, method.output_type))) for method in service.method
        ]
        lines += [f"class {service.name}Stub:", "    def __init__(self, channel: grpc.Channel) -> None: ..."]
        lines += [f"    {method}: grpc.UnaryUnaryMultiCallable[messages.{asks}, messages.{gets}]" for method, asks, gets in methods]
        lines += ["", f"class {service.name}Servicer:"]
        lines += [
            f"    def {method}(self, request: messages.{asks}, context: grpc.ServicerContext) -> messages.{gets}: ..."
            for method, asks, gets in methods
        ]
        lines += ["", f"def add_{service.name}Servicer_to_server(servicer: {service.name}Servicer, server: grpc.Server) -> None: ...", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCES.parent)
