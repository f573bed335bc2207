"""How a space is searched: what chooses a trial's values, and what ends hopeless trials early."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from wastelens.tune_config import TuneConfig
from wastelens.tuning.space import Space

_REDUCTION = 3  # of those that train on, one in so many does at each rung (Li et al. 2018, section 3)


class SamplerByTrial(optuna.samplers.BaseSampler):
    """Chooses the values of trials that are not made to try any; a grid chooses none.

    Each trial has random numbers of its own: were they each process's, a study that goes on, or a worker on another
    machine, would draw the same values again.
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
    """What chooses the values of the trial of this number."""
    seed = int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if config.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
        return optuna.samplers.RandomSampler(seed=seed)


def pruner_of(config: TuneConfig, space: Space) -> optuna.pruners.BasePruner:
    """What ends hopeless trials; its unit is the epoch."""
    if config.pruner == "none":
        return optuna.pruners.NopPruner()
    if config.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=config.pruner_first_epoch - 1)
    epochs = space.defaults.fit.epochs + space.defaults.fine_tune.epochs
    first = min(config.pruner_first_epoch, epochs)
    return optuna.pruners.HyperbandPruner(min_resource=first, max_resource=epochs, reduction_factor=_REDUCTION)


def may_prune_at(epoch: int, config: TuneConfig) -> bool:
    """Whether the pruner can end a trial at this epoch; where it cannot, asking would only read the database."""
    if config.pruner != "hyperband":
        return config.pruner == "median"
    rung = config.pruner_first_epoch
    while rung < epoch:
        rung *= _REDUCTION
    return rung == epoch
