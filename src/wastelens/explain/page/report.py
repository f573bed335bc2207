"""Present scores: the head of the page, the closing table, notes on omissions; and photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np

from wastelens.config.explanation_methods import METHODS
from wastelens.data.photos.decode import BadPhotoError, DecodedPhoto, Photo, decode, read_photo
from wastelens.data.prepared.dataset import PreparedDataset, is_unchanged
from wastelens.explain.page.gallery import GalleryHeader, SummaryRow
from wastelens.explain.scoring.scores import CONTROL, Summary, method_titles

SHOWN_SIDE_PX = 320
COMPARED_SIDE_PX = 32
LARGEST_DIFFERENCE = 8.0  # grey levels on average; decoding at another size makes less than 2

SCORE_TEXTS: Mapping[str, SummaryRow] = {
    "energy": SummaryRow(
        "Energy on the litter",
        "higher",
        "The share of the map's evidence inside the material's outlines, divided by the share of the photo that they "
        "cover. 1 is chance; 2 means twice as much evidence on the litter as an even map would put there.",
    ),
    "energy_over_centre": SummaryRow(
        "Energy over the centre's",
        "higher",
        "The same, minus that of a blob in the middle of the photo that ignores its content: people put the litter "
        "they photograph in the middle. Only above 0 does the map show more than that.",
    ),
    "above_chance": SummaryRow(
        "Photos above chance",
        "higher",
        "The share of cases whose energy is above 1. A few small objects that were hit well can raise the mean "
        "energy, but not this share.",
    ),
    "pointing": SummaryRow("Pointing game", "higher", "How often the map's maximum is inside the outlines."),
    "pointing_chance": SummaryRow(
        "Pointing game by chance", "", "How often a random place in the photo is inside the outlines."
    ),
    "iou": SummaryRow(
        "Overlap at the best threshold",
        "higher",
        "Intersection over union of the outlines and the part of the map above a threshold, at the threshold that is "
        "best for this photo.",
    ),
    "right_label_wrong_place": SummaryRow(
        "Right label, wrong place",
        "lower",
        "The share of the right decisions with less evidence on the litter than chance would put there.",
    ),
    "insertion": SummaryRow(
        "Insertion",
        "higher",
        "The area under the material's probability while a blurred photo gets its pixels back, those with the most "
        "evidence first.",
    ),
    "deletion": SummaryRow(
        "Deletion", "lower", "The same while the photo's pixels are blurred, those with the most evidence first."
    ),
    "randomised": SummaryRow(
        "Similarity to random weights",
        "lower",
        "Absolute rank correlation with the map of the same network with random weights. Low is good; near 1, the map "
        "shows the photo and not what the model has learnt. Coarse maps reach about 0.2 by chance alone.",
    ),
    "additivity_error": SummaryRow(
        "Additivity error",
        "lower",
        "How far the sum of a photo's SHAP values is from what they should explain: the logit minus the mean logit of "
        "the background photos.",
    ),
    "empty": SummaryRow(
        "Empty maps", "", "The share of maps that are the same everywhere: they show nothing and are scored as chance."
    ),
}


# The columns of the closing table, and those of them shown with intervals.
IN_SHORT = ("energy", "energy_over_centre", "pointing", "pointing_chance", "insertion", "deletion", "randomised")
_WITH_INTERVAL = ("energy", "energy_over_centre")


def header(
    summary: Summary, title: str, run_id: str, dataset: PreparedDataset, split: str, notes: Sequence[str]
) -> GalleryHeader:
    """Return the head of the page."""
    titles, methods = method_titles(), [name for name in summary.methods if name != CONTROL]
    rows = [
        replace(text, cells=[cell(summary, method, score) for method in summary.scored_methods])
        for score, text in SCORE_TEXTS.items()
    ]
    return GalleryHeader(
        title=title,
        run_id=run_id,
        dataset=dataset.name,
        split=split,
        sentences=summary.sentences(),
        columns=[titles[name] for name in summary.scored_methods],
        rows=[row for row in rows if any(row.cells)],
        notes=notes,
        materials=dataset.materials,
        methods={name: titles[name] for name in methods},
        signed={name for name in methods if METHODS[name].signed},
    )


def cell(summary: Summary, method: str, score: str) -> str:
    """Return a mean as ``1.82 [1.41, 2.30]``; empty if the method has no such score."""
    mean = summary.means.get((method, score))
    if mean is None:
        return ""
    estimate, low, high = (f"{round(value, 2) + 0.0:.2f}" for value in (mean.estimate, mean.low, mean.high))  # no -0.00
    return f"{estimate} [{low}, {high}]"


def table_rows(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the closing table in the terminal, a row per method."""
    titles = method_titles()
    defined = {score for _, score in summary.means}
    shown = [score for score in IN_SHORT if score in defined]
    rows = []
    for method in summary.scored_methods:
        cells = {score: cell(summary, method, score) for score in shown}
        short = [text if score in _WITH_INTERVAL else text.partition(" ")[0] for score, text in cells.items()]
        rows.append([titles[method], *short])
    return ["method", *(SCORE_TEXTS[score].title for score in shown)], rows


def notes_on(summary: Summary, *, chosen: int, gone: Mapping[str, str]) -> list[str]:
    """Return the numbers of photos and pairs explained, and of omissions by reason."""
    counts = summary.counts
    photos = counts["photos"]
    notes = [f"Explained: {counts['pairs']:,} annotated or predicted materials in photos: {photos:,}."]
    if chosen > photos:
        notes.append(f"Photos without any annotated or predicted material: {chosen - photos:,}.")
    if covered := counts["covered_too_much"]:
        notes.append(f"Left out of localisation because their outlines cover more than half of the photo: {covered:,}.")
    if without := counts["without_outline"]:
        notes.append(f"Left out of localisation because their material has no usable outline: {without:,}.")
    if gone:
        first, reason = next(iter(gone.items()))
        notes.append(
            f"Photo files missing or changed since prepare: {len(gone):,} (the first, {first}: {reason}). "
            "They are shown from the cache, as the model saw them."
        )
    return notes


class ShownPhotos:
    """A prepared dataset's photos, upright and in their own proportions, the longer side 320 px.

    Attributes:
        gone: file name → why its file differs from the prepared photo; the cached square is shown instead, stretched
            back.
    """

    def __init__(self, dataset: PreparedDataset) -> None:
        self.gone: dict[str, str] = {}
        files = dataset.raw_files
        self._files = dict(zip(files["file_name"], files.itertuples(index=False), strict=True))
        self._cache = dataset.photos
        self._max_megapixels = float(dataset.manifest["settings"]["max_megapixels"])
        self._rows = {str(row["file_name"]): row for row in dataset.frame.to_dict("records")}

    def __getitem__(self, file_name: str) -> Photo:
        """uint8 (height, width, 3)."""
        row = self._rows[file_name]
        try:
            decoded = self._original(file_name, self._cache[int(row["photo_index"])])
            square, width, height = decoded.pixels_0_255, decoded.width, decoded.height
        except BadPhotoError as error:
            self.gone[file_name] = str(error)
            square, width, height = self._cache[int(row["photo_index"])], int(row["width"]), int(row["height"])
        scale = SHOWN_SIDE_PX / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return np.asarray(cv2.resize(np.asarray(square), size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def _original(self, file_name: str, cached: Photo) -> DecodedPhoto:
        """Return a photo from its file, or raise BadPhotoError where the file is gone or shows another picture."""
        file = self._files.get(file_name)
        if file is None:
            raise BadPhotoError("its place is not known")
        decoded = decode(read_photo(file.path), SHOWN_SIDE_PX, self._max_megapixels)
        if not is_unchanged(file.path, file.size_bytes, file.modified_ns):  # a copy, or only touched, perhaps
            _check_same(decoded.pixels_0_255, cached)
        return decoded


def _check_same(square: Photo, cached: Photo) -> None:
    """Raise BadPhotoError where a file shows another picture than the cached one; both uint8, squares of any side."""
    side = min(len(square), len(cached), COMPARED_SIDE_PX)
    small = [cv2.resize(np.asarray(one), (side, side), interpolation=cv2.INTER_AREA) for one in (square, cached)]
    difference = np.abs(small[0].astype(np.int16) - small[1].astype(np.int16)).mean()
    if difference > LARGEST_DIFFERENCE:
        raise BadPhotoError("the file now shows a different picture")
