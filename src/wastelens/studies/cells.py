"""The cells of a study: every training in its grid, with its whole configuration."""

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
from wastelens.config.checking import Layer
from wastelens.config.files import AUGMENT, SHORT_KEYS, setting, short_keys, train_config_of
from wastelens.config.pretrain import PretrainConfig
from wastelens.config.study import DATASET_FACTORS, Factor, StudyConfig, key_of
from wastelens.config.train import TrainConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import ConfigError, did_you_mean
from wastelens.preparing.balance import training_rows
from wastelens.studies.results import Place, levels_text
from wastelens.system.digests import file_digest

# Locations, and settings that do not change the training: the result depends neither on the folder nor on resamples.
_NO_SETTINGS = ("dataset", "data_folder", "resume", "max_problem_share", "bootstrap_resamples", "outage_minutes")
_UNUSED_WHERE = {  # setting and its value → prefixes of the settings that then have no effect
    ("balanced", "false"): ("balance_target",),
    ("fine_tune.epochs", "0"): tuple(
        f"fine_tune.{name}" for name in ("freeze", "learning_rate", "warmup_epochs", "layer_decay", "average")
    ),
    ("schedule.warmup_epochs", "0.0"): ("schedule.start",),
    ("precision", "0.0"): ("recall",),
}
_KEY_BYTES = 12


@dataclass(frozen=True)
class Cell:
    """One training of a study.

    Attributes:
        place: in the grid.
        config: all its settings.
        key: a digest of those settings and of the dataset: two trainings with the same key are the same.
        encoder_key: the key of the pretraining that it starts from, which cells can share; "" where there is none.
        dataset_digest: of the dataset that it is trained on.
    """

    place: Place
    config: TrainConfig
    key: str
    encoder_key: str
    dataset_digest: str


def plan_cells(config: StudyConfig, datasets: Mapping[str, PreparedDataset]) -> list[Cell]:
    """Return every cell of the grid, seed by seed, with the cells of a pair next to each other.

    Args:
        config: the study's.
        datasets: level of the factor ``mapping`` or ``corrections`` → dataset; a single one under "" without them.

    Raises:
        ConfigError: an unknown model, settings that contradict each other, or two levels with the same effect.
        BalanceError: too few labels to balance.
    """
    base = next(iter(datasets.values()))
    folds = _folds_of(config, base)
    grid = [
        (model, levels, dataset, _settings(config, model, levels, dataset))
        for model, levels in product(config.models, _levels(config.parsed_factors))
        for dataset in [datasets.get(_level_of_dataset(levels), base)]
    ]
    seeds = range(config.seed, config.seed + config.seeds)
    # Balancing is slow: do it once for each kind of training rows.
    kinds = {_rows_of(dataset, settings): (dataset, settings) for _, _, dataset, settings in grid}
    for dataset, settings in kinds.values():
        _check_balance(dataset, settings, folds, seeds)
    # Over all folds, chosen or not, and for the first seed: a study that is extended keeps its budget.
    alike = range(1, int(base.manifest["split"]["folds"]) + 1) if max(folds) else [0]
    steps = max(
        math.ceil(_rows(dataset, settings, fold, config.seed) / settings.fit.batch_size)
        for (dataset, settings), fold in product(kinds.values(), alike)
    )
    cells: dict[tuple[str, str, str], Cell] = {}
    for seed, fold, (model, levels, dataset, settings) in product(seeds, folds, grid):
        cell = cell_of(Place(Path(model).stem, levels, seed, fold), _with_budget(settings, steps, seed, fold), dataset)
        # Compared with itself, a training would count as one more comparison to correct for.
        twin = cells.setdefault((cell.place.model, cell.place.stratum, cell.key), cell)
        if twin is not cell:
            raise ConfigError(
                f"'{twin.place.label}' and '{cell.place.label}' are the same training, so there is nothing to "
                "compare. Remove a level, or set what it depends on in train."
            )
    return list(cells.values())


def cell_of(place: Place, config: TrainConfig, dataset: PreparedDataset) -> Cell:
    """Return the cell of a training with these settings."""
    encoder = configuration_key(config.pretraining(), dataset) if config.pretrained == "auto" else ""
    return Cell(place, config, configuration_key(config, dataset), encoder, dataset.digest)


def _folds_of(config: StudyConfig, dataset: PreparedDataset) -> list[int]:
    """Return the folds to train on: those requested, all that were prepared, or the one split (0)."""
    prepared = int(dataset.manifest["split"]["folds"])
    if config.folds == "auto":
        return list(range(1, prepared + 1)) or [0]
    if beyond := [fold for fold in config.folds if fold > prepared]:
        raise ConfigError(
            f"folds={beyond[0]}, but {dataset.name} was prepared with folds={prepared}. Prepare it with more, or use "
            "folds=auto."
        )
    return sorted(set(config.folds))


def _levels(factors: Sequence[Factor]) -> Iterator[dict[str, str]]:
    """Yield all combinations, with the compared factor changing fastest."""
    names = [factor.name for factor in factors]
    for others in product(*(factor.levels for factor in factors[1:])):
        for level in factors[0].levels:
            yield dict(zip(names, (level, *others), strict=True))


def _level_of_dataset(levels: Mapping[str, str]) -> str:
    """Return the level of the factor that changes the dataset; "" without one."""
    return next((levels[name] for name in DATASET_FACTORS if name in levels), "")


def _settings(config: StudyConfig, model: str, levels: Mapping[str, str], dataset: PreparedDataset) -> TrainConfig:
    """Return the settings of a combination, before its seed and fold are set."""
    layers: list[Layer] = [
        ("the section train", dict(config.train)),
        ("the study", {"model": model, "dataset": config.dataset, "data_folder": str(config.data_folder)}),
    ]
    if _level_of_dataset(levels):
        layers.append(("the factor that changes the dataset", {"dataset": str(dataset.folder)}))
    # A factor that is a kind goes over the settings of single kinds, which have no effect under the others.
    factors = sorted(
        (name for name in levels if name not in DATASET_FACTORS),
        key=lambda name: name == AUGMENT or key_of(name).endswith(".kind"),
    )
    layers += [(f"the factor {name}", setting(key_of(name), levels[name], f"the factor {name}")) for name in factors]
    try:
        return train_config_of(layers)
    except ConfigError as error:
        raise ConfigError(f"{model} {levels_text(levels)}: {error}") from None


def check_factors(factors: Sequence[Factor]) -> None:
    """Refuse an unknown factor.

    Raises:
        ConfigError: a factor is neither a key of ``conf/train.yaml`` nor labels, loss, mapping or corrections.
    """
    keys = [*TrainConfig.model_fields, AUGMENT, *SHORT_KEYS]
    known = ["labels", "loss", *DATASET_FACTORS, *keys]
    for factor in factors:
        if factor.name not in DATASET_FACTORS and factor.key.split(".")[0] not in keys:
            raise ConfigError(
                f"Unknown factor '{factor.name}'.{did_you_mean(factor.name, known)} A factor is a key of "
                f"conf/train.yaml, or labels, loss, {', '.join(DATASET_FACTORS)}."
            )


def _rows_of(dataset: PreparedDataset, config: TrainConfig) -> tuple[object, ...]:
    """Return the settings that determine, besides seed and fold, a training's rows and number of steps."""
    return dataset.digest, config.balanced, config.balance_target, config.labels_percent, config.fit.batch_size


def _check_balance(dataset: PreparedDataset, settings: TrainConfig, folds: Sequence[int], seeds: Sequence[int]) -> None:
    """Refuse a share of the labels that cannot be balanced before hours of training; each seed draws its own share."""
    if settings.balanced and (settings.labels_percent < 100 or settings.balance_target != "auto"):
        for seed, fold in product(seeds if settings.labels_percent < 100 else seeds[:1], folds):
            _rows(dataset, settings, fold, seed)


def _rows(dataset: PreparedDataset, settings: TrainConfig, fold: int, seed: int) -> int:
    """Return the number of training rows."""
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


def _with_budget(settings: TrainConfig, steps_per_epoch: int, seed: int, fold: int) -> TrainConfig:
    """Return a cell's settings: its seed and fold, the budget that all cells share, and no early stopping."""
    steps = settings.fit.steps_per_epoch
    never = settings.fit.epochs + settings.fine_tune.epochs
    limits = {"steps_per_epoch": steps_per_epoch if steps == "auto" else steps, "patience_epochs": never}
    fit = settings.fit.model_copy(update=limits)
    return settings.model_copy(update={"fit": fit, "seed": seed, "fold": fold})


def settings_in_effect(config: Mapping[str, Any]) -> dict[str, str]:
    """Return all settings that affect the result, dotted key → text; settings without effect are left out.

    Args:
        config: of ``train`` or ``pretrain``, as written to ``config.json``.
    """
    settings = flatten({key: value for key, value in config.items() if key not in _NO_SETTINGS})
    unused = tuple(
        prefix for (key, value), prefixes in _UNUSED_WHERE.items() if settings.get(key) == value for prefix in prefixes
    )
    return short_keys({key: value for key, value in settings.items() if not key.startswith(unused)})


def configuration_key(config: TrainConfig | PretrainConfig, dataset: PreparedDataset) -> str:
    """Return a digest of all settings that affect the result and of the dataset; a weights file counts by content."""
    # Sorted, as the parameters of a transform can be in any order.
    ordered = json.loads(json.dumps(config.model_dump(mode="json"), sort_keys=True))
    settings = settings_in_effect(ordered)
    if isinstance(config, TrainConfig):
        settings["weights"] = _content(config.weights)
    text = json.dumps({**settings, "dataset_digest": dataset.digest}, sort_keys=True)
    return blake2b(text.encode(), digest_size=_KEY_BYTES).hexdigest()


def _content(weights: str) -> str:
    """Return ``imagenet``, ``none`` and missing files unchanged (loading them fails clearly), else a file's digest."""
    file = Path(weights)
    if weights in ("imagenet", "none") or not file.is_file():
        return weights
    return f"file {_digest(file.resolve(), file.stat().st_mtime_ns)}"


@lru_cache
def _digest(file: Path, changed_ns: int) -> str:
    """Return a file's digest, cached until the file changes: every cell of a study needs it."""
    return file_digest(file)
