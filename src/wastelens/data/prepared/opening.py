"""Open the prepared dataset that a setting ``dataset=`` means."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wastelens.data.annotations.layout import recognise
from wastelens.data.annotations.sources import NAMED, choose_source, has_taco, prepared_from, raw_folder
from wastelens.data.prepared.dataset import MANIFEST, PreparedDataset, is_prepared, load_prepared
from wastelens.data.prepared.raw_files import is_unchanged
from wastelens.errors import AnnotationsError, DatasetError, InputError, PreparedDatasetError, did_you_mean
from wastelens.system.console import warn

_warned: set[tuple[Path, str]] = set()  # once per process: a study opens its dataset for each of its cells


def open_dataset(dataset: str, data_folder: Path) -> PreparedDataset:
    """Open a prepared dataset; the photos and annotations that it was made from need not be there.

    If they are and the annotations have changed since, a warning says so.

    Args:
        dataset: a prepared folder, its name below ``data_folder/prepared``, ``auto``, ``taco``, ``sample``, or the raw
            data that it was prepared from. ``auto`` is TACO where its raw data are, or where only TACO is prepared.
        data_folder: the folder that holds ``raw/`` and ``prepared/``.

    Raises:
        PreparedDatasetError: it is not prepared yet, was changed, or was prepared from another folder of that name.
        DatasetError: there is no such folder, or it holds no dataset.
    """
    if dataset not in NAMED and is_prepared(Path(dataset)):
        prepared = load_prepared(Path(dataset))
        return _beside_raw_data(prepared, Path(prepared.manifest["source"]))
    folder, raw = _find(dataset, data_folder)
    prepared = load_prepared(folder)
    return _beside_raw_data(prepared, raw or Path(prepared.manifest["source"]), named=dataset in NAMED)


def _find(dataset: str, data_folder: Path) -> tuple[Path, Path | None]:
    """Return the prepared folder of a dataset, and where its raw data should be; None for where the manifest says."""
    prepared, place = data_folder / "prepared", Path(dataset)
    if dataset == "auto":
        only_taco = is_prepared(prepared / "taco") and not is_prepared(prepared / "sample")
        dataset = "taco" if has_taco(data_folder) or only_taco else "sample"
    if dataset in NAMED:
        name, place = dataset, data_folder / "raw" / dataset
    elif os.path.isdir(place):
        name = place.resolve().name
    elif os.path.isfile(place):
        name = choose_source(dataset, data_folder).name
    else:
        return _find_without_raw_data(dataset, prepared), None
    if not is_prepared(prepared / name):
        choose_source(dataset, data_folder)  # where there are no raw data either, this says how to get them
    return prepared / name, place


def _find_without_raw_data(dataset: str, prepared: Path) -> Path:
    """Return the prepared folder of this name, or of raw data that are gone; raise DatasetError if there is none."""
    place = Path(dataset)
    if place.name == dataset and is_prepared(prepared / dataset):
        return prepared / dataset
    absolute = os.path.realpath(place) if "\0" not in dataset else dataset
    for folder in sorted(path.parent for path in prepared.glob(f"[!.]*/{MANIFEST}")):
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            if dataset == manifest["settings"]["dataset"]:
                return folder
            if absolute in (manifest["source"], str(prepared_from(manifest))):
                return folder
        except (OSError, ValueError, LookupError, TypeError):
            continue  # no manifest of ours
    namesake = prepared / place.name
    there = [folder.parent.name for folder in prepared.glob(f"[!.]*/{MANIFEST}")]
    hint = did_you_mean(dataset, [*NAMED, *there])
    if is_prepared(namesake):
        hint = f" A dataset of that name is prepared: dataset={namesake}."
    raise DatasetError(
        f"dataset='{dataset}' is neither {', '.join(NAMED)}, nor a folder or file, nor prepared in {prepared}. "
        f"Correct the path.{hint}"
    )


def _beside_raw_data(prepared: PreparedDataset, place: Path, *, named: bool = True) -> PreparedDataset:
    """Return the dataset with the place of its raw data, if they are there, as its manifest's source.

    Unless ``place`` follows from the dataset's name (``named``), the user has given it, so it has to be the place that
    the dataset was prepared from, or hold the same annotations; otherwise PreparedDatasetError is raised.
    """
    manifest = prepared.manifest
    recorded = (Path(manifest["source"]), prepared_from(manifest), raw_folder(manifest))
    same_place = place.resolve() in {path.resolve() for path in recorded}
    files = prepared.raw_files[prepared.raw_files["file_name"] == ""]  # of annotations
    if same_place and len(files) and all(map(is_unchanged, files["path"], files["size_bytes"], files["modified_ns"])):
        return prepared
    there = manifest if same_place else {**manifest, "source": str(place.resolve())}
    digest = _annotations_digest(there)
    if not same_place and digest == manifest["annotations_digest"]:
        return replace(prepared, manifest=there)
    if not same_place and not named:
        raise PreparedDatasetError(
            f"{prepared.folder} was prepared from {manifest['source']}, not from {place}. Run prepare with "
            f"dataset={place} again, or use dataset={prepared.folder}."
        )
    if digest not in ("", manifest["annotations_digest"]) and (place, digest) not in _warned:
        _warned.add((place, digest))
        warn(
            f"The annotations in {place} are not those that {prepared.folder} was prepared from. The prepared dataset "
            "is used as it is; to use these annotations, run prepare again."
        )
    return prepared


def _annotations_digest(manifest: Mapping[str, Any]) -> str:
    """Return the digest of the annotations where a manifest says they are; "" where there are none."""
    if not prepared_from(manifest).exists():
        return ""
    try:
        return recognise(Path(manifest["source"])).digest()
    except AnnotationsError:
        return "none, as they are broken"
    except (InputError, OSError):
        return ""
