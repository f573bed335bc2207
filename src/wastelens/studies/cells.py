"""The cells of a study: every training that its grid asks for, with its whole configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import product
from pathlib import Path

from wastelens.config import PretrainConfig, TrainConfig
from wastelens.config_files import Layer, setting, train_config_of
from wastelens.data.prepared import PreparedDataset
from wastelens.data.training_rows import training_rows
from wastelens.errors import ConfigError, did_you_mean
from wastelens.studies.places import Place, spoken
from wastelens.study_config import MAPPING, Factor, StudyConfig, key_of

# Where things lie, and what is no setting of the training: another folder makes no other result.
_NO_SETTING = ("dataset", "data_folder", "resume", "max_problem_share")
POLICY_KEYS = ("augment_policy", "augmentation", "views")  # of no meaning without augmentation
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
    # Over all folds of that kind, chosen or not: a study that is extended by folds keeps its budget.
    alike = range(1, int(base.manifest["split"]["folds"]) + 1) if max(folds) else [0]
    steps = max(_longest_pass(dataset, settings, alike) for _, _, dataset, settings in resolved)
    cells = [
        _cell(model, levels, dataset, _trained_so(settings, steps, config.seed + number, fold))
        for number, fold, (model, levels, dataset, settings) in product(range(config.seeds), folds, resolved)
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
        # The relabelled dataset lies in a data folder of its own, and is known by its photos' folder.
        own_folder = {"dataset": dataset.manifest["source"], "data_folder": str(dataset.folder.parent.parent)}
        layers.append((f"the factor {MAPPING}", own_folder))
    layers += [
        (f"the factor {name}", setting(key_of(name), level, f"the factor {name}"))
        for name, level in levels.items()
        if name != MAPPING
    ]
    try:
        resolved = train_config_of(layers)
    except ConfigError as error:
        raise ConfigError(f"{model} {spoken(levels)}: {error}") from None
    if resolved.resume:
        raise ConfigError("train.resume cannot be set: a study goes on by itself when it is started again.")
    return resolved


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


def _longest_pass(dataset: PreparedDataset, settings: TrainConfig, folds: Sequence[int]) -> int:
    """Steps of a pass over the training rows, in the fold that has most of them.

    Raises:
        BalanceError: too few labels to be balanced.
    """
    rows = [
        training_rows(
            dataset,
            fold=fold,
            balanced=settings.balanced,
            labels_percent=settings.labels_percent,
            seed=settings.seed,
        )
        for fold in folds
    ]
    return math.ceil(max(len(table) for table in rows) / settings.fit.batch_size)


def _trained_so(settings: TrainConfig, steps_per_epoch: int, seed: int, fold: int) -> TrainConfig:
    """A cell's settings: its seed and fold, the budget of all, and no early end."""
    steps = settings.fit.steps_per_epoch
    never = settings.fit.epochs + settings.fine_tune.epochs
    limits = {"steps_per_epoch": steps_per_epoch if steps == "auto" else steps, "patience_epochs": never}
    fit = settings.fit.model_copy(update=limits)
    return settings.model_copy(update={"fit": fit, "seed": seed, "fold": fold})


def configuration_key(config: TrainConfig | PretrainConfig, dataset: PreparedDataset) -> str:
    """A digest of all settings that make a result, and of the dataset."""
    settings = config.model_dump(mode="json", exclude=set(_NO_SETTING))
    if isinstance(config, TrainConfig) and not config.augment:
        settings = {key: value for key, value in settings.items() if key not in POLICY_KEYS}
    text = json.dumps({**settings, "dataset_digest": dataset.digest}, sort_keys=True)
    return blake2b(text.encode(), digest_size=_KEY_BYTES).hexdigest()
