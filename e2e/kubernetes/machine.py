"""A machine made of namespaces: it boots, runs programs, halts with its disk kept, and is gone when the block ends.

The machine's folder (on a disk, for neither EROFS images nor overlays may lie on a tmpfs)::

    disk/lib, disk/log    /var/lib and /var/log of the machine: what a reboot keeps
    log/<service>.log     what each service prints
    conf/, credentials/   what its services read
    home/, tmp/           HOME and TMPDIR of every program
    lock                  held by the keeper
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.kubernetes import build, keeper

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
_PARENT = Path("/var/tmp")
_FOLDERS = ("conf", "disk/lib/kubelet", "disk/lib/csi-model", "disk/log", "home", "log", "tmp")


@dataclass(slots=True)
class Machine:
    """One machine. ``pid`` is its first process, as this process sees it; 0 while it is halted."""

    folder: Path
    keeper: subprocess.Popen[str]
    pid: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    spawned: list[Service] = field(default_factory=list)

    def boot(self) -> None:
        """Start its first process; nothing else runs on it then."""
        self.pid = int(self._order("boot"))

    def halt(self) -> None:
        """Kill every process at once, as when the power fails: mounts and ``/run`` are gone, the disk stays."""
        self._order("halt")
        self.pid = 0
        self.bury()

    def bury(self) -> None:
        """Wait for the services of a halted machine to be gone from this process too."""
        for service in self.spawned:
            service.entered.wait(20)
        self.spawned.clear()

    def run(self, *command: str, text: str | None = None, timeout: float = 120, check: bool = True) -> str:
        """Run a program on the machine to its end and return what it printed; errors carry what it said."""
        done = subprocess.run(
            self._entering(command), check=False, input=text or "", capture_output=True, text=True, timeout=timeout, env=self.environment
        )
        if check and done.returncode:
            raise CommandError(command, done.returncode, f"{done.stdout}{done.stderr}".strip())
        return done.stdout

    def spawn(self, name: str, *command: str) -> Service:
        """Start a program that goes on; what it prints is appended to ``log/<name>.log``."""
        with self.log(name).open("ab") as log:
            # A session of its own: Ctrl-C is for pytest, which ends services in its own order.
            process = subprocess.Popen(
                self._entering(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        service = Service(name, process)
        self.spawned.append(service)
        return service

    def log(self, name: str) -> Path:
        """The log of a service."""
        return self.folder / "log" / f"{name}.log"

    def path(self, inside: str) -> Path:
        """How this process reaches a path of the machine, mounts included."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def _entering(self, command: tuple[str, ...]) -> list[str]:
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--net", "--uts", "--ipc"]
        # Killing nsenter, as a time-out does, must end the program too.
        return [*enter, "setpriv", "--pdeathsig", "KILL", *command]

    def _order(self, order: str) -> str:
        assert self.keeper.stdin is not None
        assert self.keeper.stdout is not None
        self.keeper.stdin.write(f"{order}\n")
        self.keeper.stdin.flush()
        answer = self.keeper.stdout.readline().strip()
        if not answer:
            assert self.keeper.stderr is not None
            msg = f"the keeper could not {order}:\n{self.keeper.stderr.read()}"
            raise RuntimeError(msg)
        return answer


@dataclass(slots=True)
class Service:
    """A program that runs on a machine."""

    name: str
    entered: subprocess.Popen[bytes]
    """nsenter, which waits for the program and ends with it."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.entered.poll() is None

    @property
    def pid(self) -> int:
        """The program's process id, as this process sees it; ``ProcessLookupError`` when it has ended."""
        try:
            children = Path(f"/proc/{self.entered.pid}/task/{self.entered.pid}/children").read_text().split()
        except FileNotFoundError:
            children = []
        if not children:
            raise ProcessLookupError(self.name)
        return int(children[0])

    def end(self, number: signal.Signals = signal.SIGTERM, patience: float = 60) -> None:
        """Signal it and wait for its end."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
        self.entered.wait(patience)


class CommandError(Exception):
    """A program on the machine failed; ``output`` is what it printed."""

    def __init__(self, command: tuple[str, ...], code: int, output: str) -> None:
        super().__init__(f"{' '.join(command)} ended with {code}:\n{output}")
        self.output = output


@contextmanager
def machine() -> Iterator[Machine]:
    """A machine that is not booted yet. At the end nothing of it is left; should that fail, the end of the block does."""
    keeper.sweep(_PARENT)
    folder = Path(tempfile.mkdtemp(prefix=keeper.PREFIX, dir=_PARENT))
    lock = keeper.lock(folder)
    for name in _FOLDERS:
        (folder / name).mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "e2e.kubernetes.keeper", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        pass_fds=(lock,),
    )
    os.close(lock)
    made = Machine(folder, process, environment=_environment(folder))
    try:
        yield made
    finally:
        _, said = process.communicate(timeout=60)
        made.bury()
        if process.returncode:
            msg = f"the machine in {folder} could not be cleaned up:\n{said}"
            raise RuntimeError(msg)


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of this process's environment but what programs cannot do without: no proxies, no credentials."""
    places = [str(suite.folder / "bin") for suite in build.SUITES]
    return {
        "PATH": ":".join([*places, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]),
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "KUBECONFIG": str(folder / "credentials" / "admin.kubeconfig"),
        "LANG": "C.UTF-8",
    }
