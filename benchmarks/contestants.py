"""Who is measured: csi-model's driver, containerd at its best settings, skopeo, and curl with openssl.

Each starts from nothing and ends with nothing: stores are made for one run and removed after it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import MEBIBYTE, Usage, read_all, run, timed_sync, usage
from csi_model.linux.mountinfo import read_mounts
from csi_model.linux.mounts import unmount
from e2e.driver import Driver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.generate import Model
    from e2e.registry import Registry

CONTAINERD = "v2.4.2"
_BUILD = ("containerd", "ctr")
_CGROUPS = Path("/sys/fs/cgroup")
FILES, FILES_TLS = "127.0.0.1:18467", "127.0.0.1:18468"
"""Where the file servers listen that registries redirect to: the driver's configuration has to name them before they run."""


@dataclass(frozen=True, slots=True)
class Result:
    """One run, in seconds.

    ``ready`` is the wall time until the model's files can be read, ``synced`` what a sync took after that, ``read`` what reading every
    byte took then.
    """

    ready: float
    synced: float
    read: float
    used: Usage


class Ours:
    """The driver as it runs on a node; ready when NodePublishVolume answers."""

    name = "csi-model"

    def run(self, registry: Registry, model: Model, folder: Path) -> Result:
        """Publish once on an empty store."""
        with running_driver(folder, registry) as driver:
            self.prepare(driver)
            assert driver.process is not None
            before = usage(driver.process.pid)
            began = time.monotonic()
            target = driver.publish(f"{registry.host}/{model.reference}", timeout=600)
            ready = time.monotonic() - began
            synced = timed_sync()
            used = usage(driver.process.pid).since(before)
            read, count = read_all(target)
            _check(model, count)
            driver.unpublish()
        return Result(ready, synced, read, used)

    def prepare(self, driver: Driver) -> None:
        """What is done to the driver before it is asked."""


class OursDirect(Ours):
    """The driver in a cgroup that has no room for the model, so that it writes and reads past the page cache."""

    name = "csi-model, direct"

    def prepare(self, driver: Driver) -> None:
        """Move it into the cgroup."""
        assert driver.process is not None
        limit_memory(driver.process.pid, 512 * MEBIBYTE)


class Containerd:
    """containerd with the overlayfs snapshotter; ready when the image is pulled and a view of it is mounted.

    Best settings: four downloads and four unpacks at a time, igzip for gzip where it is installed, no plugin that is not needed.
    """

    name = "containerd"

    def __init__(self, cache: Path) -> None:
        self._daemon, self._ctr = _programs(cache)
        self.version = subprocess.run([self._daemon, "--version"], check=True, capture_output=True, text=True).stdout.split()[2]

    def run(self, registry: Registry, model: Model, folder: Path) -> Result:
        """Pull and mount once on an empty store."""
        with self._running(folder) as (address, daemon):
            ctr = (self._ctr, "--address", address)
            reference = f"{registry.host}/{model.reference}"
            trust = ["--plain-http"] if registry.ca_file is None else ["--hosts-dir", _hosts_folder(folder, registry)]
            target = folder / "target"
            target.mkdir()
            before = usage(daemon)
            began = time.monotonic()
            used = run([*ctr, "images", "pull", *trust, reference])
            used = used.beside(run([*ctr, "images", "mount", reference, target]))
            ready = time.monotonic() - began
            synced = timed_sync()
            used = used.beside(usage(daemon).since(before))
            read, count = read_all(target)
            _check(model, count)
            run([*ctr, "images", "unmount", "--rm", target])
        return Result(ready, synced, read, used)

    @contextmanager
    def _running(self, folder: Path) -> Iterator[tuple[Path, int]]:
        address = folder / "containerd.sock"
        config = folder / "containerd.toml"
        config.write_text(f"""version = 3
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri"]
[grpc]
  address = "{address}"
[ttrpc]
  address = "{address}.ttrpc"
[plugins.'io.containerd.transfer.v1.local']
  max_concurrent_downloads = 4
  max_concurrent_unpacks = 4
""")
        with (folder / "containerd.log").open("wb") as log:
            process = subprocess.Popen([self._daemon, "--config", str(config)], stdout=log, stderr=subprocess.STDOUT)
        try:
            for _ in range(200):
                if subprocess.run([self._ctr, "--address", str(address), "version"], check=False, capture_output=True).returncode == 0:
                    break
                time.sleep(0.05)
            else:
                msg = f"containerd did not start:\n{(folder / 'containerd.log').read_text()[-2000:]}"
                raise RuntimeError(msg)
            yield address, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


class Skopeo:
    """skopeo, which copies into an OCI layout and unpacks nothing."""

    name = "skopeo"

    def run(self, registry: Registry, model: Model, folder: Path) -> Result:
        """Copy once."""
        copy = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-oci-accept-uncompressed-layers"]
        began = time.monotonic()
        used = run([*copy, f"docker://{registry.host}/{model.reference}", f"oci:{folder}/layout:v1"])
        ready = time.monotonic() - began
        synced = timed_sync()
        read, _ = read_all(folder / "layout" / "blobs")
        return Result(ready, synced, read, used)


class Curl:
    """curl, four files at a time, and then openssl on all cores: the floor for raw files, without a manifest and without a store."""

    name = "curl + openssl"

    def run(self, registry: Registry, model: Model, folder: Path) -> Result:
        """Download and hash once."""
        files = folder / "files"
        files.mkdir()
        repository = model.reference.partition(":")[0]
        wanted = [
            word
            for blob in model.blobs
            for word in ("-o", files / blob.name, f"http://{registry.host}/v2/{repository}/blobs/{blob.digest}")
        ]
        hashing = f"find {files} -type f -print0 | xargs -0 -n 1 -P {len(os.sched_getaffinity(0))} openssl dgst -sha256 > {folder}/sums"
        began = time.monotonic()
        used = run(["curl", "-sSfL", "--parallel", "--parallel-immediate", "--parallel-max", "4", *wanted])
        used = used.beside(run(["sh", "-c", hashing]))
        ready = time.monotonic() - began
        sums = set(re.findall(r"= ([0-9a-f]{64})$", (folder / "sums").read_text(), re.MULTILINE))
        assert sums == {blob.digest.partition(":")[2] for blob in model.blobs}
        synced = timed_sync()
        read, count = read_all(files)
        _check(model, count)
        return Result(ready, synced, read, used)


Contestant = Ours | Containerd | Skopeo | Curl


def _hosts_folder(folder: Path, registry: Registry) -> Path:
    """Where containerd reads whose word it is to take for the registry's certificate."""
    settings = folder / "hosts" / registry.host / "hosts.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'server = "https://{registry.host}"\nca = "{registry.ca_file}"\n')
    return folder / "hosts"


@contextmanager
def running_driver(folder: Path, registry: Registry) -> Iterator[Driver]:
    """A driver with an empty store below ``folder``, cleaned away at the end."""
    how = {"plainHttp": True} if registry.ca_file is None else {"caFile": str(registry.ca_file)}
    driver = Driver(folder / "node", {"registries": dict.fromkeys((registry.host, FILES, FILES_TLS), how)})
    with ExitStack() as stack:
        stack.callback(driver.clean_up)
        driver.start()
        yield driver


@contextmanager
def scratch(work: Path) -> Iterator[Path]:
    """A folder for one run."""
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=work))
    try:
        yield folder
    finally:
        # containerd's mount manager leaves mounts of its own below its state.
        for mount in reversed(read_mounts()):
            if mount.target.startswith(f"{folder}/"):
                unmount(mount.target)
        shutil.rmtree(folder)


def limit_memory(pid: int, limit: int) -> None:
    """Move a process into a memory cgroup of its own.

    Raises:
        OSError: this machine has no memory cgroup that can be written.
    """
    v1 = _CGROUPS / "memory"
    group = (v1 if v1.is_dir() else _CGROUPS) / "csi-model-bench"
    group.mkdir(exist_ok=True)
    (group / ("memory.limit_in_bytes" if v1.is_dir() else "memory.max")).write_text(str(limit))
    (group / "cgroup.procs").write_text(str(pid))


def _check(model: Model, count: int) -> None:
    if count != model.weights:
        msg = f"{model.reference}: read {count} bytes, not {model.weights}"
        raise RuntimeError(msg)


def _programs(cache: Path) -> tuple[str, str]:
    """The daemon and ctr: built with Go where it is, else those that Debian has installed.

    Raises:
        RuntimeError: there is neither.
    """
    if shutil.which("go"):
        missing = [name for name in _BUILD if not (cache / name).exists()]
        for name in missing:
            print(f"building {name} {CONTAINERD}", flush=True)
            package = f"github.com/containerd/containerd/v2/cmd/{name}@{CONTAINERD}"
            # The module path alone carries no version into the program.
            stamp = f"-X github.com/containerd/containerd/v2/version.Version={CONTAINERD}"
            subprocess.run(
                ["go", "install", "-ldflags", stamp, package], check=True, env={**os.environ, "GOBIN": str(cache), "CGO_ENABLED": "0"}
            )
        return str(cache / "containerd"), str(cache / "ctr")
    daemon, ctr = shutil.which("containerd"), shutil.which("ctr")
    if daemon is None or ctr is None:
        msg = "neither Go nor containerd is installed; install one (apt-get install containerd), or leave containerd out with --without"
        raise RuntimeError(msg)
    return daemon, ctr
