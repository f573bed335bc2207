"""Find the dataset that was asked for: TACO, the built-in sample, or a folder of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wastelens.data.sample import render_sample
from wastelens.errors import DatasetError

ANNOTATIONS = "annotations.json"
HOW_TO_GET_TACO = "put TACO's annotations.json and its batch_* folders into data/raw/taco"


@dataclass(frozen=True)
class DatasetSource:
    """Where a dataset lies, and in a line of text what it is."""

    name: str
    folder: Path
    summary: str

    @property
    def annotations(self) -> Path:
        """The COCO file."""
        return self.folder / ANNOTATIONS

    def find_photo(self, file_name: str) -> Path:
        """The photo's file: below the folder itself, or below photos/ or images/ (the first that has it)."""
        places = [
            self.folder / file_name,
            self.folder / "photos" / file_name,
            self.folder / "images" / file_name,
        ]
        return next((place for place in places if exists(place)), places[0])


def exists(path: Path) -> bool:
    """Whether there is such a file, also where the name is one that no file can have."""
    try:
        return path.exists()
    except OSError:  # a name too long for the file system
        return False


def choose_source(dataset: str, data_folder: Path) -> DatasetSource:
    """What ``dataset=auto|taco|sample|PATH`` means here and now; touches nothing.

    Raises:
        DatasetError: the folder or its annotations are not there.
    """
    taco = data_folder / "raw" / "taco"
    if dataset == "auto":
        if (taco / ANNOTATIONS).is_file():
            return DatasetSource("taco", taco, f"Dataset: TACO in {taco}.")
        sample = choose_source("sample", data_folder)
        summary = f"Dataset: the built-in sample, as there is no TACO here. To use TACO, {HOW_TO_GET_TACO}."
        return DatasetSource(sample.name, sample.folder, summary)
    if dataset == "sample":
        return DatasetSource("sample", data_folder / "raw" / "sample", "Dataset: the built-in sample.")
    if dataset == "taco":
        if not (taco / ANNOTATIONS).is_file():
            raise DatasetError(f"There is no {taco / ANNOTATIONS}: {HOW_TO_GET_TACO}, or use dataset=sample.")
        return DatasetSource("taco", taco, f"Dataset: TACO in {taco}.")
    return _own_folder(Path(dataset))


def _own_folder(folder: Path) -> DatasetSource:
    if not folder.is_dir():
        raise DatasetError(f"dataset='{folder}' is neither auto, taco, sample nor a folder. Correct the path.")
    if not (folder / ANNOTATIONS).exists():
        raise DatasetError(f"{folder} has no {ANNOTATIONS}. Put the COCO file there, with the photos below it.")
    return DatasetSource(folder.resolve().name, folder, f"Dataset: COCO annotations in {folder}.")


def ensure_sample(source: DatasetSource, progress: Callable[[int, int], None] | None = None) -> None:
    """Render the built-in sample on first use; ``progress`` gets the photos done and their total."""
    if not source.annotations.is_file():
        render_sample(source.folder, progress=progress)
