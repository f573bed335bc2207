"""Explain photos in batches: choose the methods for a network, draw a map by each, and score the maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from wastelens.config.explain import ExplainConfig
from wastelens.config.explanation_methods import METHODS, MethodInputs, automatic_methods, method_names
from wastelens.data.annotations.coverage import material_coverage
from wastelens.data.annotations.outlines import AnnotatedOutlines
from wastelens.data.prepared.tables import LabelTable
from wastelens.errors import ConfigError
from wastelens.explain.methods.evidence import Evidence, Method
from wastelens.explain.scoring.localisation import (
    COVERED_TOO_MUCH,
    centre_map,
    grid_shape,
    is_empty,
    localise,
    to_grid,
)
from wastelens.explain.scoring.perturbation import areas, perturbed, softened
from wastelens.explain.scoring.scores import CONTROL, PairScores, outcome_of
from wastelens.models.features import AUTO, choose_layer, spatial_layers
from wastelens.system.arrays import BoolArray, Float32Array, FloatArray, IndexArray, PhotoArray
from wastelens.system.console import Bar
from wastelens.system.decision_rule import DecisionRule


@dataclass(frozen=True)
class ExplainedPair:
    """One material of one photo, with its maps and their scores.

    Attributes:
        maps: method → float32 (height, width) over the square photo.
        scores: method or control → its row of scores.csv.
    """

    maps: Mapping[str, Float32Array]
    scores: Mapping[str, PairScores]

    @property
    def about(self) -> PairScores:
        """A row whose photo, material, outcome, probability, threshold and area hold for every method."""
        return self.scores[CONTROL]


class _Parts:
    """How far a batch has come: each method, the random weights and the scores count as an equal part of its photos."""

    def __init__(self, bar: Bar, batch: str, photos: int, parts: int) -> None:
        self._bar = bar
        self._batch = batch
        self._photos, self._part = photos, photos / parts
        self._steps = 0

    def begin(self, name: str, steps: int = 1) -> None:
        """Begin a part that has this many steps; the one before is done."""
        if self._steps:
            self.step(self._steps)
        self._steps, self._step = steps, self._part / steps
        self._bar.show(f"{self._batch}: {name}")

    def step(self, steps: int = 1) -> None:
        """Advance by this many steps of the part."""
        self._steps -= steps
        self._bar.advance(steps * self._step)

    def skip(self) -> None:
        """Advance by the whole batch, of which nothing has begun: nothing in it is to be explained."""
        self._bar.advance(self._photos)


@dataclass(frozen=True)
class Examination:
    """A network with its methods, ready to explain any photo of a dataset.

    Attributes:
        network: photos (batch, side, side, 3) in 0–255 → probabilities (batch, materials).
        randomised: the same methods on the same network with random weights.
        rule: what becomes of its probabilities, by material, in the order of its outputs. Insertion and deletion are
            of the network's own probabilities.
        steps: of insertion and deletion.
        randomised_photos: how many photos, spread evenly, are also explained with random weights; that check is about
            the method and the network rather than about a photo, and costs as much as the explanation.
    """

    network: Any
    methods: Mapping[str, Method]
    randomised: Mapping[str, Method]
    rule: DecisionRule
    outlines: AnnotatedOutlines
    steps: int
    randomised_photos: int

    def explain(
        self, table: LabelTable, photos: PhotoArray, batch_size: int, bar: Bar
    ) -> Iterator[tuple[int, list[ExplainedPair]]]:
        """Yield each row of the table with its explained materials: those annotated and those predicted.

        Only ``batch_size`` photos and their maps are in memory at once. ``photos`` is the dataset's whole cache, and
        ``bar`` advances by the share of a photo that is done.
        """
        checked = np.zeros(len(table), dtype=np.bool_)
        checked[np.linspace(0, len(table) - 1, min(self.randomised_photos, len(table))).round().astype(np.intp)] = True
        for start in range(0, len(table), batch_size):
            rows = np.arange(start, min(start + batch_size, len(table)))
            batch = f"photos {rows[0] + 1} to {rows[-1] + 1} of {len(table)}"
            explained = self._batch(
                table.take(rows), photos, checked[rows], _Parts(bar, batch, len(rows), len(self.methods) + 2)
            )
            yield from zip(rows.tolist(), explained, strict=True)

    def _batch(
        self, table: LabelTable, cache: PhotoArray, checked: BoolArray, parts: _Parts
    ) -> list[list[ExplainedPair]]:
        photos = cache[table.photo_index]
        probabilities = self.rule.calibrated(self.network.predict_on_batch(photos))
        materials, thresholds = zip(*self.rule.thresholds.items(), strict=True)
        pairs = np.argwhere(table.labels.astype(bool) | (probabilities >= np.array(thresholds)))
        explained: list[list[ExplainedPair]] = [[] for _ in photos]
        if not len(pairs):
            parts.skip()
            return explained
        evidence = {}
        for name, method in self.methods.items():
            parts.begin(name)
            evidence[name] = method(photos, pairs)
        parts.begin("random weights")
        correlations = self._correlations(evidence, photos, pairs, checked)
        parts.begin("scores", steps=len(pairs))
        blurred = [softened(photo) for photo in photos]
        for number, (photo, material) in enumerate(pairs.tolist()):
            label, probability = bool(table.labels[photo, material]), float(probabilities[photo, material])
            decision = bool(probability >= thresholds[material])
            about = PairScores(
                file_name=table.file_names[photo],
                material=materials[material],
                method="",
                outcome=outcome_of(label=label, decision=decision),
                label=label,
                decision=decision,
                probability=probability,
                threshold=thresholds[material],
                area_share=float("nan"),
                localised=False,
                empty=False,
            )
            maps = {name: one.maps[number] for name, one in evidence.items()}
            found = self._against_outlines(about, maps)
            for name, one in maps.items():
                stages = perturbed(photos[photo], blurred[photo], to_grid(one, photos.shape[1:3]), self.steps)
                insertion, deletion = areas(np.asarray(self.network.predict_on_batch(stages))[:, material])
                found[name] |= {
                    "empty": is_empty(one),
                    "insertion": insertion,
                    "deletion": deletion,
                    "randomised": float(correlations[name][number]),
                    "additivity_error": float(evidence[name].additivity_error[number]),
                }
            scores = {name: replace(about, method=name, **values) for name, values in found.items()}
            explained[photo].append(ExplainedPair(maps, scores))
            parts.step()
        return explained

    def _correlations(
        self, evidence: Mapping[str, Evidence], photos: PhotoArray, pairs: IndexArray, checked: BoolArray
    ) -> dict[str, FloatArray]:
        """Correlate each pair's map with that of random weights: method → (pairs,), 0 to 1; NaN if not checked.

        The sign is dropped, since a head of random weights inverts signed maps as often as not.
        """
        correlations = {name: np.full(len(pairs), np.nan) for name in evidence}
        rows = np.flatnonzero(checked[pairs[:, 0]])
        if len(rows):
            for name, method in self.randomised.items():
                maps = zip(evidence[name].maps[rows], method(photos, pairs[rows]).maps, strict=True)
                correlations[name][rows] = [abs(rank_correlation(known, one)) for known, one in maps]
        return correlations

    def _against_outlines(self, about: PairScores, maps: Mapping[str, Float32Array]) -> dict[str, dict[str, Any]]:
        """Score each map and the control against the material's outlines, if it has usable ones."""
        image = self.outlines.image(about.file_name)
        outlines = self.outlines.of(about.file_name) if about.label else []
        shape = grid_shape(image.width, image.height)
        coverage = material_coverage(outlines, image, about.material, shape)
        area_share = float(coverage.mean(dtype=np.float64))
        boxes = [one.is_box for one, material in outlines if material == about.material]
        counts: dict[str, Any] = {"outlines": len(boxes), "boxes": sum(boxes)}
        if not COVERED_TOO_MUCH >= area_share > 0:
            known = counts | ({"area_share": area_share} if area_share > 0 else {})
            return {name: dict(known) for name in (*maps, CONTROL)}
        on_grid = {name: to_grid(one, shape) for name, one in maps.items()} | {CONTROL: centre_map(shape)}
        found = {name: localise(one, coverage) for name, one in on_grid.items()}
        localised = {**counts, "localised": True, "pointing_chance": area_share}
        return {name: {**asdict(one), **localised} for name, one in found.items()}


def rank_correlation(a: Float32Array, b: Float32Array) -> float:
    """Return Spearman's rank correlation of all cells of two maps, -1 to 1; NaN if one is constant.

    Compared with the map of random weights, near 0 the map depends on what the model has learnt; near 1 it shows the
    photo (its edges, its middle) and not the model (Adebayo et al. 2018, "Sanity checks for saliency maps", NeurIPS).

    Raises:
        ValueError: different shapes.
    """
    from scipy.stats import rankdata

    if a.shape != b.shape:
        raise ValueError(f"maps of {a.shape} and {b.shape} cells cannot be compared")
    ranks = [rankdata(cells.ravel()) - (cells.size + 1) / 2 for cells in (a, b)]
    spread = np.sqrt(float(ranks[0] @ ranks[0]) * float(ranks[1] @ ranks[1]))
    return float(ranks[0] @ ranks[1] / spread) if spread > 0 else float("nan")


def fitting_methods(network: Any, wanted: str | Sequence[str]) -> tuple[str, ...]:
    """Return the methods to use for this network; ``wanted`` is ``auto`` or names, which are returned unchanged.

    Raises:
        ConfigError: a named method does not work with this network.
    """
    if not isinstance(wanted, str):
        for name in wanted:
            if misfit := METHODS[name].misfit(network):
                raise ConfigError(
                    f"methods={','.join(wanted)}: {misfit}, and this is {network.name}. Leave {name} out."
                )
        return tuple(wanted)
    has_layer = bool(spatial_layers(network))
    fitting = (name for name in automatic_methods() if not METHODS[name].misfit(network))
    return tuple(name for name in fitting if has_layer or not METHODS[name].draws_layer)


def check_methods(config: ExplainConfig, training_photos: int, dataset: str) -> None:
    """Check, without a network, that the named dataset has enough training photos for the methods to use.

    Raises:
        ConfigError: a method needs more.
    """
    for name in automatic_methods() if config.methods == "auto" else config.methods:
        config.method(name).check(training_photos, dataset)


def chosen_layer(network: Any, methods: Sequence[str], name: str) -> str:
    """Return the layer whose map class activation methods draw; empty if no method draws one.

    Raises:
        ConfigError: the network has no such layer, or a layer was named that no method draws.
    """
    if any(METHODS[method].draws_layer for method in methods):
        return choose_layer(network, name)
    if name != AUTO:
        drawing = [method for method in method_names() if METHODS[method].draws_layer]
        raise ConfigError(
            f"layer={name}, but methods={','.join(methods)} draws the map of no layer. Add one of "
            f"{', '.join(drawing)}, or leave layer=auto."
        )
    return ""


def build_methods(network: Any, names: Sequence[str], config: ExplainConfig, inputs: MethodInputs) -> dict[str, Method]:
    """Return each named method, ready for this network."""
    return {name: config.method(name).build(network, inputs) for name in names}
