"""Explained photos as people look at them: on one page, and as a picture a photo and method."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

from wastelens.data.annotations.outlines import AnnotatedOutlines
from wastelens.explain.examination import ExplainedPair
from wastelens.explain.methods.registry import SIGNED
from wastelens.explain.page.gallery import GalleryWriter, ShownPair, ShownPhoto
from wastelens.explain.page.photo_figures import photo_figure
from wastelens.explain.page.shown_photos import ShownPhotos
from wastelens.explain.scoring.localisation import COVERED_TOO_MUCH
from wastelens.explain.scoring.scores import CONTROL, METHOD_TITLES, PairScores

LONGEST_NAME_BYTES = 200
_NOT_FOR_ADDRESSES = re.compile(r"[^\w.\-]")


class Pictures(GalleryWriter):
    """``index.html`` and ``<method>/<photo>.png`` in a folder, written photo by photo.

    Args:
        folder: of the page.
        photos: as people see them.
        outlines: of the annotated litter.
        methods: those that pictures are drawn of.
        materials: all of the dataset, in its order.
        split: whose photos they are.
    """

    def __init__(
        self,
        folder: Path,
        *,
        photos: ShownPhotos,
        outlines: AnnotatedOutlines,
        methods: Sequence[str],
        materials: Sequence[str],
        split: str,
    ) -> None:
        super().__init__(folder)
        self._photos = photos
        self._outlines = outlines
        self._methods = methods
        self._materials = materials
        self._split = split

    def draw(self, file_name: str, pairs: Sequence[ExplainedPair]) -> None:
        """Add a photo with its explained materials."""
        photo = ShownPhoto(file_name, self._photos[file_name], self._outlines.drawn(file_name), self._split)
        shown = [_shown(pair) for pair in pairs]
        self.add(photo, shown)
        for method in self._methods:
            png = photo_figure(
                photo, shown, method, title=METHOD_TITLES[method], signed=method in SIGNED, materials=self._materials
            )
            path = self._folder / method / figure_name(file_name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(png)


def figure_name(file_name: str) -> str:
    """The name of a photo's picture: the photo's own and ``.png``.

    What an address cannot hold, and MLflow then cannot fetch, and what no file system takes, gives way to a digest.
    """
    plain = _NOT_FOR_ADDRESSES.sub("_", file_name)
    if plain == file_name and len(file_name.encode()) <= LONGEST_NAME_BYTES:
        return f"{file_name}.png"
    digest = blake2b(file_name.encode(), digest_size=4).hexdigest()
    return f"{plain.encode()[:LONGEST_NAME_BYTES].decode(errors='ignore')}-{digest}.png"


def _shown(pair: ExplainedPair) -> ShownPair:
    about = pair.about
    return ShownPair(
        material=about.material,
        label=about.label,
        decision=about.decision,
        probability=about.probability,
        threshold=about.threshold,
        overlays=pair.maps,
        scores={name: _numbers(scores) for name, scores in pair.scores.items() if name != CONTROL},
        localised=about.localised,
        note=_why_not_localised(about),
        empty=frozenset(name for name, scores in pair.scores.items() if scores.empty),
    )


def _numbers(scores: PairScores) -> dict[str, float]:
    return {key: value for key, value in asdict(scores).items() if isinstance(value, float)}


def _why_not_localised(about: PairScores) -> str:
    if about.localised or not about.label:
        return ""
    if about.area_share > COVERED_TOO_MUCH:
        return "its outlines cover more than half of the photo"
    return "it has no usable outline"
