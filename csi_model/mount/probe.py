"""Which strategies this node can do, found out by doing them: a tiny image is mounted on the real store and read to its last bytes.

Some kernels and disks mount and then fail every read (4 KiB sectors, stacked filesystems), so only bytes that were read count. All
mounts are detached and all files but one have no name: a kill leaves no mount, no device and at most two empty files, which a later
probe removes. Several processes may probe one directory at once.
"""

from __future__ import annotations

import errno
import os
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from csi_model.erofs.image import build_image
from csi_model.errors import UnsupportedError
from csi_model.linux import mounts
from csi_model.linux.kernel import KernelVersion
from csi_model.mount.failures import explain, writing
from csi_model.mount.imagefile import fill_image
from csi_model.mount.strategy import LADDER, Ladder, RungResult, Strategy, directio_is_safe
from csi_model.mount.superblock import OPTION_LIMIT, PROTECTION, mount_erofs
from csi_model.oci.digest import Digest
from csi_model.tree.nodes import Directory, Extent, File

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = structlog.get_logger(__name__)

# One layer as a tar is (whole 512-byte blocks, the file not at a multiple of 4096) and a raw one with a partial last block.
_TAR = bytes(range(256)) * 2 * 17
_RAW = bytes(reversed(range(256))) * 20 + b"last"
_LINK = ".probe-link-"
_STALE_AFTER = 60.0
_BELOW = len("/content/sha512/") + 128
"""Bytes of the longest path in the state directory that a mount from files names; the sample's own files have short ones."""


def probe(state_dir: Path, forced: Strategy | None = None) -> Ladder:
    """Try every strategy on the filesystem of ``state_dir``; some milliseconds.

    A forced strategy is recorded, whether it works or not: ``Ladder.best`` says so when it is asked.

    Raises:
        NoSpaceError: the disk is full.
        MountError: the state directory cannot be written.
        UnsupportedError: LINKS was forced, which is no rung.
    """
    if forced is Strategy.LINKS:
        msg = "the strategy 'links' cannot be forced, for it serves raw layers only; force 'materialise' instead"
        raise UnsupportedError(msg)
    version = KernelVersion.running()
    with writing(f"probe the state directory {state_dir}"), ExitStack() as stack:
        tar, raw = (stack.enter_context(_nameless(state_dir, data)) for data in (_TAR, _RAW))
        image = stack.enter_context(_nameless(state_dir, b""))
        sample = _Sample.build({Digest.of(_TAR): tar, Digest.of(_RAW): raw}, image)
        rungs = tuple(_rung(strategy, sample, state_dir, version) for strategy in LADDER)
        links = _links(state_dir)
    log.info("strategies_probed", works=[rung.strategy.value for rung in (links, *rungs) if rung.works], kernel=str(version))
    return Ladder(rungs, links, forced)


class _Sample:
    """The tiny image, its devices, and what must be read through it."""

    def __init__(self, image: Path, devices: tuple[Path, ...]) -> None:
        self.image = image
        self.devices = devices

    @classmethod
    def build(cls, layers: Mapping[Digest, Path], image: Path) -> _Sample:
        tar, raw = Digest.of(_TAR), Digest.of(_RAW)
        size = len(_TAR) - 512
        root = Directory(
            children={
                b"tar": File(0o444, 0, 0, 0, size, (Extent(tar, 512, size),)),
                b"raw": File(0o444, 0, 0, 0, len(_RAW), (Extent(raw, 0, len(_RAW)),)),
            }
        )
        built = build_image(root, {digest: path.stat().st_size for digest, path in layers.items()})
        with mounts.closing(os.open(image, os.O_WRONLY | os.O_CLOEXEC)) as descriptor:
            fill_image(built, descriptor, layers)
            os.fsync(descriptor)
        return cls(image, tuple(layers[digest] for digest in built.devices))

    def mount_and_read(self, strategy: Strategy) -> None:
        with mounts.closing(mount_erofs(self.image, self.devices, strategy)) as mount:
            for name, expected in (("tar", _TAR[512:]), ("raw", _RAW)):
                with mounts.closing(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=mount)) as file:
                    if os.read(file, len(expected) + 1) != expected:
                        raise OSError(errno.EIO, "mounts, but shows other bytes than the layers hold")


def _rung(strategy: Strategy, sample: _Sample, state_dir: Path, version: KernelVersion) -> RungResult:
    if strategy is Strategy.EROFS_DIRECT and not directio_is_safe(version):
        reason = f"kernel {version} may lack the fix of CVE-2026-23224; direct I/O needs 6.12.72+, 6.18.15+, 6.19.5+ or 7.0+"
        return RungResult(strategy, works=False, reason=reason)
    length = len(os.fsencode(state_dir))
    if strategy in {Strategy.EROFS_DIRECT, Strategy.EROFS_BUFFERED} and length + _BELOW > OPTION_LIMIT:
        reason = f"the state directory has a path of {length} bytes, and mount options have room for {OPTION_LIMIT - _BELOW}; choose a shorter one"
        return RungResult(strategy, works=False, reason=reason)
    try:
        if strategy is Strategy.MATERIALISE:
            _bind_read_only(state_dir)
        else:
            sample.mount_and_read(strategy)
    except OSError as error:
        return RungResult(strategy, works=False, reason=explain(error))
    return RungResult(strategy, works=True, reason="mounted and read back to the last byte")


def _bind_read_only(state_dir: Path) -> None:
    with mounts.closing(os.open(state_dir, os.O_PATH | os.O_CLOEXEC)) as directory, mounts.closing(mounts.clone_tree(directory)) as clone:
        try:
            mounts.protect(clone, PROTECTION)
        except OSError as error:
            if error.errno != errno.ENOSYS:  # before Linux 5.12 views are made read-only in another way
                raise


def _links(state_dir: Path) -> RungResult:
    for stale in state_dir.glob(f"{_LINK}*"):  # left by a kill; a young one may be another process's probe of this very moment
        with suppress(FileNotFoundError):  # another probe was faster
            if time.time() - stale.stat().st_mtime > _STALE_AFTER:
                stale.unlink()
    with tempfile.NamedTemporaryFile(dir=state_dir, prefix=_LINK) as file:
        link = Path(f"{file.name}.second")
        try:
            os.link(file.name, link)
        except OSError as error:
            return RungResult(Strategy.LINKS, works=False, reason=f"the store's filesystem has no hard links ({error.strerror})")
        link.unlink(missing_ok=True)
    return RungResult(Strategy.LINKS, works=True, reason="the store's filesystem has hard links")


@contextmanager
def _nameless(directory: Path, content: bytes) -> Iterator[Path]:
    """A file on the directory's disk without a name in it, reached through our descriptor, that vanishes when it is closed."""
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())
        yield Path(f"/proc/self/fd/{file.fileno()}")
