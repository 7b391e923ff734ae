"""The commands of a README section, for the tests that run them word by word."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
SECTION = "Kubernetes in five minutes"


def blocks(section: str = SECTION) -> tuple[str, ...]:
    """The shell blocks of a section, in order.

    Raises:
        LookupError: the README has no such section, or it has no commands.
    """
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", README.read_text(), re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^```sh\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL) if found else []
    if not commands:
        raise LookupError(section)
    return tuple(commands)


def script(section: str = SECTION) -> str:
    """All of them as one, which ends at the first that fails and says before each block which it is."""
    numbered = (f"echo '## block {number}'\n{block}" for number, block in enumerate(blocks(section), 1))
    return "set -euo pipefail\n" + "".join(numbered)
