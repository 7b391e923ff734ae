from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from csi_model.errors import MountError
from csi_model.linux import mounts
from csi_model.linux.mountinfo import mounts_at, read_mounts
from csi_model.mount import targets
from csi_model.mount import views as mounting
from csi_model.store.store import Store
from csi_model.volumes.views import Views
from tests.fakes.models import push_artifact, push_tars, tar_of
from tests.fakes.registry import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Person
    from tests.fakes.registry import FakeRegistry

pytestmark = pytest.mark.root

FILES = {"config.json": b"{}", "weights.bin": b"w" * 5000}


def left_over(person: Person) -> list[str]:
    """Mounts of this person that are still there."""
    return [mount.target for mount in read_mounts() if mount.target.startswith(str(person.folder))]


def test_a_model_is_mounted_and_unmounted(person: Person, registry: FakeRegistry) -> None:
    """The command pulls what is missing and shows it read-only; unmount leaves no mount and no directory, but what was pulled."""
    reference, target = push_artifact(registry, "llm/tiny", FILES), person.folder / "deep" / "tiny"
    result = person.run("mount", reference, str(target), "--plain-http")
    assert (result.exit_code, result.stdout) == (0, f"{reference} is mounted at {target}\n"), result.output
    assert {file.name: file.read_bytes() for file in target.iterdir()} == FILES
    (mount,) = mounts_at(target)
    assert mount.options >= {"ro", "nosuid", "nodev"}
    (listed,) = person.json("images")
    assert listed["targets"] == [str(target)]
    assert listed["lastUsed"].endswith("Z")
    result = person.run("unmount", str(target))
    assert (result.exit_code, result.stdout) == (0, f"unmounted {target}\n"), result.output
    assert left_over(person) == []
    assert not target.exists()
    assert len(person.json("images")) == 1


def test_a_part_of_a_model(person: Person, registry: FakeRegistry) -> None:
    """--path, --include and --exclude choose what is seen; globs may be repeated and may hold commas."""
    tar = tar_of({"models/a,b.json": b"1", "models/c.bin": b"2", "models/d.json": b"3", "etc/passwd": b"x"})
    reference, target = push_tars(registry, "llm/car", tar), person.folder / "part"
    chosen = ("--path", "models", "--include", "a,*.json", "--include", "d*", "--include", "c*", "--exclude", "*.bin")
    result = person.run("mount", reference, str(target), "--plain-http", *chosen)
    assert result.exit_code == 0, result.output
    assert sorted(file.name for file in target.iterdir()) == ["a,b.json", "d.json"]
    assert person.run("unmount", str(target)).exit_code == 0


def test_a_relative_target_through_a_link(person: Person, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person may name a target by a relative path and through symlinks: it is the real directory that counts."""
    (person.folder / "real").mkdir()
    (person.folder / "link").symlink_to("real")
    monkeypatch.chdir(person.folder)
    reference = push_artifact(registry, "llm/tiny", FILES)
    assert person.run("mount", reference, "link/tiny", "--plain-http").exit_code == 0
    assert mounts_at(person.folder / "real" / "tiny")
    assert person.run("unmount", "link/tiny").exit_code == 0
    assert left_over(person) == []


def test_mounting_again_is_fine_and_something_else_is_not(person: Person, registry: FakeRegistry) -> None:
    """The same model at the same target is left as it is, without asking the registry; another one is refused, as is rm meanwhile."""
    reference, target = push_artifact(registry, "llm/tiny", FILES), person.folder / "tiny"
    other = push_artifact(registry, "llm/other", {"x": b"x"})
    assert person.run("mount", reference, str(target), "--plain-http").exit_code == 0
    asked = len(registry.seen)
    assert person.run("mount", reference, str(target), "--plain-http").exit_code == 0
    assert person.run("mount", other, str(target), "--plain-http").exit_code == 5
    assert len(registry.seen) == asked
    assert person.run("rm", reference).exit_code == 5
    assert len(mounts_at(target)) == 1
    assert person.run("unmount", str(target)).exit_code == 0
    assert person.run("rm", reference).exit_code == 0


def test_a_mount_without_a_record_is_not_taken_for_what_is_asked(person: Person, registry: FakeRegistry) -> None:
    """When the state database is lost, nobody can tell which reference a person's mount was made by; unmounting it helps."""
    reference, target = push_artifact(registry, "llm/tiny", FILES), person.folder / "tiny"
    assert person.run("mount", reference, str(target), "--plain-http").exit_code == 0
    (person.state / "state.db").write_bytes(b"garbage" * 5000)
    for name in (f"{registry.host}/llm/other:v1", reference):
        assert person.run("mount", name, str(target), "--plain-http").exit_code == 5
    assert person.run("unmount", str(target)).exit_code == 0
    assert person.run("mount", reference, str(target), "--plain-http").exit_code == 0
    assert person.run("unmount", str(target)).exit_code == 0


def test_after_a_reboot_the_same_command_brings_it_back(person: Person, registry: FakeRegistry) -> None:
    """When the mounts are gone and the state is not, doctor tells, and mounting again shows the same model without the registry."""
    reference, target = push_artifact(registry, "llm/tiny", FILES), person.folder / "tiny"
    assert person.run("mount", reference, str(target), "--plain-http").exit_code == 0
    for mount in left_over(person):
        mounts.unmount(mount)
    checks = {check["name"]: check for check in person.json("doctor")["checks"]}
    assert checks["state database"]["status"] == "warn"
    assert str(target) in checks["state database"]["detail"]
    registry.manifests.clear()
    assert person.run("mount", reference, str(target), "--plain-http").exit_code == 0
    assert (target / "config.json").read_bytes() == b"{}"
    assert person.run("unmount", str(target)).exit_code == 0


@pytest.mark.parametrize("kind", ["full", "file", "below", "root", "state"])
def test_bad_targets_are_refused_before_anything_is_pulled(person: Person, registry: FakeRegistry, kind: str) -> None:
    """Hours of pulling come after the target is known to be good: nothing was asked of the registry, nothing was changed."""
    (person.folder / "full").mkdir()
    (person.folder / "full" / "file").touch()
    places: dict[str, Path | str] = {
        "full": person.folder / "full",
        "file": person.folder / "full" / "file",
        "below": person.folder / "full" / "file" / "x",
        "root": "/",
        "state": person.state / "mounts" / "x",
    }
    result = person.run("mount", push_artifact(registry, "llm/tiny", FILES), str(places[kind]), "--plain-http")
    assert result.exit_code == (5 if kind == "full" else 2)
    assert result.stderr.startswith("error: ")
    assert registry.seen == []
    assert left_over(person) == []


def test_a_target_that_cannot_be_made_is_an_error(person: Person, registry: FakeRegistry) -> None:
    """On a read-only disk the kernel refuses it, and a name that no file can have is malformed; neither ends in a traceback."""
    disk = person.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", disk], check=True)
    reference = push_artifact(registry, "llm/tiny", FILES)
    try:
        for place, code in ((disk / "x", 10), (disk / "x" / "y", 10), (person.folder / ("n" * 256), 2), (disk / ("n" * 256) / "y", 2)):
            result = person.run("mount", reference, str(place), "--plain-http")
            assert (result.exit_code, result.stderr.startswith("error: ")) == (code, True), result.output
        assert person.run("unmount", str(person.folder / ("n" * 256))).exit_code == 2
    finally:
        mounts.unmount(disk)
    assert left_over(person) == []


def test_a_failed_mount_leaves_nothing(person: Person, registry: FakeRegistry) -> None:
    """When the model cannot be had, no view stays mounted and no publication is recorded."""
    registry.faults.append(Fault(where="/blobs/", status=404))
    target = person.folder / "tiny"
    assert person.run("mount", push_artifact(registry, "llm/tiny", FILES), str(target), "--plain-http").exit_code == 3
    assert left_over(person) == []
    with Store.open(person.state, writable=False) as store:
        assert store.state.publications() == ()


def test_a_path_that_is_not_in_the_model(person: Person, registry: FakeRegistry) -> None:
    """A wrong --path is said to be one, and no view stays mounted."""
    reference = push_tars(registry, "llm/car", tar_of({"models/a": b"1"}))
    result = person.run("mount", reference, str(person.folder / "x"), "--path", "nowhere", "--plain-http")
    assert result.exit_code == 3
    assert "nowhere" in result.stderr
    assert left_over(person) == []


def test_unmounting_nothing_is_an_error(person: Person) -> None:
    """A person who unmounts what is not mounted probably mistyped it."""
    result = person.run("unmount", str(person.folder / "nothing"))
    assert result.exit_code == 3
    assert "nothing is mounted" in result.stderr


def test_somebody_elses_mount_is_left_alone(person: Person) -> None:
    """Unmounting refuses what csi-model did not mount."""
    place = person.folder / "theirs"
    place.mkdir()
    with (
        mounts.closing(os.open(person.folder, os.O_PATH)) as folder,
        mounts.closing(mounts.clone_tree(folder)) as clone,
        mounts.closing(os.open(place, os.O_PATH)) as at,
    ):
        mounts.attach_mount(clone, at, path=place)
    assert person.run("unmount", str(place)).exit_code == 5
    assert mounts_at(place)
    mounts.unmount(place)


def test_only_root_mounts(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root the next step is named before anything is pulled."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = person.run("mount", "registry.example/llm/tiny:v1", str(person.folder / "x"))
    assert result.exit_code == 4
    assert "sudo" in result.stderr


def test_a_view_that_cannot_be_shown_does_not_stay(person: Person, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the view is mounted but the kernel refuses the target, the view is taken away again."""

    def refuse(source: Path, target: object) -> None:
        assert mounts_at(source), "the view must have been mounted by now"
        msg = f"cannot mount at {target}"
        raise MountError(msg)

    monkeypatch.setattr(targets, "attach", refuse)
    result = person.run("mount", push_artifact(registry, "llm/tiny", FILES), str(person.folder / "x"), "--plain-http")
    assert result.exit_code == 10
    assert left_over(person) == []


def test_a_mount_that_is_stopped_leaves_no_view(person: Person, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the view is being built: it is released once its building has ended, not before."""
    ending, mount_view = threading.Event(), mounting.mount_view

    def stopped_meanwhile(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert ending.wait(10)
        mount_view(*arguments)

    def noting(method: Callable[..., None], when: str) -> Callable[..., None]:
        def noted(*arguments: Any) -> None:
            if when == "before":
                ending.set()
            method(*arguments)
            ending.set()

        return noted

    monkeypatch.setattr(mounting, "mount_view", stopped_meanwhile)
    monkeypatch.setattr(Views, "stop", noting(Views.stop, "before"))
    monkeypatch.setattr(Views, "release_all", noting(Views.release_all, "after"))
    result = person.run("mount", push_tars(registry, "llm/car", tar_of(FILES)), str(person.folder / "x"), "--plain-http")
    assert result.exit_code == 130
    assert left_over(person) == []
    assert not any((person.state / "views").iterdir())
