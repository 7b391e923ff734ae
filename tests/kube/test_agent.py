"""The agent with its threads, against an API server in this process that is well, slow, overloaded, hostile or away."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from csi_model.config.model import Config, Csi, Kubernetes
from csi_model.errors import DiskError, NoSpaceError, NotFoundError, UnauthenticatedError, UnavailableError
from csi_model.kube import gate as gate_module
from csi_model.kube import posting
from csi_model.kube.agent import open_agent
from csi_model.kube.backoff import Backoff
from csi_model.kube.gate import Found, Gate
from csi_model.kube.posting import Poster
from csi_model.linux.kernel import KernelVersion
from csi_model.mount.strategy import LADDER, Ladder, RungResult, Strategy
from csi_model.oci.digest import Digest
from csi_model.volumes.observer import Mounted, Pulled, Pulling, Refused
from tests.fakes.apiserver import Trouble

from .conftest import DRIVER, NODE, eventually, publish_call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_model.kube.agent import Agent
    from csi_model.kube.api import ApiServer
    from tests.fakes.apiserver import FakeApiServer

CONFIG = Config(csi=Csi(driver_name=DRIVER))
TAINT = {"key": f"{DRIVER}/agent-not-ready", "effect": "NoExecute"}
GPU = {"key": "gpu", "value": "true", "effect": "NoSchedule"}
MANIFEST = Digest.of(b"manifest")
MOUNTED = Mounted(MANIFEST, 0.1)


def ladder(*works: Strategy, forced: Strategy | None = None) -> Ladder:
    rungs = tuple(RungResult(strategy, strategy in works, f"why {strategy.value}") for strategy in LADDER)
    return Ladder(rungs, RungResult(Strategy.LINKS, works=True, reason=""), forced)


def pods(api: FakeApiServer) -> list[str]:
    """Whom the events are about."""
    return [event["involvedObject"]["name"] for event in api.events()]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "Backoff", lambda **_: Backoff(first=0.01, longest=0.02))
    monkeypatch.setattr(gate_module, "Backoff", lambda **_: Backoff(first=0.01, longest=0.02))


@pytest.fixture
def agent(cluster: ApiServer) -> Iterator[Agent]:
    with open_agent(CONFIG, NODE, ladder(*LADDER), free=1 << 40, cluster=cluster) as agent:
        yield agent


def test_a_pods_start_is_seen_in_its_events(api: FakeApiServer, agent: Agent) -> None:
    """Pulling, Pulled and Mounted, in this order, beside the pod."""
    for happening in (Pulling("registry.example/llm/tiny", 10**9, 0), Pulled(MANIFEST, 10**9, 10**9, 1), MOUNTED):
        agent.observe(publish_call(), happening)
    eventually(lambda: len(api.events()) == 3)
    assert api.reasons() == ["Pulling", "Pulled", "Mounted"]
    assert {event["metadata"]["namespace"] for event in api.events()} == {"shop"}


def test_the_same_refusal_is_one_event_with_a_count(api: FakeApiServer, agent: Agent) -> None:
    """Kubelet's retries count up what the pod's owner sees once."""
    for _ in range(6):
        agent.observe(publish_call(), Refused(NotFoundError("no tag v1; push it")))
        time.sleep(0.02)
    eventually(lambda: [event["count"] for event in api.events()] == [6])
    assert api.reasons() == ["ModelNotFound"]


def test_trouble_of_many_pods_is_said_once_of_the_node(api: FakeApiServer, agent: Agent) -> None:
    """A disk that is full or fails, and each registry that is silent or refuses; a wrong tag is its pod's own affair."""
    for pod in ("a", "b", "c"):
        agent.observe(publish_call(pod), Refused(NoSpaceError("disk full")))
        agent.observe(publish_call(pod), Refused(DiskError("I/O error")))
        agent.observe(publish_call(pod), Refused(UnavailableError("silent")))
        agent.observe(publish_call(pod, reference="other.example/x:v1"), Refused(UnavailableError("silent")))
        agent.observe(publish_call(pod), Refused(UnauthenticatedError("refused; credentials tried: secret of a pod")))
        agent.observe(publish_call(pod), Refused(NotFoundError("no such tag")))

    def of_node() -> list[tuple[str, int]]:
        return sorted((event["reason"], event["count"]) for event in api.events() if event["involvedObject"]["kind"] == "Node")

    expected = [("DiskFailed", 3), ("NoSpace", 3), ("RegistryRefused", 3), ("RegistryUnavailable", 3), ("RegistryUnavailable", 3)]
    eventually(lambda: of_node() == expected)
    eventually(lambda: len(api.events()) == 5 + 3 * 5)
    texts = [event["message"] for event in api.events() if event["involvedObject"]["kind"] == "Node"]
    assert "registry.example refuses the credentials of volumes; the events of pod shop/c say which" in texts
    assert not any("credentials tried" in text for text in texts)


@pytest.mark.parametrize(
    ("found", "version", "reason"),
    [
        (ladder(*LADDER), "6.18.20", None),
        (ladder(Strategy.EROFS_LOOP, Strategy.MATERIALISE), "6.18.20", "MountDegraded"),
        (ladder(Strategy.EROFS_LOOP, Strategy.MATERIALISE), "6.18.3", None),
        (ladder(Strategy.MATERIALISE), "6.6.1", "MountDegraded"),
        (ladder(Strategy.MATERIALISE), "6.1.113", "MountDegraded"),
        (ladder(Strategy.MATERIALISE), "6.1.112", None),
        (ladder(Strategy.MATERIALISE), "5.15.0", None),
        (ladder(), "5.15.0", "MountUnavailable"),
        (ladder(Strategy.MATERIALISE, forced=Strategy.MATERIALISE), "6.18.20", None),
        (ladder(Strategy.MATERIALISE, forced=Strategy.EROFS_LOOP), "6.18.20", "MountUnavailable"),
    ],
)
def test_a_rung_lower_than_the_kernel_could_do_is_said_of_the_node(
    api: FakeApiServer, agent: Agent, found: Ladder, version: str, reason: str | None
) -> None:
    """With the reason why the better one does not work; what the kernel cannot do is no trouble, nor what an admin forced and works."""
    agent.introduce(found, KernelVersion.parse(version))
    agent.observe(publish_call(), MOUNTED)
    eventually(lambda: "Mounted" in api.reasons())
    assert api.reasons() == ([reason] if reason else []) + ["Mounted"]
    assert reason is None or "why erofs-" in api.events()[0]["message"]


@pytest.mark.parametrize(("free", "said"), [((1 << 30) + 1, False), (1 << 30, True), (0, True)])
def test_a_disk_that_holds_no_more_models_is_said_of_the_node(api: FakeApiServer, agent: Agent, free: int, *, said: bool) -> None:
    """A driver that starts on a full disk serves, and tells the admin before any pod has asked for a model."""
    agent.weigh(free, 1 << 30)
    agent.observe(publish_call(), MOUNTED)
    eventually(lambda: "Mounted" in api.reasons())
    assert api.reasons() == (["NoSpace"] if said else []) + ["Mounted"]


def test_a_publish_never_waits_for_the_api_server(api: FakeApiServer, agent: Agent) -> None:
    """With a server that answers nothing, a thousand tellings take next to no time, and the end waits two seconds at most."""
    api.state.troubles.append(Trouble(delay=3))
    began = time.monotonic()
    for number in range(1000):
        agent.observe(publish_call(f"pod-{number}"), MOUNTED)
    assert time.monotonic() - began < 1


def test_what_was_said_during_an_outage_is_told_after_it(api: FakeApiServer, agent: Agent) -> None:
    """Broken connections, 500 and 429 are tried again in order."""
    api.state.troubles += [Trouble(times=2, hang_up=True), Trouble(times=2, status=500), Trouble(times=2, status=429)]
    agent.observe(publish_call(), Pulled(MANIFEST, 1, 0, 0))
    agent.observe(publish_call(), MOUNTED)
    eventually(lambda: api.reasons() == ["Pulled", "Mounted"])


def test_an_outage_that_lasts_drops_events_and_says_how_many(api: FakeApiServer, agent: Agent) -> None:
    """After bounded tries; later ones are written."""
    api.state.troubles.append(Trouble(times=16, status=503))
    with capture_logs() as lines:
        agent.observe(publish_call("a"), MOUNTED)
        agent.observe(publish_call("b"), MOUNTED)
        agent.observe(publish_call("c"), MOUNTED)
        eventually(lambda: bool(api.events()))
    assert pods(api) == ["c"]
    told = [(line["count"], line["error"]) for line in lines if line["event"] == "events_dropped"]
    assert 1 <= sum(count for count, _ in told) <= 2  # the second one's line may still be due
    assert all("503" in error for _, error in told)


@pytest.mark.parametrize("status", [403, 404, 422])
def test_an_event_that_is_not_allowed_is_dropped_at_once(api: FakeApiServer, agent: Agent, status: int) -> None:
    """Missing permissions, a namespace that is gone and a refusal of its form are not tried twice."""
    api.state.troubles.append(Trouble(times=1, status=status))
    agent.observe(publish_call("a"), MOUNTED)
    agent.observe(publish_call("b"), MOUNTED)
    eventually(lambda: "b" in pods(api))
    assert pods(api) == ["b"]
    assert len(api.state.seen) == 2


def test_an_answer_that_was_lost_makes_no_second_event(api: FakeApiServer, agent: Agent) -> None:
    """The retry is told that the event exists, and the next time it is updated."""
    api.state.troubles.append(Trouble(times=1, hang_up=True, after=True))
    agent.observe(publish_call(), MOUNTED)
    eventually(lambda: len(api.state.seen) == 2)
    agent.observe(publish_call(), MOUNTED)
    eventually(lambda: [event["count"] for event in api.events()] == [2])


def test_an_event_that_the_api_server_forgot_is_made_anew(api: FakeApiServer, agent: Agent) -> None:
    """Events expire; the count goes on."""
    agent.observe(publish_call(), MOUNTED)
    eventually(lambda: len(api.events()) == 1)
    with api.lock:
        api.state.events.clear()
    agent.observe(publish_call(), MOUNTED)
    eventually(lambda: [event["count"] for event in api.events()] == [2])


def test_a_bug_costs_one_event(api: FakeApiServer, cluster: ApiServer) -> None:
    """An exception that is none of ours is logged with its traceback, and the thread goes on."""
    poster = Poster(cluster)
    write, broken = cluster.write, [True]

    class Broken:
        def write(self, post: object) -> None:
            if broken.pop() if broken else False:
                raise ZeroDivisionError
            write(post)  # type: ignore[arg-type]

    poster._cluster = Broken()  # type: ignore[assignment]
    with capture_logs() as lines:
        poster.start()
        from csi_model.kube.notes import Kind, Note, Subject

        for name in ("a", "b"):
            poster.add(Note(Subject("Pod", name, name, "shop"), Kind.NORMAL, "Mounted", "x"))
        eventually(lambda: len(api.events()) == 1)
    poster.close(2)
    assert [line["log_level"] for line in lines] == ["error"]


def test_the_end_writes_what_waits(api: FakeApiServer, cluster: ApiServer) -> None:
    """Events that were told just before the driver ends are not lost."""
    with open_agent(CONFIG, NODE, ladder(*LADDER), free=1 << 40, cluster=cluster) as agent:
        for pod in ("a", "b", "c"):
            agent.observe(publish_call(pod), MOUNTED)
    assert len(api.events()) == 3


def test_events_and_taint_can_be_turned_off(api: FakeApiServer, cluster: ApiServer) -> None:
    """Nothing is written and nothing is looked at."""
    api.add_node(NODE, taints=[TAINT], drivers=(DRIVER,))
    config = Config(csi=Csi(driver_name=DRIVER), kubernetes=Kubernetes(events=False, startup_taint=False))
    with open_agent(config, NODE, ladder(), free=1 << 40, cluster=cluster) as agent:
        agent.observe(publish_call(), MOUNTED)
        agent.registered()
        time.sleep(0.1)
    assert api.state.seen == []


def test_the_taint_goes_once_kubelet_has_listed_the_driver(api: FakeApiServer, agent: Agent) -> None:
    """Not before a registration, whatever CSINode lists; not while it does not list the driver; then at once, and alone."""
    api.add_node(NODE, taints=[GPU, TAINT], drivers=(DRIVER,))
    time.sleep(0.1)
    assert api.taints(NODE) == [GPU, TAINT]
    api.list_drivers(NODE, "other.csi")
    agent.registered()
    time.sleep(0.1)
    assert api.taints(NODE) == [GPU, TAINT]
    api.list_drivers(NODE, "other.csi", DRIVER)
    eventually(lambda: api.taints(NODE) == [GPU])


def test_a_taint_that_comes_back_goes_at_the_next_registration(api: FakeApiServer, agent: Agent) -> None:
    """Kubelet makes its Node object anew with its taints, and registers the driver anew."""
    api.add_node(NODE, taints=[TAINT], drivers=(DRIVER,))
    agent.registered()
    eventually(lambda: api.taints(NODE) == [])
    api.add_node(NODE, taints=[TAINT, GPU], drivers=(DRIVER,))
    agent.registered()
    eventually(lambda: api.taints(NODE) == [GPU])


def test_a_taint_that_comes_back_by_itself_is_found(api: FakeApiServer, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node is looked at every while."""
    monkeypatch.setattr(gate_module, "_LOOK_EVERY", 0.05)
    api.add_node(NODE, drivers=(DRIVER,))
    agent.registered()
    eventually(lambda: len(api.state.seen) > 1)
    api.add_node(NODE, taints=[TAINT], drivers=(DRIVER,))
    eventually(lambda: api.taints(NODE) == [])


def test_the_taint_goes_after_an_outage(api: FakeApiServer, agent: Agent) -> None:
    """It is tried until it is done, and complained of once."""
    api.add_node(NODE, taints=[TAINT], drivers=(DRIVER,))
    api.state.troubles += [Trouble(times=3, hang_up=True), Trouble(times=3, status=403), Trouble(times=3, status=429)]
    with capture_logs() as lines:
        agent.registered()
        eventually(lambda: api.taints(NODE) == [])
        eventually(lambda: "startup_taint_removed" in [line["event"] for line in lines])
    assert [line["event"] for line in lines].count("startup_taint_unknown") == 1


def test_taints_that_change_meanwhile_are_looked_at_again(api: FakeApiServer, cluster: ApiServer) -> None:
    """A patch that no longer fits changes nothing; the next look does it."""
    gate = Gate(cluster, driver=DRIVER, node=NODE)
    api.add_node(NODE, taints=[TAINT], drivers=(DRIVER,))
    patch_node = cluster.patch_node

    def raced(node: str, patch: object) -> None:
        api.add_node(NODE, taints=[GPU, TAINT], drivers=(DRIVER,))
        patch_node(node, patch)  # type: ignore[arg-type]

    cluster.patch_node = raced  # type: ignore[method-assign]
    assert gate.check() is Found.CHANGED
    assert api.taints(NODE) == [GPU, TAINT]
    cluster.patch_node = patch_node  # type: ignore[method-assign]
    assert gate.check() is Found.REMOVED
    assert gate.check() is Found.OPEN
    assert api.taints(NODE) == [GPU]


def test_pauses_double_up_to_a_limit() -> None:
    """Each is a little off, so that the nodes of a cluster fall out of step; a success begins anew."""
    backoff = Backoff(first=1, longest=8)
    pauses = [backoff.next() for _ in range(6)]
    for pause, middle in zip(pauses, [1, 2, 4, 8, 8, 8], strict=True):
        assert 0.8 * middle <= pause <= 1.2 * middle
    assert len(set(pauses)) == 6
    backoff.reset()
    assert backoff.next() <= 1.2
