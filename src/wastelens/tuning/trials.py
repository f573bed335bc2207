"""The trials of a search, which any number of workers share.

All trials of a search are enqueued beforehand, each at its place. Enqueuing and taking a trial are atomic, so that
none runs twice and there are never more than requested, however many workers there are. A trial whose worker died is
replaced by another one at the same place; Optuna's heartbeat finds dead workers on other machines.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, TrialPruned, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from wastelens.config.base import flatten
from wastelens.config.tune import TuneConfig
from wastelens.errors import ConfigError, WastelensError
from wastelens.system import borrowed
from wastelens.system.console import warn
from wastelens.system.processes import is_of_here, name_of_this, runs_here
from wastelens.tuning.database import (
    TURN,
    DealtStorage,
    InLineAlready,
    NoTrialLeft,
    database_errors,
    open_storage,
    shown_address,
)
from wastelens.tuning.search import SamplerByTrial, as_stored, may_prune_at, pruner_of, suggested, tried
from wastelens.tuning.space import Space, Values

WORKER, RUN_ID, ERROR, STOPPED = "worker", "run_id", "error", "stopped"
_IDENTITY, _ID, _PLACE, _LOSSES, _GIVEN_BACK = "identity", "id", "place", "losses", "given_back"
_MOST_LOSSES = 3  # deaths of workers after which a trial is not repeated
_READY_S = 30.0
_LOOK_S = 1.0
_TIME_ZONES = timedelta(hours=27)  # from the first to the last
_DEFAULTS = 0  # the place of the trial that tries them


class TrialFailed(WastelensError):  # noqa: N818  told to Optuna
    """A trial failed; the search goes on."""


@dataclass(frozen=True)
class SearchProgress:
    """The progress of a search: numbers of trials by outcome, and the best so far; None before there is one."""

    complete: int
    pruned: int
    failed: int
    best: FrozenTrial | None

    @property
    def done(self) -> int:
        """The number of trials that ended by themselves."""
        return self.complete + self.pruned + self.failed


class TrialStore:
    """The trials of one search.

    Attributes:
        config: of the search.
        optuna_study: Optuna's study that holds them.
        asked: how many trials there will be; for a grid, at most its combinations.
    """

    def __init__(self, config: TuneConfig, space: Space, dataset_digest: str) -> None:
        """Open or create the search, and enqueue the requested trials.

        Raises:
            SearchStoreError: the database does not answer or cannot be used.
            ConfigError: the search of this name has another identity.
        """
        self.config = config
        self._space = space
        self._combinations = space.grid() if config.sampler == "grid" else []
        self.asked = min(config.trials, len(self._preset_values())) if self._combinations else config.trials
        with database_errors(config):
            self._storage = open_storage(config)
            self.optuna_study, began = _opened(
                search_name(config), self._storage, SamplerByTrial(config), pruner_of(config, space)
            )
            self._agree(identity_of(config, space, dataset_digest), began)
            self.fail_dead_local_trials()
            self._enqueue_open_places()

    def _agree(self, identity: Mapping[str, str], began: bool) -> None:
        """Store the identity of a new search; for an existing one, check that it is equal."""
        name = self.optuna_study.study_name
        if began:
            self.optuna_study.set_user_attr(_IDENTITY, {**identity, _ID: uuid.uuid4().hex})
        elif any(_PLACE not in trial.user_attrs for trial in self.optuna_study.get_trials(deepcopy=False)):
            raise ConfigError(
                f"The study '{name}' in {shown_address(self.config).removeprefix('The ')} was made "
                "by another program. Give this search another name: study=NAME."
            )
        deadline = time.monotonic() + _READY_S
        while (known := self.optuna_study.user_attrs.get(_IDENTITY)) is None and time.monotonic() < deadline:
            time.sleep(_LOOK_S)  # another process is just creating it
        if known is None:  # that process was killed before it stored the identity
            self.optuna_study.set_user_attr(_IDENTITY, {**identity, _ID: uuid.uuid4().hex})
        elif other := identity_difference(known, identity):
            raise ConfigError(
                f"The search '{name}' was started with another {other}. Give this one another name: study=NAME."
            )

    @property
    def id(self) -> str:
        """The unique id of the search, in this database and any other."""
        return str(self.optuna_study.user_attrs[_IDENTITY][_ID])

    def _enqueue_open_places(self) -> None:
        """Enqueue a trial for each open place that has none, or only lost ones; safe while other processes do the same.

        This process starts only these: if others asked for more trials, the rest of the queue is theirs.
        """
        preset = self._preset_values()
        by_place: dict[int, list[FrozenTrial]] = {}
        for trial in self.optuna_study.get_trials(deepcopy=False):
            by_place.setdefault(trial.user_attrs[_PLACE], []).append(trial)
        places = self._open_places(by_place)
        for place in places:
            trials = by_place.get(place, [])
            if all(is_lost(trial) for trial in trials):
                losses = sum(_GIVEN_BACK not in trial.user_attrs for trial in trials)
                attributes = {_PLACE: place, TURN: f"{place}.{len(trials)}", _LOSSES: losses}
                values = preset.get(place, {})
                stored = {key: as_stored(self._space.parameters[key], value) for key, value in values.items()}
                with contextlib.suppress(InLineAlready):
                    self.optuna_study.enqueue_trial(stored, user_attrs=attributes)
        in_line = self.optuna_study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        ours = [one for one in in_line if one.user_attrs[_PLACE] in places]
        self._storage.may_begin = frozenset(borrowed.trial_id(one) for one in ours)

    def _open_places(self, by_place: Mapping[int, Sequence[FrozenTrial]]) -> list[int]:
        """Return the first free places, as many as are missing from the number requested.

        Trials at later places, requested by others, also count if they are done or running.
        """
        taken = {
            place
            for place, trials in by_place.items()
            if any(trial.state is not TrialState.WAITING and not is_lost(trial) for trial in trials)
        }
        missing = max(self.asked - len(taken), 0)
        return [place for place in range(self.asked) if place not in taken][:missing]

    def _preset_values(self) -> dict[int, Values]:
        """Return place → values of the trials with preset values: the defaults first; with a grid, all trials."""
        defaults = self._space.default_values()
        if not self._combinations:
            return {_DEFAULTS: defaults}
        others = [values for values in self._combinations if values != defaults]
        return dict(enumerate([defaults, *others]))

    def fail_dead_local_trials(self) -> None:
        """Fail the trials whose workers on this machine died; the heartbeat does so for other machines, later."""
        for trial in self.optuna_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_dead(trial):
                with contextlib.suppress(ValueError, RuntimeError):  # another process was faster
                    self.optuna_study.tell(trial.number, state=TrialState.FAIL)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        if worker := trial.user_attrs.get(WORKER, ""):
            return is_of_here(worker) and not runs_here(worker)
        # The worker was killed in the milliseconds between taking the trial and storing its name; there may be no
        # heartbeat either. The start time is from the clock of a machine that may be in another time zone.
        began = trial.datetime_start
        longest = timedelta(seconds=self.config.worker_timeout_s) + _TIME_ZONES
        return began is not None and datetime.now() - began > longest

    def work(self, objective: Callable[[Trial], float], until: Callable[[], bool]) -> None:
        """Run trials until the requested number is done, by this process or others, or the time is up.

        Args:
            objective: runs one; raises TrialPruned or TrialFailed if it does not complete.
            until: returns whether to start no further trial.
        """
        try:
            while not until() and self.progress().done < self.asked:
                with database_errors(self.config):
                    self._work_once(objective)
        except BaseException:
            self._storage.leave()
            raise

    def _work_once(self, objective: Callable[[Trial], float]) -> None:
        self.fail_dead_local_trials()
        self._enqueue_open_places()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # about the heartbeat
                self.optuna_study.optimize(self._named(objective), n_trials=1, catch=(TrialFailed,))
        except NoTrialLeft:
            time.sleep(_LOOK_S)  # a worker may die, which frees its place
        except (ValueError, UpdateFinishedTrialError) as error:
            # Optuna refuses the result of a trial because another process has stored one already.
            if not (isinstance(error, UpdateFinishedTrialError) or str(error).startswith("Cannot tell a ")):
                raise
            warn("This process did not respond for so long that another one repeats its trial.")

    def _named(self, objective: Callable[[Trial], float]) -> Callable[[Trial], float]:
        def named(trial: Trial) -> float:
            trial.set_user_attr(WORKER, name_of_this())
            try:
                return objective(trial)
            except (TrialPruned, TrialFailed):
                raise
            except BaseException:
                with contextlib.suppress(Exception):  # the original exception matters more
                    trial.set_user_attr(_GIVEN_BACK, True)
                raise

        return named

    def suggest(self, trial: Trial) -> Values:
        """Return the values that a trial tries; the first trial tries the defaults, whatever the space contains."""
        if self.is_defaults(trial):
            known = self._space.default_values()
            return {key: suggested(trial, key, self._space.parameters[key]) for key in known}
        return self._space.walk(lambda key, parameter: suggested(trial, key, parameter))

    def should_prune(self, trial: Trial, epoch: int) -> bool:
        """Return whether the pruner ends a trial after this epoch, whose value was reported."""
        return may_prune_at(epoch, self.config) and trial.should_prune()

    def values(self, trial: FrozenTrial) -> Values:
        """Return the values that a trial tried, by parameter key."""
        return tried(trial, self._space.parameters)

    @staticmethod
    def is_defaults(trial: Trial | FrozenTrial) -> bool:
        """Return whether a trial is that of the defaults."""
        return bool(trial.user_attrs.get(_PLACE) == _DEFAULTS)

    def progress(self) -> SearchProgress:
        """Return the progress of the search."""
        by_state: dict[TrialState, list[FrozenTrial]] = {state: [] for state in TrialState}
        for trial in self.trials():
            by_state[trial.state].append(trial)
        complete = by_state[TrialState.COMPLETE]
        best = max(complete, key=lambda trial: (trial.value, -trial.number), default=None)
        return SearchProgress(len(complete), len(by_state[TrialState.PRUNED]), len(by_state[TrialState.FAIL]), best)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials except those that were lost with their workers."""
        return [trial for trial in self._all() if not is_lost(trial)]

    def lost(self) -> list[FrozenTrial]:
        """Return the trials that were lost with their workers."""
        return [trial for trial in self._all() if is_lost(trial)]

    def ended_with_workers(self) -> list[FrozenTrial]:
        """Return the lost trials, and those that were lost too often to repeat."""
        return [trial for trial in self._all() if trial.state is TrialState.FAIL and ERROR not in trial.user_attrs]

    def _all(self) -> list[FrozenTrial]:
        with database_errors(self.config):
            return self.optuna_study.get_trials(deepcopy=False)


def is_lost(trial: FrozenTrial) -> bool:
    """Return whether a trial ended with its worker and not by itself; after several deaths it counts as failed."""
    lost = trial.state is TrialState.FAIL and ERROR not in trial.user_attrs
    return lost and (_GIVEN_BACK in trial.user_attrs or trial.user_attrs[_LOSSES] + 1 < _MOST_LOSSES)


def _opened(name: str, storage: DealtStorage, sampler: Any, pruner: Any) -> tuple[optuna.Study, bool]:
    """Return the study of this name, and whether it was created here."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options = {"study_name": name, "storage": storage, "sampler": sampler, "pruner": pruner}
    try:
        return optuna.create_study(direction="maximize", **options), True
    except DuplicatedStudyError:
        return optuna.load_study(**options), False


def search_name(config: TuneConfig) -> str:
    """Return the name of the search, which is that of Optuna's study."""
    return config.study or f"{Path(config.model).stem} on {Path(config.dataset).name}"


def identity_of(config: TuneConfig, space: Space, dataset_digest: str) -> dict[str, str]:
    """Return the settings that all trials of a search share."""
    unlike = {"dataset", "data_folder", "resume"}
    return {
        "model": Path(config.model).stem,
        "dataset": dataset_digest,
        "sampler": "grid" if config.sampler == "grid" else "tpe or random",  # a grid fixes the values of each place
        "space": json.dumps({key: one.model_dump() for key, one in sorted(space.parameters.items())}, sort_keys=True),
        "train": space.defaults.model_dump_json(exclude=unlike),
    }


def identity_difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Describe the first difference between two identities; "" where they are equal."""
    for key, value in now.items():
        if before.get(key) != value:
            return f"{key} ({_of_parts(before.get(key, ''), value)})"
    return ""


def _of_parts(before: str, now: str) -> str:
    """Describe how two values differ: by the first differing key where they are trees."""
    with contextlib.suppress(ValueError, AttributeError):  # a digest is not a tree
        one, other = (flatten(json.loads(text)) for text in (before, now))
        for key in {**one, **other}:
            if one.get(key) != other.get(key):
                return f"{key} {_short(one.get(key, 'missing'))}; now {_short(other.get(key, 'missing'))}"
    return f"{_short(before)}; now {_short(now)}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
