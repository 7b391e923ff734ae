"""The store: one writer, any number of readers, one filesystem."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from csi_model.errors import BusyError, NotFoundError, UnavailableError, UnsupportedError
from csi_model.oci.digest import Digest
from csi_model.store.store import Store


def _tree(root: Path) -> dict[str, tuple[int, int]]:
    """Every path with its size and modification time, without SQLite's index for readers."""
    return {
        str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if not path.name.startswith("state.db-")
    }


def test_a_writer_makes_what_is_missing(root: Path) -> None:
    """A fresh state directory is closed to other users and has all its parts."""
    with Store.open(root, writable=True) as store:
        assert root.stat().st_mode & 0o777 == 0o700
        assert (store.views, store.mounts) == (root / "views", root / "mounts")
        assert {path.name for path in root.iterdir()} >= {"content", "ingest", "views", "mounts", "state.db", "lock"}
        assert store.state.integrity() == ()


def test_a_directory_that_somebody_else_made_is_closed_to_other_users(root: Path) -> None:
    """Kubelet makes a hostPath that is missing, with mode 0755: no other user of the node reads models there."""
    root.mkdir(mode=0o755)
    root.chmod(0o755)
    with Store.open(root, writable=True):
        assert root.stat().st_mode & 0o777 == 0o700


def test_content_and_records_survive_reopening(root: Path) -> None:
    """What one opening stored, the next finds."""
    with Store.open(root, writable=True) as store:
        digest = store.content.add(b"weights")
        store.state.record_resolution("r:v1", digest, 1.0)
    with Store.open(root, writable=True) as store:
        assert store.content.read(digest, 10) == b"weights"
        assert [record.manifest for record in store.state.resolutions()] == [digest]


def test_a_second_writer_is_told_who_owns_the_directory(root: Path) -> None:
    """While a process has the store open, another one is refused with its id; when it is killed, the store is free at once."""
    program = (
        "import sys; from pathlib import Path; from csi_model.store.store import Store\n"
        "with Store.open(Path(sys.argv[1]), writable=True):\n print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"open\n"
        with pytest.raises(BusyError, match=f"process {owner.pid} owns the state directory {root}"):
            Store.open(root, writable=True)
        os.kill(owner.pid, signal.SIGKILL)
    with Store.open(root, writable=True) as store:
        assert store.state.publications() == ()


def test_a_failed_opening_frees_the_lock(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that cannot open leaves no lock behind."""
    (root / "state.db").mkdir(parents=True)
    with pytest.raises(UnavailableError):
        Store.open(root, writable=True)
    (root / "state.db").rmdir()
    with Store.open(root, writable=True):
        pass


def test_closing_twice_is_fine_and_use_after_it_is_told(root: Path) -> None:
    """A thread that comes late gets an error of ours."""
    store = Store.open(root, writable=True)
    store.close()
    store.close()
    with pytest.raises(UnavailableError, match="closed"):
        store.state.publications()


def test_readers_work_beside_the_writer(root: Path) -> None:
    """A reader sees what the writer has committed, content and records alike."""
    with Store.open(root, writable=True) as writer, Store.open(root, writable=False) as reader:
        digest = writer.content.add(b"weights")
        writer.state.record_resolution("r:v1", digest, 1.0)
        assert reader.content.read(digest, 10) == b"weights"
        assert [record.manifest for record in reader.state.resolutions()] == [digest]


def test_readers_change_nothing(root: Path) -> None:
    """Opening to read, with no driver running, alters no file, keeps litter that a writer would remove, and blocks no writer."""
    with Store.open(root, writable=True) as store:
        store.state.record_resolution("r:v1", Digest.of(b"m"), 1.0)
    (root / "ingest" / "litter").touch()
    before = _tree(root)
    with Store.open(root, writable=False) as reader:
        assert len(reader.state.resolutions()) == 1
        with Store.open(root, writable=True) as writer:
            writer.state.record_resolution("r:v2", Digest.of(b"m"), 1.0)
            assert len(reader.state.resolutions()) == 2
    with Store.open(root, writable=True):
        pass  # takes SQLite's leftovers and the litter away
    assert set(before) - set(_tree(root)) == {"ingest/litter"}


def test_a_reader_alone_leaves_every_file_as_it_was(root: Path) -> None:
    """A reader's visit changes no size and no time of any file."""
    with Store.open(root, writable=True) as store:
        store.state.record_resolution("r:v1", store.content.add(b"weights"), 1.0)
    before = _tree(root)
    with Store.open(root, writable=False) as reader:
        assert len(reader.state.resolutions()) == 1
    assert {name: what for name, what in _tree(root).items() if Path(name) != Path()} == before


def test_a_reader_of_nothing_is_told_the_next_step(root: Path) -> None:
    """Where no store was ever made, a reader says how one comes to be, and makes none."""
    with pytest.raises(NotFoundError, match="csi-model pull"):
        Store.open(root, writable=False)
    assert not root.exists()


@pytest.mark.root
@pytest.mark.parametrize("part", ["content", "ingest", "views"])
def test_parts_on_other_filesystems_are_refused(root: Path, part: str) -> None:
    """Renames and hard links must work between the parts: a part mounted on its own is refused, be it only a bind of the same disk."""
    inside = root / part
    inside.mkdir(parents=True)
    subprocess.run(["mount", "--bind", inside, inside], check=True)
    try:
        with pytest.raises(UnsupportedError, match="several filesystems"):
            Store.open(root, writable=True)
    finally:
        subprocess.run(["umount", inside], check=True)
    with Store.open(root, writable=True):
        assert not list((root / "content").glob(".probe*"))
