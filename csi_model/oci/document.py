"""JSON documents out of a registry, read strictly: what two readers could understand differently is refused.

Hashes are always taken of the bytes received, never of a document written out again.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import NoReturn

from csi_model.errors import InvalidRequestError

MAX_DOCUMENT = 4 * 2**20
"""Bytes of the largest manifest, index or config that is read: what distribution, containers/image and oras-go allow."""

_MAX_DEPTH = 64
"""Levels of nesting; real manifests and configs have fewer than ten."""


def parse_json(body: bytes, where: str) -> dict[str, object]:
    """Read one JSON object; ``where`` names it in errors, for example ``the manifest``.

    Raises:
        InvalidRequestError: over 4 MiB, not UTF-8, not JSON (NaN included), not an object, a key given twice, text that no UTF-8 can
            hold, or nested too deeply.
    """
    if len(body) > MAX_DOCUMENT:
        msg = f"{where} has {len(body)} bytes; at most {MAX_DOCUMENT} are read"
        raise InvalidRequestError(msg)
    try:
        value = json.loads(body.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
        _check_depth(value)
        if b"\\u" in body:
            # An escape can spell half of a surrogate pair, which would fail much later, when the text is written somewhere.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        msg = f"{where} is nested too deeply"
        raise InvalidRequestError(msg) from error
    except ValueError as error:  # bad UTF-8, bad JSON and our own refusals below are all ValueErrors
        msg = f"{where} is not strict JSON: {error}"
        raise InvalidRequestError(msg[:300]) from error
    if not isinstance(value, dict):
        msg = f"{where} is not a JSON object but {type(value).__name__}"
        raise InvalidRequestError(msg)
    return value


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        msg = f"the key {twice[:80]!r} is given twice"
        raise ValueError(msg)
    return value


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not a JSON number"
    raise ValueError(msg)


def _check_depth(value: object) -> None:
    level: list[object] = [value]
    for _ in range(_MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return
        level = below
    msg = f"nested more than {_MAX_DEPTH} levels deep"
    raise ValueError(msg)
