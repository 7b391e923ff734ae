"""Builds what a Kubernetes node consists of from Go modules: pinned, once per machine, into a cache that every checkout shares.

``python -m e2e.kubernetes.build`` builds whatever is missing and prints where it is. A program is renamed to its place when it is
complete, so that a build that was broken off leaves nothing that looks finished. Nothing else is downloaded: containers' images are
made from these programs and from Debian packages (``images.py``).

``cache/<suite>-<version>/bin/<program>`` is a program; ``cache/<suite>-<version>/module`` the go.mod it was built with, where ours is needed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KUBERNETES = "1.37.2"
_STAGING = f"v0.{KUBERNETES.partition('.')[2]}"
_COMMIT = "0" * 40  # a module knows no commit; kubelet and the API server want to print one


@dataclass(frozen=True, slots=True)
class Suite:
    """Programs of one Go module. ``stamps`` are the variables that tell a program its version.

    ``alone`` says that the module stands by itself. Others have ``replace`` lines, which Go follows only in a main module: for those a
    small module of our own repeats them.
    """

    name: str
    module: str
    version: str
    packages: tuple[str, ...]
    stamps: tuple[tuple[str, str], ...] = ()
    alone: bool = False

    @property
    def programs(self) -> tuple[str, ...]:
        """What the Go tool calls the programs."""
        return tuple(package.rpartition("/")[2] for package in self.packages)

    @property
    def folder(self) -> Path:
        """Where this version of it is kept."""
        return cache() / f"{self.name}-{self.version.removeprefix('v')}"


def _kubernetes_stamps() -> tuple[tuple[str, str], ...]:
    values = {
        "gitVersion": f"v{KUBERNETES}",
        "gitMajor": KUBERNETES.split(".", maxsplit=1)[0],
        "gitMinor": KUBERNETES.split(".")[1],
        "gitTreeState": "clean",
        "gitCommit": _COMMIT,
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return tuple((f"{package}.{name}", value) for package in packages for name, value in values.items())


# kubectl comes with the rest, for one of another version than the API server's is one more thing that can be wrong.
_KUBERNETES_PROGRAMS = ("kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
SUITES = (
    Suite(
        "kubernetes",
        "k8s.io/kubernetes",
        f"v{KUBERNETES}",
        tuple(f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES_PROGRAMS),
        _kubernetes_stamps(),
    ),
    Suite(
        "containerd",
        "github.com/containerd/containerd/v2",
        "v2.4.2",
        tuple(f"github.com/containerd/containerd/v2/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
        (("github.com/containerd/containerd/v2/version.Version", "v2.4.2"),),
        alone=True,
    ),
    # Helm 3 rather than 4: the charts in use are written for it, a chart that works with it works with 4, and it builds in three quarters of the time.
    Suite(
        "helm",
        "helm.sh/helm/v3",
        "v3.22.0",
        ("helm.sh/helm/v3/cmd/helm",),
        (("helm.sh/helm/v3/internal/version.version", "v3.22.0"),),
        alone=True,
    ),
    # 6.4.0 asks for a version of a library that module proxies do not have.
    Suite(
        "external-provisioner",
        "github.com/kubernetes-csi/external-provisioner/v6",
        "v6.3.0",
        ("github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner",),
        (("main.version", "v6.3.0"),),
    ),
)


def cache() -> Path:
    """The folder of everything that is built once for all checkouts."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "csi-model-e2e"


def programs() -> dict[str, Path]:
    """Build what is missing and return every program by its name."""
    for suite in SUITES:
        _build_missing(suite)
    return {program: suite.folder / "bin" / program for suite in SUITES for program in suite.programs}


def built(program: str) -> Path | None:
    """Where ``program`` lies if it has been built; builds nothing."""
    for suite in SUITES:
        path = suite.folder / "bin" / program
        if program in suite.programs and path.exists():
            return path
    return None


def go() -> str:
    """The Go tool, also where its own archive unpacks it."""
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if found is None:
        msg = "Go is not installed; the node's programs are built with it (1.26 or newer)"
        raise RuntimeError(msg)
    return found


def _build_missing(suite: Suite) -> None:
    places = suite.folder / "bin"
    places.mkdir(parents=True, exist_ok=True)
    with (suite.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [package for package in suite.packages if not (places / package.rpartition("/")[2]).exists()]
        if not missing:
            return
        # Two at a time would need twice the memory of the linker, and gain nothing: the compiler uses every core.
        for package in missing:
            _build(suite, package, places / package.rpartition("/")[2])


def _build(suite: Suite, package: str, place: Path) -> None:
    began = time.monotonic()
    print(f"build: {package} {suite.version}", flush=True)
    stamps = " ".join(f"-X {name}={value}" for name, value in suite.stamps)
    flags = ["-trimpath", "-ldflags", f"-s -w {stamps}".strip()]
    with _unfinished(place) as folder:
        if suite.alone:
            _run([go(), "install", *flags, f"{package}@{suite.version}"], cwd=folder, GOBIN=str(folder))
        else:
            module = _write_module(suite)
            _run([go(), "build", "-mod=mod", *flags, "-o", str(folder / place.name), package], cwd=module)
        (folder / place.name).rename(place)
    print(f"build: {place} took {time.monotonic() - began:.0f} s, {place.stat().st_size / 1e6:.0f} MB", flush=True)


class _unfinished:  # noqa: N801 - reads as the function that it is
    """A folder beside ``place`` for a build that is under way; gone when it ends, and one of an earlier attempt goes first."""

    def __init__(self, place: Path) -> None:
        self.path = place.parent.parent / f"unfinished-{place.name}"

    def __enter__(self) -> Path:
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir()
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path)


def _write_module(suite: Suite) -> Path:
    """A main module that requires the suite and repeats what its go.mod replaces.

    What lies beside the module in its own repository (k8s.io/kubernetes' staging folders) is published under versions of its own.
    """
    folder = suite.folder / "module"
    folder.mkdir(exist_ok=True)
    if (folder / "go.mod").exists():
        return folder
    downloaded = _go_json("mod", "download", "-json", f"{suite.module}@{suite.version}")
    theirs = _go_json("mod", "edit", "-json", downloaded["GoMod"])
    lines = [f"module csi-model.dev/e2e/{suite.name}", f"go {theirs['Go']}"]
    lines += [f"godebug {setting['Key']}={setting['Value']}" for setting in theirs.get("Godebug") or ()]
    lines.append(f"require {suite.module} {suite.version}")
    for entry in theirs.get("Replace") or ():
        old, new = entry["Old"], entry["New"]
        beside = new["Path"].startswith(".")
        from_ = f"{old['Path']} {old['Version']}" if "Version" in old else old["Path"]
        lines.append(f"replace {from_} => {old['Path']} {_STAGING}" if beside else f"replace {from_} => {new['Path']} {new['Version']}")
    (folder / "go.mod").write_text("\n".join(lines) + "\n")
    return folder


def _go_json(*arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_run([go(), *arguments], cwd=Path("/")))
    return document


def _run(command: list[str], *, cwd: Path, **environment: str) -> str:
    """What the command prints. It is run again when it fails: it downloads hundreds of modules, and goes on with what it has."""
    for pause in (5, 30, None):
        done = subprocess.run(
            command, check=False, cwd=cwd, env={**os.environ, "CGO_ENABLED": "0", **environment}, capture_output=True, text=True
        )
        if not done.returncode:
            break
        told = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("go: downloading"))
        if pause is None:
            msg = f"{' '.join(command)} failed:\n{told}{done.stdout}"
            raise RuntimeError(msg)
        print(f"build: {command[-1]} failed, and is tried again in {pause} s:\n{told}", flush=True)
        time.sleep(pause)
    return done.stdout


if __name__ == "__main__":
    for name, path in programs().items():
        sys.stdout.write(f"{name:26} {path}\n")
