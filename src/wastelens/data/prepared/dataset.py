"""The prepared dataset: a folder with tables, outlines, a photo cache, and a manifest with the digests of all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.data.annotations.coco import read_coco
from wastelens.data.annotations.materials import MAPPING_FILE, read_mapping
from wastelens.data.annotations.outlines import AnnotatedOutlines
from wastelens.data.annotations.sources import raw_folder
from wastelens.data.photos.shards import cache_files, open_photos, photos_digest
from wastelens.data.photos.shrink import photos_at_side
from wastelens.data.prepared.raw_files import RAW_FILES, read_raw_files
from wastelens.data.prepared.tables import TestTable, TrainTable, ValTable
from wastelens.errors import ConfigError, DatasetError, InputError, PreparedDatasetError
from wastelens.system.console import next_command, progress_bar
from wastelens.system.digests import file_digest
from wastelens.system.files import alone_in

MANIFEST = "manifest.json"
LABELS, BALANCED, FOLDS, PROBLEMS = "labels.csv", "train_balanced.csv", "folds.csv", "problems.csv"
OBJECTS, CONTROLS, OUTLINES = "objects.csv", "controls.csv", "outlines.json"
CORRECTIONS = (
    "corrections.csv"  # file_name, material, old, new, and test: 1 if it also counts where the photo is tested
)
FOR_PEOPLE = (PROBLEMS,)  # tables that are opened in spreadsheets, not read as data
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class LearningTables:
    """The tables of one split that a network may learn and choose from: all but test."""

    train: TrainTable
    val: ValTable


@dataclass(frozen=True)
class SplitTables(LearningTables):
    """The three tables of one split."""

    test: TestTable


def split_tables(frame: pd.DataFrame, split: npt.NDArray[Any], materials: tuple[str, ...]) -> SplitTables:
    """Return the three tables of a split, with each photo's row in the cache as ``photo_index``."""
    indexed = frame.assign(photo_index=np.arange(len(frame)))
    train, val, test = (indexed[split == name].reset_index(drop=True) for name in SPLITS)
    return SplitTables(TrainTable(train, materials), ValTable(val, materials), TestTable(test, materials))


def corrected_labels(
    frame: pd.DataFrame, corrections: pd.DataFrame, materials: tuple[str, ...], tested: npt.NDArray[np.bool_]
) -> pd.DataFrame:
    """Return labels with the corrections of corrections.csv, which tested photos have only where ``test`` says so."""
    labels = frame[list(materials)].to_numpy(copy=True)
    rows = pd.Index(frame["file_name"]).get_indexer(pd.Index(corrections["file_name"]))
    places = pd.Index(materials).get_indexer(pd.Index(corrections["material"]))
    kept = tested[rows] & (corrections["test"].to_numpy() == 0)
    labels[rows, places] = np.where(kept, corrections["old"], corrections["new"])
    return frame.assign(**dict(zip(materials, labels.T, strict=True)))


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset on disk, checked against its manifest.

    ``frame`` is labels.csv with one more column, ``photo_index``: the photo's row in the cache.
    """

    folder: Path
    manifest: dict[str, Any]
    frame: pd.DataFrame
    _shrunk: dict[int, PreparedDataset] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The dataset's name, for instance ``taco``."""
        return str(self.manifest["name"])

    @property
    def digest(self) -> str:
        """The digest of everything that training sees."""
        return str(self.manifest["digest"])

    @property
    def materials(self) -> tuple[str, ...]:
        """The materials, in the order of every label array."""
        return tuple(self.manifest["materials"])

    @cached_property
    def photos(self) -> npt.NDArray[np.uint8]:
        """The photo cache, memory-mapped: uint8 (photos, side, side, 3) in 0–255.

        Raises:
            PreparedDatasetError: the dataset was prepared again, with another photo size, since it was opened.
        """
        try:
            return open_photos(self.folder, self.manifest["cache"])
        except FileNotFoundError:
            raise PreparedDatasetError(
                f"{self.folder} has been prepared again since it was opened. Start this step again."
            ) from None

    @property
    def side_px(self) -> int:
        """The side of the photos, in pixels."""
        return int(self.manifest["cache"]["image_side_px"])

    def at_side(self, side_px: int) -> PreparedDataset:
        """Return the same dataset with its photos shrunk to this side; photos are never enlarged, and 0 is their own.

        They are shrunk once per process and dataset, into a file that disappears with the process: in the dataset's
        folder, or among the system's temporary files where that folder must not be written.
        """
        if side_px in (0, self.side_px) or side_px > self.side_px:
            return self
        if side_px not in self._shrunk:
            with progress_bar(f"Photos at {side_px} px", len(self.frame)) as bar:
                writable = os.access(self.folder, os.W_OK)
                folder = self.folder if writable else Path(tempfile.gettempdir())
                photos = photos_at_side(self.photos, side_px, folder, bar.advance)
            cache = {**self.manifest["cache"], "image_side_px": side_px}
            shrunk = replace(self, manifest={**self.manifest, "cache": cache})
            shrunk.__dict__["photos"] = photos
            self._shrunk[side_px] = shrunk
        return self._shrunk[side_px]

    @cached_property
    def raw_files(self) -> pd.DataFrame:
        """The paths of the raw files, and their sizes and digests when the dataset was prepared.

        A row per photo, and per file or folder of annotations: ``file_name`` ("" for annotations), ``path`` (a Path),
        ``size_bytes``, ``modified_ns``. They may be gone or changed since.
        """
        table = read_raw_files(self.folder)
        root = raw_folder(self.manifest)
        return table.assign(path=[root / path for path in table["path"]])

    def outlines(self) -> AnnotatedOutlines:
        """Return the usable outlines of the annotated objects, with the dataset's own materials.

        Raises:
            PreparedDatasetError: the dataset was prepared by a version that kept no outlines.
        """
        self.check_outlines()
        return AnnotatedOutlines(
            read_coco(self.folder / OUTLINES), read_mapping(self.folder / MAPPING_FILE).material_of
        )

    def check_outlines(self) -> None:
        """Raise PreparedDatasetError where the dataset was prepared by a version that kept no outlines."""
        if OUTLINES not in self.manifest["files"]:
            raise PreparedDatasetError(
                f"{self.folder} was prepared by an earlier version of Wastelens, without outlines. Run prepare again."
            )

    def split(self, fold: int = 0) -> SplitTables:
        """Return the tables of the main split (fold 0), or of a fold for cross-validation.

        Raises:
            ConfigError: the dataset was prepared without that fold.
        """
        column = self.assignment(fold)
        return split_tables(self.corrected(column == "test"), column, self.materials)

    def assignment(self, fold: int = 0) -> npt.NDArray[Any]:
        """Return the split of each photo: train, val or test, (photos,); errors as of ``split``."""
        column = self._fold_column(f"fold_{fold}", fold) if fold else self.frame["split"]
        return column.to_numpy()

    def corrected(self, tested: npt.NDArray[np.bool_]) -> pd.DataFrame:
        """Return labels.csv with every correction of a label, but for those that photos are not tested by.

        Args:
            tested: whether each photo is one that a model is tested on, (photos,).
        """
        table = self.corrections()
        return corrected_labels(self.frame, table, self.materials, tested) if len(table) else self.frame

    def corrections(self) -> pd.DataFrame:
        """Return corrections.csv; empty where no label was corrected."""
        there = CORRECTIONS in self.manifest["files"]
        return _read_table(self.folder / CORRECTIONS) if there else pd.DataFrame()

    def learning(self, fold: int = 0) -> LearningTables:
        """Return the tables that a network may learn and choose from; errors as of ``split``."""
        tables = self.split(fold)
        return LearningTables(tables.train, tables.val)

    def _fold_column(self, column: str, fold: int) -> pd.Series[Any]:
        folds = int(self.manifest["split"]["folds"])
        if not 1 <= fold <= folds:
            raise ConfigError(f"fold={fold}, but the dataset was prepared with folds={folds}. Prepare it with more.")
        return self._rows_of_photos(FOLDS)[column]

    def _rows_of_photos(self, name: str) -> pd.DataFrame:
        """Read a table with a row for each photo, in the order of the labels, or raise PreparedDatasetError."""
        table = _read_table(self.folder / name)
        if table["file_name"].tolist() != self.frame["file_name"].tolist():
            raise PreparedDatasetError(f"{self.folder / name} has other rows than {LABELS}. Run prepare again.")
        return table

    def balanced_train(self, fold: int = 0) -> TrainTable:
        """Return the training rows, with the rows of rare materials repeated."""
        if fold == 0:
            rows = _read_table(self.folder / BALANCED)
            index = dict(zip(self.frame["file_name"], self.frame["photo_index"], strict=True))
            if unknown := set(rows["file_name"]) - index.keys():
                raise PreparedDatasetError(
                    f"{self.folder / BALANCED} has the photo {min(unknown)!r}, which {LABELS} lacks. Run prepare again."
                )
            return TrainTable(rows.assign(photo_index=rows["file_name"].map(index)), self.materials)
        copies, frame = self._fold_column(f"copies_{fold}", fold), self.corrected(np.zeros(len(self.frame), np.bool_))
        return TrainTable(frame.loc[frame.index.repeat(copies)].reset_index(drop=True), self.materials)

    def controls(self, fold: int = 0) -> pd.DataFrame:
        """Return the controls' predictions for the val and test photos of this split."""
        frame = _read_table(self.folder / CONTROLS)
        return frame[frame["fold"] == fold].drop(columns="fold").reset_index(drop=True)

    def control_macro_ap(self, fold: int = 0) -> dict[str, float]:
        """Return control → macro AP on this split's test photos."""
        return {str(name): float(value) for name, value in self.manifest["control_macro_ap"][fold].items()}


def _read_table(path: Path) -> pd.DataFrame:
    """Read one of the tables, with names as text: a group called NA is not a missing value."""
    return pd.read_csv(path, dtype={"file_name": str, "source_file": str, "group": str}, keep_default_na=False)


def is_prepared(folder: Path) -> bool:
    """Return whether a folder is a prepared dataset, if perhaps a damaged one.

    Raw data may hold one file of such a name, but not two.
    """
    return sum(os.path.isfile(folder / name) for name in (MANIFEST, BALANCED, CONTROLS, OBJECTS)) > 1


def load_prepared(folder: Path) -> PreparedDataset:
    """Open a prepared dataset and check it against its manifest.

    Raises:
        PreparedDatasetError: it is missing, or a file does not match its digest.
    """
    manifest = read_manifest(folder)
    for name, digest in manifest["files"].items():
        _check_digest(folder / name, digest, manifest["cache"])
    frame = _read_table(folder / LABELS)
    _check_rows(folder, manifest, frame)
    return PreparedDataset(folder, manifest, frame.assign(photo_index=np.arange(len(frame))))


def _check_rows(folder: Path, manifest: dict[str, Any], frame: pd.DataFrame) -> None:
    """Check that row i of the labels can be photo i of the cache: digests do not tell what a reader makes of a table.

    Raises:
        PreparedDatasetError: it cannot.
    """
    path, photos = folder / LABELS, int(manifest["cache"].get("photos", len(frame)))
    fact = ""
    if len(frame) != photos:
        fact = f"has {len(frame):,} rows for {photos:,} photos"
    for column in ("file_name", "image_id"):
        repeated = frame.loc[frame[column].duplicated(), column]
        if len(repeated):
            fact = fact or f"has the {column} '{repeated.iloc[0]}' twice"
    if unknown := set(frame["split"]) - set(SPLITS):
        fact = fact or f"has the split {min(map(str, unknown))!r}"
    if fact:
        raise PreparedDatasetError(f"{path} {fact}, so labels and photos do not match. Run prepare again.")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a prepared dataset, whose own digest is right.

    Raises:
        PreparedDatasetError: it is missing or was changed.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        beside = sorted(str(one.parent) for one in folder.parent.glob(f"[!.]*/{MANIFEST}"))
        hint = f", or use one that is there: dataset={' or dataset='.join(beside[:3])}" if beside else ""
        raise PreparedDatasetError(
            f"There is no prepared dataset in {folder}. Make it first ({next_command('prepare', {})}){hint}."
        ) from None
    except ValueError:
        raise PreparedDatasetError(f"{path} is not JSON. Run prepare again.") from None
    try:  # its own digest is checked too, so that nobody lowers the bar with an editor
        genuine = manifest["digest"] == manifest_digest(manifest)
    except (KeyError, TypeError, AttributeError):
        genuine = False
    if not genuine:
        raise PreparedDatasetError(f"{path} is incomplete or was changed. Run prepare again.")
    return dict(manifest)


def manifest_digest(manifest: dict[str, Any]) -> str:
    """Return one digest of the files and of every part of the manifest that training depends on.

    Outlines, which no training sees, are left out: a model stays one of its dataset when an outline is corrected. So is
    how the photos are divided into files.
    """
    parts = {name: manifest[name] for name in ("name", "materials", "control_macro_ap", "balance")}
    parts["cache"] = {key: value for key, value in manifest["cache"].items() if key != "shards"}
    files = {name: digest for name, digest in manifest["files"].items() if name != OUTLINES}
    content = {**parts, "files": files, "folds": manifest["split"]["folds"]}
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def _check_digest(path: Path, digest: str, cache: Mapping[str, Any]) -> None:
    try:
        actual = photos_digest(path.parent, cache) if path.name == cache["file"] else file_digest(path)
    except OSError as error:
        where = error.filename or path
        raise PreparedDatasetError(f"{where} cannot be read ({error.strerror}). Run prepare again.") from None
    except ValueError:
        actual = ""
    if actual != digest:
        raise PreparedDatasetError(f"{path} has changed since it was prepared. Run prepare again.")


def remove_strays(folder: Path, manifest: dict[str, Any]) -> None:
    """Delete the files that an interrupted run with other settings left in the draft."""
    photos = cache_files(manifest["cache"])
    journals = [Path(name).with_suffix(".jsonl").name for name in photos]
    kept = {*manifest["files"], *photos, *journals, RAW_FILES, MANIFEST}
    if manifest["cache"]["file"] not in photos:
        kept -= {manifest["cache"]["file"]}
    for path in folder.iterdir():
        if path.is_file() and path.name not in kept:
            path.unlink()


@contextlib.contextmanager
def draft(prepared_folder: Path) -> Iterator[Path]:
    """Provide a folder to write the dataset into; it gets the final name once everything is in it.

    Bad input removes the draft. An interruption or a crash keeps it, with the photos decoded so far, and the next run
    resumes from it.

    Raises:
        DatasetError: another process is writing it, or a file is in its place.
    """
    if prepared_folder.exists() and not prepared_folder.is_dir():
        raise DatasetError(f"{prepared_folder} is a file, but the prepared dataset should go there. Move it away.")
    unfinished = prepared_folder.with_name(f".{prepared_folder.name}.unfinished")
    replaced = prepared_folder.with_name(f".{prepared_folder.name}.replaced")
    with alone_in(unfinished, "data_folder"):
        if replaced.exists() and not prepared_folder.exists():  # an earlier run was interrupted between the renames
            os.replace(replaced, prepared_folder)
        shutil.rmtree(replaced, ignore_errors=True)
        try:
            yield unfinished
        except InputError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        if prepared_folder.exists():
            os.replace(prepared_folder, replaced)
        os.replace(unfinished, prepared_folder)
        shutil.rmtree(replaced, ignore_errors=True)


def earlier_cache(prepared_folder: Path) -> Path | None:
    """Return the folder if its cached photos can be reused, that is if all digests match; otherwise None."""
    try:
        load_prepared(prepared_folder)
    except PreparedDatasetError:
        return None
    return prepared_folder
