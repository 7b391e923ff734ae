"""Compiles the Python below each ROOT to bytecode and gives all of it one time: ``settle.py ROOT…``.

The image's root filesystem is read-only, so bytecode that is not there would be made anew at every start. It is marked as never to be
compared with its source, whose time is not what it was when the bytecode was made. With one time for all, equal contents make an equal layer.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import sys
from pathlib import Path

_TIME = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))


def settle(root: Path) -> None:
    """Compile what imports can find, then set the times."""
    compiled = compileall.compile_dir(
        root,
        maxlevels=20,
        quiet=1,
        workers=0,
        stripdir=str(root),
        prependdir="/",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not compiled:
        sys.exit(f"not everything below {root} can be compiled")
    for folder, folders, files in os.walk(root, topdown=False):
        for name in (*folders, *files):
            os.utime(Path(folder, name), (_TIME, _TIME), follow_symlinks=False)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        settle(Path(argument))
