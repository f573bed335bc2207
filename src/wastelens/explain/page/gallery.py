"""The page of explanations: one self-contained file, written photo by photo.

It is read in the artifact tab of MLflow, a sandboxed frame: scripts run, but nothing can be fetched or stored.
"""

from __future__ import annotations

import base64
import io
import math
import os
import pickle
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from html import unescape
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import cv2
import numpy as np

from wastelens.data.annotations.outlines import DrawnOutline
from wastelens.explain.scoring.scores import OUTCOMES, Outcome, outcome_of
from wastelens.figures.heatmap import averaged, bar_ends, colour_bar, heat_png, rim_colour
from wastelens.figures.style import label_text, material_colours
from wastelens.system.arrays import Float32Array, FloatArray, PhotoArray

PAGE = "index.html"
# Score → its name on a tile, its format (z: zero has no sign).
TILE_SCORES: dict[str, tuple[str, str]] = {
    "energy": ("energy", "{:z.2f}×"),
    "pointing": ("pointing", "{:z.2f}"),
    "iou": ("overlap", "{:z.2f}"),
    "insertion": ("insertion", "{:z.2f}"),
    "deletion": ("deletion", "{:z.2f}"),
    "randomised": ("randomised", "{:z.2f}"),
    "additivity_error": ("additivity error", "{:z.2g}"),
}
_JPEG_QUALITY = 72
_OUTLINE_SIDE = 1000  # coordinates of the longer side: whole numbers are fine enough, and short
_OUTLINE_TOLERANCE = 1.0  # of these; drops points too close to the line to be seen
_DECIMALS = 4  # of the numbers by which the page sorts and filters


@dataclass(frozen=True)
class ShownPhoto:
    """A photo as it is shown.

    Attributes:
        file_name: as in the dataset's labels.
        photo: uint8 (h, w, 3) in true proportions, the longer side about 320 px.
        outlines: of all annotated objects.
        split: train, val or test.
    """

    file_name: str
    photo: PhotoArray
    outlines: Sequence[DrawnOutline]
    split: str


@dataclass(frozen=True)
class ShownPair:
    """A material in a photo, annotated or predicted, with the evidence for it.

    Attributes:
        material: its name.
        label: whether it is annotated.
        decision: whether the model predicts it.
        probability: in [0, 1].
        threshold: smallest probability that counts as a decision, in [0, 1].
        overlays: method → evidence map, float32 (h, w) over the square photo.
        scores: method → score → value; scores may be missing or NaN.
        localised: whether maps were compared with outlines.
        note: why not, or empty.
        empty: methods whose maps are the same everywhere.
    """

    material: str
    label: bool
    decision: bool
    probability: float
    threshold: float
    overlays: Mapping[str, Float32Array]
    scores: Mapping[str, Mapping[str, float]]
    localised: bool
    note: str = ""
    empty: frozenset[str] = frozenset()

    @property
    def outcome(self) -> Outcome:
        """Whether the model is right, misses the material, or raises a false alarm.

        Raises:
            ValueError: neither annotated nor predicted.
        """
        return outcome_of(label=self.label, decision=self.decision)

    def energy(self, method: str) -> float:
        """Return the method's energy on the outlines, 1 being chance; NaN where it is not known."""
        return float(self.scores.get(method, {}).get("energy", math.nan))


@dataclass(frozen=True)
class SummaryRow:
    """A score of all methods.

    Attributes:
        score: its name.
        title: its name on the page.
        explanation: in a sentence or two.
        better: which values are good; empty where that depends.
        cells: one per column, such as ``1.82 [1.41, 2.30]``; may be empty.
    """

    score: str
    title: str
    explanation: str
    better: Literal["higher", "lower", ""]
    cells: Sequence[str]


@dataclass(frozen=True)
class GalleryHeader:
    """The part of the page above the photos.

    Attributes:
        title: of the run.
        run_id: of the run.
        dataset: its name.
        split: of the photos.
        sentences: findings, plain text.
        columns: the titles of the table's methods.
        rows: of the table.
        notes: what was left out, how often, and why.
        materials: all of the dataset, in its order, which determines their colours.
        methods: name → title.
        signed: names of the methods whose maps also show evidence against a material.
    """

    title: str
    run_id: str
    dataset: str
    split: str
    sentences: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[SummaryRow]
    notes: Sequence[str]
    materials: Sequence[str]
    methods: Mapping[str, str]
    signed: AbstractSet[str] = frozenset()


@dataclass(frozen=True)
class _Kept:
    """A photo and its pairs while they wait on the disk, tens of kilobytes."""

    photo: ShownPhoto  # its pixels are in `jpeg`
    jpeg: bytes
    size: tuple[int, int]
    pairs: tuple[ShownPair, ...]


@dataclass
class _Counts:
    """Counts of everything on the page, for its filters."""

    photos: int = 0
    pairs: int = 0
    tiles: int = 1  # of the card with the most tiles
    outlined: set[str] = field(default_factory=set)  # materials
    materials: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    with_energy: set[str] = field(default_factory=set)  # methods

    def add(self, photo: ShownPhoto, pairs: Sequence[ShownPair]) -> None:
        outcomes = [pair.outcome for pair in pairs]  # first, since it refuses pairs without an outcome
        self.photos += 1
        self.outlined.update(outline.material for outline in photo.outlines)
        self.outcomes.update(outcomes)
        for pair in pairs:
            self.pairs += 1
            self.tiles = max(self.tiles, 1 + len(pair.overlays))
            self.materials[pair.material] += 1
            self.with_energy.update(method for method in pair.scores if math.isfinite(pair.energy(method)))


class GalleryWriter:
    """Writes the page as photos are added; photos wait on the disk, so that memory does not grow.

    Used as a context manager, it leaves no partial page behind when something fails. A photo is gone from memory when
    `add` returns, and it waits in a file without a name, which not even a killed process leaves behind.
    """

    def __init__(self, folder: Path) -> None:
        """Start a page in a folder, which is created if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._waiting: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        self._counts = _Counts()

    def add(self, photo: ShownPhoto, pairs: Sequence[ShownPair]) -> None:
        """Add a photo and its materials at the end of the page; a photo without any is only counted.

        Raises:
            ValueError: a pair that is neither annotated nor predicted.
        """
        self._counts.add(photo, pairs)
        if not pairs:
            return
        height, width = photo.photo.shape[:2]
        kept = tuple(replace(pair, overlays=_small(pair.overlays)) for pair in pairs)
        bare = replace(photo, photo=photo.photo[:0])
        pickle.dump(_Kept(bare, _jpeg(photo.photo), (width, height), kept), self._waiting)

    def finish(self, header: GalleryHeader) -> Path:
        """Write the page and return its path. Nothing can be added afterwards."""
        page, part = self._folder / PAGE, self._part
        with part.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(self._pieces(header))
        os.replace(part, page)
        self.close()
        return page

    def close(self) -> None:
        """Remove everything unfinished."""
        self._waiting.close()
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> GalleryWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _part(self) -> Path:
        return self._folder / f"{PAGE}.part"

    def _pieces(self, header: GalleryHeader) -> Iterator[str]:
        counts = self._counts
        names = [*header.materials, *sorted((counts.materials.keys() | counts.outlined) - set(header.materials))]
        builder = _CardBuilder(header, names)
        colours = material_colours(names)
        pieces: Iterator[str] = _template().generate(
            header=header,
            counts=counts,
            materials=names,
            colours=colours,
            rims={name: rim_colour(colour) for name, colour in colours.items()},
            outcomes=OUTCOMES,
            energy_methods=[name for name in header.methods if name in counts.with_energy],
            bars=[_bar(signed) for signed in (False, True)],
            photos=(_photo_rule(number, kept) for number, kept in enumerate(self._read())),
            cards=(card for number, kept in enumerate(self._read()) for card in builder.cards(number, kept)),
        )
        return pieces

    def _read(self) -> Iterator[_Kept]:
        """Yield the waiting photos; can be called several times."""
        place, end = 0, self._waiting.seek(0, os.SEEK_END)
        while place < end:
            self._waiting.seek(place)
            kept: _Kept = pickle.load(self._waiting)
            place = self._waiting.tell()
            yield kept


class _CardBuilder:
    """Turns photos into cards, with the titles, colours and outlines of one page."""

    def __init__(self, header: GalleryHeader, materials: Sequence[str]) -> None:
        self._titles = dict(header.methods)
        self._signed = header.signed
        self._places = {material: place for place, material in enumerate(materials)}

    def cards(self, number: int, kept: _Kept) -> Iterator[dict[str, Any]]:
        """Yield a card per pair, as the template expects it."""
        width, height = kept.size
        view = (_OUTLINE_SIDE * width / max(kept.size), _OUTLINE_SIDE * height / max(kept.size))
        outlines = [(one.material, points) for one in kept.photo.outlines for points in _polygons(one, np.array(view))]
        for place, pair in enumerate(kept.pairs):
            yield {
                "id": f"{number}-{place}",
                "photo": number,
                "ratio": f"{width / height:.4f}",
                "view": f"0 0 {view[0]:.0f} {view[1]:.0f}",
                "file_name": kept.photo.file_name,
                "split": kept.photo.split,
                "pair": pair,
                "material": self._places[pair.material],
                "energies": self._energies(pair),
                "outlined": self._outlined(kept.photo),
                # this material's outlines are drawn over the others
                "outlines": sorted(
                    ((self._places[name], name == pair.material, points) for name, points in outlines),
                    key=lambda outline: outline[1],
                ),
                "tiles": [self._tile(pair, method) for method in self._in_order(pair.overlays)],
                "others": [self._tile(pair, method) for method in self._in_order(pair.scores.keys() - pair.overlays)],
            }

    def _outlined(self, photo: ShownPhoto) -> list[tuple[int, str, int]]:
        """Return place, name and number of objects of each outlined material, in the materials' order."""
        objects = Counter(outline.material for outline in photo.outlines if outline.polygons)
        return sorted((self._places[material], material, number) for material, number in objects.items())

    def _in_order(self, methods: Iterable[str]) -> list[str]:
        known = list(self._titles)
        return sorted(methods, key=lambda method: (known.index(method) if method in known else len(known), method))

    def _energies(self, pair: ShownPair) -> dict[str, float]:
        energies = {method: pair.energy(method) for method in self._in_order(pair.scores)}
        return {method: round(value, _DECIMALS) for method, value in energies.items() if math.isfinite(value)}

    def _tile(self, pair: ShownPair, method: str) -> dict[str, Any]:
        signed = method in self._signed
        overlay = pair.overlays.get(method)
        return {
            "method": method,
            "title": self._titles.get(method, method),
            "signed": signed,
            "png": "" if overlay is None else _base64(heat_png(overlay, signed=signed)),
            "scores": tile_scores(pair.scores.get(method, {})),
            "below_chance": pair.energy(method) < 1,
            "empty": method in pair.empty,
        }


def tile_scores(scores: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Return the known scores of a pair as text: name, name on the tile, value."""
    return [
        (name, title, form.format(scores[name]))
        for name, (title, form) in TILE_SCORES.items()
        if math.isfinite(scores.get(name, math.nan))
    ]


def excerpt(page: str, file_names: Collection[str]) -> str:
    """Return a page with the cards of these photos only, without filters or scripts.

    Args:
        page: HTML written by `GalleryWriter`.
        file_names: of the photos to keep.
    """
    head = page.partition("<body>")[0]
    cards = [
        card
        for card in re.findall(r'<article class="card .*?</article>', page, re.DOTALL)
        if unescape(re.findall(r'<p class="file" title="([^"]*)"', card)[0]) in file_names
    ]
    photos = set(re.findall(r'class="frame (p\d+)"', "".join(cards)))
    head = re.sub(r"^\.(p\d+)\{.*\}\n", lambda rule: rule[0] if rule[1] in photos else "", head, flags=re.MULTILINE)
    return f'{head}<body>\n<div class="cards">\n{"".join(cards)}\n</div>\n</body>\n</html>\n'


def _small(overlays: Mapping[str, Float32Array]) -> dict[str, Float32Array]:
    """Shrink maps to the size at which they are shown."""
    return {method: averaged(evidence) for method, evidence in overlays.items()}


def _jpeg(photo: PhotoArray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def _polygons(outline: DrawnOutline, view: FloatArray) -> list[str]:
    """Return polygons as SVG points, in whole numbers; those smaller than a line are left out."""
    found = []
    for polygon in outline.polygons:
        points = np.rint(np.clip(polygon, 0, 1) * view).astype(np.int32)
        if len(points) > 2:
            points = cv2.approxPolyDP(points.reshape(-1, 1, 2), _OUTLINE_TOLERANCE, True).reshape(-1, 2)
            found.append(" ".join(f"{x},{y}" for x, y in points))
    return found


def _photo_rule(number: int, kept: _Kept) -> tuple[int, str]:
    return number, _base64(kept.jpeg)


def _bar(signed: bool) -> dict[str, Any]:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(colour_bar(signed, 128, 1)).save(buffer, "PNG", optimize=True)
    left, right = bar_ends(signed)
    return {"name": "signed" if signed else "one-sign", "png": _base64(buffer.getvalue()), "left": left, "right": right}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["label_text"] = label_text
    environment.filters["estimate"] = lambda cell: cell.partition(" [")
    return environment.get_template("gallery.html.jinja")
