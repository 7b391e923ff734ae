"""csi_model.oci.document."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_model.errors import InvalidRequestError
from csi_model.oci.document import MAX_DOCUMENT, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, max_size=4), st.booleans())
def test_every_object_that_json_writes_is_read(value: dict[str, object], ascii_only: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    """Strictness refuses nothing that a JSON writer makes, with escapes or without."""
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode(), "it") == value


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "strict JSON"),
        (b"{", "strict JSON"),
        (b"{} {}", "strict JSON"),
        (b"[]", "not a JSON object but list"),
        (b"null", "not a JSON object but NoneType"),
        (b'{"a": 1, "a": 1}', "'a' is given twice"),
        (b'{"x": [{"b": 1, "c": 2, "b": 3}]}', "'b' is given twice"),
        (b'{"a": 1, "\\u0061": 2}', "'a' is given twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": "\xff"}', "utf-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ('{"a": 1}'.encode("utf-16"), "strict JSON"),
        (b'{"a": "\\ud800"}', "surrogates"),
        (b'{"\\udc00": 1}', "surrogates"),
        (b'{"a": ' + b"9" * 5000 + b"}", "strict JSON"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "levels deep"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "levels deep"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deep"),
        (b"[" * 1_000_000, "deep"),
        (b'{"a": "' + b"x" * MAX_DOCUMENT + b'"}', "at most 4194304"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(body: bytes, why: str) -> None:
    """Malformed, ambiguous, huge and deeply nested documents are refused with a reason, and never by a RecursionError."""
    with pytest.raises(InvalidRequestError, match=why) as raised:
        parse_json(body, "the manifest")
    assert len(str(raised.value)) <= 300


def test_the_largest_document_is_read() -> None:
    """Exactly 4 MiB is not too much."""
    body = b'{"a": "' + b"x" * (MAX_DOCUMENT - 9) + b'"}'
    assert len(body) == MAX_DOCUMENT
    assert parse_json(body, "the manifest")["a"]
