"""Runs commands in an image's tree as a container runtime would: read-only root, /proc, /dev and /sys, one folder that can be written."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from e2e.buildah import in_private
from e2e.imagefile import ImageFile

if TYPE_CHECKING:
    from pathlib import Path

# In a mount namespace that ends with the command. Its arguments: the root, the folder, and the image's environment with the command.
_ENTER = """set -e
root=$1 folder=$2; shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount --bind "$folder" "$root$folder"
exec env -i "$@"
"""


@dataclass(frozen=True, slots=True)
class Container:
    """An image's tree at ``root``; ``folder`` has the same path inside and outside, as kubelet's and the state directory have."""

    root: Path
    folder: Path
    environment: dict[str, str]
    entrypoint: list[str]

    @classmethod
    def create(cls, archive: Path, root: Path, folder: Path) -> Container:
        """Unpack the image, and make the places where something is mounted, as a runtime does before the root becomes read-only."""
        image = ImageFile(archive)
        image.unpack(root)
        for place in (*(root / name for name in ("proc", "dev", "sys")), root / folder.relative_to("/")):
            place.mkdir(parents=True, exist_ok=True)
        config = image.config()["config"]
        return cls(root, folder, dict(line.split("=", 1) for line in config["Env"]), config["Entrypoint"])

    def line(self, *command: str) -> list[str]:
        """What runs a command in it. The process that this starts becomes the command, so signals reach it."""
        enter = [*in_private(), "sh", "-c", _ENTER, "sh", str(self.root), str(self.folder)]
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return [*enter, *variables, "/usr/sbin/chroot", str(self.root), *command]

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run it to its end, and return what it said."""
        return subprocess.run(self.line(*command), capture_output=True, text=True, check=False, **options)
