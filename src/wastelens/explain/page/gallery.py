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
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from html import unescape
from pathlib import Path
from typing import IO, Any, Literal

import cv2
import numpy as np

from wastelens.data.annotations.outlines import DrawnOutline
from wastelens.explain.examination import ExplainedPair
from wastelens.explain.scoring.localisation import COVERED_TOO_MUCH
from wastelens.explain.scoring.scores import OUTCOMES, PairScores
from wastelens.figures.heatmap import ONE_SIGN_ENDS, SIGNED_ENDS, averaged, colour_bar, heat_png, rim_colour
from wastelens.figures.style import label_text, material_colours
from wastelens.system.arrays import FloatArray, PhotoArray

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
    """A photo as it is shown, with the outlines of all annotated objects.

    Attributes:
        photo: uint8 (h, w, 3) in true proportions, the longer side about 320 px.
    """

    file_name: str
    photo: PhotoArray
    outlines: Sequence[DrawnOutline]
    split: str


@dataclass(frozen=True)
class SummaryRow:
    """A score of all methods: its title, which values are good (empty where that depends), and its meaning in words.

    Attributes:
        cells: one per column, such as ``1.82 [1.41, 2.30]``; may be empty.
    """

    title: str
    better: Literal["higher", "lower", ""]
    explanation: str
    cells: Sequence[str] = ()


@dataclass(frozen=True)
class GalleryHeader:
    """The part of the page above the photos.

    Attributes:
        title: of the run.
        sentences: findings, plain text.
        columns: the titles of the table's methods.
        notes: omissions, with their number and reason.
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
    signed: AbstractSet[str]


@dataclass(frozen=True)
class _Kept:
    """A photo and its pairs while they wait on the disk, tens of kilobytes."""

    photo: ShownPhoto  # its pixels are in `jpeg`
    jpeg: bytes
    size: tuple[int, int]
    pairs: tuple[ExplainedPair, ...]


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

    def add(self, photo: ShownPhoto, pairs: Sequence[ExplainedPair]) -> None:
        self.photos += 1
        self.pairs += len(pairs)
        self.outlined.update(outline.material for outline in photo.outlines)
        self.outcomes.update(pair.about.outcome for pair in pairs)
        self.materials.update(pair.about.material for pair in pairs)
        for pair in pairs:
            self.tiles = max(self.tiles, 1 + len(pair.maps))
            self.with_energy.update(method for method in pair.maps if math.isfinite(pair.scores[method].energy))


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

    def add(self, photo: ShownPhoto, pairs: Sequence[ExplainedPair]) -> None:
        """Add a photo and its materials at the end of the page; a photo without any is only counted."""
        self._counts.add(photo, pairs)
        if not pairs:
            return
        height, width = photo.photo.shape[:2]
        small = tuple(replace(pair, maps={name: averaged(one) for name, one in pair.maps.items()}) for pair in pairs)
        jpeg = encoded(photo.photo, "JPEG", quality=_JPEG_QUALITY)
        pickle.dump(_Kept(replace(photo, photo=photo.photo[:0]), jpeg, (width, height), small), self._waiting)

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

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _part(self) -> Path:
        return self._folder / f"{PAGE}.part"

    def _pieces(self, header: GalleryHeader) -> Iterator[str]:
        counts = self._counts
        names = [*header.materials, *sorted((counts.materials.keys() | counts.outlined) - set(header.materials))]
        colours = material_colours(names)
        pieces: Iterator[str] = template("gallery.html.jinja").generate(
            header=header,
            counts=counts,
            materials=names,
            colours=colours,
            rims={name: rim_colour(colour) for name, colour in colours.items()},
            outcomes=OUTCOMES,
            energy_methods=[name for name in header.methods if name in counts.with_energy],
            bars=[_bar(signed) for signed in (False, True)],
            photos=((number, as_base64(kept.jpeg)) for number, kept in enumerate(self._read())),
            cards=(card for number, kept in enumerate(self._read()) for card in _cards(header, names, number, kept)),
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


def _cards(header: GalleryHeader, materials: Sequence[str], number: int, kept: _Kept) -> Iterator[dict[str, Any]]:
    """Yield a card per pair of a photo, as the template expects it."""
    places = {material: place for place, material in enumerate(materials)}
    width, height = kept.size
    view = (_OUTLINE_SIDE * width / max(kept.size), _OUTLINE_SIDE * height / max(kept.size))
    outlines = [(one.material, points) for one in kept.photo.outlines for points in polygons_of(one, np.array(view))]
    objects = Counter(outline.material for outline in kept.photo.outlines if outline.polygons)
    for place, pair in enumerate(kept.pairs):
        about, energies = pair.about, {method: pair.scores[method].energy for method in pair.maps}
        yield {
            "id": f"{number}-{place}",
            "photo": number,
            "ratio": f"{width / height:.4f}",
            "view": f"0 0 {view[0]:.0f} {view[1]:.0f}",
            "file_name": kept.photo.file_name,
            "split": kept.photo.split,
            "about": about,
            "note": _why_not_localised(about),
            "material": places[about.material],
            "energies": {name: round(value, _DECIMALS) for name, value in energies.items() if math.isfinite(value)},
            # place, name and number of objects of each outlined material, in the materials' order
            "outlined": sorted((places[material], material, count) for material, count in objects.items()),
            # this material's outlines are drawn over the others
            "outlines": sorted(
                ((places[name], name == about.material, points) for name, points in outlines),
                key=lambda outline: outline[1],
            ),
            "tiles": [_tile(header, pair, method) for method in pair.maps],
        }


def _tile(header: GalleryHeader, pair: ExplainedPair, method: str) -> dict[str, Any]:
    signed, scores = method in header.signed, pair.scores[method]
    return {
        "method": method,
        "title": header.methods[method],
        "signed": signed,
        "png": as_base64(heat_png(pair.maps[method], signed=signed)),
        "scores": tile_scores(asdict(scores)),
        "below_chance": scores.energy < 1,
        "empty": scores.empty,
    }


def tile_scores(scores: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Return the known scores of a pair as text: name, name on the tile, value."""
    return [
        (name, title, form.format(scores[name]))
        for name, (title, form) in TILE_SCORES.items()
        if math.isfinite(scores.get(name, math.nan))
    ]


def excerpt(page: str, file_names: Collection[str]) -> str:
    """Return a page written by `GalleryWriter` with the cards of these photos only, without filters or scripts."""
    head = page.partition("<body>")[0]
    cards = [
        card
        for card in re.findall(r'<article class="card .*?</article>', page, re.DOTALL)
        if unescape(re.findall(r'<p class="file" title="([^"]*)"', card)[0]) in file_names
    ]
    photos = set(re.findall(r'class="frame (p\d+)"', "".join(cards)))
    head = re.sub(r"^\.(p\d+)\{.*\}\n", lambda rule: rule[0] if rule[1] in photos else "", head, flags=re.MULTILINE)
    return f'{head}<body>\n<div class="cards">\n{"".join(cards)}\n</div>\n</body>\n</html>\n'


def _why_not_localised(about: PairScores) -> str:
    if about.localised:
        return ""
    if not about.label:
        return "no localisation scores"
    if about.area_share > COVERED_TOO_MUCH:
        return "its outlines cover more than half of the photo"
    return "it has no usable outline"


def encoded(picture: PhotoArray, kind: str, **options: Any) -> bytes:
    """Return a picture as the content of a file of this kind."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, optimize=True, **options)
    return buffer.getvalue()


def polygons_of(outline: DrawnOutline, view: FloatArray) -> list[str]:
    """Return polygons as SVG points, in whole numbers; those smaller than a line are left out."""
    found = []
    for polygon in outline.polygons:
        points = np.rint(np.clip(polygon, 0, 1) * view).astype(np.int32)
        if len(points) > 2:
            points = cv2.approxPolyDP(points.reshape(-1, 1, 2), _OUTLINE_TOLERANCE, True).reshape(-1, 2)
            found.append(" ".join(f"{x},{y}" for x, y in points))
    return found


def _bar(signed: bool) -> dict[str, Any]:
    png = as_base64(encoded(colour_bar(signed, 128, 1), "PNG"))
    left, right = SIGNED_ENDS if signed else ONE_SIGN_ENDS
    return {"name": "signed" if signed else "one-sign", "png": png, "left": left, "right": right}


def as_base64(content: bytes) -> str:
    """Return a file as it is embedded in a page."""
    return base64.b64encode(content).decode("ascii")


def template(name: str) -> Any:
    """Return a page's template of this folder."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["label_text"] = label_text
    environment.filters["estimate"] = lambda cell: cell.partition(" [")
    return environment.get_template(name)
