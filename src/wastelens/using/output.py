"""The folder that ``predict`` writes: whether it is free, the blocks in it, and the tables made of them.

Each file appears at once, whole, ``predictions.json`` last: with it the folder is finished. Until then the blocks wait
in ``.unfinished/``, in a folder named by the digest of model, photos and settings: another start with the same goes on
with them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wastelens.config.predict import PredictConfig
from wastelens.errors import DatasetError
from wastelens.evaluation.bootstrap import sampling_units
from wastelens.evaluation.prevalence import Share, adjusted_shares
from wastelens.figures.style import label_text
from wastelens.system.arrays import FloatArray
from wastelens.system.decision_rule import DecisionRule
from wastelens.system.tables import csv_text, for_spreadsheets
from wastelens.using.chosen_model import ChosenModel
from wastelens.using.photo_list import PhotoList

CSV, PARQUET, ABOUT, REPORT = "predictions.csv", "predictions.parquet", "predictions.json", "report.html"
FILES = (CSV, PARQUET, REPORT, ABOUT)  # in the order in which they are written
_UNFINISHED = ".unfinished"
_MOST_PROBLEMS = 50
_SMALLEST_SHOWN = 0.0001
_ALARM = 0.01  # one set of photos in a hundred that are like the test's is said to be unlike them
_FIXES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Free space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Fix the permissions"),
}
_SETTINGS = ("evidence", "exif", "max_megapixels", "block_photos")  # that the rows, or their blocks, depend on


def output_folder(config: PredictConfig, photos: PhotoList) -> Path:
    """Return the folder to write to.

    Raises:
        DatasetError: it is a file, or has predictions already that are not to be replaced.
    """
    folder = Path(config.output) if config.output else config.data_folder / "predictions" / photos.title
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"output={folder} is a file. Give another folder.")
    there = [name for name in FILES if (folder / name).exists()]
    finished = ABOUT in there or not (folder / _UNFINISHED).is_dir()  # else a kill came between the files
    if there and finished and not config.overwrite:
        what = "predictions of other photos" if _are_of_others(folder, photos) else "predictions already"
        raise DatasetError(
            f"{folder} has {what} ({there[0]}). Replace them: overwrite=true; or write elsewhere: output=FOLDER."
        )
    return folder


def _are_of_others(folder: Path, photos: PhotoList) -> bool:
    """Return whether the predictions of a folder are of other photos, as far as its file about them tells."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        return bool(about["photos"]["digest"] != photos.digest)
    except (OSError, ValueError, LookupError, TypeError):
        return False


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the output folder's disk into one that names the place and ``output=``.

    Raises:
        DatasetError: the disk is full, or the folder cannot be written to.
    """
    try:
        yield
    except OSError as error:
        # Of a copy, the second file is the one that is written.
        place = Path(os.path.abspath(error.filename2 or error.filename or folder))
        here = folder.absolute()
        if error.errno not in _FIXES or not (place.is_relative_to(here) or here.is_relative_to(place)):
            raise
        raise DatasetError(
            f"{os.strerror(error.errno)}: '{place}'. {_FIXES[error.errno]}, or write elsewhere: output=FOLDER."
        ) from error


def blocks_folder(folder: Path, config: PredictConfig, model: ChosenModel, photos: PhotoList) -> Path:
    """Return the folder of the blocks of these photos, model and settings.

    Raises:
        DatasetError: an unfinished run with others was there, and is not to be replaced.
    """
    settings = {name: getattr(config, name) for name in _SETTINGS}
    about = json.dumps([model.digest, photos.digest, settings], sort_keys=True)
    blocks = folder / _UNFINISHED / blake2b(about.encode(), digest_size=8).hexdigest()
    others = [one for one in blocks.parent.iterdir() if one != blocks] if blocks.parent.is_dir() else []
    if others and not config.overwrite:
        raise DatasetError(
            f"{folder} has unfinished predictions by another model, of other photos or with other settings. Discard "
            "them: overwrite=true; or write elsewhere: output=FOLDER."
        )
    for other in others:
        shutil.rmtree(other)
    return blocks


def remove_files(folder: Path) -> None:
    """Remove the finished files, the last one first: a kill meanwhile leaves no folder that looks finished."""
    for name in reversed(FILES):
        (folder / name).unlink(missing_ok=True)


def forget_blocks(folder: Path) -> None:
    """Remove the blocks of a finished run."""
    shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)


def unlike_sentence(p: float) -> str:
    """Return a sentence where a p-value says that photos are unlike those that the model learnt from; "" elsewhere.

    There is one test, of the mean distance of all photos, so nothing is to be corrected for many comparisons.
    """
    if not p < _ALARM:
        return ""
    shown = f"p = {p:.4f}" if p >= _SMALLEST_SHOWN else f"p < {_SMALLEST_SHOWN}"
    return (
        f"These photos do not resemble what the model learnt from ({shown}): its answers have not been tested on such."
    )


def learnt_sentence(dataset: str) -> str:
    """Return what to say of predictions for the photos of the model's own dataset."""
    return (
        f"The model has learnt from these photos (those of {dataset}), so it errs less on them than on its test: do "
        "not trust the shares. Its scores are in its own run; predict other photos."
    )


@dataclass
class Summary:
    """The sums of all rows.

    Attributes:
        photos: number of rows.
        problems: number of those with a problem.
        yes, unsure: material → number of photos with this decision.
        above: material → number of photos at or above the threshold, which decides where no answer is unsure.
        first_problems: file and problem of the first few.
        shares: material → estimated share of the usable photos, adjusted for the model's errors.
        distances: of the usable photos from the model's training photos.
        learnt_from: the model's own dataset, if these are its photos.
        notes: sentences on how the shares were estimated.
        unlike: how probable such distances are for photos like the model's test, a p-value; NaN: it cannot be told.
    """

    photos: int = 0
    problems: int = 0
    yes: dict[str, int] = field(default_factory=dict)
    unsure: dict[str, int] = field(default_factory=dict)
    above: dict[str, int] = field(default_factory=dict)
    first_problems: list[tuple[str, str]] = field(default_factory=list)
    shares: dict[str, Share] = field(default_factory=dict)
    distances: list[FloatArray] = field(default_factory=list)
    learnt_from: str = ""
    notes: list[str] = field(default_factory=list)
    unlike: float = math.nan

    @property
    def usable(self) -> int:
        """Number of photos with an answer."""
        return self.photos - self.problems

    @property
    def doubt(self) -> str:
        """Sentences if the photos are the model's own, or not of the kind that it was tested on; "" otherwise."""
        if self.learnt_from:
            return learnt_sentence(self.learnt_from)
        return " ".join(one for one in (self._contradicted, unlike_sentence(self.unlike)) if one)

    @property
    def _contradicted(self) -> str:
        strange = [label_text(name) for name, share in self.shares.items() if share.contradicted]
        if not strange:
            return ""
        return (
            f"These photos are of another kind than the model's test: for {', '.join(strange)} it says yes more "
            "rarely, or more often, than its errors there can explain. Do not rely on the other estimates either."
        )

    def add(self, rows: pd.DataFrame, rule: DecisionRule) -> None:
        """Count rows; rule: that decided."""
        bad = rows[rows["problem"] != ""]
        self.photos += len(rows)
        self.problems += len(bad)
        for material, threshold in rule.thresholds.items():
            decisions = rows[f"decision_{material}"]
            above = rows[f"probability_{material}"] >= threshold if rule.bands else decisions == "yes"
            counted = ((self.yes, decisions == "yes"), (self.unsure, decisions == "unsure"), (self.above, above))
            for sums, chosen in counted:
                sums[material] = sums.get(material, 0) + int(chosen.sum())
        self.distances.append(rows["distance"].dropna().to_numpy(dtype=np.float64))
        room = _MOST_PROBLEMS - len(self.first_problems)
        self.first_problems += list(zip(bad["file"][:room], bad["problem"][:room], strict=True))

    def estimate(self, model: ChosenModel, seed: int, resamples: int) -> None:
        """Estimate how many photos show each material, from the model's errors on its own test."""
        if self.usable:
            test, counted = model.test_predictions(), np.array([self.above[name] for name in model.materials])
            rng = np.random.default_rng([seed, 0])
            units, self.notes = sampling_units(test.groups, "the model's own test")
            found = adjusted_shares(test.labels, test.decisions, units, counted, self.usable, rng, resamples)
            self.shares = dict(zip(model.materials, found, strict=True))
            if model.familiarity:
                self.unlike = model.familiarity.p_of(np.concatenate(self.distances))


def read_blocks(blocks: Sequence[Path]) -> Iterator[pd.DataFrame]:
    """Yield the rows of each block."""
    for block in blocks:
        yield pd.read_parquet(block)


def write_tables(blocks: Sequence[Path], folder: Path) -> None:
    """Join the blocks to ``predictions.csv`` and ``predictions.parquet``, one at a time."""
    import pyarrow.parquet as pq

    csv, parquet = (folder / f"{name}.part" for name in (CSV, PARQUET))
    try:
        with (
            csv.open("w", encoding="utf-8", newline="") as file,
            pq.ParquetWriter(parquet, pq.read_schema(blocks[0]).remove_metadata()) as writer,
        ):
            for number, block in enumerate(blocks):
                table = pq.read_table(block).replace_schema_metadata(None)
                writer.write_table(table)
                text = csv_text(for_spreadsheets(table.to_pandas()))
                file.write(text if number == 0 else text.partition("\n")[2])
        os.replace(csv, folder / CSV)
        os.replace(parquet, folder / PARQUET)
    finally:
        csv.unlink(missing_ok=True)
        parquet.unlink(missing_ok=True)


def verdict_on(model: ChosenModel) -> str:
    """Return the model's own verdict, as everything that is made of its answers begins."""
    return model.card.verdict if model.is_proven else f"UNPROVEN MODEL. {model.card.verdict}"


def write_about(summary: Summary, model: ChosenModel, photos: PhotoList, config: PredictConfig, folder: Path) -> None:
    """Write ``predictions.json``, whose first line is the model's verdict."""
    card = model.card
    about = {
        "model": {"address": model.address, "run_id": model.run_id, "digest": model.digest, "dataset": card.dataset},
        "proven": model.is_proven,
        "test_macro_ap": [card.metrics.get(f"test/macro_ap{end}") for end in ("", "_low", "_high")],
        "thresholds": card.thresholds,
        "calibration": card.calibration,
        "bands": card.bands,
        "photos": {
            "source": photos.title,
            "digest": photos.digest,
            "rows": summary.photos,
            "problems": summary.problems,
        },
        "doubt": summary.doubt,
        "notes": summary.notes,
        "unlike_p": round(summary.unlike, 6) if math.isfinite(summary.unlike) else None,
        "materials": {name: _about_material(summary, name) for name in model.materials},
        "settings": {name: getattr(config, name) for name in _SETTINGS},
    }
    text = json.dumps(about, indent=2, ensure_ascii=False)
    first = json.dumps(verdict_on(model), ensure_ascii=False)
    part = folder / f"{ABOUT}.part"
    part.write_text(f'{{"verdict": {first},\n{text.removeprefix("{").lstrip(chr(10))}\n', encoding="utf-8")
    os.replace(part, folder / ABOUT)


def _about_material(summary: Summary, material: str) -> Mapping[str, Any]:
    share = summary.shares.get(material)
    known = {} if share is None else {"share": share.estimate, "share_low": share.low, "share_high": share.high}
    rounded = {name: round(value, 6) if np.isfinite(value) else None for name, value in known.items()}
    return {"yes": summary.yes[material], "unsure": summary.unsure[material], **rounded}
