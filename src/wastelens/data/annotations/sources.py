"""Find the raw data of a dataset: TACO, the built-in sample, or a folder of the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from wastelens.data.annotations.layout import ANNOTATIONS, Layout, recognise
from wastelens.data.photos.files import find_photo
from wastelens.errors import DatasetError, did_you_mean
from wastelens.system.console import next_command

NAMED = ("auto", "taco", "sample")


@dataclass(frozen=True)
class DatasetSource:
    """The place of raw data (their folder, or the file of annotations that was named), and a sentence about it."""

    name: str  # of the prepared dataset
    place: Path
    summary: str
    labels: frozenset[str] = frozenset()  # that the mapping knows

    @cached_property
    def layout(self) -> Layout:
        """The layout of the raw data; DatasetError if none fits, or several do."""
        return recognise(self.place, self.labels)

    @property
    def annotations(self) -> Path:
        """The file of annotations, or the folder where its folders are the annotations."""
        return self.layout.annotations

    @property
    def folder(self) -> Path:
        """The folder that the photos' names are relative to."""
        return self.layout.root if self.place.is_file() else self.place

    def find_photo(self, file_name: str) -> Path:
        """Return the photo's file: below the folder itself, photos/ or images/, the first that has it."""
        return find_photo(self.folder, file_name)


def choose_source(dataset: str, data_folder: Path, labels: frozenset[str] = frozenset()) -> DatasetSource:
    """Return the raw data that ``dataset=auto|taco|sample|PATH`` means; changes nothing.

    ``labels`` are the labels and materials that the mapping knows: columns of a table may be such.

    Raises:
        DatasetError: the folder or its annotations are missing, or their layout cannot be recognised.
    """
    taco, to_get_it = data_folder / "raw" / "taco", f"run: {next_command('download', {}, data_folder)}"
    if dataset == "taco" and not has_taco(data_folder):
        raise DatasetError(f"There is no {taco / ANNOTATIONS}. Use dataset=sample, or {to_get_it}")
    if dataset == "taco" or (dataset == "auto" and has_taco(data_folder)):
        return DatasetSource("taco", taco, f"Dataset: TACO in {taco}.")
    if dataset in ("auto", "sample"):
        why = f", as there is no TACO here. To use TACO, {to_get_it}" if dataset == "auto" else "."
        return DatasetSource("sample", data_folder / "raw" / "sample", f"Dataset: the built-in sample{why}")
    place = Path(dataset)
    if not place.is_dir() and not place.is_file():
        raise DatasetError(
            f"dataset='{place}' is neither {', '.join(NAMED)} nor a folder or file.{_meant(place)} Correct the path."
        )
    layout = recognise(place, labels)
    return DatasetSource(layout.root.resolve().name, place, f"Dataset: {layout.recognised}.", labels)


def _meant(place: Path) -> str:
    """Return `` Did you mean 'x'?`` if one of the names, or something beside the place, is spelled like it."""
    try:
        beside = {entry.name: str(entry) for entry in place.parent.iterdir()}
    except OSError:
        beside = {}
    hint = did_you_mean(place.name, [*(NAMED if place.name == str(place) else ()), *beside])
    return next((hint.replace(f"'{name}'", f"'{path}'") for name, path in beside.items() if f"'{name}'" in hint), hint)


def has_taco(data_folder: Path) -> bool:
    """Return whether TACO's annotations are in the data folder."""
    return (data_folder / "raw" / "taco" / ANNOTATIONS).is_file()


def manifest_entries(source: DatasetSource) -> dict[str, str]:
    """Return the entries of a manifest that say where the dataset came from; :func:`prepared_from` reads them."""
    layout = source.layout
    return {
        "source": str(source.place.resolve()),
        "layout": layout.kind,
        "annotations": layout.annotations.relative_to(layout.root).as_posix(),
    }


def prepared_from(manifest: Mapping[str, Any]) -> Path:
    """Return the annotations that a dataset was prepared from; early manifests, without the entry, are from COCO."""
    place, annotations = Path(manifest["source"]), Path(manifest.get("annotations", ANNOTATIONS))
    return place if place.name == annotations.name else place / annotations


def raw_folder(manifest: Mapping[str, Any]) -> Path:
    """Return the folder that the photos' names are relative to, as the manifest tells it; it may be gone."""
    annotations = prepared_from(manifest)
    depth = len(Path(manifest.get("annotations", ANNOTATIONS)).parts)
    return annotations.parents[depth - 1] if depth else annotations
