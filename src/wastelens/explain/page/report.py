"""What a summary of scores says to people: the head of the page, the closing table, and why something is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.explain.methods.registry import SIGNED
from wastelens.explain.page.gallery import GalleryHeader, SummaryRow
from wastelens.explain.scoring.scores import CONTROL, METHOD_TITLES, Summary


@dataclass(frozen=True)
class _Text:
    """A score as people read it."""

    title: str
    better: Literal["higher", "lower", ""]
    explanation: str


SCORE_TEXTS: Mapping[str, _Text] = {
    "energy": _Text(
        "Energy on the litter",
        "higher",
        "The share of the map's evidence inside the material's outlines, over the share of the photo that they cover. "
        "1 is chance, 2 means twice as much evidence on the litter as an even map would put there.",
    ),
    "energy_over_centre": _Text(
        "Energy over the centre's",
        "higher",
        "The same, less that of a blob in the middle of every photo, which never looks at it: people put the litter "
        "they photograph in the middle. Only above 0 does the map know more than that.",
    ),
    "above_chance": _Text(
        "Photos above chance",
        "higher",
        "The share of cases whose energy is above 1. The mean energy can be carried by a few small objects that were "
        "hit well; this share cannot.",
    ),
    "pointing": _Text(
        "Pointing game",
        "higher",
        "How often the map's maximum lies inside the outlines.",
    ),
    "pointing_chance": _Text(
        "Pointing game by chance",
        "",
        "How often a random place of the photo lies inside the outlines.",
    ),
    "iou": _Text(
        "Overlap at the best threshold",
        "higher",
        "Intersection over union of the outlines and of what is left of the map when it is cut at the threshold that "
        "suits this photo best.",
    ),
    "right_label_wrong_place": _Text(
        "Right label, wrong place",
        "lower",
        "Of the correct decisions, the share with less evidence on the litter than chance would put there.",
    ),
    "insertion": _Text(
        "Insertion",
        "higher",
        "The material's probability while a blurred photo gets its pixels back, those with the most evidence first: "
        "the area under that curve.",
    ),
    "deletion": _Text(
        "Deletion",
        "lower",
        "The same while the pixels with the most evidence are blurred first.",
    ),
    "randomised": _Text(
        "Likeness to random weights",
        "lower",
        "Rank correlation, without its sign, with the map of the same network with random weights. Low is good; near 1 "
        "the map shows the photo and not what the model has learnt. Chance alone gives coarse maps about 0.2.",
    ),
    "additivity_error": _Text(
        "Additivity error",
        "lower",
        "How far the SHAP values of a photo are, added up, from what they should explain: the logit, less the mean "
        "logit of the background photos.",
    ),
    "empty": _Text(
        "Empty maps",
        "",
        "The share of maps that are the same everywhere: they say nothing, and are scored as chance.",
    ),
}


# The columns of the closing table, and those of them that are shown with their intervals.
IN_SHORT = ("energy", "energy_over_centre", "pointing", "pointing_chance", "insertion", "deletion", "randomised")
_WITH_INTERVAL = ("energy", "energy_over_centre")


def header(
    summary: Summary, title: str, run_id: str, dataset: PreparedDataset, split: str, notes: Sequence[str]
) -> GalleryHeader:
    """The head of the page."""
    return GalleryHeader(
        title=title,
        run_id=run_id,
        dataset=dataset.name,
        split=split,
        sentences=summary.sentences(),
        columns=[METHOD_TITLES[name] for name in summary.scored_methods],
        rows=_rows(summary),
        notes=notes,
        materials=dataset.materials,
        methods={name: METHOD_TITLES[name] for name in summary.methods if name != CONTROL},
        signed=SIGNED & set(summary.methods),
    )


def _rows(summary: Summary) -> list[SummaryRow]:
    rows = []
    for score, text in SCORE_TEXTS.items():
        cells = [cell(summary, method, score) for method in summary.scored_methods]
        if any(cells):
            rows.append(SummaryRow(score, text.title, text.explanation, text.better, cells))
    return rows


def cell(summary: Summary, method: str, score: str) -> str:
    """``1.82 [1.41, 2.30]``, or nothing where the method has no such score."""
    mean = summary.means.get((method, score))
    if mean is None:
        return ""
    estimate, low, high = (f"{round(value, 2) + 0.0:.2f}" for value in (mean.estimate, mean.low, mean.high))  # no -0.00
    return f"{estimate} [{low}, {high}]"


def table_rows(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the closing table in the terminal: a row a method."""
    defined = {score for _, score in summary.means}
    shown = [score for score in IN_SHORT if score in defined]
    rows = [
        [METHOD_TITLES[method], *(_short(summary, method, score) for score in shown)]
        for method in summary.scored_methods
    ]
    return ["method", *(SCORE_TEXTS[score].title for score in shown)], rows


def _short(summary: Summary, method: str, score: str) -> str:
    text = cell(summary, method, score)
    return text if score in _WITH_INTERVAL else text.partition(" ")[0]


def notes_on(summary: Summary, *, chosen: int, gone: Mapping[str, str]) -> list[str]:
    """What was left out, how often, and why."""
    counts = summary.metrics()
    photos, pairs = int(counts["explain_photos"]), int(counts["explain_pairs"])
    notes = [f"Explained: {pairs:,} materials, annotated or said by the model, in photos: {photos:,}."]
    if chosen > photos:
        notes.append(f"Photos that show no material, and of which the model says none: {chosen - photos:,}.")
    if covered := int(counts["explain_covered_too_much"]):
        notes.append(f"Left out of localisation, as their outlines cover more than half of the photo: {covered:,}.")
    if without := int(counts["explain_without_outline"]):
        notes.append(f"Left out of localisation, as their material has no usable outline: {without:,}.")
    if gone:
        first, reason = next(iter(gone.items()))
        notes.append(
            f"Photo files that are not what was prepared any more: {len(gone):,} (the first, {first}: {reason}). "
            "They are shown from the cache, which is what the model saw."
        )
    return notes
