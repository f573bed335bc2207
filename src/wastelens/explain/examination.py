"""Explain photos a few at a time: maps by every method, and what each map is worth."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.data.annotations.outlines import AnnotatedOutlines
from wastelens.data.prepared.tables import LabelTable
from wastelens.explain.methods.evidence import Evidence, Method, Photos
from wastelens.explain.scoring.frames import grid_shape, to_grid
from wastelens.explain.scoring.localisation import COVERED_TOO_MUCH, centre_map, is_empty, localise
from wastelens.explain.scoring.masks import material_coverage
from wastelens.explain.scoring.perturbation import PerturbationAreas, areas, perturbed, softened
from wastelens.explain.scoring.randomisation import rank_correlation
from wastelens.explain.scoring.scores import CONTROL, PairScores

Map = npt.NDArray[np.float32]
NAN = float("nan")


@dataclass(frozen=True)
class ExplainedPair:
    """One material of one photo.

    Attributes:
        maps: method → float32 (height, width) over the square photo.
        scores: method, and the control → its row of scores.csv.
    """

    maps: Mapping[str, Map]
    scores: Mapping[str, PairScores]

    @property
    def about(self) -> PairScores:
        """What is the same in every row: photo, material, outcome, probability, threshold, area."""
        return self.scores[CONTROL]


@dataclass(frozen=True)
class Examination:
    """A network with its methods, ready to explain any photo of a dataset.

    Attributes:
        network: photos (batch, side, side, 3) in 0–255 → probabilities (batch, materials).
        methods: by name.
        randomised: the same methods on the same network with random weights.
        materials: in the order of the network's outputs.
        thresholds: (materials,).
        outlines: where the litter is.
        steps: of insertion and deletion.
        randomised_photos: how many photos, spread evenly, are explained by the random weights too; the check is of the
            method and the network rather than of a photo, and costs as much as the explanation.
    """

    network: Any
    methods: Mapping[str, Method]
    randomised: Mapping[str, Method]
    materials: Sequence[str]
    thresholds: npt.NDArray[np.float64]
    outlines: AnnotatedOutlines
    steps: int
    randomised_photos: int

    def explain(
        self, table: LabelTable, photos: Photos, batch_size: int, clock: Clock
    ) -> Iterator[tuple[int, list[ExplainedPair]]]:
        """Each row of the table with its explained materials: those annotated, and those that the model says.

        Only ``batch_size`` photos and their maps are in memory at once. ``photos`` is the dataset's whole cache.
        """
        places = table.frame["photo_index"].to_numpy(dtype=np.intp)
        checked = np.zeros(len(table), dtype=np.bool_)
        checked[np.linspace(0, len(table) - 1, min(self.randomised_photos, len(table))).round().astype(np.intp)] = True
        for start in range(0, len(table), batch_size):
            rows = np.arange(start, min(start + batch_size, len(table)))
            some = photos[places[rows]]
            yield from zip(rows.tolist(), self._batch(table.take(rows), some, checked[rows], clock), strict=True)

    def _batch(
        self, table: LabelTable, photos: Photos, checked: npt.NDArray[np.bool_], clock: Clock
    ) -> list[list[ExplainedPair]]:
        probabilities = np.asarray(self.network.predict_on_batch(photos), dtype=np.float64)
        pairs = np.argwhere(table.labels.astype(bool) | (probabilities >= self.thresholds))
        explained: list[list[ExplainedPair]] = [[] for _ in photos]
        if not len(pairs):
            return explained
        evidence = {}
        for name, method in self.methods.items():
            evidence[name] = method(photos, pairs)
            clock.lap(name)
        correlations = self._correlations(evidence, photos, pairs, checked)
        clock.lap("random weights")
        blurred = [softened(photo) for photo in photos]
        for number, (photo, material) in enumerate(pairs.tolist()):
            about = self._about(
                table.file_names[photo], material, table.labels[photo, material], probabilities[photo, material]
            )
            maps = {name: one.maps[number] for name, one in evidence.items()}
            found = self._against_outlines(about, maps)
            for name, one in maps.items():
                changes = self._perturbed(photos[photo], blurred[photo], material, one)
                found[name] |= {
                    "empty": is_empty(one),
                    "insertion": changes.insertion,
                    "deletion": changes.deletion,
                    "randomised": float(correlations[name][number]),
                    "additivity_error": float(evidence[name].additivity_error[number]),
                }
            scores = {name: replace(about, method=name, **values) for name, values in found.items()}
            explained[photo].append(ExplainedPair(maps, scores))
        clock.lap("scores")
        return explained

    def _correlations(
        self,
        evidence: Mapping[str, Evidence],
        photos: Photos,
        pairs: npt.NDArray[np.intp],
        checked: npt.NDArray[np.bool_],
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Method → likeness of each pair's map to that of random weights, 0 to 1; NaN for photos not checked.

        The absolute rank correlation: a head of random weights turns signed maps over as often as not.
        """
        correlations = {name: np.full(len(pairs), np.nan) for name in evidence}
        rows = np.flatnonzero(checked[pairs[:, 0]])
        if len(rows):
            for name, method in self.randomised.items():
                maps = method(photos, pairs[rows]).maps
                known = evidence[name].maps
                correlations[name][rows] = [
                    abs(rank_correlation(known[row], one)) for row, one in zip(rows, maps, strict=True)
                ]
        return correlations

    def _about(self, file_name: str, material: int, label: int, probability: float) -> PairScores:
        """A row of scores.csv as far as no method matters to it."""
        decision = bool(probability >= self.thresholds[material])
        return PairScores(
            file_name=file_name,
            material=self.materials[material],
            method="",
            outcome="false_alarm" if not label else "right" if decision else "missed",
            label=bool(label),
            decision=decision,
            probability=float(probability),
            threshold=float(self.thresholds[material]),
            area_share=NAN,
            localised=False,
            empty=False,
        )

    def _against_outlines(self, about: PairScores, maps: Mapping[str, Map]) -> dict[str, dict[str, Any]]:
        """How well each map, and the control, finds the material's outlines, where there are any to be found."""
        image = self.outlines.image(about.file_name)
        outlines = self.outlines.of(about.file_name) if about.label else []
        shape = grid_shape(image.width, image.height)
        coverage = material_coverage(outlines, image, about.material, shape)
        area_share = float(coverage.mean(dtype=np.float64))
        names = (*maps, CONTROL)
        if not area_share > 0:
            return {name: {} for name in names}
        if area_share > COVERED_TOO_MUCH:
            return {name: {"area_share": area_share} for name in names}
        on_grid = {**{name: to_grid(one, shape) for name, one in maps.items()}, CONTROL: centre_map(shape)}
        found = {name: localise(one, coverage) for name, one in on_grid.items()}
        return {name: {**asdict(one), "localised": True, "pointing_chance": area_share} for name, one in found.items()}

    def _perturbed(self, photo: Photos, blurred: Map, material: int, evidence: Map) -> PerturbationAreas:
        """What the probability does as the map's pixels go, and come."""
        stages = perturbed(photo, blurred, to_grid(evidence, photo.shape[:2]), self.steps)
        return areas(np.asarray(self.network.predict_on_batch(stages))[:, material])


class Clock:
    """Seconds spent on each kind of work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, name: str) -> None:
        """All time since the last lap was for this."""
        now = time.monotonic()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    def per_photo(self, photos: int) -> str:
        """``gradcam 0.004, shap 0.310 s a photo``."""
        return ", ".join(f"{name} {spent / photos:.3f}" for name, spent in self.seconds.items()) + " s a photo"
