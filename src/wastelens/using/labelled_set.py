"""Photos with labels that a finished model is judged on: raw data, prepared on the way, or a prepared dataset."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from wastelens.config.engine import LOCAL
from wastelens.config.evaluate import EvaluateConfig
from wastelens.config.files import conf_folder, load_config
from wastelens.config.prepare import PrepareConfig
from wastelens.data.annotations.coco import CocoDataset
from wastelens.data.annotations.labels import tabulate
from wastelens.data.annotations.materials import MAPPING_FILE, MaterialMapping, read_mapping
from wastelens.data.annotations.sources import DatasetSource, choose_source
from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.duplicates.perceptual_hash import perceptual_hashes
from wastelens.data.duplicates.search import NEAR_DUPLICATE_BITS
from wastelens.data.photos.cache import earlier_photos
from wastelens.data.photos.shards import ShardedCache
from wastelens.data.prepared.dataset import LABELS, PreparedDataset, draft, is_prepared, load_prepared
from wastelens.data.prepared.opening import open_dataset
from wastelens.data.prepared.tables import TestTable
from wastelens.engine.engine import opened
from wastelens.errors import ConfigError, DatasetError, MappingError, PreparedDatasetError
from wastelens.models.card import ModelCard
from wastelens.preparing import photo_split, reading, stages
from wastelens.system.arrays import PhotoArray
from wastelens.system.console import progress_bar, say
from wastelens.system.tables import write_csv
from wastelens.training.unlabelled import near_duplicates_of

AUTO = "auto"
_FOLDER = "evaluated"


@dataclass(frozen=True)
class LabelledSet:
    """Photos and their labels.

    Attributes:
        name: of the dataset.
        source: where it is.
        table: of the photos, with ``photo_index``.
        photos: uint8 (n, side, side, 3), of the side that the model takes.
        digest: of a prepared dataset; "" of raw data.
        own: the dataset, if the model was trained on this very preparation; the table is its test split then.
        notes: sentences on what was decided.
        left_out: file names and the reasons.
    """

    name: str
    source: Path
    table: TestTable
    photos: PhotoArray
    digest: str = ""
    own: PreparedDataset | None = None
    notes: tuple[str, ...] = ()
    left_out: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["file_name", "reason"]))


def labelled_set(config: EvaluateConfig, card: ModelCard) -> LabelledSet:
    """Return the photos that ``dataset=`` means, at the model's side, without those that the model has seen.

    Raises:
        ConfigError: no dataset is named.
        InputError: there is none, it has no labels, none of the model's materials, or smaller photos.
    """
    if not config.dataset:
        raise ConfigError("No dataset is given. Give dataset=: a folder of photos with their labels.")
    place = Path(config.dataset)
    trained_on = _trained_on(config, card)
    if (place.is_dir() or place.is_file()) and not is_prepared(place):
        found = _from_raw_data(config, card, trained_on)
    else:
        found = _from_prepared(open_dataset(config.dataset, config.data_folder), card)
    shared = [name for name in card.materials if name in found.table.materials]
    if not shared:
        raise DatasetError(
            f"{found.name} has none of the model's materials: it has {', '.join(found.table.materials)}, the model "
            f"answers for {', '.join(card.materials)}. Give a mapping to the model's materials, by materials=FILE."
        )
    return found if found.own else _without_seen(found, card, trained_on)


def _trained_on(config: EvaluateConfig, card: ModelCard) -> PreparedDataset | None:
    """Return the dataset that the model was trained on; None where it is not here.

    Raises:
        PreparedDatasetError: the one that is named is another.
    """
    folder = config.data_folder / "prepared" / card.dataset if config.trained_on == AUTO else Path(config.trained_on)
    try:
        dataset = load_prepared(folder)
    except PreparedDatasetError:
        if config.trained_on == AUTO:
            return None
        raise
    if dataset.digest == card.dataset_digest:
        return dataset
    if config.trained_on == AUTO:
        return None
    raise PreparedDatasetError(
        f"trained_on={folder} is not the dataset that the model was trained on ({card.dataset}, digest "
        f"{card.dataset_digest[:8]}): its digest is {dataset.digest[:8]}. Give that one, or trained_on=auto."
    )


def _from_prepared(dataset: PreparedDataset, card: ModelCard) -> LabelledSet:
    """Return all photos of a prepared dataset; the test split of the one that the model was trained on."""
    if dataset.side_px < card.image_side_px:
        raise DatasetError(
            f"{dataset.folder} was prepared at {dataset.side_px} px, but the model takes photos of "
            f"{card.image_side_px} px. Give the raw data (dataset={dataset.manifest['source']}), or prepare it with "
            f"image_side_px={card.image_side_px}."
        )
    dataset = dataset.at_side(card.image_side_px)
    if dataset.digest == card.dataset_digest:
        table = dataset.split(card.fold).test
        note = "The model was trained on this dataset, so its test photos are judged again."
        return LabelledSet(dataset.name, dataset.folder, table, dataset.photos, dataset.digest, dataset, (note,))
    table = TestTable(dataset.corrected(np.ones(len(dataset.frame), dtype=np.bool_)), dataset.materials)
    return LabelledSet(dataset.name, dataset.folder, table, dataset.photos, dataset.digest)


def _from_raw_data(config: EvaluateConfig, card: ModelCard, trained_on: PreparedDataset | None) -> LabelledSet:
    """Decode raw data at the model's side, and group the photos; there is no split.

    The photos stay in ``evaluated/<name>`` of the data folder, where the next call finds those that have not changed.
    """
    settings, source, coco, mapping = _read(config, card, trained_on)
    annotated = tabulate(coco, mapping)
    photo_split.check_group_by(source, settings)
    files = reading.photo_sources(source, annotated.labels)
    folder = config.data_folder / _FOLDER / source.name
    with draft(folder) as unfinished:
        cache = ShardedCache(unfinished.absolute(), settings.image_side_px, settings.max_megapixels)
        earlier = earlier_photos(folder, settings.image_side_px)
        with opened(LOCAL, retries=0) as engine, progress_bar("Decoding photos", len(files)) as bar:
            cached = stages.cache_photos(
                annotated, files, cache, settings, engine, earlier=earlier, progress=bar.advance
            )
        groups = photo_split.group_photos(cached, source, settings)
        labels = cached.labels.assign(group=groups.names)
        write_csv(labels, unfinished / LABELS)
    unread = cached.problems[cached.problems["problem"].str.startswith("photo left out")]
    left_out = unread.rename(columns={"problem": "reason"})[["file_name", "reason"]]
    table = TestTable(labels.assign(photo_index=np.arange(len(labels))), mapping.materials)
    notes = (f"Materials by {mapping.path}.", f"Photos are grouped {groups.rule}.")
    return LabelledSet(source.name, source.place, table, cached.photos, notes=notes, left_out=left_out)


def _read(
    config: EvaluateConfig, card: ModelCard, trained_on: PreparedDataset | None
) -> tuple[PrepareConfig, DatasetSource, CocoDataset, MaterialMapping]:
    """Read raw data by the mapping that is named or, with ``auto``, by the first that knows all labels.

    Of these, mappings with more of the model's materials come first, then that of the model's own dataset.
    """
    files = [reading.mapping_path(config.materials)] if config.materials != AUTO else _known_mappings(trained_on)
    mappings = {str(file): read_mapping(file) for file in files}
    order = sorted(mappings, key=lambda file: -len({*mappings[file].materials} & {*card.materials}))
    labels = {name for one in mappings.values() for name in (*one.material_of, *one.materials)}
    source = choose_source(config.dataset, config.data_folder, frozenset(labels))
    say(source.summary)
    settings = _settings(config, card)
    coco = reading.read_annotations(source, settings)
    errors = []
    for file in order:
        try:
            mapping = reading.mapping_for(source, coco, file)
        except MappingError as error:
            errors.append(error)
        else:
            return settings.model_copy(update={"materials": file}), source, coco, mapping
    raise errors[0]


def _known_mappings(trained_on: PreparedDataset | None) -> list[Path]:
    own = [trained_on.folder / MAPPING_FILE] if trained_on else []
    return [*own, *sorted((conf_folder() / "materials").glob("*.csv"))]


def _settings(config: EvaluateConfig, card: ModelCard) -> PrepareConfig:
    """Return the settings by which ``prepare`` would read the photos."""
    shipped = cast(PrepareConfig, load_config("prepare"))
    shared = ("dataset", "data_folder", "group_by", "max_problem_share", "max_megapixels", "workers", "seed")
    given = {name: getattr(config, name) for name in shared}
    return PrepareConfig.model_validate(
        {**shipped.model_dump(), **given, "image_side_px": card.image_side_px, "materials": "default"}
    )


def _without_seen(found: LabelledSet, card: ModelCard, trained_on: PreparedDataset | None) -> LabelledSet:
    """Leave out photos that are near-duplicates of those that the model was trained on, or chosen by (train, val)."""
    if trained_on is None:
        note = (
            f"The dataset that the model was trained on ({card.dataset}, digest {card.dataset_digest[:8]}) is not "
            "here, so photos that it has seen could not be looked for. If there may be any, give trained_on=FOLDER."
        )
        return replace(found, notes=(*found.notes, note))
    trained_on = trained_on.at_side(card.image_side_px)
    tables = trained_on.split(card.fold)
    rows = np.concatenate([tables.train.photo_index, tables.val.photo_index])
    photos, seen = PhotoRows([(found.photos, found.table.photo_index)]), PhotoRows([(trained_on.photos, rows)])
    hashes = perceptual_hashes(cast(PhotoArray, photos))  # which uses its chunks and shape only
    near = near_duplicates_of(photos, hashes, np.arange(len(photos)), seen, NEAR_DUPLICATE_BITS)
    if not near.any():
        return replace(
            found, notes=(*found.notes, f"No photo of {trained_on.name} that the model has seen is among them.")
        )
    names = [name for name, is_near in zip(found.table.file_names, near, strict=True) if is_near]
    if near.all():
        raise DatasetError(
            f"All {len(names):,} photos of {found.name} are near-duplicates of photos that the model was trained on, "
            "so they say nothing about others. Give other photos."
        )
    rows_left_out = pd.DataFrame({"file_name": names, "reason": f"seen by the model: a photo of {trained_on.name}"})
    note = (
        f"{len(names):,} of {len(near):,} photos are left out: near-duplicates of photos of {trained_on.name} that the "
        f"model has seen, such as {names[0]}."
    )
    return replace(
        found,
        table=found.table.take(np.flatnonzero(~near)),
        notes=(*found.notes, note),
        left_out=pd.concat([found.left_out, rows_left_out], ignore_index=True),
    )
