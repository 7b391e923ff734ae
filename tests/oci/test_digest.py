"""csi_model.oci.digest."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_model.errors import InvalidRequestError
from csi_model.oci.digest import Digest

HEX = "0123456789abcdef" * 4


@given(st.sampled_from([("sha256", 64), ("sha512", 128)]), st.data())
def test_every_digest_survives_text(algorithm: tuple[str, int], data: st.DataObject) -> None:
    """A digest parses from its own text."""
    name, length = algorithm
    digest = Digest(name, data.draw(st.text("0123456789abcdef", min_size=length, max_size=length)))
    assert Digest.parse(str(digest)) == digest


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        "",
        HEX,
        f"sha256:{HEX.upper()}",
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX}\n",
        f"sha512:{HEX}",
        f"md5:{HEX[:32]}",
        f"blake3:{HEX}",
        f"SHA256:{HEX}",
        f"sha256:{HEX[:-1]}٣",
        f"sha256:../{HEX[3:]}",
    ],
)
def test_what_is_not_a_digest_is_refused(text: object) -> None:
    """Nothing but lower-case hex of the right length, behind an algorithm we hash, is a digest."""
    with pytest.raises(InvalidRequestError):
        Digest.parse(text)


def test_digest_of_bytes() -> None:
    """The digest of bytes is their SHA-256, and its short form the first twelve digits."""
    expected = hashlib.sha256(b"weights").hexdigest()
    assert str(Digest.of(b"weights")) == f"sha256:{expected}"
    assert Digest.of(memoryview(b"weights")).short == expected[:12]
