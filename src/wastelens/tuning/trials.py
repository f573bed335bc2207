"""The trials of a study, which any number of workers share.

All trials of a study are put in line beforehand, each at its place. Putting one in line and taking one out are atomic,
so that none runs twice and there are never more than were asked for, however many workers there are. The place of a
trial whose worker died is taken by another one; Optuna's heartbeat finds those of other machines.
"""

from __future__ import annotations

import contextlib
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.exceptions import (
    DuplicatedStudyError,
    ExperimentalWarning,
    TrialPruned,
    UpdateFinishedTrialError,
)
from optuna.trial import FrozenTrial, Trial, TrialState

from wastelens.config.tune import TuneConfig
from wastelens.errors import ConfigError, WastelensError
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
from wastelens.tuning.identity import difference, identity_of, study_name
from wastelens.tuning.search import SamplerByTrial, as_stored, may_prune_at, pruner_of, suggested, tried
from wastelens.tuning.space import Space, Values

WORKER, RUN_ID, ERROR, STOPPED = "worker", "run_id", "error", "stopped"
_IDENTITY, _ID, _PLACE, _LOSSES, _GIVEN_BACK = "identity", "id", "place", "losses", "given_back"
_MOST_LOSSES = 3  # a trial that takes its worker with it so often is left alone
_READY_S = 30.0
_LOOK_S = 1.0
_TIME_ZONES = timedelta(hours=27)  # from the first to the last
_DEFAULTS = 0  # the place of the trial that is made to try them


class TrialFailed(WastelensError):  # noqa: N818  told to Optuna
    """A trial came to nothing; the study goes on."""


@dataclass(frozen=True)
class Standing:
    """How far a study is.

    Attributes:
        complete, pruned, failed: trials that ended so.
        best: the best trial so far, None before there is one.
    """

    complete: int
    pruned: int
    failed: int
    best: FrozenTrial | None

    @property
    def done(self) -> int:
        """Trials that have come to an end of their own."""
        return self.complete + self.pruned + self.failed


class TrialStore:
    """The trials of one study.

    Attributes:
        config: what is tuned, and how.
        study: Optuna's.
        asked: how many trials there will be: of a grid no more than it has.
    """

    def __init__(self, config: TuneConfig, space: Space, dataset_digest: str) -> None:
        """Open the study, or begin it, and put as many trials in line as are asked for.

        Args:
            config: what is tuned, and how.
            space: its search space.
            dataset_digest: of the photos that all its trials are of.

        Raises:
            StudyStoreError: the database does not answer, or cannot be used.
            ConfigError: the study of this name is one of something else.
        """
        self.config = config
        self._space = space
        self._combinations = space.grid() if config.sampler == "grid" else []
        self.asked = min(config.trials, len(self._made_to_try())) if self._combinations else config.trials
        with database_errors(config):
            self._storage = open_storage(config)
            self.study, began = _opened(
                study_name(config), self._storage, SamplerByTrial(config), pruner_of(config, space)
            )
            self._agree(identity_of(config, space, dataset_digest), began)
            self.fail_the_dead_of_here()
            self._put_in_line()

    def _agree(self, identity: Mapping[str, str], began: bool) -> None:
        """Write down what a study is of when it begins; later, see that it is still that."""
        if began:
            self.study.set_user_attr(_IDENTITY, {**identity, _ID: uuid.uuid4().hex})
        elif any(_PLACE not in trial.user_attrs for trial in self.study.get_trials(deepcopy=False)):
            raise ConfigError(
                f"The study '{self.study.study_name}' in {shown_address(self.config).removeprefix('The ')} is another "
                "program's. Give this one a name of its own: study=NAME."
            )
        deadline = time.monotonic() + _READY_S
        while (known := self.study.user_attrs.get(_IDENTITY)) is None and time.monotonic() < deadline:
            time.sleep(_LOOK_S)  # another process has begun it this moment
        if known is None:  # and was killed before it said so
            self.study.set_user_attr(_IDENTITY, {**identity, _ID: uuid.uuid4().hex})
        elif other := difference(known, identity):
            raise ConfigError(
                f"The study '{self.study.study_name}' was begun with another {other}. Give this one a name of its own: "
                "study=NAME."
            )

    @property
    def id(self) -> str:
        """What no other study is called, in this database or another."""
        return str(self.study.user_attrs[_IDENTITY][_ID])

    def _put_in_line(self) -> None:
        """A trial for each open place that has none, or whose trials were lost; whatever others do at the same time.

        Only these begin here: where others asked for more, the rest of the line is theirs.
        """
        made_to_try = self._made_to_try()
        by_place: dict[int, list[FrozenTrial]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            by_place.setdefault(trial.user_attrs[_PLACE], []).append(trial)
        places = self._open_places(by_place)
        for place in places:
            trials = by_place.get(place, [])
            if all(is_lost(trial) for trial in trials):
                losses = sum(_GIVEN_BACK not in trial.user_attrs for trial in trials)
                attributes = {_PLACE: place, TURN: f"{place}.{len(trials)}", _LOSSES: losses}
                self._enqueue(made_to_try.get(place, {}), attributes)
        in_line = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        self._storage.may_begin = frozenset(one._trial_id for one in in_line if one.user_attrs[_PLACE] in places)

    def _open_places(self, by_place: Mapping[int, Sequence[FrozenTrial]]) -> list[int]:
        """The first places that nobody has, as many as are missing of those asked for.

        Of trials at later places, for which others asked, some may be done or run: they count, too.
        """
        taken = {
            place
            for place, trials in by_place.items()
            if any(trial.state is not TrialState.WAITING and not is_lost(trial) for trial in trials)
        }
        missing = max(self.asked - len(taken), 0)
        return [place for place in range(self.asked) if place not in taken][:missing]

    def _made_to_try(self) -> dict[int, Values]:
        """Place → the values of trials that the sampler has no say in: the defaults come first; a grid is all such."""
        defaults = self._space.default_values()
        if not self._combinations:
            return {_DEFAULTS: defaults}
        others = [values for values in self._combinations if values != defaults]
        return dict(enumerate([defaults, *others]))

    def _enqueue(self, values: Values, attributes: Mapping[str, Any]) -> None:
        parameters = self._space.parameters
        stored = {key: as_stored(parameters[key], value) for key, value in values.items()}
        with contextlib.suppress(InLineAlready):
            self.study.enqueue_trial(stored, user_attrs=dict(attributes))

    def fail_the_dead_of_here(self) -> None:
        """See to trials whose workers on this machine have died; the heartbeat sees to others, and takes longer."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_dead(trial):
                with contextlib.suppress(ValueError, RuntimeError):  # another process was faster
                    self.study.tell(trial.number, state=TrialState.FAIL)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        if worker := trial.user_attrs.get(WORKER, ""):
            return is_of_here(worker) and not runs_here(worker)
        # Killed between taking it and saying so, which are milliseconds: there may be no heartbeat either. When it was
        # taken is written by the clock of a machine that may stand in another time zone.
        began = trial.datetime_start
        longest = timedelta(seconds=self.config.worker_timeout_s) + _TIME_ZONES
        return began is not None and datetime.now() - began > longest

    def work(self, objective: Callable[[Trial], float], until: Callable[[], bool]) -> None:
        """Do trials until as many are done as were asked for, by this process or others, or the time is up.

        Args:
            objective: does one; raises TrialPruned or TrialFailed where it comes to less.
            until: whether no further trial is to be begun.
        """
        try:
            self._work(objective, until)
        except BaseException:
            self._storage.leave()
            raise

    def _work(self, objective: Callable[[Trial], float], until: Callable[[], bool]) -> None:
        while not until() and self.standing().done < self.asked:
            with database_errors(self.config):
                self.fail_the_dead_of_here()
                self._put_in_line()
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", ExperimentalWarning)  # of the heartbeat
                        self.study.optimize(self._named(objective), n_trials=1, catch=(TrialFailed,))
                except NoTrialLeft:
                    time.sleep(_LOOK_S)  # a worker may die, and its place is free again
                except (ValueError, UpdateFinishedTrialError) as error:
                    if not _is_taken_away(error):
                        raise
                    warn("This process was silent for so long that another one does its trial again.")

    def _named(self, objective: Callable[[Trial], float]) -> Callable[[Trial], float]:
        def named(trial: Trial) -> float:
            trial.set_user_attr(WORKER, name_of_this())
            try:
                return objective(trial)
            except (TrialPruned, TrialFailed):
                raise
            except BaseException:
                with contextlib.suppress(Exception):  # what was raised is to be told
                    trial.set_user_attr(_GIVEN_BACK, True)
                raise

        return named

    def suggest(self, trial: Trial) -> Values:
        """The values that a trial tries; the first is the defaults, whatever the space holds."""
        if self.is_defaults(trial):
            known = self._space.default_values()
            return {key: suggested(trial, key, self._space.parameters[key]) for key in known}
        return self._space.walk(lambda key, parameter: suggested(trial, key, parameter))

    def should_prune(self, trial: Trial, epoch: int) -> bool:
        """Whether the pruner ends a trial after this epoch, whose value was reported."""
        return may_prune_at(epoch, self.config) and trial.should_prune()

    def values(self, trial: FrozenTrial) -> Values:
        """What a trial tried, by the parameters' keys."""
        return tried(trial, self._space.parameters)

    @staticmethod
    def is_defaults(trial: Trial | FrozenTrial) -> bool:
        """Whether it is the trial of the defaults."""
        return bool(trial.user_attrs.get(_PLACE) == _DEFAULTS)

    def standing(self) -> Standing:
        """How far the study is."""
        trials = self.trials()
        count = {state: sum(trial.state is state for trial in trials) for state in TrialState}
        complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        return Standing(
            complete=len(complete),
            pruned=count[TrialState.PRUNED],
            failed=count[TrialState.FAIL],
            best=max(complete, key=lambda trial: (trial.value, -trial.number), default=None),
        )

    def trials(self) -> list[FrozenTrial]:
        """All trials but those that were lost with their workers."""
        return [trial for trial in self._all() if not is_lost(trial)]

    def lost(self) -> list[FrozenTrial]:
        """Those that were."""
        return [trial for trial in self._all() if is_lost(trial)]

    def ended_with_workers(self) -> list[FrozenTrial]:
        """Those that were, and those that are left alone because they were so often."""
        return [trial for trial in self._all() if trial.state is TrialState.FAIL and ERROR not in trial.user_attrs]

    def _all(self) -> list[FrozenTrial]:
        with database_errors(self.config):
            return self.study.get_trials(deepcopy=False)


def _is_taken_away(error: Exception) -> bool:
    """Whether Optuna refuses the end of a trial because another process has told it already."""
    return isinstance(error, UpdateFinishedTrialError) or str(error).startswith("Cannot tell a ")


def is_lost(trial: FrozenTrial) -> bool:
    """Whether a trial ended with its worker, and not by itself; after so many deaths it is one that failed."""
    lost = trial.state is TrialState.FAIL and ERROR not in trial.user_attrs
    return lost and (_GIVEN_BACK in trial.user_attrs or trial.user_attrs[_LOSSES] + 1 < _MOST_LOSSES)


def _opened(name: str, storage: DealtStorage, sampler: Any, pruner: Any) -> tuple[optuna.Study, bool]:
    """The study of this name, and whether it was begun here."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options = {"study_name": name, "storage": storage, "sampler": sampler, "pruner": pruner}
    try:
        return optuna.create_study(direction="maximize", **options), True
    except DuplicatedStudyError:
        return optuna.load_study(**options), False
