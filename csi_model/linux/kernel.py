"""The running kernel's version, comparable, whatever a distribution adds to it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Self

_RELEASE = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True, order=True)
class KernelVersion:
    """Major, minor and patch level of the upstream release; ``release`` is the whole text, for people."""

    major: int
    minor: int
    patch: int
    release: str = field(default="", compare=False)

    @classmethod
    def parse(cls, release: str, version: str = "") -> Self:
        """Parse ``uname -r``, such as ``6.12.73+deb13-amd64``, ``6.18.0-rc3`` (patch 0) or ``7.0``.

        Debian freezes its release at the ABI (``6.1.0-18-amd64``) and tells the upstream patch level in ``uname -v`` (``version``:
        ``#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)``): the higher one counts. ``ValueError`` when there is no version.
        """
        found = _RELEASE.match(release)
        if not found:
            msg = f"not a kernel release: {release!r}"
            raise ValueError(msg)
        major, minor, patch = int(found[1]), int(found[2]), int(found[3] or 0)
        package = re.search(rf"\bDebian {major}\.{minor}\.(\d+)", version)
        return cls(major, minor, max(patch, int(package[1]) if package else 0), release)

    @classmethod
    def running(cls) -> Self:
        """The kernel that runs this process."""
        system = os.uname()
        return cls.parse(system.release, system.version)

    def __str__(self) -> str:
        return self.release or f"{self.major}.{self.minor}.{self.patch}"
