"""Copies a virtual environment into the image in two parts, so that an upgrade of the driver alone moves less than a megabyte.

``packages.py dependencies|driver ENVIRONMENT ROOT``: the interpreter's links and every package but ours, or ours with its command.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

# The commands of other packages stay behind, with what only compilers, type checkers and tests read, and the half of zstandard that is for
# interpreters other than CPython.
_COMMAND = re.compile(r"python[0-9.]*")
_UNREAD = shutil.ignore_patterns("__pycache__", "*.pyi", "*.pxd", "*.pyx", "*.h", "*.c", "tests", "_cffi.cpython-*.so")


def copy_dependencies(environment: Path, site: Path, root: Path) -> None:
    """Everything that is there before the driver is installed."""
    home = root / environment.relative_to("/")
    shutil.copytree(site, root / site.relative_to("/"), symlinks=True, ignore=_UNREAD)
    (home / "bin").mkdir()
    for command in (environment / "bin").iterdir():
        if _COMMAND.fullmatch(command.name):
            shutil.copy2(command, home / "bin", follow_symlinks=False)
    shutil.copy2(environment / "pyvenv.cfg", home)


def copy_driver(environment: Path, site: Path, root: Path) -> None:
    """The package csi_model, its metadata and its command."""
    for found in (*site.glob("csi_model"), *site.glob("csi_model-*.dist-info")):
        shutil.copytree(found, root / found.relative_to("/"), ignore=_UNREAD)
    command = environment / "bin" / "csi-model"
    there = root / command.relative_to("/")
    there.parent.mkdir(parents=True)
    shutil.copy2(command, there)


if __name__ == "__main__":
    part, environment, root = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    (site,) = environment.glob("lib/python3*/site-packages")
    {"dependencies": copy_dependencies, "driver": copy_driver}[part](environment, site, root)
