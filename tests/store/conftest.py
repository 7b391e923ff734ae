"""An open store, and children that die at a named step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_model.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    with Store.open(root, writable=True) as opened:
        yield opened


@pytest.fixture
def killed_at(root: Path) -> Callable[[str, str], None]:
    """Run a program on the store, which is open as ``store``, and have it killed at a step."""

    def run(step: str, program: str) -> None:
        prelude = (
            "import os, sys\nfrom pathlib import Path\nfrom csi_model.oci.digest import Digest\nfrom csi_model.store.store import Store\n"
            "from csi_model.store.records import *\nstore = Store.open(Path(sys.argv[1]), writable=True)\n"
        )
        child = subprocess.run(
            [sys.executable, "-c", prelude + program, str(root)],
            env={**os.environ, "CSI_MODEL_KILL_AT": step},
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert child.returncode == -signal.SIGKILL, f"{step} was not reached: {child.stderr}"

    return run


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every fsync and rename from here on, in order, with the paths that they were about."""
    made: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        made.append(f"fsync {Path('/proc/self/fd', str(fd)).readlink()}")
        real_fsync(fd)

    def rename(source: str, target: str) -> None:
        made.append(f"rename {source} {target}")
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    return made
