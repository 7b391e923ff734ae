"""What pods are told of their publishes: decisions over values, with a clock of the test."""

from __future__ import annotations

import pytest

from csi_model.errors import BusyError, NoSpaceError, NotFoundError, StillPullingError, StoppedError, UnavailableError
from csi_model.kube.narrate import Narrator, pod_of
from csi_model.kube.notes import Kind, Note, Subject, presentable
from csi_model.kube.reasons import REASONS, reason_of
from csi_model.oci.digest import Digest
from csi_model.pull.progress import Progress
from csi_model.volumes.observer import Happening, Mounted, Progressed, PublishCall, Pulled, Pulling, Refused

from .conftest import REFERENCE, publish_call

GB = 10**9
MANIFEST = Digest.of(b"manifest")
SOURCE = "registry.example/llm/tiny"


def at(done: int, *, total: int = 100 * GB) -> Progressed:
    return Progressed(Progress(total=total, done=done, rate=1.1e9, layers=()))


class Listener:
    """A narrator and what it said, as ``reason: message``."""

    def __init__(self) -> None:
        self.narrator = Narrator()
        self.notes: list[Note] = []

    def hear(self, happening: Happening, now: float, call: PublishCall | None = None) -> Listener:
        note = self.narrator.hear(call or publish_call(), happening, now)
        if note is not None:
            self.notes.append(note)
        return self

    @property
    def said(self) -> list[str]:
        return [f"{note.reason}: {note.message}" for note in self.notes]

    @property
    def reasons(self) -> list[str]:
        return [note.reason for note in self.notes]


def test_a_cold_start_is_told_from_pull_to_mount() -> None:
    """Size and source; bytes, seconds and rate; reference and digest; each with the volume's name, about the pod."""
    listener = Listener().hear(Pulling(SOURCE, 140 * GB, 0), 0).hear(Pulled(MANIFEST, 140 * GB, 140 * GB, 127), 127)
    listener.hear(Mounted(MANIFEST, 127.2), 127.2)
    assert listener.said == [
        f'Pulling: volume "model": pulling {REFERENCE}: 140 GB',
        f'Pulled: volume "model": pulled {REFERENCE}: 140 GB in 2 min, 1.1 GB/s',
        f'Mounted: volume "model": mounted {REFERENCE} read-only, manifest sha256:{MANIFEST.short}',
    ]
    assert {note.about for note in listener.notes} == {Subject(kind="Pod", name="web-0", uid="uid-web-0", namespace="shop")}
    assert {note.kind for note in listener.notes} == {Kind.NORMAL}


def test_a_warm_start_is_told_as_such() -> None:
    """A model that is here was not pulled."""
    listener = Listener().hear(Pulled(MANIFEST, 140 * GB, 0, 0), 0).hear(Mounted(MANIFEST, 0.1), 0)
    assert listener.said[0] == f'Pulled: volume "model": {REFERENCE} (140 GB) is on this node already, nothing was pulled'
    assert listener.reasons == ["Pulled", "Mounted"]


def test_a_pull_that_goes_on_from_a_part_says_so() -> None:
    """What was here before is told apart from what was fetched; a source that the reference does not show is named."""
    listener = Listener().hear(Pulling("mirror.example/llm/tiny", 100 * GB, 40 * GB), 0).hear(Pulled(MANIFEST, 100 * GB, 60 * GB, 60), 60)
    assert listener.said == [
        f'Pulling: volume "model": pulling {REFERENCE} from mirror.example/llm/tiny: 100 GB, 40.0 GB of it are on this node already',
        f'Pulled: volume "model": pulled {REFERENCE}: 60.0 GB in 60 s, 1.0 GB/s; 40.0 GB were on this node before',
    ]


def test_kubelets_calls_are_one_story() -> None:
    """Over three calls of one pull it is announced once, and its end counts bytes and time from the announcement."""
    listener = Listener()
    for call in range(3):
        listener.hear(Pulling(SOURCE, 200 * GB, call * 80 * GB), call * 111)
        if call < 2:
            listener.hear(Refused(StillPullingError("still pulling")), call * 111 + 110)
    listener.hear(Pulled(MANIFEST, 200 * GB, 40 * GB, 28), 250)
    assert listener.said == [
        f'Pulling: volume "model": pulling {REFERENCE}: 200 GB',
        f'Pulled: volume "model": pulled {REFERENCE}: 200 GB in 4 min, 800 MB/s',
    ]


def test_a_pull_that_ended_between_two_calls_claims_no_rate() -> None:
    """The next call finds the model here: the time includes kubelet's pause."""
    listener = (
        Listener().hear(Pulling(SOURCE, 10 * GB, 0), 0).hear(Refused(StillPullingError("")), 110).hear(Pulled(MANIFEST, 10 * GB, 0, 0), 230)
    )
    assert listener.said[1] == f'Pulled: volume "model": pulled {REFERENCE}: 10.0 GB, ended while kubelet paused, 4 min after it began'


def test_progress_is_told_at_quarters_and_after_ever_longer_silences() -> None:
    """A steady pull of an hour is told a dozen times; quarters that fly by are not told within ten seconds of each other."""
    hour = Listener().hear(Pulling(SOURCE, 3600, 0), 0)
    for second in range(0, 3600, 5):
        hour.hear(at(second, total=3600), second)
    assert hour.reasons.count("PullProgress") <= 16
    fast = Listener().hear(Pulling(SOURCE, 100, 0), 0)
    for second in range(1, 20):
        fast.hear(at(second * 5, total=100), second)
    assert fast.reasons == ["Pulling", "PullProgress"]
    assert Listener().hear(Pulling(SOURCE, 100 * GB, 0), 0).hear(at(26 * GB), 20).said[1] == (
        'PullProgress: volume "model": 26.0 of 100 GB, 1.1 GB/s, about 67 s left'
    )


def test_progress_of_a_pull_that_was_never_announced_is_not_told() -> None:
    """There is nothing to say how far it was."""
    assert Listener().hear(at(50 * GB), 100).said == []


@pytest.mark.parametrize("error", [StillPullingError("x"), BusyError("x"), StoppedError("x")])
def test_what_ends_by_itself_is_no_refusal(error: Exception) -> None:
    """A wait that ended, another call at work and a driver that stops are kubelet's to report."""
    assert Listener().hear(Refused(error), 0).said == []


def test_a_refusal_is_a_warning_with_its_next_step() -> None:
    """The error's own text under the reason of its kind; a bug of ours tells nothing of itself."""
    listener = Listener().hear(Refused(NotFoundError("no tag v2; push it")), 0).hear(Refused(ZeroDivisionError("secret")), 1)
    assert listener.said[0] == 'ModelNotFound: volume "model": no tag v2; push it'
    assert listener.reasons[1] == "DriverError"
    assert "secret" not in listener.said[1]
    assert {note.kind for note in listener.notes} == {Kind.WARNING}


def test_a_pull_that_failed_is_announced_anew() -> None:
    """Its retry begins a new story."""
    listener = (
        Listener().hear(Pulling(SOURCE, GB, 0), 0).hear(Refused(UnavailableError("silent")), 30).hear(Pulling(SOURCE, GB, GB // 2), 60)
    )
    assert listener.reasons == ["Pulling", "RegistryUnavailable", "Pulling"]


def test_pods_that_share_a_pull_are_each_told() -> None:
    """Stories belong to volumes, not to models."""
    listener = Listener()
    for call in (publish_call("a"), publish_call("b"), publish_call("b", volume="second")):
        listener.hear(Pulling(SOURCE, GB, 0), 0, call).hear(Pulled(MANIFEST, GB, GB, 1), 1, call)
    assert listener.reasons == ["Pulling", "Pulled"] * 3
    assert [note.about.name for note in listener.notes] == ["a", "a", "b", "b", "b", "b"]
    assert len({note.key for note in listener.notes}) == 6


def test_a_pod_that_only_the_volume_names_is_not_told() -> None:
    """The uid must be that of kubelet's path, or anybody could write events about anybody's pod."""
    assert pod_of(publish_call()) is not None
    assert pod_of(publish_call(uid="uid-of-another")) is None
    assert pod_of(PublishCall("v", "/t", REFERENCE)) is None
    assert Listener().hear(Mounted(MANIFEST, 1), 0, publish_call(uid="")).said == []


def test_every_error_of_ours_has_a_reason() -> None:
    """A new kind of error must be given one, itself or by its base class."""
    from csi_model import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind is not errors.CsiModelError]
    assert [kind for kind in kinds if reason_of(kind("x")) == "DriverError"] == []
    assert set(REASONS) <= set(kinds)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\x00c\x1b[1m", "a b c [1m"),
        ("see https://cdn.example/x?sig=canary&y=1 for s3://b/c?k=canary", "see https://cdn.example/x for s3://b/c"),
        ("is this all? yes", "is this all? yes"),
    ],
)
def test_a_message_is_one_line_without_signatures(text: str, shown: str) -> None:
    """Control characters and what follows a URL's "?" are left out."""
    assert presentable(text) == shown


@pytest.mark.parametrize("character", ["x", "ü", "😀"])
def test_a_message_fits_the_api(character: str) -> None:
    """At most 1 KiB of UTF-8, cut between characters."""
    cut = presentable(character * 2000)
    assert 1020 <= len(cut.encode()) <= 1024
    assert cut.endswith(f"{character}…")


def test_refusals_that_differ_in_numbers_are_one_event() -> None:
    """Bytes that are free change with each try; another volume, reason or sentence is another event."""
    first, second = (Listener().hear(Refused(NoSpaceError(f"needs {n}.5 GB more")), 0).notes[0].key for n in (1, 20))
    assert first == second
    others = [
        Listener().hear(Refused(NoSpaceError("needs 1.5 GB more")), 0, publish_call(volume="other")).notes[0].key,
        Listener().hear(Refused(NoSpaceError("cannot write 1.5 GB")), 0).notes[0].key,
        Listener().hear(Refused(NotFoundError("needs 1.5 GB more")), 0).notes[0].key,
    ]
    assert len({first, *others}) == 4
