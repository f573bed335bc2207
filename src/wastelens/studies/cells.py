"""The cells of a study: every training that its grid asks for, with its whole configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import product
from pathlib import Path
from typing import Any

from wastelens.config.base import flatten
from wastelens.config.files import Layer, setting, train_config_of
from wastelens.config.pretrain import PretrainConfig
from wastelens.config.study import MAPPING, Factor, StudyConfig, key_of
from wastelens.config.train import TrainConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import ConfigError, did_you_mean
from wastelens.preparing.training_rows import training_rows
from wastelens.studies.places import Place, spoken
from wastelens.system.digests import file_digest

# Where things lie, and what is no setting of the training: another folder makes no other result, nor do more resamples.
_NO_SETTINGS = ("dataset", "data_folder", "resume", "max_problem_share", "bootstrap_resamples")
_FOCAL, _ASYMMETRIC = "loss.focal_", "loss.asymmetric_"
_UNUSED_WHERE = {  # setting and its value → beginnings of the settings that then do nothing
    ("augment", "false"): ("augment_policy", "augment_strength", "augmentation.", "views"),
    ("balanced", "false"): ("balance_target",),
    ("fine_tune.epochs", "0"): ("fine_tune.freeze", "fine_tune.learning_rate"),
    ("loss.name", "bce"): (_FOCAL, _ASYMMETRIC),
    ("loss.name", "focal"): (_ASYMMETRIC,),
    ("loss.name", "asymmetric"): (_FOCAL,),
    ("optimizer.name", "adam"): ("optimizer.weight_decay", "optimizer.momentum"),
    ("optimizer.name", "adamw"): ("optimizer.momentum",),
    ("optimizer.name", "sgd"): ("optimizer.weight_decay",),
    ("schedule.name", "constant"): ("schedule.floor", "schedule.decay_per_epoch"),
    ("schedule.name", "cosine"): ("schedule.decay_per_epoch",),
    ("schedule.warmup_epochs", "0.0"): ("schedule.start",),
}
_KEY_BYTES = 12


@dataclass(frozen=True)
class Cell:
    """One training of a study.

    Attributes:
        place: in the grid.
        config: all its settings.
        key: a digest of those settings and of the dataset: two trainings with the same key are the same.
        encoder_key: the key of the pretraining that it starts from, which cells share; "" where there is none.
    """

    place: Place
    config: TrainConfig
    key: str
    encoder_key: str


def plan_cells(config: StudyConfig, datasets: Mapping[str, PreparedDataset]) -> list[Cell]:
    """Every cell of the grid, those of a pair beside each other, whole seeds first.

    Args:
        config: the study's.
        datasets: level of the factor ``mapping`` → dataset; one under "" where there is no such factor.

    Raises:
        ConfigError: no such model, settings that do not go together, or two levels that mean the same.
        BalanceError: too few labels to be balanced.
    """
    base = next(iter(datasets.values()))
    folds = folds_of(config, base)
    grid = [
        (model, levels, datasets.get(levels.get(MAPPING, ""), base))
        for model, levels in product(config.models, _levels(config.parsed_factors))
    ]
    resolved = [(*one, _settings(config, *one)) for one in grid]
    seeds = range(config.seed, config.seed + config.seeds)
    # Balancing takes long: once for each kind of training rows.
    kinds = {_rows_of(dataset, settings): (dataset, settings) for _, _, dataset, settings in resolved}
    for dataset, settings in kinds.values():
        _check_balance(dataset, settings, folds, seeds)
    # Over all folds of that kind, chosen or not, and for the first seed: a study that is extended keeps its budget.
    alike = range(1, int(base.manifest["split"]["folds"]) + 1) if max(folds) else [0]
    steps = max(_longest_pass(dataset, settings, alike, config.seed) for dataset, settings in kinds.values())
    cells = [
        _cell(model, levels, dataset, _trained_so(settings, steps, seed, fold))
        for seed, fold, (model, levels, dataset, settings) in product(seeds, folds, resolved)
    ]
    _check_distinct(cells)
    return cells


def _cell(model: str, levels: Mapping[str, str], dataset: PreparedDataset, config: TrainConfig) -> Cell:
    encoder = configuration_key(config.pretraining(), dataset) if config.pretrained == "auto" else ""
    place = Place(Path(model).stem, levels, config.seed, config.fold)
    return Cell(place, config, configuration_key(config, dataset), encoder)


def _check_distinct(cells: Sequence[Cell]) -> None:
    """A training compared with itself would be one more comparison that all others are corrected for."""
    seen: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        twin = seen.setdefault((cell.place.stratum, cell.key), cell)
        if twin is not cell and twin.place.model == cell.place.model:
            raise ConfigError(
                f"'{twin.place.label}' and '{cell.place.label}' are the same training, so that there is nothing to "
                "compare. Remove a level, or set what it depends on in train."
            )


def folds_of(config: StudyConfig, dataset: PreparedDataset) -> list[int]:
    """The folds that are trained on: those asked for, all that were prepared, or the one split (0).

    Raises:
        ConfigError: the dataset was prepared without one of them.
    """
    prepared = int(dataset.manifest["split"]["folds"])
    if config.folds == "auto":
        return list(range(1, prepared + 1)) or [0]
    if beyond := [fold for fold in config.folds if fold > prepared]:
        raise ConfigError(
            f"folds={beyond[0]}, but {dataset.name} was prepared with folds={prepared}. Prepare it with more, or leave "
            "folds=auto."
        )
    return sorted(set(config.folds))


def _levels(factors: Sequence[Factor]) -> Iterator[dict[str, str]]:
    """All combinations, with the compared factor changing fastest."""
    names = [factor.name for factor in factors]
    for others in product(*(factor.levels for factor in factors[1:])):
        for level in factors[0].levels:
            yield dict(zip(names, (level, *others), strict=True))


def _settings(config: StudyConfig, model: str, levels: Mapping[str, str], dataset: PreparedDataset) -> TrainConfig:
    """The settings of a combination, before its seed and fold are known."""
    layers: list[Layer] = [
        ("the section train", dict(config.train)),
        ("the study", {"model": model, "dataset": config.dataset, "data_folder": str(config.data_folder)}),
    ]
    if MAPPING in levels:
        layers.append((f"the factor {MAPPING}", {"dataset": str(dataset.folder)}))
    layers += [
        (f"the factor {name}", setting(key_of(name), level, f"the factor {name}"))
        for name, level in levels.items()
        if name != MAPPING
    ]
    try:
        return train_config_of(layers)
    except ConfigError as error:
        raise ConfigError(f"{model} {spoken(levels)}: {error}") from None


def check_factors(factors: Sequence[Factor]) -> None:
    """Find a factor that no training knows, by name.

    Raises:
        ConfigError: neither a key of ``conf/train.yaml`` nor labels, loss or mapping.
    """
    known = ["labels", "loss", MAPPING, *TrainConfig.model_fields]
    for factor in factors:
        if factor.name != MAPPING and factor.key.split(".")[0] not in TrainConfig.model_fields:
            raise ConfigError(
                f"Unknown factor '{factor.name}'.{did_you_mean(factor.name, known)} A factor is a key of "
                f"conf/train.yaml, or labels, loss, {MAPPING}."
            )


def _rows_of(dataset: PreparedDataset, settings: TrainConfig) -> tuple[object, ...]:
    """What decides, besides seed and fold, which rows a training learns from, and in how many steps."""
    return (
        dataset.digest,
        settings.balanced,
        settings.balance_target,
        settings.labels_percent,
        settings.fit.batch_size,
    )


def _check_balance(dataset: PreparedDataset, settings: TrainConfig, folds: Sequence[int], seeds: Sequence[int]) -> None:
    """Find a share of the labels that cannot be balanced before hours of training; each seed draws its own.

    Raises:
        BalanceError: too few labels to be balanced.
    """
    if settings.balanced and (settings.labels_percent < 100 or settings.balance_target != "auto"):
        for seed, fold in product(seeds if settings.labels_percent < 100 else seeds[:1], folds):
            _rows(dataset, settings, fold, seed)


def _longest_pass(dataset: PreparedDataset, settings: TrainConfig, folds: Sequence[int], seed: int) -> int:
    """Steps of a pass over the training rows, in the fold that has most of them.

    Raises:
        BalanceError: too few labels to be balanced.
    """
    return math.ceil(max(_rows(dataset, settings, fold, seed) for fold in folds) / settings.fit.batch_size)


def _rows(dataset: PreparedDataset, settings: TrainConfig, fold: int, seed: int) -> int:
    """How many training rows there are."""
    return len(
        training_rows(
            dataset,
            fold=fold,
            balanced=settings.balanced,
            balance_target=settings.balance_target,
            labels_percent=settings.labels_percent,
            seed=seed,
        )
    )


def _trained_so(settings: TrainConfig, steps_per_epoch: int, seed: int, fold: int) -> TrainConfig:
    """A cell's settings: its seed and fold, the budget of all, and no early end."""
    steps = settings.fit.steps_per_epoch
    never = settings.fit.epochs + settings.fine_tune.epochs
    limits = {"steps_per_epoch": steps_per_epoch if steps == "auto" else steps, "patience_epochs": never}
    fit = settings.fit.model_copy(update=limits)
    return settings.model_copy(update={"fit": fit, "seed": seed, "fold": fold})


def settings_in_effect(config: Mapping[str, Any]) -> dict[str, str]:
    """Dotted keys and values as text of all settings that make a result; what the others leave unused is left out.

    Args:
        config: of ``train`` or ``pretrain``, as they write it into ``config.json``.
    """
    settings = flatten({key: value for key, value in config.items() if key not in _NO_SETTINGS})
    unused = tuple(
        beginning
        for (key, value), beginnings in _UNUSED_WHERE.items()
        if settings.get(key) == value
        for beginning in beginnings
    )
    return {key: value for key, value in settings.items() if not key.startswith(unused)}


def configuration_key(config: TrainConfig | PretrainConfig, dataset: PreparedDataset) -> str:
    """A digest of all settings that make a result, and of the dataset; a file of weights counts by its content."""
    # In one order, as a transform's parameters may come in any.
    ordered = json.loads(json.dumps(config.model_dump(mode="json"), sort_keys=True))
    settings = settings_in_effect(ordered)
    if isinstance(config, TrainConfig):
        settings["weights"] = _content(config.weights)
    text = json.dumps({**settings, "dataset_digest": dataset.digest}, sort_keys=True)
    return blake2b(text.encode(), digest_size=_KEY_BYTES).hexdigest()


def _content(weights: str) -> str:
    """``imagenet`` and ``none`` as they are, and so a file that is not there: whoever loads it says so."""
    file = Path(weights)
    if weights in ("imagenet", "none") or not file.is_file():
        return weights
    return f"file {_digest(file.resolve(), file.stat().st_mtime_ns)}"


@lru_cache
def _digest(file: Path, changed_ns: int) -> str:
    """Of a file that has not changed since; every cell of a study asks for it."""
    return file_digest(file)
