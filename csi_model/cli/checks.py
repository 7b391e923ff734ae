"""What ``doctor`` looks at, each check a function from the node to findings."""

from __future__ import annotations

import enum
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.errors import CsiModelError, DeniedError, NotFoundError, UnauthenticatedError
from csi_model.linux.disk import space
from csi_model.linux.kernel import KernelVersion
from csi_model.mount.probe import probe
from csi_model.mount.strategy import LADDER, Strategy
from csi_model.oci.reference import Reference, parse_reference
from csi_model.pull.progress import amount
from csi_model.sources.connect import Connector
from csi_model.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from csi_model.config.model import Config


class Verdict(enum.Enum):
    """What a finding means."""

    OK = "ok"
    NOTE = "note"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what to do about it."""

    check: str
    verdict: Verdict
    found: str
    next_step: str = ""


def check_node(config: Config, state_dir: Path, *, registries: Sequence[str], plain_http: bool) -> tuple[Finding, ...]:
    """All checks, in the order in which a publish would meet them."""
    return (
        Finding("kernel", Verdict.OK, str(KernelVersion.running())),
        *_mounts(config, state_dir),
        *_disk(config, state_dir),
        *_state(state_dir),
        *_registration(config),
        *_registries(config, registries, plain_http=plain_http),
    )


def _mounts(config: Config, state_dir: Path) -> Iterator[Finding]:
    if os.geteuid() != 0:
        yield Finding("mounts", Verdict.FAIL, "this user cannot mount", "run as root, or in the driver's pod")
        return
    if not state_dir.is_dir():
        yield Finding("mounts", Verdict.NOTE, f"not tried: {state_dir} does not exist yet", "the first pull or serve makes it")
        return
    forced = None if config.views.strategy == "auto" else Strategy(config.views.strategy)
    try:
        ladder = probe(state_dir, forced)
        best = ladder.best
    except CsiModelError as error:
        yield Finding("mounts", Verdict.FAIL, str(error), "give the state directory a disk of its own with ext4 or XFS")
        return
    for rung in (*ladder.rungs, ladder.links):
        used = " (used)" if rung.strategy is best else ""
        verdict = Verdict.OK if rung.works else Verdict.NOTE
        yield Finding(f"mount {rung.strategy.value}", verdict, rung.reason + used)
    if not forced and best is not LADDER[0]:
        yield Finding(
            "mount ladder", Verdict.NOTE, f"the best that works is {best.value}", "a newer kernel may do better; see docs/architecture.md"
        )


def _disk(config: Config, state_dir: Path) -> Iterator[Finding]:
    place = next(path for path in (state_dir, *state_dir.parents) if path.exists())
    room = space(place)
    reserve = config.pull.free_space_reserve
    found = f"{amount(room.free)} of {amount(room.total)} free at {place}"
    if room.free <= reserve:
        yield Finding(
            "disk", Verdict.FAIL, f"{found}; {amount(reserve)} are kept free", "remove models with `csi-model rm`, or enlarge the disk"
        )
    else:
        yield Finding("disk", Verdict.OK, found)


def _state(state_dir: Path) -> Iterator[Finding]:
    if not (state_dir / "state.db").exists():
        yield Finding("state directory", Verdict.NOTE, f"{state_dir} holds no models yet")
        return
    try:
        with Store.open(state_dir, writable=False) as store:
            problems = store.state.integrity()
            models = len(store.state.models())
            mounted = len(store.state.publications())
    except CsiModelError as error:
        yield Finding("state directory", Verdict.FAIL, str(error), "restart the driver: it repairs what can be repaired")
        return
    if problems:
        yield Finding("state directory", Verdict.FAIL, "; ".join(problems)[:300], "restart the driver: it rebuilds a damaged database")
    else:
        yield Finding("state directory", Verdict.OK, f"{models} models, {mounted} publications in {state_dir}")


def _registration(config: Config) -> Iterator[Finding]:
    name = config.csi.driver_name
    path = config.csi.kubelet_root / "plugins_registry" / f"{name}-reg.sock"
    if not path.parent.is_dir():
        yield Finding("registration", Verdict.NOTE, f"no kubelet here ({path.parent} does not exist)")
    elif _answers(path):
        yield Finding("registration", Verdict.OK, f"{path} answers")
    else:
        yield Finding(
            "registration", Verdict.FAIL, f"nobody answers at {path}", f"is the driver running with --registration-dir {path.parent}?"
        )


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def _registries(config: Config, asked: Sequence[str], *, plain_http: bool) -> Iterator[Finding]:
    connector = Connector(config.model_copy(update={"pull": config.pull.model_copy(update={"retries": 0})}), loopback_plain_http=plain_http)
    try:
        for host in dict.fromkeys((*config.registries, *asked)):
            yield _registry(connector, host)
    finally:
        connector.close()


def _registry(connector: Connector, host: str) -> Finding:
    check = f"registry {host}"
    try:
        reference = parse_reference(f"{host}/csi-model/doctor:none")
        assert isinstance(reference, Reference)
        connector.connect(reference).resolve(reference)
    except (UnauthenticatedError, DeniedError):
        return Finding(check, Verdict.OK, "answers, and asks for credentials")
    except NotFoundError:
        return Finding(check, Verdict.OK, "answers")  # that there is no such repository is an answer
    except CsiModelError as error:
        return Finding(check, Verdict.FAIL, str(error), "check the name, the network and the `registries` section of the configuration")
    return Finding(check, Verdict.OK, "answers")
