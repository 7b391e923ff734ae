"""The configuration's JSON schema: it accepts what is right, refuses what is wrong, and never more than the model does."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from csi_model.config.document import example
from csi_model.config.load import parse
from csi_model.config.model import Config
from csi_model.config.schema import schema
from csi_model.errors import InvalidRequestError

VALIDATOR = jsonschema.Draft7Validator(schema())


def _accepted(document: Any) -> bool:
    return bool(VALIDATOR.is_valid(document))


def _loads(document: Any) -> bool:
    try:
        parse(json.dumps(document), where="the test")
    except InvalidRequestError:
        return False
    return True


def test_the_schema_is_one() -> None:
    """It is valid by its own rules, and `python -m` prints it."""
    jsonschema.Draft7Validator.check_schema(schema())
    printed = subprocess.run([sys.executable, "-m", "csi_model.config.schema"], check=True, capture_output=True).stdout
    assert json.loads(printed) == schema()


@pytest.mark.parametrize(
    "document",
    [
        {},
        yaml.safe_load(example()),
        json.loads(Config().model_dump_json(by_alias=True)),
        {"pull": {"stallTimeout": "0.5s", "linger": 90, "freeSpaceReserve": 21474836480.0}},
        {"pull": {"freeSpaceReserve": "1.5 GiB"}, "views": {"idle": "2h"}},
        {"registries": {"[::1]:5000": {"plainHttp": True, "caFile": None}, "registry.example": {}}},
        {"layouts": {"allowedPrefixes": ["oci-layout:///srv/", "oci-layout+http://models.example:8080/x/"]}},
    ],
)
def test_what_is_right_is_accepted(document: Any) -> None:
    """Defaults, the documentation's example and every way to write a value pass the schema and load."""
    assert _loads(document)
    VALIDATOR.validate(document)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"pull": {"activeBlob": 3}}, ["pull"]),
        ({"pull": {"activeBlobs": 0}}, ["pull", "activeBlobs"]),
        ({"pull": {"activeBlobs": "4"}}, ["pull", "activeBlobs"]),
        ({"pull": {"linger": "0s"}}, ["pull", "linger"]),
        ({"pull": {"linger": "-5s"}}, ["pull", "linger"]),
        ({"pull": {"linger": "5 minutes"}}, ["pull", "linger"]),
        ({"pull": {"linger": True}}, ["pull", "linger"]),
        ({"pull": {"freeSpaceReserve": "2Gi"}}, ["pull", "freeSpaceReserve"]),
        ({"views": {"strategy": "fast"}}, ["views", "strategy"]),
        ({"registries": {"https://registry.example": {}}}, ["registries"]),
        ({"registries": {"registry.example:99999": {}}}, ["registries"]),
        ({"registries": {"registry.example": {"plainHTTP": True}}}, ["registries", "registry.example"]),
        ({"layouts": {"allowedPrefixes": ["file:///srv/"]}}, ["layouts", "allowedPrefixes", 0]),
        ({"layouts": {"allowedPrefixes": ["oci-layout://a::b"]}}, ["layouts", "allowedPrefixes", 0]),
    ],
)
def test_what_is_wrong_is_refused_at_its_path(document: Any, path: list[str | int]) -> None:
    """The schema's error is at the key that has to be changed, and the model refuses the same."""
    assert not _loads(document)
    (error,) = VALIDATOR.iter_errors(document)
    assert list(error.absolute_path) == path


# `parse` reads JSON as the YAML that it is; a surrogate cannot be written in either.
_WORDS = st.from_regex(r"[ 0-9.]{0,4}(ms|s|m|h|d|KiB|GB|x|)[ ]?", fullmatch=True)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32).map(lambda number: int(number) if number.is_integer() else number)
"""As helm writes them: 1.0 as 1."""
_NUMBERS = st.one_of(st.integers(-2, 2**40), _FLOATS, st.booleans(), _WORDS)


@given(st.fixed_dictionaries({}, optional={"linger": _NUMBERS, "freeSpaceReserve": _NUMBERS, "activeBlobs": _NUMBERS}))
def test_the_schema_accepts_no_more_than_the_model(pull: dict[str, Any]) -> None:
    """Whatever number, duration or size it lets through, the driver starts with."""
    if _accepted({"pull": pull}):
        assert _loads({"pull": pull})
