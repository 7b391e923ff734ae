"""Read-ahead of a mounted filesystem or block device: /sys/class/bdi/MAJOR:MINOR/read_ahead_kb.

A filesystem with no block device below it (file-backed EROFS) has a named entry; its mount's ``st_dev`` does not lead there.
"""

from __future__ import annotations

from pathlib import Path

_BDI = Path("/sys/class/bdi")


def known_devices() -> frozenset[str]:
    """The names of all backing devices that the kernel shows now."""
    return frozenset(entry.name for entry in _BDI.iterdir())


def read_ahead(device: str) -> int:
    """The read-ahead of a backing device, in bytes."""
    return int((_BDI / device / "read_ahead_kb").read_text()) * 1024


def set_read_ahead(device: str, size: int) -> None:
    """Set it; ``OSError`` (EROFS) where /sys is mounted read-only, as in an unprivileged container."""
    (_BDI / device / "read_ahead_kb").write_text(f"{size // 1024}\n")
