"""The search strategy: the sampler of a trial's values, their form in the store, and the pruner of poor trials."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, Trial, TrialState

from wastelens.config.tune import ChoiceConfig, ParameterConfig, TuneConfig
from wastelens.tuning.space import Space, Values

_REDUCTION = 3  # one in this many trials passes each rung (Li et al. 2018, section 3)


class SamplerByTrial(optuna.samplers.BaseSampler):
    """Chooses the values of trials without preset ones; with a grid, all values are preset.

    Each trial has its own random numbers: if each process had them, a resumed search or a worker on another machine
    would draw the same values again.
    """

    def __init__(self, config: TuneConfig) -> None:
        self._config = config
        self._sampler = _sampler(config, 0)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler = _sampler(self._config, trial.number)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


def _sampler(config: TuneConfig, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler for the trial of this number."""
    seed = int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if config.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
        return optuna.samplers.RandomSampler(seed=seed)


def suggested(trial: Trial, key: str, parameter: ParameterConfig) -> Any:
    """Return the value of a parameter for a trial to try."""
    if isinstance(parameter, ChoiceConfig):
        choices = [as_stored(parameter, value) for value in parameter.values]
        return _as_meant(parameter, trial.suggest_categorical(key, choices))
    if parameter.whole:
        step = int(parameter.step or 1)
        return trial.suggest_int(key, int(parameter.low), int(parameter.top), step=step, log=parameter.log)
    return trial.suggest_float(key, parameter.low, parameter.top, step=parameter.step, log=parameter.log)


def tried(trial: FrozenTrial, parameters: Mapping[str, ParameterConfig]) -> Values:
    """Return the values that a trial tried, by parameter key."""
    return {key: _as_meant(one, trial.params[key]) for key, one in parameters.items() if key in trial.params}


def as_stored(parameter: ParameterConfig, value: Any) -> Any:
    """Return a value in the form that Optuna's storage accepts: it supports neither lists nor trees."""
    if isinstance(parameter, ChoiceConfig) and isinstance(value, list | tuple | Mapping):
        return json.dumps(value, sort_keys=True)
    return value


def _as_meant(parameter: ParameterConfig, stored: Any) -> Any:
    """Return the value that is stored in this form."""
    if isinstance(parameter, ChoiceConfig):
        return next(value for value in parameter.values if as_stored(parameter, value) == stored)
    return stored


def pruner_of(config: TuneConfig, space: Space) -> optuna.pruners.BasePruner:
    """Return the pruner that ends unpromising trials; its unit is the epoch."""
    if config.pruner == "none":
        return optuna.pruners.NopPruner()
    if config.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=config.pruner_first_epoch - 1)
    epochs = space.defaults.fit.epochs + space.defaults.fine_tune.epochs
    first = min(config.pruner_first_epoch, epochs)
    return optuna.pruners.HyperbandPruner(min_resource=first, max_resource=epochs, reduction_factor=_REDUCTION)


def may_prune_at(epoch: int, config: TuneConfig) -> bool:
    """Return whether the pruner can end a trial at this epoch; if not, there is no need to read the database."""
    if config.pruner != "hyperband":
        return config.pruner == "median"
    rung = config.pruner_first_epoch
    while rung < epoch:
        rung *= _REDUCTION
    return rung == epoch
