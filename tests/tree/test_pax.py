"""PAX records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_model.tree.pax import clamp_seconds, decimal, mtime_ns, parse_records
from tests.tree.archives import record

_KEYS = st.binary(min_size=1, max_size=20).filter(lambda key: b"=" not in key and b"\0" not in key and not key.startswith(b"GNU.sparse"))


@given(st.dictionaries(_KEYS, st.binary(min_size=1, max_size=300)))
def test_records_come_back(records: dict[bytes, bytes]) -> None:
    """Any keys and values, newlines and equals signs in the values included, are read back."""
    records = {key: value.replace(b"\0", b"") or b"x" for key, value in records.items()}
    assert parse_records(b"".join(record(key, value) for key, value in records.items())) == records


def test_the_last_of_equal_keys_wins_and_empty_values_say_nothing() -> None:
    """A repeated key takes its last value; an empty value leaves the header's own field."""
    assert parse_records(record(b"path", b"a") + record(b"path", b"b") + record(b"uid", b"")) == {b"path": b"b"}


@pytest.mark.parametrize(
    "body",
    [
        b"11 path=abc\n",
        b"13 path=abc\n",
        b"6 a=b",
        b"6 a=bx",
        b"x a=b\n",
        b" a=b\n",
        b"0 a=b\n",
        b"5 abc\n",
        b"4 =\n",
        b"99999999999 a=b\n",
        b"\0" * 16,
        b"2 ",
        record(b"path", b"a\0b"),
        record(b"a\0b", b"c"),
        record(b"GNU.sparse.numbytes", b"1"),
        record(b"GNU.sparse.offset", b"1") * 2,
        record(b"GNU.sparse.offset", b"x"),
    ],
)
def test_malformed_records_are_refused(body: bytes) -> None:
    """A record whose length, key or value is not as POSIX says is refused."""
    with pytest.raises(ValueError):
        parse_records(body)


def test_sparse_pairs_become_a_map() -> None:
    """The repeated keys of sparse format 0.0 become the map of format 0.1, in order."""
    body = b"".join(record(b"GNU.sparse.offset", o) + record(b"GNU.sparse.numbytes", n) for o, n in [(b"0", b"1"), (b"5", b"2")])
    assert parse_records(body) == {b"GNU.sparse.map": b"0,1,5,2"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"0", 0),
        (b"1.5", 1_500_000_000),
        (b"1.", 1_000_000_000),
        (b"12.1234567891", 12_123_456_789),
        (b"-62135596800", 0),
        (b"-0.5", 0),
        (b"99999999999999999999.9", 253_402_300_799 * 10**9),
    ],
)
def test_mtime_keeps_nanoseconds_and_is_clamped(value: bytes, expected: int) -> None:
    """Fractions are kept to the nanosecond; the past (Go's year 1) and the far future are clamped."""
    assert mtime_ns(value) == expected


@pytest.mark.parametrize("value", [b"", b"x", b"1e9", b"1.5.5", b"+1", b"1" * 30, b" 1"])
def test_what_is_no_time_is_refused(value: bytes) -> None:
    """A time that is no decimal number is refused."""
    with pytest.raises(ValueError, match="mtime"):
        mtime_ns(value)


@pytest.mark.parametrize("value", [b"", b"-1", b"1.0", b"0x1", b"9223372036854775808", b"1" * 5000])
def test_what_is_no_decimal_is_refused(value: bytes) -> None:
    """Signs, fractions and numbers of more than 63 bits are refused, in bounded time."""
    with pytest.raises(ValueError, match="size"):
        decimal(value, "size")


def test_header_times_are_clamped() -> None:
    """A header's seconds are clamped like a record's."""
    assert clamp_seconds(-1) == 0
    assert clamp_seconds(2**62) == 253_402_300_799 * 10**9
