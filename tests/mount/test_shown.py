"""Which view a mount shows, told by a process that did not make it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from csi_model.linux.mountinfo import Mount
from csi_model.mount.views import shown_view

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.mount.conftest import Store

pytestmark = pytest.mark.root

VIEW = "0123456789abcdef" * 2


def _behind(device: str) -> Mount:
    return Mount.parse(f"30 20 7:0 / /target ro - erofs {device} ro".encode())


@pytest.fixture
def loop(store: Store, request: pytest.FixtureRequest) -> Iterator[str]:
    """A loop device over a file of the views' directory, made in a container that saw the state directory elsewhere and has gone."""
    (store.views / request.param).write_bytes(bytes(1 << 20))
    inside: Path = store.root / "inside"
    inside.mkdir()
    script = f"mount --bind {store.views.parent} {inside} && losetup --find --show --read-only {inside}/{store.views.name}/{request.param}"
    device = subprocess.run(["unshare", "--mount", "sh", "-c", script], check=True, capture_output=True, text=True).stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.parametrize("loop", [f"{VIEW}.erofs"], indirect=True)
def test_a_view_of_a_container_that_has_gone_is_known(store: Store, loop: str) -> None:
    """The driver's next container answers for what the last one mounted over loop devices, also when the image is deleted."""
    assert shown_view(_behind(loop), store.views) == VIEW
    (store.views / f"{VIEW}.erofs").unlink()
    assert shown_view(_behind(loop), store.views) == VIEW


@pytest.mark.parametrize("loop", ["model.erofs"], indirect=True)
def test_a_strangers_image_is_not_taken_for_a_view(store: Store, loop: str) -> None:
    """Seen from elsewhere, a file that is not called like a view is none."""
    assert shown_view(_behind(loop), store.views) is None
