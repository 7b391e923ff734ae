"""Builds the driver's image where no hub can be reached: its base is a Debian tree that e2e/base.py makes.

```
<cache>/image/
  lock                                       held while something below is made
  base/<key>.tar                             a Debian tree with Python, pip and certificates
  storage/, run/                             buildah's, so that nothing of it lies elsewhere
  built/<key>/csi-model-<version>.tar        the image: an OCI archive
  built/<key>/csi-model-<version>.cdx.json   what it is made of
```

A key is a digest of what the thing is made from. ``python -m e2e.image --help`` builds one by hand.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from csi_model import __version__
from e2e.base import base_key, base_tree
from e2e.buildah import buildah, output_of
from e2e.imagefile import ImageFile, pack

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).resolve().parents[1]
INPUTS = ("Dockerfile", ".dockerignore", "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "csi_model", "deploy/image")
NAME = f"localhost/csi-model:{__version__}"
PARTS = ("Python and the base", "packages", "csi-model")
_BILL = "opt/csi-model/sbom.cdx.json"
_STORAGE_LIMIT = 6 << 30
_KEPT = 3


def default_cache() -> Path:
    """Where what end-to-end tests build is kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "csi-model-e2e"


def missing_tools() -> list[str]:
    """The programs that building needs and this machine lacks."""
    return [tool for tool in ("buildah", "mmdebstrap") if shutil.which(tool) is None]


def build_image(cache: Path | None = None, tag: str = NAME, *, base: str | None = None, source: str = "") -> Path:
    """Return the OCI archive of this checkout's image, from the cache when nothing that it is made of has changed.

    Args:
        cache: A folder; the user's own by default.
        tag: The name under which a runtime imports it.
        base: An image to build on, instead of a Debian tree.
        source: The address of the source code, for the image's label.
    """
    work = (cache or default_cache()) / "image"
    (work / "built").mkdir(parents=True, exist_ok=True)
    folder = work / "built" / _key(tag, base or base_key(), source)
    archive = folder / f"csi-model-{__version__}.tar"
    with _locked(work):
        if not folder.exists():
            _forget(work)
            unfinished = work / "built" / "unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            _build(work, unfinished / archive.name, tag, base or base_tree(work), source)
            unfinished.rename(folder)
        os.utime(folder)
    return archive


def bill_of(archive: Path) -> Path:
    """The bill of materials beside an archive."""
    return archive.with_suffix(".cdx.json")


def _build(work: Path, archive: Path, tag: str, base: str, source: str) -> None:
    local = "localhost/csi-model-built"
    arguments = {"BASE": base, "VERSION": __version__, "REVISION": _revision(), "SOURCE": source}
    options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    options += [f"--volume={here}:{target}:ro" for here, target in _pip_volumes(work).items()]
    buildah(work, "build", "--layers", "--isolation", "chroot", *options, "--tag", local, str(SOURCE))
    layout = archive.with_name("layout")
    buildah(work, "push", "--quiet", local, f"oci:{layout}:{__version__}")
    pack(layout, tag, archive)
    shutil.rmtree(layout)
    bill_of(archive).write_bytes(ImageFile(archive).read(_BILL))


def _pip_volumes(work: Path) -> dict[str, str]:
    """What lets pip in the build reach what pip here reaches: its settings, and the files and folders that they name."""
    settings: dict[str, str] = {}
    volumes: dict[str, str] = {}
    for line in output_of(sys.executable, "-m", "pip", "config", "list").splitlines():
        if found := re.fullmatch(r"(?:global|install|:env:)\.([\w.-]+)='(.*)'", line):
            name, value = found[1], found[2]
            # They get new places: a machine's own certificates must not be taken for the base's, which go into the image.
            for number, path in enumerate(value.split()):
                if path.startswith("/") and Path(path).exists():
                    volumes[path] = f"/run/pip/{name}-{number}"
                    value = value.replace(path, volumes[path])
            settings[name] = value
    file = work / "pip.conf"
    file.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    return {**volumes, str(file): "/etc/pip.conf"}


def _key(*words: str) -> str:
    total = hashlib.sha256("\0".join(words).encode())
    for top in (SOURCE / name for name in INPUTS):
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                total.update(f"{path.relative_to(SOURCE)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def _revision() -> str:
    """The last commit that changed an input, and whether there are changes since; unknown outside a checkout."""
    git = ["git", "-C", str(SOURCE)]
    try:
        commit = output_of(*git, "log", "-1", "--format=%H", "--", *INPUTS).strip()
        changed = output_of(*git, "status", "--porcelain", "--", *INPUTS).strip()
    except (OSError, RuntimeError):
        return "unknown"
    return (commit or "unknown") + ("-changed" if changed else "")


def _forget(work: Path) -> None:
    """Keep the disk from filling: the newest builds stay, and buildah's storage until it has grown large."""
    for path in sorted((work / "built").iterdir(), key=lambda path: path.stat().st_mtime)[: 1 - _KEPT]:
        shutil.rmtree(path)
    storage = work / "storage"
    if storage.exists() and int(output_of("du", "-sb", str(storage)).split()[0]) > _STORAGE_LIMIT:
        shutil.rmtree(storage)


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    with (work / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: list[str] | None = None) -> None:
    """Build, copy the archive and the bill of materials beside each other, and say what the image weighs."""
    parser = argparse.ArgumentParser(prog="python -m e2e.image", description="Builds the driver's image as an OCI archive, and its SBOM.")
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument("--base", help="image to build on; a Debian tree of mmdebstrap by default")
    parser.add_argument("--tag", default=NAME, help="name under which runtimes import it (default: %(default)s)")
    parser.add_argument("--source", default="", help="address of the source code, for the image's label")
    asked = parser.parse_args(arguments)
    if missing := [tool for tool in missing_tools() if tool != "mmdebstrap" or not asked.base]:
        sys.exit(f"{' and '.join(missing)} must be installed to build the image")
    archive = build_image(tag=asked.tag, base=asked.base or None, source=asked.source)
    asked.output.mkdir(parents=True, exist_ok=True)
    for file in (archive, bill_of(archive)):
        print(shutil.copy2(file, asked.output))
    sizes = ImageFile(archive).layer_sizes()
    parts = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in zip(PARTS, sizes, strict=True))
    print(f"{asked.tag}: {sum(sizes) / 1e6:.1f} MB compressed ({parts})")


if __name__ == "__main__":
    main()
