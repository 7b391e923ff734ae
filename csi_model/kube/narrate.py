"""From what happens to publishes to what their pods are told: decisions over values, with the time passed in.

kubelet calls for a volume again and again. A pull is announced once for all of these calls, its progress seldom, and its end with what
the pod waited for: the bytes and the seconds since the announcement, however many calls that took.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.kube.notes import Kind, Note, Subject, presentable, without_numbers
from csi_model.kube.reasons import reason_of, text_of
from csi_model.pull.progress import amount, duration
from csi_model.volumes.observer import Mounted, Progressed, Pulled, Pulling, Refused

if TYPE_CHECKING:
    from collections.abc import Hashable

    from csi_model.pull.progress import Progress
    from csi_model.volumes.observer import Happening, PublishCall

_REMEMBERED = 4096
"""Volumes that are on their way at once; of more, the oldest pull is announced anew."""
_QUARTER = 0.25
_QUARTERS_APART = 10.0
_FIRST_GAP = 30.0
_LONGEST_GAP = 300.0


@dataclass(slots=True)
class _Story:
    """A volume whose pull was announced: when, how many bytes were here, and how much of it was told when."""

    since: float
    here: int
    told_at: float
    quarters: int = 0
    gap: float = _FIRST_GAP
    ended: bool = False

    def tells(self, progress: Progress, now: float) -> bool:
        """Whether this much is worth an event: each quarter of the whole, and after ever longer silences, 30 seconds to 5 minutes."""
        quarters = int(progress.done / (progress.total * _QUARTER)) if progress.total else 0
        silence = now - self.told_at
        if silence < (_QUARTERS_APART if quarters > self.quarters else self.gap):
            return False
        if quarters <= self.quarters:
            self.gap = min(self.gap * 2, _LONGEST_GAP)
        self.quarters, self.told_at = quarters, now
        return True


class Narrator:
    """Remembers which volumes wait for a pull. Not safe to use from several threads at once."""

    def __init__(self) -> None:
        self._stories: OrderedDict[Hashable, _Story] = OrderedDict()

    def hear(self, call: PublishCall, happening: Happening, now: float) -> Note | None:
        """What to tell the pod, if anything. ``now`` is in seconds of any clock."""
        pod = pod_of(call)
        if pod is None:
            return None
        told = self._tell(call, happening, now)
        if told is None:
            return None
        kind, reason, text = told
        volume = f'volume "{call.volume}": ' if call.volume else ""
        # What is refused in other words is another refusal; progress is the same story, however far it is.
        topic = call.volume_id if kind is Kind.NORMAL else f"{call.volume_id} {without_numbers(text)}"
        return Note(pod, kind, reason, presentable(f"{volume}{text}"), topic)

    def _tell(self, call: PublishCall, happening: Happening, now: float) -> tuple[Kind, str, str] | None:
        key = (call.volume_id, call.target)
        story = self._stories.get(key)
        told: tuple[Kind, str, str] | None = None
        match happening:
            case Pulling(source, size, here) if story is None or story.ended:
                self._begin(key, _Story(since=now, here=here, told_at=now))
                told = Kind.NORMAL, "Pulling", _announcement(call.reference, source, size, here)
            case Progressed(progress) if story is not None and story.tells(progress, now):
                told = Kind.NORMAL, "PullProgress", str(progress)
            case Pulled() if story is None:
                self._begin(key, _Story(since=now, here=0, told_at=now, ended=True))
                told = Kind.NORMAL, "Pulled", _arrival(call.reference, happening)
            case Pulled() if story is not None and not story.ended:
                story.ended = True
                told = Kind.NORMAL, "Pulled", _end(call.reference, happening, story, now)
            case Mounted(manifest):
                self._stories.pop(key, None)
                told = Kind.NORMAL, "Mounted", f"mounted {call.reference} read-only, manifest {manifest.algorithm}:{manifest.short}"
            case Refused(error) if (reason := reason_of(error)) is not None:
                self._stories.pop(key, None)
                told = Kind.WARNING, reason, text_of(error)
        return told

    def _begin(self, key: Hashable, story: _Story) -> None:
        self._stories[key] = story
        self._stories.move_to_end(key)
        while len(self._stories) > _REMEMBERED:
            self._stories.popitem(last=False)


def pod_of(call: PublishCall) -> Subject | None:
    """The pod that a call is for, when kubelet has said so.

    Without podInfoOnMount in the CSIDriver object a volume's author may write another pod's name into its attributes. The uid in the
    target path is kubelet's own, and nobody knows a pod's uid before the pod is made: where the two differ, nobody is told.
    """
    if not (call.namespace and call.pod and call.pod_uid and call.pod_uid == call.target_uid):
        return None
    return Subject(kind="Pod", name=call.pod, uid=call.pod_uid, namespace=call.namespace)


def _announcement(reference: str, source: str, size: int, here: int) -> str:
    rest = f", {amount(here)} of it are on this node already" if here else ""
    return f"pulling {_where(reference, source)}: {amount(size)}{rest}"


def _where(reference: str, source: str) -> str:
    """The reference, and where its bytes come from unless that can be seen in it."""
    return reference if reference.startswith(source) else f"{reference} from {source}"


def _arrival(reference: str, pulled: Pulled) -> str:
    """For a volume whose pull was not announced: there was nothing to pull."""
    size = f" ({amount(pulled.size)})" if pulled.size else ""
    return f"{reference}{size} is on this node already, nothing was pulled"


def _end(reference: str, pulled: Pulled, story: _Story, now: float) -> str:
    seconds = now - story.since
    fetched = max(pulled.size - story.here, pulled.fetched)
    if not pulled.fetched:
        # The pull ended while kubelet paused between two calls, so its true length is not known.
        return f"pulled {reference}: {amount(fetched)}, ended while kubelet paused, {duration(seconds)} after it began"
    rate = f", {amount(fetched / seconds)}/s" if seconds > 0.1 else ""
    rest = f"; {amount(story.here)} were on this node before" if story.here else ""
    return f"pulled {reference}: {amount(fetched)} in {duration(seconds)}{rate}{rest}"
