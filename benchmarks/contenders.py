"""Who is compared: the driver over its CSI socket, containerd at its best settings, curl with openssl, and skopeo."""

from __future__ import annotations

import concurrent.futures
import json
import os
import resource
import shutil
import subprocess
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from csi_model.linux.mountinfo import read_mounts
from csi_model.linux.mounts import unmount
from e2e.driver import Driver

if TYPE_CHECKING:
    from collections.abc import Iterator

TICKS = os.sysconf("SC_CLK_TCK")
CONTAINERD = "v2.4.2"
_PROGRAMS = ("containerd", "ctr", "containerd-shim-runc-v2")


@dataclass(slots=True)
class Figures:
    """One run. Seconds; bytes written by the pulling process; peak resident bytes of it."""

    pulled: float = 0.0
    synced: float = 0.0
    read: float = 0.0
    cpu: float = 0.0
    written: int = 0
    peak: int = 0
    note: str = ""
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def durable(self) -> float:
        """Until the model is mounted and on the disk."""
        return self.pulled + self.synced

    @property
    def all_read(self) -> float:
        """Until every byte was read through the mount, and is on the disk."""
        return self.pulled + self.synced + self.read


def run_driver(folder: Path, reference: str, *, path: str, **config: object) -> Figures:
    """A fresh driver publishes the model; its CPU time, peak memory and writes are its process's."""
    driver = Driver(folder)
    driver.config["registries"] = {reference.partition("/")[0]: {"plainHttp": True}}
    driver.config["logLevel"] = "info"
    driver.config.update(config)
    try:
        driver.start()
        assert driver.process is not None
        pid = driver.process.pid
        before = _cpu(pid)
        figures = Figures()
        began = time.monotonic()
        target = driver.publish(reference, "bench", path=path, timeout=1200)
        figures.pulled = time.monotonic() - began
        figures.cpu = _cpu(pid) - before
        figures.synced = _timed(os.sync)
        figures.written, figures.peak = _written(pid), _peak(pid)
        figures.read = _timed(lambda: read_all(target))
        driver.unpublish("bench")
        driver.stop()
        for line in driver.log.splitlines():
            if '"view_mounted"' in line:
                figures.note = str(json.loads(line)["strategy"])
    finally:
        driver.clean_up()
        shutil.rmtree(folder, ignore_errors=True)
    return figures


def containerd_programs(cache: Path) -> Path | None:
    """The folder of containerd's programs: built with go install where Go is, else Debian's, else None."""
    if all((cache / name).exists() for name in _PROGRAMS):
        return cache
    if shutil.which("go"):
        cache.mkdir(parents=True, exist_ok=True)
        modules = [f"github.com/containerd/containerd/v2/cmd/{name}@{CONTAINERD}" for name in _PROGRAMS]
        subprocess.run(["go", "install", *modules], check=True, env={**os.environ, "GOBIN": str(cache)})
        return cache
    found = shutil.which("containerd")
    return Path(found).parent if found and shutil.which("ctr") else None


@contextmanager
def running_containerd(folder: Path, programs: Path) -> Iterator[tuple[int, list[str]]]:
    """A containerd with data of its own, four downloads and four unpacks at once; yields its pid and the client's command."""
    folder.mkdir(parents=True)
    socket = folder / "containerd.sock"
    (folder / "config.toml").write_text(
        f"""version = 3
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.transfer.v1.local"]
  max_concurrent_downloads = 4
  max_concurrent_unpacks = 4
"""
    )
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [str(programs / "containerd"), "-c", str(folder / "config.toml")], stdout=log, stderr=log, env=environment
        )
    try:
        deadline = time.monotonic() + 20
        client = [str(programs / "ctr"), "-a", str(socket)]
        while subprocess.run([*client, "version"], check=False, capture_output=True).returncode:
            if time.monotonic() > deadline:
                msg = f"containerd did not start:\n{(folder / 'log').read_text()[-3000:]}"
                raise RuntimeError(msg)
            time.sleep(0.1)
        yield daemon.pid, client
    finally:
        daemon.terminate()
        daemon.wait(30)


def run_containerd(folder: Path, programs: Path, reference: str) -> Figures:
    """Containerd pulls, unpacks with overlayfs and mounts; CPU time is the client's, the daemon's and its helpers'."""
    figures = Figures(note="overlayfs")
    target = folder / "mounted"
    with ExitStack() as stack:
        stack.callback(_remove, folder)
        pid, client = stack.enter_context(running_containerd(folder, programs))
        target.mkdir()
        before, tools = _cpu(pid), _children()
        began = time.monotonic()
        subprocess.run([*client, "images", "pull", "--plain-http", reference], check=True, capture_output=True)
        subprocess.run([*client, "images", "mount", reference, str(target)], check=True, capture_output=True)
        figures.pulled = time.monotonic() - began
        figures.cpu = _cpu(pid) - before + _children() - tools
        figures.synced = _timed(os.sync)
        figures.written, figures.peak = _written(pid), _peak(pid)
        figures.read = _timed(lambda: read_all(target))
        subprocess.run([*client, "images", "unmount", str(target)], check=True, capture_output=True)
    return figures


def run_curl(folder: Path, reference: str) -> Figures:
    """Curl to files, four at once, then openssl's SHA-256 on all cores: the least that a verified raw download costs."""
    folder.mkdir(parents=True)
    host, _, rest = reference.partition("/")
    repository = rest.rpartition(":")[0]
    with urllib.request.urlopen(
        urllib.request.Request(
            f"http://{host}/v2/{repository}/manifests/v1", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"}
        )
    ) as answer:
        layers = json.load(answer)["layers"]
    figures, tools = Figures(), _children()
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda layer: _curl(folder, host, repository, layer["digest"]), layers))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda layer: _openssl(folder, layer["digest"]), layers))
    figures.pulled = time.monotonic() - began
    figures.cpu = _children() - tools
    figures.synced = _timed(os.sync)
    figures.read = _timed(lambda: read_all(folder))
    shutil.rmtree(folder)
    return figures


def run_skopeo(folder: Path, reference: str) -> Figures:
    """Skopeo to an OCI layout: verified, not unpacked, not mounted."""
    folder.mkdir(parents=True)
    figures, tools = Figures(note="not unpacked"), _children()
    command = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", f"docker://{reference}", f"oci:{folder}/layout:v1"]
    figures.pulled = _timed(lambda: subprocess.run(command, check=True, capture_output=True))
    figures.cpu = _children() - tools
    figures.synced = _timed(os.sync)
    shutil.rmtree(folder)
    return figures


def _remove(folder: Path) -> None:
    """Take away what is still mounted below a folder, and then the folder."""
    for mount in reversed(read_mounts()):
        if Path(mount.target).is_relative_to(folder):
            unmount(mount.target)
    shutil.rmtree(folder)


def read_all(folder: Path) -> None:
    """Read every byte of every file below, a mebibyte at a time."""
    buffer = bytearray(1 << 20)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def fill_page_cache(sparse: Path) -> None:
    """Fill free memory with page cache, so that runs recycle pages instead of asking the host of a virtual machine for new ones."""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with sparse.open("ab") as file:
        file.truncate(size)
    read_all(sparse.parent)


def _curl(folder: Path, host: str, repository: str, digest: str) -> None:
    url = f"http://{host}/v2/{repository}/blobs/{digest}"
    subprocess.run(["curl", "-sSfL", "-o", str(folder / digest[7:]), url], check=True)


def _openssl(folder: Path, digest: str) -> None:
    done = subprocess.run(["openssl", "dgst", "-sha256", "-r", str(folder / digest[7:])], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(digest[7:])


def _timed(work: object) -> float:
    began = time.monotonic()
    work()  # type: ignore[operator]
    return time.monotonic() - began


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _cpu(pid: int) -> float:
    """Seconds of a process and of its children that have ended (its helpers)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[index]) for index in (11, 12, 13, 14)) / TICKS


def _written(pid: int) -> int:
    return int(_field(pid, "io", "write_bytes"))


def _peak(pid: int) -> int:
    return int(_field(pid, "status", "VmHWM")) * 1024


def _field(pid: int, file: str, name: str) -> str:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
