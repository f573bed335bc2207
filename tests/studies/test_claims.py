"""Claims: several processes share a study, and each task is done once."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psutil
import pytest
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.errors import StoreUnreachable
from wastelens.studies import claims as claims_module
from wastelens.studies.claims import Claims, Offer, Task
from wastelens.system.processes import name_of

DIGEST = "digest"
TASKS = [Task(f"key {number}" * 3, f"base augment=true seed {number} fold 0") for number in range(6)]
HERE, ELSEWHERE = "here:1:1", "elsewhere:2:2"


@pytest.fixture
def tracker() -> MemoryTracker:
    return MemoryTracker()


@pytest.fixture
def shared(tracker: MemoryTracker) -> Iterator[MemoryRun]:
    """The run of a study, which is open."""
    with tracker.start_shared("study", "key"):
        yield tracker.runs[0]


def claims_of(tracker: MemoryTracker, shared: MemoryRun, worker: str = "", **options: Any) -> Claims:
    named = {"worker": worker} if worker else {}
    return Claims(tracker, tracker.ledger(shared.id), [DIGEST], 60.0, **named, **options)


def worked_on(
    tracker: MemoryTracker, shared: MemoryRun, task: Task, attempt: int = 1, error: type[BaseException] | None = None
) -> MemoryRun:
    """The run of an attempt, which ends as an exception says."""
    try:
        with tracker.start(task.label) as run:
            run.set_tags({"cell": task.key, "attempt": attempt, "study": shared.id, "dataset_digest": DIGEST})
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    return tracker.runs[-1]


def test_exactly_one_wins_each_task(tracker: MemoryTracker, shared: MemoryRun) -> None:
    here, elsewhere = (claims_of(tracker, shared, name) for name in (HERE, ELSEWHERE))
    # Both have looked before either claims.
    offered = [one.standing(TASKS).free for one in (here, elsewhere)]
    assert [list(free) for free in offered] == [[task.key for task in TASKS]] * 2
    assert set(offered[0].values()) == {Offer(1)}
    for number, task in enumerate(TASKS):
        first, second = (here, elsewhere) if number % 2 else (elsewhere, here)
        won = [one.claim(task, free[task.key]) for one, free in zip((first, second), offered, strict=True)]
        assert won == [True, False]
    assert len([name for name in tracker.ledger(shared.id).parameters if name.startswith("taken.")]) == len(TASKS)
    mine = {task.key for task in TASKS[1::2]}
    assert set(here.standing(TASKS).taken) == {task.key for task in TASKS} - mine


def test_many_threads_win_each_task_once(tracker: MemoryTracker, shared: MemoryRun) -> None:
    wins: list[str] = []
    together = threading.Barrier(8)

    def work(number: int) -> None:
        mine = claims_of(tracker, shared, f"worker{number}:1:1")
        together.wait()
        wins.extend(task.key for task in TASKS if mine.claim(task, Offer(1)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == sorted(task.key for task in TASKS)


def test_a_finished_run_of_any_study_is_done(tracker: MemoryTracker, shared: MemoryRun) -> None:
    task, other = TASKS[:2]
    mine = claims_of(tracker, shared, HERE)
    first = worked_on(tracker, shared, task)
    first.tags["study"] = "another study"
    worked_on(tracker, shared, task)
    elsewhere = worked_on(tracker, shared, other)
    elsewhere.tags["dataset_digest"] = "another dataset"
    standing = mine.standing([task, other])
    assert {key: stored.run.id for key, stored in standing.done.items()} == {task.key: first.id}  # the first that was
    assert list(standing.free) == [other.key]


def test_attempts_are_counted(tracker: MemoryTracker, shared: MemoryRun) -> None:
    task = TASKS[0]
    mine = claims_of(tracker, shared, HERE)
    for attempt in range(1, 5):
        offered = mine.standing([task]).free[task.key]
        assert offered.attempt == attempt
        assert mine.claim(task, offered)
        worked_on(tracker, shared, task, attempt, KeyboardInterrupt)
    taken = [value for name, value in tracker.ledger(shared.id).parameters.items() if name.startswith("taken.")]
    assert taken == [HERE] * 4


@pytest.mark.parametrize("with_a_run", [True, False])
def test_what_failed_is_left_alone_in_this_session_and_tried_again_in_the_next(
    tracker: MemoryTracker, shared: MemoryRun, with_a_run: bool
) -> None:
    task = TASKS[0]
    mine, at_the_same_time, a_little_later = (
        claims_of(tracker, shared, name) for name in (HERE, ELSEWHERE, "other:3:3")
    )
    for one in (mine, at_the_same_time):
        assert one.standing([task]).free == {task.key: Offer(1)}
    assert mine.claim(task, Offer(1))
    assert a_little_later.standing([task]).taken == [task.key]
    if with_a_run:
        failed = worked_on(tracker, shared, task, 1, ValueError).id
    else:
        failed = ""
        mine.give_up(task, Offer(1), "too few labels " * 40)
    for one in (mine, at_the_same_time, a_little_later):
        standing = one.standing([task])
        assert standing.failed == {task.key: failed}
        assert not standing.free
        assert not standing.taken
    standing = claims_of(tracker, shared, HERE).standing([task])
    assert standing.free == {task.key: Offer(2)}  # from the start: a failed run cannot be resumed
    assert not standing.failed


def test_two_that_gave_up_without_a_run_do_not_wait_for_each_other(tracker: MemoryTracker, shared: MemoryRun) -> None:
    parent = claims_of(tracker, shared, process(os.getppid()))
    mine = claims_of(tracker, shared)
    for one in (parent, mine):
        one.standing(TASKS)
    for one, task in zip((parent, mine), TASKS, strict=False):
        assert one.claim(task, Offer(1))
        one.give_up(task, Offer(1), "a reason")
    for one in (parent, mine):
        assert list(one.standing(TASKS[:2]).failed) == [task.key for task in TASKS[:2]]


@pytest.mark.parametrize("worker", [HERE, ELSEWHERE, ""])
def test_a_killed_run_is_gone_on_with_at_once(tracker: MemoryTracker, shared: MemoryRun, worker: str) -> None:
    task = TASKS[0]
    other = claims_of(tracker, shared, worker)
    assert other.claim(task, Offer(1))
    killed = worked_on(tracker, shared, task, 1, KeyboardInterrupt)
    assert claims_of(tracker, shared, HERE).standing([task]).free == {task.key: Offer(2, killed.id)}


def test_the_run_of_an_earlier_attempt_is_not_that_of_the_last(tracker: MemoryTracker, shared: MemoryRun) -> None:
    task = TASKS[0]
    mine = claims_of(tracker, shared, HERE)
    assert mine.claim(task, Offer(1))
    worked_on(tracker, shared, task, 1, KeyboardInterrupt)
    other = claims_of(tracker, shared)
    assert other.claim(task, Offer(2))
    # The other process lives, and has no run yet.
    assert mine.standing([task]).taken == [task.key]


def test_a_claim_of_ones_own_without_a_run_was_given_up(tracker: MemoryTracker, shared: MemoryRun) -> None:
    task = TASKS[0]
    mine = claims_of(tracker, shared)
    assert mine.claim(task, Offer(1))
    # Ctrl-C or an absent server before the run was opened, and the study was started again in this process.
    assert claims_of(tracker, shared).standing([task]).free == {task.key: Offer(2)}
    assert mine.standing([task]).free == {task.key: Offer(2)}


def process(pid: int) -> str:
    return name_of(pid)


def test_the_claim_of_a_process_that_runs_here_holds(tracker: MemoryTracker, shared: MemoryRun) -> None:
    task = TASKS[0]
    mine = claims_of(tracker, shared)
    parent = claims_of(tracker, shared, process(os.getppid()))
    assert parent.claim(task, Offer(1))
    assert mine.standing([task]).taken == [task.key]
    running = worked_on(tracker, shared, task)
    running.status = "RUNNING"
    assert mine.standing([task]).taken == [task.key]


@pytest.mark.parametrize("dead", ["no such process", "its pid is another's now", "zombie"])
def test_the_claim_of_a_process_that_is_gone_from_here_is_free(
    tracker: MemoryTracker, shared: MemoryRun, monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    task = TASKS[0]
    mine = claims_of(tracker, shared)
    host, pid, began = process(os.getppid()).split(":")
    if dead == "no such process":
        pid = str(max(psutil.pids()) + 100_000)
    elif dead == "zombie":
        monkeypatch.setattr(psutil.Process, "status", lambda process: psutil.STATUS_ZOMBIE)
    else:
        began = str(int(began) - 1)
    gone = claims_of(tracker, shared, f"{host}:{pid}:{began}")
    assert gone.claim(task, Offer(1))
    assert mine.standing([task]).free == {task.key: Offer(2)}
    running = worked_on(tracker, shared, task)
    running.status = "RUNNING"  # nobody was left to tell its end
    assert mine.standing([task]).free == {task.key: Offer(2, running.id)}


def test_a_process_elsewhere_lives_as_long_as_it_says_something_new(
    tracker: MemoryTracker, shared: MemoryRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TASKS[0]
    now = [1000.0]
    monkeypatch.setattr(claims_module.time, "monotonic", lambda: now[0])
    mine = claims_of(tracker, shared)
    assert claims_of(tracker, shared, ELSEWHERE).claim(task, Offer(1))

    def taken(seconds: float) -> bool:
        now[0] += seconds
        return mine.standing([task]).taken == [task.key]

    assert taken(0)  # from the first look on it has its time, even without a word
    assert taken(29)
    assert taken(30)
    tracker.ledger(shared.id).set_tags({f"worker {ELSEWHERE}": 0})
    assert taken(30)
    assert taken(29)
    assert taken(30)
    assert not taken(1.2)
    assert mine.standing([task]).free == {task.key: Offer(2)}
    tracker.ledger(shared.id).set_tags({f"worker {ELSEWHERE}": 1})
    assert taken(0)
    tracker.ledger(shared.id).set_tags({f"worker {ELSEWHERE}": "ended"})
    assert not taken(0)


def test_time_in_which_nobody_looked_is_no_silence(
    tracker: MemoryTracker, shared: MemoryRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was away for an hour, or this machine slept: the other process has its time from then on."""
    now = [1000.0]
    monkeypatch.setattr(claims_module.time, "monotonic", lambda: now[0])
    mine = claims_of(tracker, shared)
    assert claims_of(tracker, shared, ELSEWHERE).claim(TASKS[0], Offer(1))
    for _ in range(2):
        assert mine.standing(TASKS).taken == [TASKS[0].key]
        now[0] += 3600
    assert not mine.standing(TASKS).taken


def test_only_a_run_that_surely_nobody_writes_is_gone_on_with(tracker: MemoryTracker, shared: MemoryRun) -> None:
    """A process elsewhere that has been silent for too long may wake up: its run is left to it, and abandoned."""
    task = TASKS[0]
    mine = claims_of(tracker, shared)
    silent = replace(mine, timeout_s=-1.0)
    assert claims_of(tracker, shared, ELSEWHERE).claim(task, Offer(1))
    running = worked_on(tracker, shared, task)
    running.status = "RUNNING"
    assert silent.standing([task]).taken == [task.key]  # the first look
    assert silent.standing([task]).free == {task.key: Offer(2, "", (running.id,))}
    tracker.ledger(shared.id).set_tags({f"worker {ELSEWHERE}": "ended"})
    assert mine.standing([task]).free == {task.key: Offer(2, running.id)}


def test_a_checkpoint_outlives_an_attempt_that_had_no_run(tracker: MemoryTracker, shared: MemoryRun) -> None:
    task = TASKS[0]
    mine = claims_of(tracker, shared, HERE)
    assert mine.claim(task, Offer(1))
    killed = worked_on(tracker, shared, task, 1, KeyboardInterrupt)
    assert mine.standing([task]).free == {task.key: Offer(2, killed.id)}
    assert mine.claim(task, Offer(2, killed.id))  # and the process is killed before it could go on
    assert mine.standing([task]).free == {task.key: Offer(3, killed.id)}
    killed.tags["abandoned"] = "true"
    assert mine.standing([task]).free == {task.key: Offer(3)}


def test_a_cell_that_another_study_trains_is_taken(tracker: MemoryTracker, shared: MemoryRun) -> None:
    """The claims are those of a dataset, whatever the studies: a cell is a cell."""
    task = TASKS[0]
    parent = claims_of(tracker, shared, process(os.getppid()))
    assert parent.claim(task, Offer(1))
    worked_on(tracker, shared, task).status = "RUNNING"
    tracker.runs[-1].tags["study"] = "another"
    assert claims_of(tracker, shared).standing([task]).taken == [task.key]


def test_a_worker_says_that_it_lives_and_that_it_ends(
    tracker: MemoryTracker, shared: MemoryRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "_BEAT_S", 0.001)
    mine = claims_of(tracker, shared)
    tag, ledger = f"worker {mine.worker}", mine.ledger
    assert isinstance(ledger, MemoryRun)
    said = set()
    with mine.alive():
        ends = time.monotonic() + 10
        while len(said) < 3 and time.monotonic() < ends:
            said.add(ledger.tags.get(tag, ""))
        tracker.reachable = False  # an absent server is no reason to stop
        time.sleep(0.01)
        tracker.reachable = True
        before = ledger.tags[tag]
        while ledger.tags[tag] == before and time.monotonic() < ends:
            time.sleep(0.001)
        assert ledger.tags[tag] != before
    assert len(said) >= 3
    assert ledger.tags[tag] == "ended"
    # Also where the study ends by an error, and the server is away just then.
    with pytest.raises(ValueError, match="an error"), mine.alive():
        raise ValueError("an error")
    assert ledger.tags[tag] == "ended"


def test_an_absent_server_is_no_free_task(tracker: MemoryTracker, shared: MemoryRun) -> None:
    mine = claims_of(tracker, shared)
    tracker.reachable = False
    with pytest.raises(StoreUnreachable):
        mine.standing(TASKS)
    with pytest.raises(StoreUnreachable):
        mine.claim(TASKS[0], Offer(1))
    tracker.reachable = True
    assert not tracker.ledger(shared.id).parameters


def test_names_of_parameters_are_those_that_mlflow_takes(tracker: MemoryTracker, shared: MemoryRun) -> None:
    odd = Task("0123456789abcdef", "base mapping=/a/very/../long//path (1).csv, labels=10 % seed 0 fold 1")
    assert claims_of(tracker, shared, HERE).claim(odd, Offer(1))
    assert list(tracker.ledger(shared.id).parameters) == ["taken.0123456789abcdef.1"]
    worker = claims_of(tracker, shared).worker
    host, pid, began = worker.split(":")
    assert int(pid) == os.getpid()
    assert int(began) > 0
    assert re.fullmatch(r"[\w.-]+", host)
