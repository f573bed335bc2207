"""The trials of one search, in Optuna's database; one process, the coordinator, asks for them and tells how they ended.

Each trial has a place, from 0 to the number requested. A trial that was lost, with its worker or its coordinator, is
replaced by another one at the same place, which has the same values and continues the same run.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.trial import FrozenTrial, Trial, TrialState

from wastelens.config.base import flatten
from wastelens.config.tune import TuneConfig
from wastelens.errors import ConfigError
from wastelens.tuning.database import database_errors, open_storage, shown_address
from wastelens.tuning.search import SamplerByTrial, as_stored, pruner_of, suggested, tried
from wastelens.tuning.space import Space, Values

WORKER, RUN_ID, ERROR, STOPPED, RESUMES = "worker", "run_id", "error", "stopped", "resumes"
_IDENTITY, _ID, _PLACE, _LOSSES, _GIVEN_BACK = "identity", "id", "place", "losses", "given_back"
_MOST_LOSSES = 3  # after which a trial is not repeated
_DEFAULTS = 0  # the place of the trial that tries them


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
        """Open or create the search.

        Raises:
            SearchStoreError: the database does not answer or cannot be used.
            ConfigError: the search of this name has another identity.
        """
        self.config = config
        self._space = space
        self._combinations = space.grid() if config.sampler == "grid" else []
        self.asked = min(config.trials, len(self._preset_values())) if self._combinations else config.trials
        self._running: set[int] = set()
        with database_errors(config):
            sampler, pruner = SamplerByTrial(config), pruner_of(config, space)
            self._storage = open_storage(config)
            self.optuna_study = _opened(search_name(config), self._storage, sampler, pruner)
            self._agree(identity_of(config, space, dataset_digest))

    def _agree(self, identity: Mapping[str, str]) -> None:
        """Store the identity of a new search; for an existing one, check that it is equal."""
        name = self.optuna_study.study_name
        if any(_PLACE not in trial.user_attrs for trial in self.optuna_study.get_trials(deepcopy=False)):
            raise ConfigError(
                f"The study '{name}' in {shown_address(self.config).removeprefix('The ')} was made "
                "by another program. Give this search another name: study=NAME."
            )
        known = self.optuna_study.user_attrs.get(_IDENTITY)
        if known is None:
            self.optuna_study.set_user_attr(_IDENTITY, {**identity, _ID: uuid.uuid4().hex})
        elif other := identity_difference(known, identity):
            raise ConfigError(
                f"The search '{name}' was started with another {other}. Give this one another name: study=NAME."
            )

    @property
    def id(self) -> str:
        """The unique id of the search, in this database and any other."""
        return str(self.optuna_study.user_attrs[_IDENTITY][_ID])

    def fail_orphans(self, has_task: Callable[[int], bool]) -> list[int]:
        """Fail the trials that an earlier coordinator left running and that no task runs; return the others' numbers.

        Args:
            has_task: returns whether the engine has the task of the trial with this number.
        """
        with database_errors(self.config):
            left = [trial.number for trial in self._in_state(TrialState.RUNNING)]
            for number in left:
                if has_task(number):
                    self._running.add(number)
                else:
                    self.optuna_study.tell(number, state=TrialState.FAIL)
        return sorted(self._running)

    def next_trial(self) -> Trial | None:
        """Ask for the trial at the first open place; return None where all are done or running."""
        with database_errors(self.config):
            by_place: dict[int, list[FrozenTrial]] = {}
            for trial in self.optuna_study.get_trials(deepcopy=False):
                by_place.setdefault(trial.user_attrs[_PLACE], []).append(trial)
            places = self._open_places(by_place)
            if not places:
                return None
            if not self._in_state(TrialState.WAITING):  # a coordinator that was killed here may have left one
                self._enqueue(places[0], by_place.get(places[0], []))
            asked = self.optuna_study.ask()
        self._running.add(asked.number)
        return asked

    def _enqueue(self, place: int, lost: Sequence[FrozenTrial]) -> None:
        """Enqueue a trial at a place, with the preset values or those of the trial that was lost there, if any."""
        attributes: dict[str, Any] = {
            _PLACE: place,
            _LOSSES: sum(_GIVEN_BACK not in trial.user_attrs for trial in lost),
        }
        preset = self._preset_values().get(place, {})
        values = {key: as_stored(self._space.parameters[key], value) for key, value in preset.items()}
        for trial in lost:  # one that was lost before it had all its values has those of the one before it
            values |= trial.params
            attributes[RESUMES] = run_of(trial)
        self.optuna_study.enqueue_trial(values, user_attrs=attributes)

    def _open_places(self, by_place: Mapping[int, Sequence[FrozenTrial]]) -> list[int]:
        """Return the first free places, as many as are missing from the number requested.

        Trials at later places, of earlier calls that asked for more, also count if they are done or running.
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

    def tell(self, number: int, state: TrialState, value: float | None = None, error: str = "") -> None:
        """Tell Optuna how a trial ended: COMPLETE with a value, PRUNED, or FAIL with an error."""
        self._end(number, state, value, {ERROR: error} if error else {})

    def give_back(self, *numbers: int) -> None:
        """Fail trials so that the next call repeats them: those of these numbers, or all that are running."""
        for number in numbers or tuple(self._running):
            self._end(number, TrialState.FAIL, None, {_GIVEN_BACK: True})

    def _end(self, number: int, state: TrialState, value: float | None, attributes: Mapping[str, Any]) -> None:
        self._running.discard(number)
        with database_errors(self.config):
            study_id = self._storage.get_study_id_from_name(self.optuna_study.study_name)
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
            for key, known in attributes.items():
                self._storage.set_trial_user_attr(trial_id, key, known)
            self.optuna_study.tell(number, value, state)

    def trial(self, number: int) -> FrozenTrial:
        """Return a trial as it is in the database now."""
        return self._all()[number]

    def suggest(self, trial: Trial) -> Values:
        """Return the values that a trial tries; the first trial tries the defaults, whatever the space contains."""
        if self.is_defaults(trial):
            known = self._space.default_values()
            return {key: suggested(trial, key, self._space.parameters[key]) for key in known}
        return self._space.walk(lambda key, parameter: suggested(trial, key, parameter))

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

    def _in_state(self, state: TrialState) -> list[FrozenTrial]:
        return self.optuna_study.get_trials(deepcopy=False, states=(state,))

    def _all(self) -> list[FrozenTrial]:
        with database_errors(self.config):
            return self.optuna_study.get_trials(deepcopy=False)


def run_of(trial: FrozenTrial | Trial) -> str:
    """Return the run of a trial, or the run that it is to continue; "" where it has none."""
    return str(trial.user_attrs.get(RUN_ID) or trial.user_attrs.get(RESUMES, ""))


def is_lost(trial: FrozenTrial) -> bool:
    """Return whether a trial ended with its worker and not by itself; after several deaths it counts as failed."""
    lost = trial.state is TrialState.FAIL and ERROR not in trial.user_attrs
    return lost and (_GIVEN_BACK in trial.user_attrs or trial.user_attrs[_LOSSES] + 1 < _MOST_LOSSES)


def _opened(name: str, storage: Any, sampler: Any, pruner: Any) -> optuna.Study:
    """Return the study of this name, which is created where there is none."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options = {"study_name": name, "storage": storage, "sampler": sampler, "pruner": pruner}
    try:
        return optuna.create_study(direction="maximize", **options)
    except DuplicatedStudyError:
        return optuna.load_study(**options)


def search_name(config: TuneConfig) -> str:
    """Return the name of the search, which is that of Optuna's study."""
    return config.study or f"{Path(config.model).stem} on {Path(config.dataset).name}"


def identity_of(config: TuneConfig, space: Space, dataset_digest: str) -> dict[str, str]:
    """Return the settings that all trials of a search share."""
    unlike = {"dataset", "data_folder", "resume", "outage_minutes"}
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
