"""PAX extended headers: the records of one ``x`` entry (POSIX.1-2017, pax, "pax Extended Header").

Empty values and unknown keys change nothing, as in Go's archive/tar. Extended attributes are among the unknown: a view has none.
Malformed records raise ValueError.
"""

from __future__ import annotations

import re

from csi_model.tree.header import MAX_NUMBER

SPARSE_MAP = b"GNU.sparse.map"
_SPARSE_0_0 = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_NO_NUL = frozenset((b"path", b"linkpath", b"GNU.sparse.name"))
_LENGTH_DIGITS = 10
_MTIME = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?")
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z; later years break readers and mean nothing


def parse_records(body: bytes) -> dict[bytes, bytes]:
    r"""The records of one extended header; of equal keys the last wins.

    The repeated keys of GNU sparse format 0.0 are joined into the ``GNU.sparse.map`` of format 0.1.

    Raises:
        ValueError: a record that does not follow ``<length> <key>=<value>\n``.
    """
    records: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    at = 0
    while at < len(body):
        space = body.find(b" ", at, at + _LENGTH_DIGITS + 1)
        digits = body[at:space]
        # Every record ends behind its space, so the loop always moves on.
        end = at + int(digits) if space > at and digits.isdigit() else 0
        if not at < space < end <= len(body) or body[end - 1] != 0x0A:
            msg = f"its extended header has a malformed record at byte {at}"
            raise ValueError(msg)
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if not equals or not key or b"\0" in key or (key in _NO_NUL and b"\0" in value):
            msg = f"its extended header has a malformed record at byte {at}"
            raise ValueError(msg)
        if key in _SPARSE_0_0:
            if key != _SPARSE_0_0[len(sparse) % 2] or not value.isdigit():
                msg = "its sparse map does not pair offsets with lengths"
                raise ValueError(msg)
            sparse.append(value)
        elif value:
            records[key] = value
        at = end
    if sparse:
        records[SPARSE_MAP] = b",".join(sparse)
    return records


def decimal(value: bytes, what: str) -> int:
    """A decimal number from zero to 2^63 - 1.

    Raises:
        ValueError: it is none; ``what`` names it.
    """
    if value.isdigit() and len(value) <= 20 and (number := int(value)) <= MAX_NUMBER:
        return number
    msg = f"its {what} is not a valid number ({value[:24]!r})"
    raise ValueError(msg)


def mtime_ns(value: bytes) -> int:
    """A time stamp in seconds with a decimal fraction, as nanoseconds, clamped as `clamp_seconds` does.

    Raises:
        ValueError: not a time stamp.
    """
    match = _MTIME.fullmatch(value)
    if match is None:
        msg = f"its mtime is not a time stamp ({value[:24]!r})"
        raise ValueError(msg)
    sign, seconds, fraction = match.groups()
    if sign:
        return 0
    nanoseconds = int((fraction or b"0")[:9].ljust(9, b"0"))
    whole = int(seconds)
    return whole * 10**9 + nanoseconds if whole <= _LAST_SECOND else clamp_seconds(whole)


def clamp_seconds(seconds: int) -> int:
    """Seconds since 1970 as nanoseconds, the past (Go's zero time is the year 1) and the far future clamped."""
    return min(max(seconds, 0), _LAST_SECOND) * 10**9
