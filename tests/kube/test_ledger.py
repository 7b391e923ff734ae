"""Aggregation and rate limits: values and a clock of the test."""

from __future__ import annotations

from csi_model.kube import ledger as ledger_module
from csi_model.kube.bucket import Bucket
from csi_model.kube.ledger import Ledger, Post
from csi_model.kube.notes import Kind, Note, Subject


def note(number: int = 0, *, pod: str = "web-0", reason: str = "ModelNotFound", kind: Kind = Kind.WARNING, text: str = "no tag") -> Note:
    return Note(Subject("Pod", pod, f"uid-{pod}", "shop"), kind, reason, text, topic=str(number))


def drain(ledger: Ledger) -> list[Post]:
    """Write all that waits."""
    posts = []
    while (post := ledger.next()) is not None:
        ledger.written(post)
        posts.append(post)
    return posts


def test_a_note_is_an_event() -> None:
    """Its first write makes it, under a name that begins with the pod's and is unlike any other."""
    ledger = Ledger()
    ledger.add(note(), 100)
    ledger.add(note(1), 101)
    first, second = drain(ledger)
    assert (first.note, first.count, first.first, first.last, first.exists) == (note(), 1, 100, 100, False)
    assert first.name.startswith("web-0.")
    assert first.name != second.name
    assert ledger.next() is None


def test_the_same_again_is_counted() -> None:
    """What happens again while it waits is one write; after that, an update with the newest text and time."""
    ledger = Ledger()
    for second in range(3):
        ledger.add(note(text=f"try {second}"), second)
    (made,) = drain(ledger)
    assert (made.count, made.first, made.last, made.exists) == (3, 0, 2, False)
    ledger.add(note(text="try 9"), 9)
    (updated,) = drain(ledger)
    assert (updated.name, updated.count, updated.first, updated.last, updated.exists) == (made.name, 4, 0, 9, True)
    assert updated.note.message == "try 9"


def test_after_a_long_silence_it_begins_anew() -> None:
    """The API server has forgotten the event by then."""
    ledger = Ledger()
    ledger.add(note(), 0)
    (old,) = drain(ledger)
    ledger.add(note(), 3601)
    (new,) = drain(ledger)
    assert (new.count, new.exists, new.name != old.name) == (1, False, True)


def test_a_crash_loop_takes_its_own_bucket_only() -> None:
    """One pod has 25 writes at once and one every half minute; what is held back is counted by the next; others are not touched."""
    ledger = Ledger()
    written = 0
    for _ in range(200):
        ledger.add(note(), 0)
        written += len(drain(ledger))
    assert written == 25
    ledger.add(note(pod="other"), 0)
    assert [post.note.about.name for post in drain(ledger)] == ["other"]
    ledger.add(note(), 31)
    assert [post.count for post in drain(ledger)] == [201]


def test_the_line_drops_its_oldest() -> None:
    """With the API server away no more than a thousand events wait, and those dropped are counted."""
    ledger = Ledger()
    for number in range(1100):
        ledger.add(note(pod=f"pod-{number}"), number)
    assert (len(ledger), ledger.dropped) == (1000, 100)
    assert drain(ledger)[0].note.about.name == "pod-100"


def test_a_failed_write_is_tried_again_first_and_not_for_ever() -> None:
    """It returns to the head of the line, with what happened meanwhile, and is dropped after eight tries."""
    ledger = Ledger()
    ledger.add(note(1), 0)
    ledger.add(note(2), 0)
    for attempt in range(8):
        post = ledger.next()
        assert post is not None
        assert (post.note.topic, post.count) == ("1", attempt + 1)
        ledger.add(note(1), attempt)
        ledger.failed(post)
    assert ledger.dropped == 1
    assert [post.note.topic for post in drain(ledger)] == ["2"]


def test_what_happens_while_a_write_is_under_way_is_written_after_it() -> None:
    """No count is lost between taking an event out of the line and hearing that it was written."""
    ledger = Ledger()
    ledger.add(note(), 0)
    post = ledger.next()
    assert post is not None
    ledger.add(note(), 1)
    ledger.written(post)
    (again,) = drain(ledger)
    assert (again.count, again.exists) == (2, True)


def test_an_event_that_the_api_forgot_is_made_anew() -> None:
    """With its count."""
    ledger = Ledger()
    ledger.add(note(), 0)
    drain(ledger)
    ledger.add(note(), 1)
    update = ledger.next()
    assert update is not None
    assert update.exists
    ledger.lost(update)
    (made,) = drain(ledger)
    assert (made.exists, made.count) == (False, 2)


def test_memory_is_bounded() -> None:
    """Ten thousand pods leave no more series and buckets than the limits, and none of the line without its series."""
    ledger = Ledger()
    for number in range(10_000):
        ledger.add(note(pod=f"pod-{number}"), number)
    assert len(ledger._series) <= ledger_module._MAX_SERIES
    assert len(ledger._buckets) <= ledger_module._MAX_OBJECTS
    assert set(ledger._line) <= set(ledger._series)
    assert len(drain(ledger)) == 1000


def test_a_long_pod_name_makes_a_valid_event_name() -> None:
    """At most 253 characters, and no dash or dot before the dot."""
    ledger = Ledger()
    ledger.add(note(pod="a" * 219 + "-" + "b" * 33), 0)
    (post,) = drain(ledger)
    assert post.name.startswith("a" * 219 + ".")
    assert len(post.name) <= 253


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    """Three at once, then one every ten seconds, never more than three saved up; a clock set back gives and takes nothing."""
    bucket = Bucket(burst=3, every=10)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(now) for now in (9, 10, 11, 20)] == [False, True, False, True]
    assert [bucket.take(1000) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(500)
    assert bucket.take(510)
