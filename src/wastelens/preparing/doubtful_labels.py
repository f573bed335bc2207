"""Doubts about the labels of a dataset: single labels, categories of the mapping, photos that contradict others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from wastelens.data.annotations.labels import DISAGREE
from wastelens.data.duplicates.search import near_duplicate_links
from wastelens.data.prepared import dataset as prepared
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.tables import LabelMatrix
from wastelens.evaluation.label_quality import (
    MISSING,
    CategoryDoubt,
    category_doubts,
    differing_pairs,
    ranked_doubts,
)
from wastelens.system.arrays import FloatArray, IntArray
from wastelens.system.tables import from_text

UNLIKELY = 0.05  # of the chance of a category's contradictions, divided by the number of categories (Bonferroni)


@dataclass(frozen=True)
class DoubtfulLabels:
    """Everything that was found.

    Attributes:
        names, materials, labels: of the photos; uint8 (photos, materials), as corrected.
        probabilities: out of fold, (photos, materials).
        doubts: as of ``ranked_doubts``.
        categories: of the mapping, the most doubtful first.
        pairs: near-duplicates with different labels, int64 (pairs, 2).
        several: file name → what several annotators say who differ.
    """

    names: list[str]
    materials: tuple[str, ...]
    labels: LabelMatrix
    probabilities: FloatArray
    doubts: pd.DataFrame
    categories: list[CategoryDoubt]
    pairs: IntArray
    several: dict[str, str]

    @property
    def doubtful_categories(self) -> list[CategoryDoubt]:
        """The categories that chance does not explain."""
        return [one for one in self.categories if one.chance * len(self.categories) < UNLIKELY]

    def shown(self, row: int) -> str:
        """Return the materials of a photo, in words."""
        given = [name for name, label in zip(self.materials, self.labels[row], strict=True) if label]
        return ", ".join(given) or "none"

    def sentences(self) -> list[str]:
        """Return the findings."""
        wrong = self.doubts[self.doubts["estimated_error"]]
        missing = int((wrong["kind"] == MISSING).sum())
        found = [
            f"Estimated to be wrong: {len(wrong):,} of {len(self.doubts):,} labels, {missing:,} of them missing and "
            f"{len(wrong) - missing:,} superfluous. It is an estimate by the model: look before you change anything."
        ]
        found += [
            f"{one.category} may not be {one.material}: in {one.contradicted} of {one.photos} photos the model "
            f"contradicts it ({one.expected:.1f} expected) and speaks for {one.instead} instead."
            for one in self.doubtful_categories
        ]
        if self.categories and not self.doubtful_categories:
            one = self.categories[0]
            found.append(
                "No category of the mapping is contradicted more often than chance explains. The most doubtful is "
                f"{one.category} ({one.material}): in {one.contradicted} of {one.photos} photos."
            )
        if len(self.pairs):
            found.append(f"Pairs of near-duplicates with different labels: {len(self.pairs):,}.")
        if self.several:
            found.append(f"Photos that were listed several times with different objects: {len(self.several):,}.")
        return found

    def metrics(self) -> dict[str, float]:
        """Return the counts, for the run."""
        wrong = self.doubts[self.doubts["estimated_error"]]
        return {
            "labels": len(self.doubts),
            "labels/estimated_errors": len(wrong),
            "labels/missing": int((wrong["kind"] == MISSING).sum()),
            "labels/superfluous": int((wrong["kind"] != MISSING).sum()),
            "labels/doubtful_categories": len(self.doubtful_categories),
            "labels/differing_near_duplicates": len(self.pairs),
            "labels/differing_annotators": len(self.several),
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return file name → table."""
        doubts = self.doubts
        names, materials = np.array(self.names, dtype=object), np.array(self.materials, dtype=object)
        quality = doubts.assign(file_name=names[doubts["row"]], material=materials[doubts["place"]])
        columns = ["file_name", "material", "label", "kind", "probability", "quality", "estimated_error"]
        pairs = [
            (self.names[one], self.shown(one), self.names[two], self.shown(two)) for one, two in self.pairs.tolist()
        ]
        return {
            "label_quality.csv": quality[columns].astype({"estimated_error": int}),
            "categories.csv": pd.DataFrame([asdict(one) for one in self.categories]),
            "near_duplicates.csv": pd.DataFrame(
                pairs, columns=["file_name", "labels", "other_file_name", "other_labels"]
            ),
            "several_annotators.csv": pd.DataFrame(self.several.items(), columns=["file_name", "objects"]),
        }

    def most_doubtful(self, count: int) -> pd.DataFrame:
        """Return this many doubts, half of them of either kind; often one kind would fill most of the list."""
        missing = self.doubts["kind"] == MISSING
        chosen = [self.doubts[~missing].head(count - count // 2), self.doubts[missing].head(count // 2)]
        return pd.concat(chosen).sort_index()

    def notes(self, row: int) -> str:
        """Return what else is known of a photo."""
        of_row = self.pairs[(self.pairs == row).any(axis=1)].ravel().tolist()
        others = [f"{self.names[other]} ({self.shown(other)})" for other in of_row if other != row]
        near = f"Near-duplicates with other labels: {'; '.join(others[:3])}. " if others else ""
        differ = self.several.get(self.names[row], "")
        return near + (f"Listed several times with different objects: {differ}." if differ else "")


def doubtful_labels(dataset: PreparedDataset, probabilities: FloatArray) -> DoubtfulLabels:
    """Return what looks wrong, given the probabilities out of fold, (photos, materials)."""
    frame = dataset.corrected(np.zeros(len(dataset.frame), np.bool_))
    labels = frame[list(dataset.materials)].to_numpy(dtype=np.uint8)
    names = [str(name) for name in frame["file_name"]]
    objects = pd.read_csv(dataset.folder / prepared.OBJECTS, dtype=str, keep_default_na=False)
    return DoubtfulLabels(
        names,
        dataset.materials,
        labels,
        probabilities,
        ranked_doubts(labels, probabilities),
        category_doubts(objects, names, dataset.materials, probabilities),
        differing_pairs(near_duplicate_links(dataset.photos), labels),
        _several(dataset, names),
    )


def _several(dataset: PreparedDataset, names: Sequence[str]) -> dict[str, str]:
    """Return file name → objects, of the photos that several annotators listed who differ."""
    table = pd.read_csv(dataset.folder / prepared.PROBLEMS, dtype=str, keep_default_na=False)
    rows = table[table["problem"].str.startswith(DISAGREE)]
    told = zip(rows["file_name"].map(from_text), rows["problem"].str.removeprefix(DISAGREE), strict=True)
    known = set(names)
    return {name: problem for name, problem in told if name in known}
