"""The trials of a search in a database: none is done twice, none is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.exceptions import TrialPruned
from optuna.trial import Trial, TrialState
from tests.tuning.searches import (
    DEFAULTS,
    NO_WIDTHS,
    SPACE,
    STEPS,
    Objective,
    config_of,
    opened,
    refusal,
    work,
)

from wastelens.errors import ConfigError
from wastelens.tuning.results import importances
from wastelens.tuning.search import may_prune_at
from wastelens.tuning.trials import ERROR, RUN_ID, TrialStore, run_of, search_name


def states(store: TrialStore) -> list[str]:
    return [trial.state.name for trial in store.optuna_study.get_trials()]


def test_as_many_as_asked_for_the_defaults_first(tmp_path: Path) -> None:
    store = opened(tmp_path)
    tried = work(store)
    standing = store.progress()
    assert (len(tried), standing.complete, standing.done, states(store)) == (5, 5, 5, ["COMPLETE"] * 5)
    assert tried[0] == DEFAULTS
    assert [store.is_defaults(trial) for trial in store.trials()] == [True, False, False, False, False]
    assert [store.values(trial) for trial in store.trials()] == tried
    assert standing.best is not None
    assert standing.best.value == max(values["schedule.peak"] for values in tried)
    assert store.lost() == []
    assert (tmp_path / "tuning.db").is_file()


def test_calling_again_runs_none_and_asking_for_more_runs_those(tmp_path: Path) -> None:
    first = work(opened(tmp_path))
    assert work(opened(tmp_path)) == []
    assert work(opened(tmp_path, trials=3)) == []
    more = work(opened(tmp_path, trials=8))
    assert len(more) == 3
    # Were the random numbers the process's, the three would be those that the first call drew.
    assert not [values for values in more if values in first]


def stopped_at(*numbers: int) -> Objective:
    """Ends its process, as Ctrl-C does, in the trials of these numbers."""

    def objective(trial: Trial) -> float:
        if trial.number in numbers:
            raise KeyboardInterrupt
        return 0.5

    return objective


def test_fewer_trials_than_an_interrupted_study_was_begun_with(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        work(opened(tmp_path, trials=6), stopped_at(2))
    assert len(work(opened(tmp_path, trials=3))) == 1
    assert work(opened(tmp_path, trials=3)) == work(opened(tmp_path, trials=1)) == []
    store = opened(tmp_path, trials=3)
    assert sorted(states(store)) == ["COMPLETE"] * 3 + ["FAIL"]
    assert len(work(opened(tmp_path, trials=8))) == 5
    assert store.progress().done == store.progress().complete == 8


def places_done(store: TrialStore) -> list[int]:
    return sorted(trial.user_attrs["place"] for trial in store.trials() if trial.state is TrialState.COMPLETE)


def asked(store: TrialStore) -> Trial:
    """Ask for the next trial, which there has to be."""
    trial = store.next_trial()
    assert trial is not None
    return trial


def test_trials_done_beyond_those_asked_for_count(tmp_path: Path) -> None:
    store = opened(tmp_path, trials=6)
    at_once = [asked(store).number for _ in range(6)]
    for number in (at_once[0], at_once[4], at_once[5]):
        store.tell(number, TrialState.COMPLETE, 0.5)
    store.give_back()
    assert opened(tmp_path, trials=6).progress().done == 3
    assert work(opened(tmp_path, trials=3)) == []
    store = opened(tmp_path, trials=4)
    assert len(work(store)) == 1
    assert places_done(store) == [0, 1, 4, 5]
    assert len(work(opened(tmp_path, trials=6))) == 2
    assert places_done(store) == [0, 1, 2, 3, 4, 5]


def test_no_more_run_at_once_than_are_asked_for(tmp_path: Path) -> None:
    store = opened(tmp_path, trials=2)
    numbers = [asked(store).number, asked(store).number]
    assert store.next_trial() is None
    for number in numbers:
        store.tell(number, TrialState.PRUNED)
    assert store.next_trial() is None


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_study_gone_on_with_tries_what_one_in_one_go_does(tmp_path: Path, sampler: str) -> None:
    whole = work(opened(tmp_path / "whole", trials=12, sampler=sampler))
    parts = [work(opened(tmp_path / "parts", trials=trials, sampler=sampler)) for trials in (3, 12)]
    assert [values for part in parts for values in part] == whole
    assert work(opened(tmp_path / "other", trials=3, sampler=sampler, seed=1))[1:] != whole[1:3]


def test_conditional_parameters_under_tpe(tmp_path: Path) -> None:
    # Warnings are errors here: Optuna's of parameters that only some trials have would end this.
    tried = work(opened(tmp_path, trials=20, sampler="tpe"))
    names = {values["schedule.kind"] for values in tried}
    assert names == {"exponential", "cosine"}
    assert all(("schedule.decay_per_epoch" in one) is (one["schedule.kind"] == "exponential") for one in tried)


def test_steps_that_do_not_divide_the_range(tmp_path: Path) -> None:
    space = {
        "balance_target": {"low": 0.1, "high": 0.5, "step": 0.15},
        "fit": {"batch_size": {"low": 8, "high": 60, "step": 20}},
    }
    tried = work(opened(tmp_path, space, trials=20))
    assert {one["fit.batch_size"] for one in tried[1:]} == {8, 28, 48}
    assert {round(one["balance_target"], 9) for one in tried[1:]} == {0.1, 0.25, 0.4}


def test_lists_and_mappings_come_back_as_they_were(tmp_path: Path) -> None:
    noises = [{"name": "masking", "strength": 0.3}, {"name": "gaussian", "strength": 0.1}]
    space = {"network": {"learner": {"noise": {"values": noises}, "widths": {"values": [[4, 8], [8, 8, 8]]}}}}
    store = opened(tmp_path, space, model="autoencoder", trials=12)
    tried = work(store)
    assert tried[0] == {}  # no default lies in this space
    assert all(one["network.learner.noise"] in noises for one in tried[1:])
    assert {tuple(one["network.learner.widths"]) for one in tried[1:]} == {(4, 8), (8, 8, 8)}
    assert [store.values(trial) for trial in store.trials()] == tried


def test_a_trial_that_fails_counts_and_the_next_goes_on(tmp_path: Path) -> None:
    store = opened(tmp_path)
    work(opened(tmp_path, trials=1))
    store.tell(asked(store).number, TrialState.FAIL, error="no memory")

    def objective(trial: Trial) -> float:
        if trial.number == 2:
            raise TrialPruned
        return 0.5

    assert len(work(store, objective)) == 3
    standing = store.progress()
    assert (standing.complete, standing.pruned, standing.failed, standing.done) == (3, 1, 1, 5)
    assert store.trial(1).user_attrs[ERROR] == "no memory"
    assert store.lost() == []
    assert work(opened(tmp_path)) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_trial_is_done_again(tmp_path: Path, error: type[BaseException]) -> None:
    """However often, for it is no fault of the trial's; and the defaults again as the defaults."""

    def objective(trial: Trial) -> float:
        raise error

    for _ in range(4):
        with pytest.raises(error):
            work(opened(tmp_path, trials=1), objective)
    store = opened(tmp_path, trials=3)
    assert [trial.number for trial in store.lost()] == [0, 1, 2, 3]
    tried = work(store)
    assert len(tried) == 3
    assert tried[0] == DEFAULTS
    assert [trial.number for trial in store.trials() if store.is_defaults(trial)] == [4]
    assert store.progress().done == store.progress().complete == 3


def test_the_best_of_equals_is_the_first(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert store.progress().best is None
    work(store, lambda _: 0.5)
    best = store.progress().best
    assert best is not None
    assert best.number == 0


def test_importances(tmp_path: Path) -> None:
    store = opened(tmp_path, trials=3)
    work(store)
    assert importances(store) == {}
    store = opened(tmp_path, trials=15)
    work(store)
    found = importances(store)
    assert next(iter(found)) == "schedule.peak"  # which is the value
    assert list(found.values()) == sorted(found.values(), reverse=True)


# Grids


def test_a_grid_has_every_combination_once_the_defaults_first(tmp_path: Path) -> None:
    space = {
        "schedule": {"kind": {"values": ["cosine", "exponential"]}},
        "network": {"dropout": {"low": 0.0, "high": 0.3, "step": 0.1}},
        "balanced": {"values": [True, False]},
        "balance_target": {"values": [0.5, 0.7], "when": {"balanced": True}},
    }
    store = opened(tmp_path, space, sampler="grid", trials=100)
    tried = work(store)
    # The default of balance_target is none of its values, so that the defaults are one more than the grid.
    assert tried[0] == {"schedule.kind": "exponential", "network.dropout": 0.2, "balanced": True}
    texts = [json.dumps(one, sort_keys=True) for one in tried]
    assert store.asked == len(texts) == len(set(texts)) == 1 + 2 * 4 * (2 + 1)
    assert {one["network.dropout"] for one in tried} == {0.0, 0.1, 0.2, 0.3}
    assert work(opened(tmp_path, space, sampler="grid", trials=100)) == []


def test_a_grid_that_holds_the_defaults_has_no_trial_twice(tmp_path: Path) -> None:
    space = {
        "network": {"dropout": {"low": 0.1, "high": 0.3, "step": 0.1}},
        "fit": {"batch_size": {"values": [16.0, 32.0]}},
    }
    store = opened(tmp_path, space, sampler="grid", trials=4)
    tried = work(store)
    assert len(tried) == 4
    tried += work(opened(tmp_path, space, sampler="grid", trials=50))
    assert tried[0] == {"network.dropout": 0.2, "fit.batch_size": 32}
    assert {(one["network.dropout"], one["fit.batch_size"]) for one in tried} == {
        (dropout, size) for dropout in (0.1, 0.2, 0.3) for size in (16, 32)
    }
    assert len(tried) == 6


def test_a_lost_trial_of_a_grid_keeps_its_combination_though_fewer_were_asked_for_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        work(opened(tmp_path, STEPS, sampler="grid", trials=6), stopped_at(5))
    assert work(opened(tmp_path, STEPS, sampler="grid", trials=2)) == []
    store = opened(tmp_path, STEPS, sampler="grid", trials=6)
    work(store)
    assert [store.values(trial)["fit.batch_size"] for trial in store.trials()[1:]] == [8, 9, 10, 11, 12]


# Deaths


def begun(folder: Path, *, run: str = "", **changes: Any) -> tuple[int, dict[str, Any]]:
    """Begin the next trial as a coordinator that is killed in it; return its number and its values."""
    store = opened(folder, **changes)
    assert store.fail_orphans(lambda number: False) == []
    trial = asked(store)
    if run:
        trial.set_user_attr(RUN_ID, run)
    return trial.number, store.suggest(trial)


def after_death(folder: Path, **changes: Any) -> TrialStore:
    store = opened(folder, **changes)
    assert store.fail_orphans(lambda number: False) == []
    return store


@pytest.mark.parametrize("sampler", ["random", "tpe", "grid"])
@pytest.mark.parametrize("done", [0, 2])
def test_a_lost_trial_is_repeated_with_its_values_and_continues_its_run(
    tmp_path: Path, sampler: str, done: int
) -> None:
    changes: dict[str, Any] = {"sampler": sampler, "space": STEPS, "study": "lost"}
    if done:
        work(opened(tmp_path, trials=done, **changes))
    number, values = begun(tmp_path, run="run-7", **changes)
    assert opened(tmp_path, **changes).trial(number).state is TrialState.RUNNING
    store = after_death(tmp_path, **changes)
    assert [trial.number for trial in store.lost()] == [number]
    again = asked(store)
    assert (store.suggest(again), run_of(again), store.is_defaults(again)) == (values, "run-7", done == 0)
    store.tell(again.number, TrialState.COMPLETE, 0.5)
    assert not any(run_of(asked(store)) for _ in range(4 - done))
    assert store.next_trial() is None


def test_a_trial_that_is_lost_before_it_has_its_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults stay the defaults, and a repeated trial has the values of the first."""
    asked(opened(tmp_path))
    store = after_death(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(store.optuna_study, "ask", lambda: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            store.next_trial()
    assert work(after_death(tmp_path, trials=1)) == [DEFAULTS]
    _, values = begun(tmp_path)
    asked(after_death(tmp_path))
    assert work(after_death(tmp_path))[0] == values
    assert store.progress().complete == 5


def test_a_trial_that_is_lost_three_times_counts_as_failed(tmp_path: Path) -> None:
    for losses in (1, 2, 3):
        begun(tmp_path, trials=2)
        assert len(after_death(tmp_path, trials=2).lost()) == min(losses, 2)
    store = opened(tmp_path, trials=2)
    assert (store.progress().failed, store.progress().done) == (1, 1)
    assert [trial.number for trial in store.ended_with_workers()] == [0, 1, 2]
    assert len(work(store)) == 1
    assert store.progress().done == 2
    assert work(opened(tmp_path, trials=2)) == []


def test_a_trial_that_is_given_back_is_not_a_death(tmp_path: Path) -> None:
    for _ in range(2):
        begun(tmp_path, trials=1)
        store = after_death(tmp_path, trials=1)
        asked(store)
        store.give_back()
    assert len(work(opened(tmp_path, trials=1))) == 1
    assert opened(tmp_path).progress().failed == 0


def test_trials_whose_tasks_still_run_are_left_to_them(tmp_path: Path) -> None:
    running, lost = begun(tmp_path)[0], asked(opened(tmp_path)).number
    store = opened(tmp_path, trials=2)
    assert store.fail_orphans(lambda number: number == running) == [running]
    assert states(store) == ["RUNNING", "FAIL"]
    repeated = asked(store)
    assert (repeated.number, store.next_trial()) == (2, None)
    store.tell(running, TrialState.FAIL, error="no memory")
    assert store.trial(running).user_attrs[ERROR] == "no memory"
    assert [trial.number for trial in store.lost()] == [lost]
    assert store.progress().failed == 1


@pytest.mark.parametrize("numbers", [(), (0,)])
def test_trials_whose_tasks_still_run_can_be_given_back(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    begun(tmp_path, trials=1)
    store = opened(tmp_path, trials=1)
    assert store.fail_orphans(lambda number: True) == [0]
    store.give_back(*numbers)
    assert states(store) == ["FAIL"]
    assert work(store) == [DEFAULTS]


# What a study is of


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "vgg16", "space": NO_WIDTHS, "train": {"weights": "none"}}, "another model (base; now vgg16)"),
        ({"digest": "other"}, "another dataset (digest; now other)"),
        ({"digest": "1234567"}, "another dataset (digest; now 1234567)"),
        (
            {"space": {**SPACE, "cache_features": {"values": [True, False]}}},
            "another space (cache_features.values missing; now [True, False])",
        ),
        (
            {"space": {**SPACE, "network": {"widths": {"values": [[8, 8], [24, 48, 64, 96, 128], [9] * 99]}}}},
            "(network.widths.values [[8, 8], [24, 48, 64, 96, 128]]; now [[8, 8], [24, 48, 64, 96, 128], [9, 9, 9, ",
        ),
        ({"train": {"fit": {"epochs": 7}}}, "another train (fit.epochs 40; now 7)"),
        ({"space": STEPS, "sampler": "grid"}, "another sampler (tpe or random; now grid)"),
    ],
)
def test_another_search_of_the_same_name(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    opened(tmp_path, study="mine")
    message = refusal(ConfigError, lambda: opened(tmp_path, study="mine", **changes))
    assert message.startswith("The search 'mine' was started with ")
    assert words in message
    assert message.endswith(" Give this one another name: study=NAME.")
    opened(tmp_path, study="another", **changes)


def test_what_may_differ_from_call_to_call(tmp_path: Path) -> None:
    opened(tmp_path)
    storage = f"sqlite:///{tmp_path / 'tuning.db'}"
    changes: dict[str, Any] = {"pruner": "none", "seed": 4, "sampler": "tpe", "trials": 6, "workers": 2, "retries": 0}
    changes |= {"outage_minutes": 3, "timeout": "1h", "train": {"outage_minutes": 3}}
    assert len(work(opened(tmp_path / "elsewhere", storage=storage, **changes))) == 6
    assert work(opened(tmp_path, trials=6)) == []


def test_names_of_searches() -> None:
    assert search_name(config_of(study="mine")) == "mine"
    assert search_name(config_of(dataset="data/taco", model="of/mine.yaml")) == "mine on taco"


def test_studies_of_one_name_in_two_databases_are_two(tmp_path: Path) -> None:
    here, there = (f"sqlite:///{tmp_path}/{name}.db" for name in ("here", "there"))
    assert opened(tmp_path, storage=here).id == opened(tmp_path, storage=here).id != opened(tmp_path, storage=there).id


def test_another_programs_study_is_left_alone(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/theirs.db"
    theirs = optuna.create_study(study_name="mine", storage=address)
    theirs.tell(theirs.ask(), 1.0)
    message = refusal(ConfigError, lambda: opened(tmp_path, storage=address, study="mine"))
    assert "was made by another program" in message
    assert not theirs.user_attrs


@pytest.mark.parametrize(
    ("pruner", "first", "epochs"), [("hyperband", 1, 9), ("hyperband", 2, 11), ("median", 2, 4), ("none", 1, 3)]
)
def test_the_pruner_is_asked_wherever_it_could_end_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruner: str, first: int, epochs: int
) -> None:
    """Asked at every epoch, it ends the same trials at the same epochs."""

    def ended(ask: Callable[[TrialStore, Trial, int], bool], name: str) -> dict[int, int]:
        train = {"fit": {"epochs": epochs}}
        store = opened(
            tmp_path / name, pruner=pruner, pruner_first_epoch=first, trials=10, train=train, study="the same"
        )
        at: dict[int, int] = {}

        def one(trial: Trial) -> float:
            rng = np.random.default_rng(trial.number)
            for epoch in range(1, epochs + 1):
                trial.report(float(rng.random()), epoch)
                if epoch < epochs and ask(store, trial, epoch):
                    at[trial.number] = epoch
                    raise TrialPruned
            return 0.5

        work(store, one)
        return at

    always = ended(lambda store, trial, epoch: trial.should_prune(), "always")

    def sparing(store: TrialStore, trial: Trial, epoch: int) -> bool:
        return may_prune_at(epoch, store.config) and trial.should_prune()

    assert ended(sparing, "sparing") == always
    assert bool(always) == (pruner != "none")
