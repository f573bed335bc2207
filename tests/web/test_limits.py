"""Waits between attempts, and pauses that servers ask for."""

from __future__ import annotations

import pytest
from tests.factories import config
from urllib3 import HTTPResponse
from urllib3.exceptions import MaxRetryError

from wastelens.web.errors import Unfetchable
from wastelens.web.limits import GIVEN_UP_AFTER, Attempts, Cancellation, HostLimits


def test_waits_grow_exponentially_to_a_limit_with_full_jitter() -> None:
    attempts = Attempts(total=9, backoff_factor=1, backoff_max=5)
    for longest in (1, 2, 4, 5, 5):
        attempts = attempts.increment(error=OSError())
        waits = [attempts.get_backoff_time() for _ in range(500)]
        assert 0 <= min(waits) < 0.1 * longest < 0.9 * longest < max(waits) <= longest


def test_attempts_in_a_row_are_limited() -> None:
    attempts = Attempts(total=9, other=1).increment(error=OSError())
    with pytest.raises(MaxRetryError):
        attempts.increment(error=OSError())


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("", 0), ("soon", 0), ("-5", 0), ("9" * 5000, 21600)])
def test_a_pause_that_makes_no_sense_is_none(header: str, seconds: float) -> None:
    assert Attempts().get_retry_after(HTTPResponse(headers={"Retry-After": header})) == seconds


def test_one_answer_counts_against_all_hangs_before() -> None:
    limits = HostLimits(config("download").web, Cancellation())
    for _ in range(2):
        for _ in range(GIVEN_UP_AFTER - 1):
            limits.record(hung=True)
        limits.check_open("example.org")
        limits.record(hung=False)
    for _ in range(GIVEN_UP_AFTER):
        limits.record(hung=True)
    with pytest.raises(Unfetchable, match="given up"):
        limits.check_open("example.org")
