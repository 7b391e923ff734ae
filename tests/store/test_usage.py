"""What a state directory weighs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import UnavailableError
from csi_model.oci.digest import Digest
from csi_model.store.usage import Usage, usage

if TYPE_CHECKING:
    from pathlib import Path

    from csi_model.store.store import Store


def test_files_are_added_up_by_what_they_are_for(root: Path, store: Store) -> None:
    """Content, ingests at any depth and views count apart; a view's hard link to content and a symlink count for nothing."""
    assert usage(root) == Usage(0, 0, 0)
    digest = store.content.add(b"12345")
    with store.content.ingest(Digest.of(b"other"), "none") as ingest:
        ingest.path.write_bytes(b"123")
        (store.views / "folder" / "deep").mkdir(parents=True)
        os.link(store.content.path(digest), store.views / "folder" / "link")
        (store.views / "folder" / "deep" / "copy").write_bytes(b"1234567")
        (store.views / "folder" / "symlink").symlink_to(store.content.path(digest))
        assert usage(root) == Usage(content=5, ingest=3, views=7)


def test_what_has_two_names_weighs_once(root: Path, store: Store) -> None:
    """A copied file that the model links twice counts once; so does a link to content whose own name is gone."""
    digest = store.content.add(b"12345")
    folder = store.views / "folder"
    folder.mkdir()
    (folder / "copy").write_bytes(b"1234567")
    os.link(folder / "copy", folder / "again")
    os.link(store.content.path(digest), folder / "one")
    os.link(folder / "one", folder / "two")
    assert usage(root) == Usage(content=5, ingest=0, views=7)
    store.content.remove(digest)
    assert usage(root) == Usage(content=0, ingest=0, views=12)


def test_a_directory_that_is_none_is_ours(root: Path, store: Store) -> None:
    """What the disk refuses is an error of ours, and never a wrong sum."""
    store.views.rmdir()
    store.views.write_bytes(b"")
    with pytest.raises(UnavailableError, match="cannot add up"):
        usage(root)
