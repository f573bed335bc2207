"""Open the prepared dataset that a setting ``dataset=`` means."""

from __future__ import annotations

from pathlib import Path

from wastelens.data.prepared import PreparedDataset, load_prepared
from wastelens.data.sources import choose_source
from wastelens.errors import PreparedDatasetError


def open_dataset(dataset: str, data_folder: Path) -> PreparedDataset:
    """The prepared dataset of that name or folder.

    Raises:
        PreparedDatasetError: not prepared yet, changed since, or prepared from another folder of that name.
    """
    source = choose_source(dataset, data_folder)
    prepared = load_prepared(data_folder / "prepared" / source.name)
    if Path(prepared.manifest["source"]) != source.folder.resolve():
        raise PreparedDatasetError(
            f"{prepared.folder} was prepared from {prepared.manifest['source']}, not from {source.folder}. "
            f"Run prepare with dataset={dataset} again."
        )
    return prepared
