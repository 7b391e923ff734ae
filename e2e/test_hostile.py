"""Hostile layers through the real driver: what a pod sees of each, or its refusal, and that nothing of the host is touched."""

from __future__ import annotations

import io
import mmap
import os
import shutil
import stat
import tarfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest
import zstandard

from csi_model.mount.probe import probe
from csi_model.mount.strategy import Strategy
from csi_model.mount.views import mounted_strategy
from tests.fakes.models import OCI_TAR, push_artifact, push_tars
from tests.tree.archives import info

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.driver import Driver
    from tests.fakes.registry import FakeRegistry

CANARY = b"the host's own bytes"
Code = grpc.StatusCode


@pytest.fixture
def canary(shared_driver: Driver) -> Iterator[Path]:
    """A file and a folder of the host that hostile entries aim at; untouched afterwards, as are /etc/passwd and /etc/shadow."""
    folder = shared_driver.folder.parent / "canary"
    folder.mkdir(exist_ok=True)
    file = folder / "passwd"
    file.write_bytes(CANARY)
    file.chmod(0o640)
    before = _state(file), [_state_of(path) for path in ("/etc/passwd", "/etc/shadow")]
    yield folder
    assert (_state(file), [_state_of(path) for path in ("/etc/passwd", "/etc/shadow")]) == before
    assert file.read_bytes() == CANARY
    assert [path.name for path in folder.iterdir()] == ["passwd"]


def _state(path: Path) -> tuple[int, ...]:
    return _state_of(str(path))


def _state_of(path: str) -> tuple[int, ...]:
    found = os.stat(path)  # noqa: PTH116 - all of it, by a name that may be a string
    return found.st_ino, found.st_mode, found.st_uid, found.st_nlink, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@pytest.fixture
def driver(shared_driver: Driver) -> Iterator[Driver]:
    """The module's driver, with nothing published."""
    yield shared_driver
    if shared_driver.target("a").exists():
        shared_driver.unpublish()
    assert shared_driver.published() == []


def _tar(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size) if member.isreg() else None)
    return out.getvalue()


def _seen(root: Path) -> dict[str, str]:
    """The mounted tree as text: modes of directories, modes and sizes of files, targets of links."""
    found = {}
    for path in sorted(root.rglob("*")):
        state = path.lstat()
        assert not state.st_mode & 0o7000
        assert os.listxattr(path, follow_symlinks=False) == []
        name = str(path.relative_to(root))
        if stat.S_ISLNK(state.st_mode):
            found[name] = f"-> {path.readlink()}"
        elif stat.S_ISDIR(state.st_mode):
            found[name] = f"d{stat.S_IMODE(state.st_mode):o}"
        else:
            assert stat.S_ISREG(state.st_mode)
            found[name] = f"f{stat.S_IMODE(state.st_mode):o} {len(path.read_bytes())}"
    return found


@dataclass(frozen=True)
class Entry:
    """Entries of a layer, and what is mounted of them or the text of their refusal. ``{canary}`` is the folder on the host."""

    members: tuple[tarfile.TarInfo, ...]
    seen: dict[str, str] | None = None
    refused: str = ""


def _link(name: str, target: str) -> tarfile.TarInfo:
    return info(name, tarfile.SYMTYPE, linkname=target)


def _hard(name: str, target: str) -> tarfile.TarInfo:
    return info(name, tarfile.LNKTYPE, linkname=target)


_F = "f644 1"
ENTRIES = {
    "climbing": Entry((info("../../../../etc/passwd", size=1),), {"etc": "d755", "etc/passwd": _F}),
    "absolute": Entry((info("/etc/passwd", size=1),), {"etc": "d755", "etc/passwd": _F}),
    "through-an-absolute-link": Entry((_link("a", "/etc"), info("a/passwd", size=1)), {"a": "-> /etc", "etc": "d755", "etc/passwd": _F}),
    "through-a-link-to-the-canary": Entry((_link("a", "{canary}"), info("a/passwd", size=1)), {"a": "-> {canary}"}),
    "through-a-climbing-link": Entry((_link("d/a", "../../../../../../etc"), info("d/a/passwd", size=1)), {"etc/passwd": _F}),
    "a-long-chain-of-links": Entry(
        (*(_link(f"l{i}", f"{'d' * 200}/../l{i + 1}") for i in range(60)), info("l0/x", size=1)), refused="too many symbolic links"
    ),
    "a-loop-of-links": Entry((_link("a", "b"), _link("b", "a"), info("a/x", size=1)), refused="too many symbolic links"),
    "root-as-a-link": Entry((_link(".", "/etc"),), refused="root"),
    "root-as-a-link-with-a-slash": Entry((_link("/.", "/etc"),), refused="root"),
    "hard-link-out": Entry((_hard("x", "../../../../etc/shadow"),), refused="hard link"),
    "hard-link-through-a-link": Entry((_link("a", "/etc"), _hard("x", "a/passwd")), refused="hard link"),
    "hard-link-to-a-link-then-written": Entry(
        (_link("l", "{canary}/passwd"), _hard("h", "l"), info("h", size=1, mode=0o4777)), {"l": "-> {canary}/passwd", "h": "f777 1"}
    ),
    "character-device": Entry((info("null", tarfile.CHRTYPE, devmajor=1, devminor=3), info("f", size=1)), {"f": _F}),
    "block-device": Entry((info("sda", tarfile.BLKTYPE, devmajor=8), info("f", size=1)), {"f": _F}),
    "fifo": Entry((info("pipe", tarfile.FIFOTYPE), info("f", size=1)), {"f": _F}),
    "set-id": Entry((info("su", size=1, mode=0o6755), info("d", tarfile.DIRTYPE, mode=0o7777)), {"su": "f755 1", "d": "d777"}),
    "file-capability": Entry((info("f", size=1, pax_headers={"SCHILY.xattr.security.capability": "x"}),), {"f": _F}),
    "overlay-redirect": Entry((info("f", size=1, pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/"}),), {"f": _F}),
    "overlay-opaque": Entry(
        (info("d", tarfile.DIRTYPE, mode=0o755, pax_headers={"SCHILY.xattr.user.overlay.opaque": "y"}),), {"d": "d755"}
    ),
    "whiteout-of-nothing": Entry((info("f", size=1), info(".wh.")), refused="whiteout"),
    "whiteout-of-itself": Entry((info("f", size=1), info("d/.wh..")), refused="whiteout"),
    "whiteout-of-the-parent": Entry((info("f", size=1), info("d/.wh...")), refused="whiteout"),
    "an-overlong-name": Entry((info("x" * 256, size=1),), refused="255"),
    "an-overlong-path": Entry((info("/".join(["d" * 200] * 30), size=1),), refused="{any}"),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_hostile_entry_stays_inside(driver: Driver, shared_fake: FakeRegistry, canary: Path, name: str) -> None:
    """The entry lands inside the view, without what it must not have, or its model is refused by name; the host is not touched."""
    entry = ENTRIES[name]
    for member in entry.members:
        member.linkname = member.linkname.replace("{canary}", str(canary))
    reference = push_tars(shared_fake, f"hostile/{name}", _tar(*entry.members))
    if entry.seen is None:
        code, text = driver.refused(reference)
        assert (code, entry.refused in text or entry.refused == "{any}") == (Code.FAILED_PRECONDITION, True), text
        print(f"{name}: {code.name}: {text}")
    else:
        seen = _seen(driver.publish(reference))
        expected = {path: what.replace("{canary}", str(canary)) for path, what in entry.seen.items()}
        assert expected.items() <= seen.items(), seen
        assert not any(path.startswith("..") for path in seen)


def _sparse(real: int, numbers: str) -> tarfile.TarInfo:
    headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(real), "GNU.sparse.map": numbers}
    return info("s", size=1, pax_headers={**headers, "GNU.sparse.numblocks": str((numbers.count(",") + 1) // 2)})


BOMBS = {
    "sparse-8-eib": _tar(_sparse(1 << 63, "0,1")),
    "sparse-outside": _tar(_sparse(10, "20,1")),
    "sparse-negative": _tar(_sparse(10, "-5,1")),
    "negative-size": _tar(info("f", size=0)).replace(b"00000000000\0", b"\xff" * 12, 1),
    "bad-checksum": b"f" + bytes(147) + b"9" * 8 + bytes(356) + bytes(1024),
    "cut-off": _tar(info("f", size=5000))[:2000],
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_malformed_tar_is_refused(driver: Driver, shared_fake: FakeRegistry, canary: Path, name: str) -> None:
    """Sizes that nothing can hold, maps that lie and headers that are none end in a refusal, not in a bug of ours."""
    code, text = driver.refused(push_tars(shared_fake, f"malformed/{name}", BOMBS[name]))
    print(f"{name}: {code.name}: {text}")
    assert code in {Code.FAILED_PRECONDITION, Code.DATA_LOSS, Code.INVALID_ARGUMENT}, text


def test_a_lying_diff_id_is_refused(driver: Driver, shared_fake: FakeRegistry, canary: Path) -> None:
    """A layer that decodes to something else than its config says is refused, though its own digest is right."""
    tar = _tar(info("f", size=1))
    compressed = zlib.compressobj(wbits=31)
    packed = compressed.compress(tar) + compressed.flush()
    reference = push_tars(shared_fake, "lying/diff", packed, media_type=f"{OCI_TAR}+gzip", diff_ids=(b"another",))
    assert driver.refused(reference)[0] is Code.DATA_LOSS


SIZES = (0, 1, 511, 513, 4095, 4097, (1 << 20) + 1)
FORCED = [Strategy.EROFS_DIRECT, Strategy.EROFS_LOOP, Strategy.EROFS_BUFFERED, Strategy.MATERIALISE]


@pytest.mark.parametrize("strategy", ["auto", *(strategy.value for strategy in FORCED)])
def test_odd_sizes_read_back_on_every_strategy(driver_of_its_own: Driver, own_fake: FakeRegistry, strategy: str) -> None:
    """Raw files of sizes that are no multiple of a block or a page are byte-equal by read and by mmap, however they are mounted."""
    files = {f"f{size}": os.urandom(size) for size in SIZES}
    reference = push_artifact(own_fake, "llm/odd", files)
    if strategy != "auto":
        ladder = probe(driver_of_its_own.folder, None)
        if not ladder.works(Strategy(strategy)):
            pytest.skip(f"{strategy} does not work here: {ladder}")
    driver_of_its_own.config["views"]["strategy"] = strategy
    driver_of_its_own.start()
    target = driver_of_its_own.publish(reference)
    if strategy != "auto":
        assert mounted_strategy(target) is Strategy(strategy)
    for name, data in files.items():
        assert (target / name).read_bytes() == data
        if data:
            with (target / name).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
                assert mapping[:] == data


@pytest.fixture
def driver_of_its_own(folder: Path) -> Iterator[Driver]:
    """A driver that is not started yet, for one test."""
    from e2e.conftest import halted_driver

    made = halted_driver(folder)
    yield made
    made.clean_up()


@pytest.fixture
def own_fake(driver_of_its_own: Driver) -> Iterator[FakeRegistry]:
    """Its registry."""
    from tests.fakes.registry import FakeRegistry

    with FakeRegistry() as registry:
        driver_of_its_own.config["registries"] = {registry.host: {"plainHttp": True}}
        yield registry


def test_a_decompression_bomb_ends_at_the_disks_reserve(driver_of_its_own: Driver, own_fake: FakeRegistry) -> None:
    """A zstd layer of kilobytes that decodes to 8 GiB is stopped when the reserve is reached, and all of it is given back."""
    driver = driver_of_its_own
    frame = zstandard.ZstdCompressor(level=1).compress(bytes(64 << 20))
    reference = push_tars(own_fake, "bomb/zstd", frame * 128, media_type=f"{OCI_TAR}+zstd", diff_ids=(b"whatever",))
    driver.config["pull"]["freeSpaceReserve"] = shutil.disk_usage(driver.folder).free - (256 << 20)
    driver.start()
    code, text = driver.refused(reference)
    assert (code, "reserve" in text) == (Code.RESOURCE_EXHAUSTED, True), text
    assert driver.unfinished() == []
    print(text)
