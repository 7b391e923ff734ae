"""Header blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_model.tree.header import number, parse_header
from tests.tree.archives import block


@given(st.integers(-(2**63), 2**63 - 1))
def test_base_256_reads_every_64_bit_number(value: int) -> None:
    """A number written in GNU's base-256 comes back, negative ones too."""
    field = (value & (2**95 - 1) | 1 << 95).to_bytes(12, "big")
    assert number(field) == value


@given(st.integers(0, 8**11 - 1), st.sampled_from([b"%011o\0", b"%11o ", b" %011o", b"%o\0", b"%o \0"]))
def test_octal_reads_every_padding(value: int, form: bytes) -> None:
    """Octal digits are read with leading or trailing spaces and NULs."""
    assert number((form % value).ljust(12, b"\0")) == value


@pytest.mark.parametrize("field", [b"0o7\0", b"1_0\0", b"-1\0\0", b"+1\0\0", b"89\0\0", b"abc\0", b"1 2\0"])
def test_what_is_no_octal_number_is_refused(field: bytes) -> None:
    """Signs, prefixes, underscores and other digits, which int() would take, are refused."""
    with pytest.raises(ValueError):
        number(field)


def test_a_base_256_number_beyond_64_bits_is_refused() -> None:
    """A twelve-byte number that overflows a signed 64-bit integer is refused."""
    with pytest.raises(ValueError, match="64 bits"):
        number(b"\x80\x00\x00\x01" + bytes(8))


def test_an_empty_number_is_zero() -> None:
    """A field of NULs or spaces means zero, as many writers leave unused fields."""
    assert number(bytes(8)) == number(b" " * 8) == 0


def test_a_wrong_checksum_is_refused() -> None:
    """One flipped bit in a header is noticed."""
    raw = bytearray(block())
    raw[3] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        parse_header(bytes(raw))


def test_signed_checksums_are_accepted() -> None:
    """A header whose writer added its bytes as signed characters is accepted."""
    name = b"\xff\xfe"
    plain = sum(block(name, sum=b" " * 8))
    assert parse_header(block(name, sum=b"%06o\0 " % (plain - 512))).name == name


def test_a_negative_size_is_refused() -> None:
    """A base-256 size below zero (CVE-2025-8194 was a negative offset) is refused."""
    with pytest.raises(ValueError, match="negative"):
        parse_header(block(size=b"\xff" * 12))


def test_ustar_prefix_precedes_the_name() -> None:
    """A ustar header's prefix and name make the path, a v7 or GNU header's bytes there do not."""
    rest = bytes(80) + b"some/prefix"
    assert parse_header(block(b"f", rest=rest)).name == b"some/prefix/f"
    assert parse_header(block(b"f", rest=rest, magic=b"ustar  \0")).name == b"f"
    assert parse_header(block(b"f", rest=rest, magic=bytes(8))).name == b"f"


def test_star_prefix_is_shorter() -> None:
    """A star header keeps times where ustar has the end of its prefix."""
    rest = (bytes(80) + b"p" * 131 + b"00000000001 ").ljust(243, b"\0") + b"tar\0"
    assert parse_header(block(b"f", rest=rest)).name == b"p" * 131 + b"/f"
