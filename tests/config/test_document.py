"""docs/configuration.md: complete, fresh, and with an example that works."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel

from csi_model.config.document import example, render
from csi_model.config.load import parse
from csi_model.config.model import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def _descriptions(model: type[BaseModel]) -> Iterator[tuple[str, str | None]]:
    for field in model.model_fields.values():
        inner = (get_args(field.annotation) or (field.annotation,))[-1]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _descriptions(inner)
        else:
            yield field.alias or "", field.description


def test_the_page_is_fresh() -> None:
    """The committed page is what the model gives today; `make docs` writes it."""
    assert PAGE.read_text() == render()


def test_every_key_is_on_the_page() -> None:
    """Each key of each section has its line and its meaning there."""
    page = render()
    for key, description in _descriptions(Config):
        assert f"{key}` |" in page
        assert description
        assert description in page


def test_the_example_works() -> None:
    """The example on the page is a valid configuration."""
    assert example() in render()
    assert parse(example(), where="the page").pull.free_space_reserve == 20 << 30
