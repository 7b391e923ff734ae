from __future__ import annotations

import pytest

from csi_model.errors import UnavailableError
from csi_model.pull.stop import Stop


def test_wakers_are_called_once_and_only_while_registered() -> None:
    """Setting calls who waits now, not who waited before, and only the first time."""
    stop, calls = Stop(), list[str]()
    with stop.waking(lambda: calls.append("gone")):
        pass
    with stop.waking(lambda: calls.append("here")):
        stop.set()
        stop.set()
    assert calls == ["here"]
    with stop.waking(lambda: calls.append("late")):
        pass
    assert calls == ["here", "late"]


def test_a_child_stops_with_its_parent_and_alone() -> None:
    """The parent's stop reaches the child; the child's end does not reach the parent."""
    parent = Stop()
    with parent.child() as first:
        first.check()
    assert first.is_set
    assert not parent.is_set
    with parent.child() as second:
        parent.set()
        assert second.is_set
        with pytest.raises(UnavailableError):
            second.check()
