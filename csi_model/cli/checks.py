"""What ``doctor`` looks at. A check says what it found and never raises for what it finds."""

from __future__ import annotations

import enum
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csi_model.errors import CsiModelError, InvalidRequestError
from csi_model.linux.disk import space
from csi_model.linux.kernel import KernelVersion
from csi_model.linux.locks import flock_holder
from csi_model.linux.mountinfo import read_mounts
from csi_model.mount.probe import probe
from csi_model.mount.strategy import LADDER, Strategy
from csi_model.pull.progress import amount, duration
from csi_model.registry.ping import ping
from csi_model.registry.settings import HttpSettings, api_host
from csi_model.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csi_model.config.model import Config, Csi
    from csi_model.mount.strategy import Ladder

_OLDEST = KernelVersion(5, 8, 0)
"""The first kernel whose statx tells mount points; fsopen and move_mount came with 5.2, openat2 with 5.6."""
_CLOCK = 300.0
"""Seconds between two clocks from which on certificates and tokens begin to be refused."""
_COSTS = {
    Strategy.EROFS_BUFFERED: "what pods read is in memory twice",
    Strategy.MATERIALISE: "every view of an archive is a copy on the disk",
}


class Status(enum.Enum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at, what was found, and the next step where there is one."""

    name: str
    status: Status
    detail: str
    advice: str | None = None


def kernel() -> Check:
    """The running kernel."""
    version = KernelVersion.running()
    if version < _OLDEST:
        advice = "run Linux 5.8 or newer; 6.12 and newer mount models without a copy"
        return Check("kernel", Status.FAIL, f"{version} lacks calls that mounting takes (fsopen, openat2, statx of mount points)", advice)
    return Check("kernel", Status.OK, str(version))


def state(state_dir: Path) -> tuple[Check, ...]:
    """The state directory, its database, and which process owns it."""
    name = "state directory"
    try:
        if not state_dir.exists():
            return (Check(name, Status.OK, f"{state_dir} does not exist yet; the first pull makes it"),)
        if not state_dir.is_dir():
            return (Check(name, Status.FAIL, f"{state_dir} is no directory", "move it away, or name another with --state-dir"),)
        if not os.access(state_dir, os.R_OK | os.W_OK | os.X_OK):
            detail = f"{state_dir} is not ours to read" if os.geteuid() else f"{state_dir} cannot be written"
            advice = "run doctor as root" if os.geteuid() else "mount it writable"
            return (Check(name, Status.WARN if os.geteuid() else Status.FAIL, detail, advice),)
        return (Check(name, Status.OK, f"{state_dir}, {_owner(state_dir)}"), _database(state_dir))
    except OSError as error:
        return (Check(name, Status.WARN, f"{state_dir} cannot be looked at: {error.strerror}", "run doctor as root"),)


def disk(state_dir: Path, *, reserve: int) -> Check:
    """The space where the state directory is, or will be."""
    place = _existing(state_dir)
    found = space(place)
    detail = f"{amount(found.free)} of {amount(found.total)} free on the filesystem of {place}"
    if found.free <= reserve:
        advice = "free space with `csi-model rm`, give it a larger disk, or lower pull.freeSpaceReserve"
        return Check("disk", Status.FAIL, f"{detail}, of which {amount(reserve)} are kept in reserve: nothing can be pulled", advice)
    if found.inodes_total and not found.inodes_free:
        return Check("disk", Status.FAIL, f"{detail}, but no inode is", "remove small files from that filesystem")
    return Check("disk", Status.OK, detail)


def mounting(state_dir: Path, *, strategy: str) -> Check:
    """Which rung of the ladder views are mounted by, found out by mounting."""
    name = "mounting"
    if os.geteuid() != 0:
        return Check(name, Status.WARN, "only root can find out how models are mounted here", "run doctor as root")
    try:
        ladder = probe(_existing(state_dir), None if strategy == "auto" else Strategy(strategy))
        return _rung(name, ladder, ladder.best)
    except CsiModelError as error:
        advice = "a container needs CAP_SYS_ADMIN and no seccomp profile that forbids mounting (privileged: true)"
        return Check(name, Status.FAIL, str(error), advice)


def sockets(endpoint: str | None, registration_dir: Path | None, csi: Csi) -> tuple[Check, ...]:
    """Whether a driver answers where it was said to, and where kubelet looks for it."""
    found = []
    if endpoint is not None:
        path = Path(endpoint.removeprefix("unix://"))
        found.append(_socket("CSI socket", path, Status.FAIL, f"start the driver: csi-model serve --endpoint unix://{path}"))
    usual = csi.kubelet_root / "plugins_registry"
    directory = registration_dir or (usual if usual.is_dir() else None)
    if directory is not None:
        # A node of Kubernetes need not be one for csi-model: that is a failure only where somebody said that it is.
        absent = Status.WARN if registration_dir is None else Status.FAIL
        path = directory / f"{csi.driver_name}-reg.sock"
        found.append(_socket("registration", path, absent, f"start the driver: csi-model serve --registration-dir {directory}"))
    return tuple(found)


def registries(hosts: Sequence[str], config: Config, *, loopback_plain_http: bool) -> tuple[Check, ...]:
    """Whether the registries answer that the configuration or the person names."""
    short = config.model_copy(update={"pull": config.pull.model_copy(update={"connect_timeout": 5.0, "stall_timeout": 5.0})})
    settings = HttpSettings.of(short, loopback_plain_http=loopback_plain_http)
    return tuple(_registry(host, settings) for host in dict.fromkeys((*config.registries, *hosts)))


def _database(state_dir: Path) -> Check:
    name = "state database"
    try:
        with Store.open(state_dir, writable=False) as store:
            problems = store.state.integrity()
            models, mounted = len(store.state.models()), store.state.publications()
    except CsiModelError as error:
        if not (state_dir / "state.db").exists():
            return Check(name, Status.OK, "nothing was pulled yet")
        return Check(name, Status.FAIL, str(error))
    if problems:
        return Check(name, Status.FAIL, f"damaged: {problems[0]}", "restart the driver, which rebuilds it from what is on the disk")
    seen = {mount.target for mount in read_mounts()}
    missing = [publication.target for publication in mounted if publication.target not in seen]
    detail = f"models: {models}, places where they are mounted: {len(mounted)}"
    if missing:
        advice = "kubelet mounts its volumes again by itself; `csi-model unmount TARGET` forgets one that a person mounted"
        return Check(name, Status.WARN, f"{detail}, {len(missing)} of which show nothing (seen from here): {missing[0]}", advice)
    return Check(name, Status.OK, detail)


def _owner(state_dir: Path) -> str:
    try:
        pid = flock_holder(state_dir / "lock")
    except FileNotFoundError:
        pid = None
    return f"owned by process {pid}" if pid is not None else "owned by no process that is seen from here"


def _rung(name: str, ladder: Ladder, best: Strategy) -> Check:
    above = LADDER[: LADDER.index(best)]
    reasons = "; ".join(f"not {rung.strategy.value}: {rung.reason}" for rung in ladder.rungs if rung.strategy in above and not rung.works)
    detail = best.value + (", forced by the configuration" if ladder.forced else f" ({reasons})" if reasons else "")
    cost = _COSTS.get(best)
    if cost is None:
        return Check(name, Status.OK, detail)
    return Check(name, Status.WARN, f"{detail}: {cost}", "a newer kernel, or another filesystem for the state directory, may do better")


def _socket(name: str, path: Path, absent: Status, advice: str) -> Check:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        try:
            client.connect(str(path))
        except PermissionError:
            return Check(name, Status.WARN, f"{path} is for root alone", "run doctor as root")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return Check(name, absent, f"nobody answers at {path} ({why})", advice)
    return Check(name, Status.OK, f"a driver answers at {path}")


def _registry(host: str, settings: HttpSettings) -> Check:
    name = f"registry {host}"
    try:
        pong = ping(host, settings)
    except InvalidRequestError as error:
        return Check(name, Status.FAIL, str(error), None)  # says what is wrong with what was written
    except CsiModelError as error:
        hint = f"check name, network and proxy; for one without TLS set registries.{host}.plainHttp: true in the configuration"
        return Check(name, Status.FAIL, str(error), None if "configuration" in str(error) else hint)
    if not pong.is_registry:
        advice = "is this a registry's host, as references name it?"
        return Check(name, Status.FAIL, f"{pong.origin} answers {pong.status} to /v2/, as no registry does", advice)
    detail = f"{pong.origin} answers" + (", and asks for credentials" if pong.status == 401 else "")
    if pong.ahead is not None and abs(pong.ahead) > _CLOCK:
        side = "behind" if pong.ahead > 0 else "ahead of"
        advice = "set the clock (NTP): certificates and tokens are refused by a wrong one"
        return Check(name, Status.WARN, f"{detail}, but this node's clock is {duration(abs(pong.ahead))} {side} its", advice)
    plain = api_host(host) in settings.plain_http
    return Check(name, Status.OK, detail + (", without TLS" if plain else ""))


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that is there: where it would be made."""
    for candidate in (path, *path.parents):
        try:
            if candidate.is_dir():
                return candidate
        except PermissionError:
            continue
    return Path("/")
