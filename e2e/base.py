"""A base for the driver's image that needs no hub: a Debian (or Ubuntu) tree of this machine's release, from its own apt sources."""

from __future__ import annotations

import hashlib
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.buildah import buildah, output_of

if TYPE_CHECKING:
    from collections.abc import Sequence

# What a build needs of its base; what the image keeps of it is decided in deploy/image/runtime.py.
_PACKAGES = "ca-certificates,python3-venv"
_LEFT_OUT = ("man", "locale", "info")


def base_key() -> str:
    """Changes when another tree would be made."""
    return hashlib.sha256("\0".join((_PACKAGES, platform.machine(), *_sources())).encode()).hexdigest()[:16]


def base_tree(work: Path) -> str:
    """The name of the base in the storage of ``work``; it is made when it is not there."""
    key = base_key()
    name = f"localhost/csi-model-base:{key}"
    try:
        buildah(work, "inspect", "--type", "image", name)
    except RuntimeError:
        folder = work / "base"
        folder.mkdir(exist_ok=True)
        tree = folder / f"{key}.tar"
        if not tree.exists():
            _make(tree)
        (folder / "Dockerfile").write_text(f"FROM scratch\nADD {tree.name} /\n")
        (folder / ".dockerignore").write_text(f"*\n!{tree.name}\n")
        buildah(work, "build", "--isolation", "chroot", "--tag", name, str(folder))
    return name


def _make(tree: Path) -> None:
    unfinished = tree.with_name("unfinished.tar")
    options = tree.with_name("apt.conf")
    options.write_text(output_of("apt-config", "dump", "Acquire"))
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={_PACKAGES}", f"--aptopt={options}"]
    command += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
    _, codename = _distribution()
    output_of(*command, "--format=tar", codename, str(unfinished), "-", stdin="\n".join(_sources()) + "\n")
    for older in tree.parent.glob("*.tar"):
        if older != unfinished:
            older.unlink()
    unfinished.rename(tree)


def _distribution() -> tuple[str, str]:
    found = dict(re.findall(r"^(ID|VERSION_CODENAME)=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE))
    return found["ID"], found["VERSION_CODENAME"]


def _sources() -> Sequence[str]:
    """This machine's own distribution among its apt sources, one a line; what others add to it stays out."""
    identity, codename = _distribution()
    fields = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    listed = output_of("apt-get", "indextargets", f"Origin: {identity.capitalize()}", "Created-By: Packages", "--format", fields)
    lines = sorted({f"deb {line}" for line in listed.splitlines() if line.split()[1].startswith(codename)})
    if not lines:
        msg = "apt knows no packages of this machine's distribution; run `apt-get update`"
        raise RuntimeError(msg)
    return lines
