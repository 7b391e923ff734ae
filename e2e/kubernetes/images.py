"""Container images without a hub: written by hand as OCI archives, for ``ctr images import``.

Pause and busybox are Debian's static busybox. A pause container only has to live until it is killed, which ``sleep`` does as well as any.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

BUSYBOX = "localhost/busybox:1"
PAUSE = "localhost/pause:1"
PROVISIONER = "localhost/csi-provisioner:v6.3.0"
_FOREVER = ("/bin/busybox", "sleep", "2147483647")


@dataclass(frozen=True, slots=True)
class Image:
    """One layer, and what a container of it runs when its pod does not say."""

    name: str
    layer: bytes
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()

    def write(self, path: Path) -> Path:
        """Write it as an OCI archive that containerd imports under its name."""
        layer = _digest(self.layer)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": list(self.entrypoint), "Cmd": list(self.command), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        }
        config_data = json.dumps(config).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _digest(config_data), "size": len(config_data)},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": len(self.layer)}],
        }
        manifest_data = json.dumps(manifest).encode()
        entry = {
            "mediaType": manifest["mediaType"],
            "digest": _digest(manifest_data),
            "size": len(manifest_data),
            "annotations": {"io.containerd.image.name": self.name},
        }
        index = {"schemaVersion": 2, "manifests": [entry]}
        with tarfile.open(path, "w") as archive:
            _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add(archive, "index.json", json.dumps(index).encode())
            for data in (manifest_data, config_data, self.layer):
                _add(archive, f"blobs/sha256/{_digest(data).partition(':')[2]}", data)
        return path


def busybox() -> Image:
    """A shell and the usual programs, for the pods of tests."""
    program = _program()
    applets = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as layer:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
            _add_folder(layer, folder, mode)
        _add(layer, "bin/busybox", program.read_bytes(), 0o755)
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                layer.addfile(link)
    return Image(BUSYBOX, packed.getvalue(), ("sh",))


def pause() -> Image:
    """What holds a pod's namespaces."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as layer:
        _add_folder(layer, "bin", 0o755)
        _add(layer, "bin/busybox", _program().read_bytes(), 0o755)
    return Image(PAUSE, packed.getvalue(), _FOREVER)


def provisioner(program: Path) -> Image:
    """The external provisioner, a program that needs nothing beside it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as layer:
        _add(layer, "csi-provisioner", program.read_bytes(), 0o755)
    return Image(PROVISIONER, packed.getvalue(), (), ("/csi-provisioner",))


def _program() -> Path:
    found = shutil.which("busybox")
    if found is None:
        msg = "busybox is not installed (Debian's busybox-static); run `.ci/setup e2e`"
        raise RuntimeError(msg)
    return Path(found).resolve()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    archive.addfile(member, io.BytesIO(data))


def _add_folder(archive: tarfile.TarFile, name: str, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, mode
    archive.addfile(member)
