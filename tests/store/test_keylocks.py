"""Locks by key: exclusive for a key, free for others, gone when unused."""

from __future__ import annotations

import threading

import pytest

from csi_model.errors import BusyError
from csi_model.store.keylocks import KeyLocks


def test_a_key_has_one_holder_and_is_forgotten_after_it() -> None:
    """While a key is held it cannot be had again, other keys can; afterwards nothing is remembered, even after an exception."""
    locks = KeyLocks()

    def fail_while_holding() -> None:
        with locks.hold("a", patience=0):
            with locks.hold("b", patience=0):
                assert locks.held() == {"a", "b"}
            with pytest.raises(BusyError), locks.hold("a", patience=0):
                pass
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_holding()
    assert locks.held() == frozenset()


def test_many_threads_take_turns() -> None:
    """A counter that is read and written back under a lock loses no increment."""
    locks = KeyLocks()
    count = [0]

    def work() -> None:
        for _ in range(200):
            with locks.hold("a", patience=60):
                seen = count[0]
                threading.Event().wait(0)  # lets another thread run
                count[0] = seen + 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == [1000]
