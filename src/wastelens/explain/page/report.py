"""Present scores: the head of the page, the closing table, notes on omissions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from wastelens.config.explanation_methods import METHODS
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.explain.page.gallery import GalleryHeader, SummaryRow
from wastelens.explain.scoring.scores import CONTROL, Summary, method_titles

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
        "The area under the material's probability, before calibration, while a blurred photo gets its pixels back, "
        "those with the most evidence first.",
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
    if boxes := counts["boxes"]:
        notes.append(
            f"Scored against {counts['outlines']:,} outlines, of which {boxes:,} are boxes: evidence in a box counts "
            "as found, even where it lies beside the litter."
        )
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
