"""One 512-byte tar header block: fields, numbers and the checksum, for v7, ustar, star and GNU headers.

The readings follow Go's archive/tar (src/archive/tar/{reader,format,strconv}.go), since containerd's idea of a layer is Go's.
Malformed fields raise ValueError; the archive's reader says where.
"""

from __future__ import annotations

from typing import NamedTuple

BLOCK = 512
MAX_NUMBER = 2**63 - 1

_HIGH_BYTES_GONE = bytes(range(128))


class Header(NamedTuple):
    """The fields of one block that we use; ``size`` is the stored one and ``mtime`` is in seconds."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    type: bytes
    link: bytes
    gnu: bool


def parse_header(block: bytes) -> Header:
    """Read a header block that is not all zeros.

    Raises:
        ValueError: wrong checksum, or a field that is no number.
    """
    _check_sum(block)
    magic = block[257:265]
    gnu = magic == b"ustar  \0"
    name = text(block[0:100])
    if magic[:6] == b"ustar\0":
        # star keeps access times where ustar has the end of the prefix, and says so in the last four bytes.
        prefix = text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
        if prefix:
            name = prefix + b"/" + name
    size = number(block[124:136])
    if size < 0:
        msg = f"its size is negative ({size})"
        raise ValueError(msg)
    return Header(
        name=name,
        mode=number(block[100:108]),
        uid=number(block[108:116]),
        gid=number(block[116:124]),
        size=size,
        mtime=number(block[136:148]),
        type=block[156:157],
        link=text(block[157:257]),
        gnu=gnu,
    )


def text(field: bytes) -> bytes:
    """A field up to its first NUL."""
    end = field.find(0)
    return field if end < 0 else field[:end]


def number(field: bytes) -> int:
    """A numeric field: octal digits, or GNU's base-256 two's complement when the top bit is set; an empty one is zero.

    Raises:
        ValueError: neither, or beyond 63 bits.
    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        if not -MAX_NUMBER - 1 <= value <= MAX_NUMBER:
            msg = "a base-256 number needs more than 64 bits"
            raise ValueError(msg)
        return value
    digits = text(field.lstrip(b" \0")).rstrip(b" ")
    if not digits:
        return 0
    # int() alone would also take "0o7", "1_0" and "-1".
    if not digits.isdigit():
        msg = f"{digits[:24]!r} is not an octal number"
        raise ValueError(msg)
    return int(digits, 8)


def _check_sum(block: bytes) -> None:
    stored = number(block[148:156])
    plain = sum(block) - sum(block[148:156]) + 8 * 0x20
    if plain == stored:
        return
    # Some old writers added the bytes as signed characters.
    masked = block[:148] + block[156:]
    if plain - 256 * len(masked.translate(None, _HIGH_BYTES_GONE)) != stored:
        msg = "the header's checksum is wrong"
        raise ValueError(msg)
