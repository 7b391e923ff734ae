from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_model.registry.challenge import parse_challenges


def test_one_bearer_challenge() -> None:
    """Docker Hub's challenge is read whole, with a comma and quotes inside a quoted value."""
    (challenge,) = parse_challenges(['Bearer realm="https://auth.example/token",service="a, \\"b\\"",scope="repository:x:pull,push"'])
    assert challenge.scheme == "bearer"
    assert challenge.parameters == {"realm": "https://auth.example/token", "service": 'a, "b"', "scope": "repository:x:pull,push"}


@pytest.mark.parametrize(
    ("headers", "schemes"),
    [
        (['Basic realm="x", Bearer realm="y"'], ["basic", "bearer"]),
        (['BASIC realm="x"', "bearer realm=y"], ["basic", "bearer"]),
        (["Negotiate, Basic realm=x"], ["negotiate", "basic"]),
        (["Negotiate abcd==, Basic realm=x"], ["negotiate", "basic"]),
        (["Basic"], ["basic"]),
        ([""], []),
        ([], []),
        ([',,"'], []),
    ],
)
def test_several_challenges(headers: list[str], schemes: list[str]) -> None:
    """Challenges are told apart within one header and over several, whatever the case of their schemes."""
    assert [challenge.scheme for challenge in parse_challenges(headers)] == schemes


def test_second_challenge_keeps_its_own_parameters() -> None:
    """Parameters belong to the challenge before them."""
    basic, bearer = parse_challenges(['Basic realm="x",Bearer realm="y" , Service=z'])
    assert basic.parameters == {"realm": "x"}
    assert bearer.parameters == {"realm": "y", "service": "z"}


@given(st.lists(st.text(max_size=200)))
def test_anything_is_survived(headers: list[str]) -> None:
    """No header makes the parser fail or hang."""
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()
