"""What a node feels beside the speed of one pull: publish latency, the driver's memory, and reading through the mount."""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from benchmarks.contestants import running_driver, scratch
from benchmarks.generate import RAW, TAR, ZSTD, RegistryFolder, generate
from benchmarks.machine import MEBIBYTE, Memory, drop_caches, usage
from csi_model.mount.views import residency

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from e2e.driver import Driver
    from e2e.registry import Registry

_PODS = 110
_WARM = 200
_DRIVERS = 5
_GIBIBYTE = 1 << 30
_COLD_ROUNDS = 5
_LARGE = 20 * _GIBIBYTE
_ZSTD_MODELS = 20

_READER = """
import mmap, sys, time
from pathlib import Path
how, folder = sys.argv[1:]
def from_disk():
    return int(Path('/proc/self/io').read_text().partition('\\nread_bytes: ')[2].split()[0])
files = sorted(path for path in Path(folder).rglob('*') if path.is_file())
buffer = bytearray(1 << 20)
before = from_disk()
began = time.monotonic()
for path in files:
    with path.open('rb', buffering=0) as file:
        if how == 'read':
            while file.readinto(buffer):
                pass
        else:
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
                for start in range(0, len(memory), 1 << 24):
                    memory[start:start + (1 << 24):4096]
print(time.monotonic() - began, from_disk() - before)
"""
"""Reads every page once, by read() or by touching the pages of a mapping in their order; tells the seconds, and what the kernel fetched for it."""


def sha256_cpu() -> float:
    """CPU seconds of SHA-256 alone for a GiB that is in memory: the median of five."""
    block = bytes(64 * MEBIBYTE)
    times = []
    for _ in range(5):
        began = time.process_time()
        digest = hashlib.sha256()
        for _ in range(_GIBIBYTE // len(block)):
            digest.update(block)
        times.append(time.process_time() - began)
    return statistics.median(times)


def publish_latency(registry: Registry, work: Path, _: int) -> dict[str, Any]:
    """With 110 volumes of a model published, how long each further publish takes, without the cost of a client library.

    Medians of several drivers, one after another: whole seconds of one may pass while the machine's neighbours are busy. Nothing is
    unpublished or deleted before all is measured: an ext4 without a journal was seen to take a millisecond for a directory after that.
    """
    model = generate(RegistryFolder(work / "registry"), TAR, 64 * MEBIBYTE, name="small")
    drivers = []
    with ExitStack() as stack:
        for _ in range(_DRIVERS):
            driver = stack.enter_context(running_driver(stack.enter_context(scratch(work)), registry))
            drivers.append(_publishes(driver, f"{registry.host}/{model.reference}"))
            driver.stop()
    medians = {name: statistics.median(found[name] for found in drivers) for name in drivers[0]}
    return {**medians, "count": _WARM, "drivers": drivers, "sha256": sha256_cpu()}


def _publishes(driver: Driver, reference: str) -> dict[str, float]:
    began = time.monotonic()
    with ThreadPoolExecutor(_PODS) as pods:
        list(pods.map(lambda number: driver.publish(reference, f"p{number}"), range(_PODS)))
    at_once = time.monotonic() - began
    times = [driver.publish_seconds(reference, f"q{number}") for number in range(_WARM)]
    return {"at_once": at_once, "p50": statistics.median(times), "p99": statistics.quantiles(times, n=100)[98]}


def pull_memory(registry: Registry, work: Path, _: int) -> dict[str, Any]:
    """The driver's largest resident memory for a raw layer of 20 GiB, and for 20 zstd models at once."""
    folder = RegistryFolder(work / "registry")
    zstd = [generate(folder, ZSTD, 128 * MEBIBYTE, name=f"zstd-{number}", seed=1000 * number, layers=2) for number in range(_ZSTD_MODELS)]
    with scratch(work) as place, running_driver(place, registry) as driver:
        with ThreadPoolExecutor(_ZSTD_MODELS) as pods:
            list(pods.map(lambda model: driver.publish(f"{registry.host}/{model.reference}", model.blobs[0].digest[7:19]), zstd))
        many = _peak(driver)
        for model in zstd:
            driver.unpublish(model.blobs[0].digest[7:19])
    large = generate(folder, RAW, _LARGE, name="large", layers=1)
    try:
        with scratch(work) as place, running_driver(place, registry) as driver:
            began = time.monotonic()
            driver.publish(f"{registry.host}/{large.reference}", timeout=900)
            seconds, one = time.monotonic() - began, _peak(driver)
            driver.unpublish()
    finally:
        _forget(folder, large.blobs[0].digest, large.weights)
    return {"zstd_models": many, "zstd_count": _ZSTD_MODELS, "large": one, "large_bytes": _LARGE, "large_seconds": seconds}


def reading(registry: Registry, work: Path, size: int) -> dict[str, Any]:
    """What the first read after a pull takes from the disk, what stays in memory after it, and cold reads beside ext4's."""
    folder = RegistryFolder(work / "registry")
    memory = Memory(work)
    found: dict[str, Any] = {}
    for variant in (TAR, RAW):
        model = generate(folder, variant, size)
        with scratch(work) as place, running_driver(place, registry) as driver:
            driver.config["views"] = {"idle": "1s"}
            driver.stop()
            driver.start()
            memory.fill(folder.path(blob.digest) for blob in model.blobs)
            reference = f"{registry.host}/{model.reference}"
            target = driver.publish(reference, timeout=600)
            seconds, fetched = _read("read", target)
            found[variant] = {"first_read": seconds, "first_read_from_disk": fetched, **_strategy(driver, "first_")}
            time.sleep(5)
            found[variant]["in_memory_after_5s"] = _resident(driver, target) / model.weights
            driver.unpublish()
            _wait_for_unmount(driver)
            plain = place / "plain"
            _copy(folder, registry, model.reference, driver, plain)
            drop_caches()
            target = driver.publish(reference, timeout=600)
            found[variant].update(_strategy(driver, ""))
            found[variant]["cold"] = _cold({"mount": target, "ext4": plain})
            driver.unpublish()
    return found


def _cold(places: dict[str, Path]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {}
    for _ in range(_COLD_ROUNDS):
        for how in ("read", "mmap"):
            for name, place in places.items():
                drop_caches()
                times.setdefault(f"{how} {name}", []).append(_read(how, place)[0])
    return times


def _read(how: str, place: Path) -> tuple[float, int]:
    """Seconds, and bytes that came from the disk."""
    done = subprocess.run([sys.executable, "-c", _READER, how, str(place)], check=True, stdout=subprocess.PIPE, text=True)
    seconds, fetched = done.stdout.split()
    return float(seconds), int(fetched)


def _copy(folder: RegistryFolder, registry: Registry, reference: str, driver: Driver, plain: Path) -> None:
    """The model's files as plain files of the same filesystem, written as any download writes them."""
    del folder
    target = driver.publish(f"{registry.host}/{reference}", "copy", timeout=600)
    subprocess.run(["cp", "-r", "--reflink=never", f"{target}/.", str(plain)], check=True)
    driver.unpublish("copy")
    _wait_for_unmount(driver)


def _wait_for_unmount(driver: Driver) -> None:
    deadline = time.monotonic() + 30
    while driver.mounts():
        if time.monotonic() > deadline:
            msg = f"still mounted: {driver.mounts()}"
            raise RuntimeError(msg)
        time.sleep(0.1)


def _strategy(driver: Driver, prefix: str) -> dict[str, str]:
    """What the driver last said about how it mounted a view."""
    chosen = [json.loads(line)["strategy"] for line in driver.log.splitlines() if '"view_mounted"' in line]
    return {f"{prefix}strategy": chosen[-1]}


def _resident(driver: Driver, target: Path) -> int:
    """Bytes of the model's pages in memory, in the layer files and in the view's own files where these are others."""
    layers = list((driver.state / "content").rglob("*"))
    shown = [path for path in target.rglob("*") if path.is_file()]
    inodes = {(path.stat().st_dev, path.stat().st_ino) for path in layers}
    own = [path for path in shown if (path.stat().st_dev, path.stat().st_ino) not in inodes]
    return sum(residency([path]).resident for path in _files((*layers, *own)))


def _files(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.is_file()]


def _peak(driver: Driver) -> int:
    assert driver.process is not None
    return usage(driver.process.pid).peak


def _forget(folder: RegistryFolder, digest: str, size: int) -> None:
    folder.path(digest).unlink()
    (folder.root / f"bench-large-{size >> 20}m.json").unlink()
