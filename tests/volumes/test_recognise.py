"""Which mounted view may be taken for a volume whose record is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from csi_model.oci.digest import Digest
from csi_model.store.records import ModelRecord
from csi_model.store.state import State
from csi_model.volumes.recognise import recognise
from csi_model.volumes.request import VolumeRequest
from csi_model.volumes.views import View

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHOWN, OTHER, INDEX = Digest.of(b"shown"), Digest.of(b"other"), Digest.of(b"index")
TAG, SECOND = "registry.example/llm/tiny:v1", "registry.example/llm/tiny:v2"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """A rebuilt state, which knows two models by their manifests and no reference."""
    with State.open(tmp_path / "state.db") as state:
        for manifest in (SHOWN, OTHER):
            state.record_model(ModelRecord(manifest, "ORAS artifact", 1, authenticated=True, layers=()))
        yield state


def _recognised(state: State, reference: str = TAG, pinned: Digest | None = None, **attributes: str) -> bool:
    request = VolumeRequest.parse({"reference": reference, **attributes})
    mounted = View(SHOWN, VolumeRequest.parse({"reference": reference, "path": "sub"}).selection)
    found = recognise(state, mounted.id, request, pinned)
    assert found in (None, mounted)
    return found is not None


def test_what_no_reference_names_may_be_anybodys(state: State) -> None:
    """With all resolutions lost, the selection and the model's being here are what is left to go by."""
    assert _recognised(state, path="sub")
    assert not _recognised(state)
    assert not _recognised(state, path="sub", include="*.bin")


def test_a_tag_that_has_moved_does_not_matter(state: State) -> None:
    """The tag may name another model by now, as for every live volume."""
    state.record_resolution(TAG, OTHER, 1.0)
    assert _recognised(state, path="sub")


def test_what_only_another_reference_names_is_another_model(state: State) -> None:
    """A view of a model that another reference is known to name, and this one not, is not this one's."""
    state.record_resolution(SECOND, SHOWN, 1.0)
    assert not _recognised(state, path="sub")
    state.record_resolution(TAG, SHOWN, 1.0)
    assert _recognised(state, path="sub")


def test_a_pin_decides(state: State) -> None:
    """Where the volume's pin is left, its manifest is what has to be mounted, whatever references say."""
    state.record_resolution(SECOND, SHOWN, 1.0)
    assert _recognised(state, pinned=SHOWN, path="sub")
    assert not _recognised(state, pinned=OTHER, path="sub")


def test_a_digest_decides_where_it_is_a_manifests(state: State) -> None:
    """A reference by digest means that manifest; an index's may mean any."""
    assert _recognised(state, f"registry.example/llm/tiny@{SHOWN}", path="sub")
    assert not _recognised(state, f"registry.example/llm/tiny@{OTHER}", path="sub")
    assert _recognised(state, f"registry.example/llm/tiny@{INDEX}", path="sub")
