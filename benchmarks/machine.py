"""The machine: what it is, its memory made alike before each run, and what a process has used."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MEBIBYTE = 1 << 20
_TICK = os.sysconf("SC_CLK_TCK")
_PASSES = 4


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds (user and system, with children that have ended), bytes written, and the largest resident memory, in bytes."""

    cpu: float = 0.0
    written: int = 0
    peak: int = 0

    def since(self, before: Usage) -> Usage:
        """What was used between ``before`` and this; the peak is that of the whole life."""
        return Usage(self.cpu - before.cpu, self.written - before.written, self.peak)

    def beside(self, other: Usage) -> Usage:
        """Two processes taken together."""
        return Usage(self.cpu + other.cpu, self.written + other.written, self.peak + other.peak)


def usage(pid: int) -> Usage:
    """What a running process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Usage(sum(map(int, fields[11:15])) / _TICK, _number(pid, "io", "write_bytes"), _number(pid, "status", "VmHWM") * 1024)


def run(command: Sequence[object], **environment: str) -> Usage:
    """Run a command to its end and tell what it used; its children count."""
    process = subprocess.Popen(
        [str(word) for word in command], env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    peak = 0
    while True:
        # ru_maxrss would be that of this process, which the child is a copy of until it begins.
        with contextlib.suppress(OSError, LookupError):  # it may have just ended
            peak = max(peak, _number(process.pid, "status", "VmHWM") * 1024)
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.01)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stderr is not None
    with process.stderr:
        if process.returncode:
            msg = f"{' '.join(map(str, command))} failed: {process.stderr.read().decode(errors='replace')[-2000:]}"
            raise RuntimeError(msg)
    return Usage(used.ru_utime + used.ru_stime, used.ru_oublock * 512, peak)


def timed_sync() -> float:
    """Seconds that it takes until everything is on the disk."""
    began = time.monotonic()
    os.sync()
    return time.monotonic() - began


def read_all(folder: Path) -> tuple[float, int]:
    """Read every byte below a folder once, file after file; returns seconds and bytes."""
    began, total = time.monotonic(), 0
    buffer = bytearray(MEBIBYTE)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb", buffering=0) as file:
            while got := file.readinto(buffer):
                total += got
    return time.monotonic() - began, total


class Memory:
    """Fills free memory with page cache, for a virtual machine's first touch of memory that its host took back is many times dearer."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "sparse"
        self._position = 0
        with self._path.open("wb") as file:
            file.truncate(8 << 40)

    def fill(self, hot: Iterable[Path]) -> None:
        """Sync, fill, and then read ``hot`` files, so that what serves them has them in memory."""
        os.sync()
        buffer = bytearray(4 * MEBIBYTE)
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._position)
            # The kernel keeps a little free, and frees more while this reads: a few times over what is free, and no more, for others'
            # comings and goings must not keep this going.
            for _ in range(_PASSES):
                for _ in range(_meminfo("MemFree") // len(buffer)):
                    file.readinto(buffer)
            self._position = file.tell()
        for path in hot:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def drop_caches() -> None:
    """Forget every clean page."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def describe() -> str:
    """The machine in one line."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return (
        f"{len(os.sched_getaffinity(0))} cores ({model[1] if model else platform.machine()}), {_meminfo('MemTotal') / 2**30:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def _meminfo(key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _number(pid: int, file: str, key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    if found is None:
        msg = f"/proc/{pid}/{file} has no {key}"
        raise LookupError(msg)
    return int(found[1])
