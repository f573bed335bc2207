"""Items are made ahead in one other thread, in order, and an error in it reaches the caller."""

from __future__ import annotations

import threading

import pytest

from wastelens.system.prefetch import AHEAD, prepared_ahead


def test_an_error_in_the_thread_reaches_the_loop():
    def make(number):
        return 1 // (2 - number)

    with pytest.raises(ZeroDivisionError):
        list(prepared_ahead(make, 5))


def test_made_in_order_in_one_other_thread_and_only_a_little_ahead():
    made, threads = [], set()

    def make(number):
        made.append(number)
        threads.add(threading.get_ident())
        return number

    results = prepared_ahead(make, 20)
    assert made == []
    assert [next(results), next(results)] == [0, 1]
    results.close()  # waits for what the thread has begun
    assert made == list(range(len(made)))
    assert len(made) <= 2 + AHEAD
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert list(prepared_ahead(make, 20)) == list(range(20))
    assert list(prepared_ahead(make, 0)) == []
