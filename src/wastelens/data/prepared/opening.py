"""Open the prepared dataset that a setting ``dataset=`` means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wastelens.data.annotations.sources import NAMED, DatasetSource, choose_source, prepared_from
from wastelens.data.prepared.dataset import PreparedDataset, load_prepared
from wastelens.errors import DatasetError, PreparedDatasetError


def open_dataset(dataset: str, data_folder: Path) -> PreparedDataset:
    """The prepared dataset of that name or folder.

    Raises:
        PreparedDatasetError: not prepared yet, changed since, or prepared from another folder of that name.
        DatasetError: a folder of the user's own has lost the annotations that it was prepared from.
    """
    source = choose_source(dataset, data_folder)
    prepared = load_prepared(data_folder / "prepared" / source.name)
    if not _is_of(prepared.manifest, source):
        raise PreparedDatasetError(
            f"{prepared.folder} was prepared from {prepared.manifest['source']}, not from {source.place}. "
            f"Run prepare with dataset={dataset} again."
        )
    annotations = prepared_from(prepared.manifest)
    if dataset not in NAMED and not annotations.exists():
        raise DatasetError(
            f"{source.place} has no {annotations.name}, which it was prepared from. Restore it, or run prepare again."
        )
    return prepared


def _is_of(manifest: dict[str, Any], source: DatasetSource) -> bool:
    """Whether a dataset was prepared from there; a folder and its file of annotations are one source."""
    if Path(manifest["source"]) == source.place.resolve():
        return True
    return prepared_from(manifest).resolve() == source.annotations.resolve()
