"""The one door to the kernel that Python's ``os`` does not open: raw system calls through libc, errno turned into ``OSError``.

Numbers below 424 differ by architecture; those that we need come from libc functions of their own, so nothing here depends on one.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)  # CDLL lets go of the GIL while the call runs
_libc.syscall.restype = ctypes.c_long

Argument = int | bytes | ctypes.Array[ctypes.c_char] | ctypes.Structure | None


def raw(name: str, number: int, *arguments: Argument, path: object = None) -> int:
    """System call ``number``; ``name`` and ``path`` only tell people what failed.

    Integers travel as longs, bytes as pointers to a terminated copy, structures by reference.
    """
    result: int = _libc.syscall(ctypes.c_long(number), *map(_converted, arguments))
    return checked(name, result, path)


def function(name: str, *arguments: object, path: object = None) -> int:
    """The libc function ``name`` with arguments that are already ctypes values."""
    result: int = getattr(_libc, name)(*arguments)
    return checked(name, result, path)


def checked(name: str, result: int, path: object) -> int:
    """The result of the call, or its errno as ``OSError``."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}", None if path is None else os.fsdecode(str(path)))
    return result


def _converted(argument: Argument) -> object:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, int):
        return ctypes.c_long(argument)
    if isinstance(argument, bytes):
        return ctypes.c_char_p(argument)
    return ctypes.byref(argument)
