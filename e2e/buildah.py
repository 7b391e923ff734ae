"""Runs buildah with all that it keeps in a folder of ours, and other programs for what they print."""

from __future__ import annotations

import os
import resource
import subprocess
from typing import TYPE_CHECKING

from csi_model.linux.mountinfo import read_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def buildah(work: Path, command: str, *arguments: str) -> None:
    """Run one command; ``work/storage``, ``work/run`` and ``work/networks`` are its own.

    Raises:
        RuntimeError: It failed; the message holds the end of what it said.
    """
    # buildah leaves a mount of its storage behind: here it ends with the namespace.
    line = [*in_private(), "buildah", "--root", str(work / "storage"), "--runroot", str(work / "run")]
    limits = _limits() if command == "build" else ()
    output_of(*line, command, *limits, *arguments, temporary=work / "tmp", environment=settings_in(work))


def settings_in(work: Path) -> dict[str, str]:
    """The environment in which buildah, which has no use for a network here, makes its folder and lock for networks in ``work``, not in /etc."""
    settings = work / "containers.conf"
    settings.write_text(f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{work / "networks"}"\n')
    return {"CONTAINERS_CONF": str(settings)}


def _limits() -> Iterator[str]:
    """Limits for what a build runs that this process may set: buildah's own are higher than what some roots have."""
    for name, kind, most in (("nofile", resource.RLIMIT_NOFILE, 1 << 20), ("nproc", resource.RLIMIT_NPROC, 1 << 15)):
        _, hard = resource.getrlimit(kind)
        limit = most if hard == resource.RLIM_INFINITY else min(hard, most)
        yield f"--ulimit={name}={limit}:{limit}"


def in_private() -> tuple[str, ...]:
    """How a command line begins whose mounts end with it.

    In a chroot "/" is no mount, though buildah wants to change it: there the command gets a "/" that is one. Mounts above a chroot have
    to be private already.
    """
    if any(mount.target == "/" for mount in read_mounts()):
        return ("unshare", "--mount", "--propagation", "private")
    return ("unshare", "--mount", "--propagation", "unchanged", "sh", "-c", 'mount --rbind / /mnt && exec chroot /mnt "$@"', "sh")


def output_of(*command: str, stdin: str | None = None, temporary: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """What a program prints, in this process's environment and ``environment``.

    ``temporary`` is made and named to it as the folder for its temporary files.

    Raises:
        RuntimeError: It failed; the message holds the end of what it said.
    """
    variables = {**os.environ, **(environment or {})}
    if temporary is not None:
        temporary.mkdir(exist_ok=True)
        variables["TMPDIR"] = str(temporary)
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        msg = f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        raise RuntimeError(msg)
    return done.stdout
