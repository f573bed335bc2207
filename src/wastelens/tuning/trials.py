"""Where trials are kept and dealt out: Optuna's storage, which any number of workers share.

All trials of a study are put in line beforehand. Taking one out of the line is atomic in Optuna's storage, so that none
runs twice and there are never more than were asked for, however many workers there are. A trial whose worker died is
put in line again; Optuna's heartbeat finds those of other machines.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState

from wastelens.errors import ConfigError, StudyStoreError, WastelensError
from wastelens.processes import is_of_here, name_of_this, runs_here
from wastelens.tune_config import ChoiceConfig, ParameterConfig, TuneConfig
from wastelens.tuning.space import Space, Values

WORKER, RUN_ID, ERROR, STOPPED = "worker", "run_id", "error", "stopped"
_IDENTITY, _READY, _FIXED, _LOSSES = "identity", "ready", "fixed", "losses"
_MOST_LOSSES = 3  # a trial that takes its worker with it so often is left alone
_HEARTBEAT_S = 10
_ANSWER_S = 10.0
_READY_S = 30.0
_LOOK_S = 1.0
_TABLE_ATTEMPTS = 3
_FEWEST_FOR_IMPORTANCES = 4
_DEFAULTS = 0  # the number of the trial that is made to try them
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433, "oracle": 1521}


class NoTrialLeft(WastelensError):  # noqa: N818  a state, no error
    """All trials that were asked for are done, or with some worker."""


class TrialFailed(WastelensError):  # noqa: N818  told to Optuna
    """A trial came to nothing; the study goes on."""


@dataclass(frozen=True)
class Standing:
    """How far a study is.

    Attributes:
        complete, pruned, failed: trials that ended so.
        running, waiting: trials that some worker has, and that none has yet.
        best: the best trial so far, None before there is one.
    """

    complete: int
    pruned: int
    failed: int
    running: int
    waiting: int
    best: FrozenTrial | None

    @property
    def done(self) -> int:
        """Trials that have come to an end of their own."""
        return self.complete + self.pruned + self.failed


class _DealtStorage(optuna.storages.RDBStorage):
    """Optuna's storage in a database, where no trial is made by asking for one: all were put in line before."""

    # Optuna's cache, which stands in front of it, calls this one and not the public create_new_trial.
    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        if template_trial is None:
            raise NoTrialLeft
        return super()._create_new_trial(study_id, template_trial)


class TrialStore:
    """The trials of one study.

    Attributes:
        study: Optuna's.
        asked: how many trials there will be: of a grid no more than it has.
    """

    def __init__(self, config: TuneConfig, space: Space, dataset_digest: str, worker: int = 0) -> None:
        """Open the study, or begin it, and put as many trials in line as are asked for.

        Args:
            config: what is tuned, and how.
            space: its search space.
            dataset_digest: of the photos that all its trials are of.
            worker: number of this process among those that share the seed.

        Raises:
            StudyStoreError: the database does not answer, or cannot be used.
            ConfigError: the study of this name is one of something else.
        """
        self._config = config
        self._space = space
        self._combinations = space.grid() if config.sampler == "grid" else []
        self.asked = min(config.trials, len(self._made_to_try())) if self._combinations else config.trials
        with store_errors(config):
            storage = _storage(config, self._replace)
            self.study, began = _opened(study_name(config), storage, _sampler(config, worker), _pruner(config, space))
            self._agree(_identity(config, space, dataset_digest), began)
            self.fail_the_dead_of_here()
            self._put_in_line()

    def _agree(self, identity: Mapping[str, str], began: bool) -> None:
        """Write down what a study is of when it begins; later, see that it is still that."""
        if began:
            self.study.set_user_attr(_IDENTITY, dict(identity))
        deadline = time.monotonic() + _READY_S
        while (known := self.study.user_attrs.get(_IDENTITY)) is None and time.monotonic() < deadline:
            time.sleep(_LOOK_S)  # another process has begun it this moment
        if known is None:  # and was killed before it said so
            self.study.set_user_attr(_IDENTITY, dict(identity))
        elif other := [key for key, value in identity.items() if known.get(key) != value]:
            raise ConfigError(
                f"The study '{self.study.study_name}' was begun with another {other[0]} "
                f"({_short(known.get(other[0], ''))}; now {_short(identity[other[0]])}). Give this one a name of its "
                "own: study=NAME."
            )

    def _put_in_line(self) -> None:
        """As many trials as are asked for, less those that are done, running, or in line."""
        alive = self.trials()
        known = {trial.user_attrs.get(_FIXED) for trial in alive}
        fixed = {number: values for number, values in self._made_to_try().items() if number not in known}
        for number, values in fixed.items():
            self._enqueue(values, {_FIXED: number})
        for _ in range(len(alive) + len(fixed), self.asked):
            self._enqueue({}, {})

    def _made_to_try(self) -> dict[int, Values]:
        """Number → the values of trials that the sampler has no say in: the defaults come first; a grid is all such."""
        defaults = self._space.default_values()
        if not self._combinations:
            return {_DEFAULTS: defaults}
        others = [values for values in self._combinations if values != defaults]
        return dict(enumerate([defaults, *others][: self._config.trials]))

    def _enqueue(self, values: Values, attributes: Mapping[str, Any]) -> None:
        parameters = self._space.parameters
        plain = {key: _plain(parameters[key], value) for key, value in values.items()}
        self.study.enqueue_trial(plain, user_attrs=dict(attributes))

    def _replace(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Put a lost trial in line again: what it was made to try, or whatever the sampler says."""
        losses = trial.user_attrs.get(_LOSSES, 0) + 1
        if losses < _MOST_LOSSES:
            attributes = {_FIXED: trial.user_attrs[_FIXED]} if _FIXED in trial.user_attrs else {}
            fixed = trial.system_attrs.get("fixed_params", {})
            study.enqueue_trial(fixed, user_attrs={**attributes, _LOSSES: losses})

    def fail_the_dead_of_here(self) -> None:
        """See to trials whose workers on this machine have died; the heartbeat sees to others, and takes longer."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get(WORKER, "")
            if worker and is_of_here(worker) and not runs_here(worker):
                with contextlib.suppress(ValueError, RuntimeError):  # another process was faster
                    self.study.tell(trial.number, state=TrialState.FAIL)
                    self._replace(self.study, trial)

    def work(self, objective: Callable[[Trial], float], until: Callable[[], bool]) -> None:
        """Do trials until all are done, by this process or others, or the time is up.

        Args:
            objective: does one; raises TrialPruned or TrialFailed where it comes to less.
            until: whether no further trial is to be begun.
        """
        while not until():
            with store_errors(self._config):
                self.fail_the_dead_of_here()
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", ExperimentalWarning)  # of the heartbeat
                        self.study.optimize(self._named(objective), n_trials=1, catch=(TrialFailed,))
                except NoTrialLeft:
                    time.sleep(_LOOK_S)  # a worker may die, and its trial is in line again
                standing = self.standing()
                if not standing.waiting and not standing.running:
                    return

    def _named(self, objective: Callable[[Trial], float]) -> Callable[[Trial], float]:
        def named(trial: Trial) -> float:
            trial.set_user_attr(WORKER, name_of_this())
            return objective(trial)

        return named

    def suggest(self, trial: Trial) -> Values:
        """The values that a trial tries; the first is the defaults, whatever the space holds."""
        if self.is_defaults(trial):
            known = self._space.default_values()
            return {key: self._suggest(trial, key, self._space.parameters[key]) for key in known}
        return self._space.walk(lambda key, parameter: self._suggest(trial, key, parameter))

    def values(self, trial: FrozenTrial) -> Values:
        """What a trial tried, by the parameters' keys."""
        return {
            key: _meant(parameter, trial.params[key])
            for key, parameter in self._space.parameters.items()
            if key in trial.params
        }

    @staticmethod
    def is_defaults(trial: Trial | FrozenTrial) -> bool:
        """Whether it is the trial of the defaults."""
        return bool(trial.user_attrs.get(_FIXED) == _DEFAULTS)

    @staticmethod
    def _suggest(trial: Trial, key: str, parameter: ParameterConfig) -> Any:
        if isinstance(parameter, ChoiceConfig):
            choices = [_plain(parameter, value) for value in parameter.values]
            return _meant(parameter, trial.suggest_categorical(key, choices))
        if parameter.whole:
            step = int(parameter.step or 1)
            return trial.suggest_int(key, int(parameter.low), int(parameter.high), step=step, log=parameter.log)
        return trial.suggest_float(key, parameter.low, parameter.high, step=parameter.step, log=parameter.log)

    def standing(self) -> Standing:
        """How far the study is."""
        trials = self.trials()
        count = {state: sum(trial.state is state for trial in trials) for state in TrialState}
        complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        return Standing(
            complete=len(complete),
            pruned=count[TrialState.PRUNED],
            failed=count[TrialState.FAIL],
            running=count[TrialState.RUNNING],
            waiting=count[TrialState.WAITING],
            best=max(complete, key=lambda trial: (trial.value, -trial.number), default=None),
        )

    def trials(self) -> list[FrozenTrial]:
        """All trials but those that were lost with their workers."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if not is_lost(trial)]

    def lost(self) -> list[FrozenTrial]:
        """Those that were."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if is_lost(trial)]


def is_lost(trial: FrozenTrial) -> bool:
    """Whether a trial ended with its worker, and not by itself; after so many losses it is one that failed."""
    lost = trial.state is TrialState.FAIL and ERROR not in trial.user_attrs
    return lost and trial.user_attrs.get(_LOSSES, 0) + 1 < _MOST_LOSSES


def study_name(config: TuneConfig) -> str:
    """What Optuna's study is called."""
    return config.study or f"{Path(config.model).stem} on {Path(config.dataset).name}"


@contextlib.contextmanager
def store_errors(config: TuneConfig) -> Iterator[None]:
    """Say in one line what ails the database, without the password that its address may hold.

    Raises:
        StudyStoreError: it does not answer, or cannot be used.
    """
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as error:
        origin = getattr(error.__cause__ or error, "orig", None) or error.__cause__ or error
        reason = " ".join(str(origin).split())[:160].rstrip(".")
        raise StudyStoreError(f"{_place(config)}: {reason}. Mend it, or choose another storage.") from None


def _address(config: TuneConfig) -> sqlalchemy.URL:
    """The database's address.

    Raises:
        ConfigError: none.
    """
    if not config.storage:
        return sqlalchemy.URL.create("sqlite", database=str(config.data_folder / "tuning.db"))
    try:
        return sqlalchemy.make_url(config.storage)
    except sqlalchemy.exc.ArgumentError:
        # Not shown: it may hold a password.
        raise ConfigError(
            "Config key 'storage' is no address of a database; write sqlite:///FILE or "
            "postgresql://USER:PASSWORD@HOST:PORT/NAME."
        ) from None


def _place(config: TuneConfig) -> str:
    """The address as it may be shown."""
    address = _address(config)
    if address.host:
        port = f":{address.port or _PORTS.get(address.get_backend_name(), '')}".rstrip(":")
        return f"The storage {address.get_backend_name()}://{address.host}{port}/{address.database or ''}"
    return f"The storage {address.get_backend_name()}:///{address.database or ''}"


def _storage(config: TuneConfig, lost: Callable[[optuna.Study, FrozenTrial], None]) -> _DealtStorage:
    """The database, with its tables.

    Raises:
        StudyStoreError: it does not answer in time, or there is no driver for it.
    """
    address = _address(config)
    if address.get_backend_name() == "sqlite":
        Path(address.database or ".").parent.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {"connect_args": {"timeout": 60}}  # seconds that a writer waits for another
    else:
        _check_answers(config, address)
        options = {"pool_pre_ping": True}
        if address.get_backend_name() == "postgresql":
            options["connect_args"] = {"connect_timeout": int(_ANSWER_S)}
    for attempt in range(_TABLE_ATTEMPTS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # of the heartbeat
                return _DealtStorage(
                    address.render_as_string(hide_password=False),
                    engine_kwargs=options,
                    heartbeat_interval=_HEARTBEAT_S,
                    grace_period=config.worker_timeout_s,
                    heartbeat_stale_trial_callback=lost,
                )
        except ImportError as error:
            raise StudyStoreError(
                f"{_place(config)} needs a driver that is not installed: {error}. Install it, or choose another one."
            ) from None
        except sqlalchemy.exc.SQLAlchemyError:  # two processes that make its tables at once: one of them fails
            if attempt == _TABLE_ATTEMPTS - 1:
                raise
            time.sleep(_LOOK_S)
    raise AssertionError


def _check_answers(config: TuneConfig, address: sqlalchemy.URL) -> None:
    """Knock before a driver does, which may wait for minutes."""
    port = address.port or _PORTS.get(address.get_backend_name())
    if not address.host or port is None:
        return
    try:
        with socket.create_connection((address.host, port), timeout=_ANSWER_S):
            pass
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        raise StudyStoreError(
            f"{_place(config)} does not answer ({reason}). Start it, or choose another storage."
        ) from None


def _opened(name: str, storage: _DealtStorage, sampler: Any, pruner: Any) -> tuple[optuna.Study, bool]:
    """The study of this name, and whether it was begun here."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options = {"study_name": name, "storage": storage, "sampler": sampler, "pruner": pruner}
    try:
        return optuna.create_study(direction="maximize", **options), True
    except DuplicatedStudyError:
        return optuna.load_study(**options), False


def _sampler(config: TuneConfig, worker: int) -> optuna.samplers.BaseSampler:
    """What chooses the values of trials that are not made to try any; a grid chooses none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if config.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=config.seed + worker, multivariate=True, group=True)
        return optuna.samplers.RandomSampler(seed=config.seed + worker)


def _pruner(config: TuneConfig, space: Space) -> optuna.pruners.BasePruner:
    """What ends hopeless trials; its unit is the epoch."""
    if config.pruner == "none":
        return optuna.pruners.NopPruner()
    if config.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=config.pruner_first_epoch - 1)
    epochs = space.defaults.fit.epochs + space.defaults.fine_tune.epochs
    first = min(config.pruner_first_epoch, epochs)
    return optuna.pruners.HyperbandPruner(min_resource=first, max_resource=epochs, reduction_factor=3)


def _identity(config: TuneConfig, space: Space, dataset_digest: str) -> dict[str, str]:
    """What the trials of one study have in common."""
    unlike = {"dataset", "data_folder", "resume"}
    return {
        "model": Path(config.model).stem,
        "dataset": dataset_digest,
        "space": json.dumps({key: one.model_dump() for key, one in sorted(space.parameters.items())}, sort_keys=True),
        "train": space.defaults.model_dump_json(exclude=unlike),
    }


def _plain(parameter: ParameterConfig, value: Any) -> Any:
    """A value as Optuna's storage takes it."""
    if isinstance(parameter, ChoiceConfig) and isinstance(value, list | tuple | Mapping):
        return json.dumps(value, sort_keys=True)
    return value


def _meant(parameter: ParameterConfig, plain: Any) -> Any:
    """The value that Optuna's storage holds so."""
    if isinstance(parameter, ChoiceConfig):
        return next(value for value in parameter.values if _plain(parameter, value) == plain)
    return plain


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def importances(store: TrialStore) -> dict[str, float]:
    """How much of the variance of val_macro_ap each parameter explains, the most first; empty after too few trials.

    By PED-ANOVA (Watanabe et al. 2023), which also takes parameters that only some trials have.
    """
    complete = [trial for trial in store.trials() if trial.state is TrialState.COMPLETE]
    if len({trial.value for trial in complete}) < _FEWEST_FOR_IMPORTANCES:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return dict(optuna.importance.get_param_importances(store.study, evaluator=evaluator))
