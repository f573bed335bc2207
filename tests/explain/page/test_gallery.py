"""The page of explanations: its content, that it is self-contained, and that failures leave nothing behind."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import tracemalloc
from collections.abc import Collection, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from tests import factories

from wastelens.data.annotations.outlines import DrawnOutline
from wastelens.explain.examination import ExplainedPair
from wastelens.explain.page.gallery import (
    GalleryHeader,
    GalleryWriter,
    ShownPhoto,
    SummaryRow,
    excerpt,
    tile_scores,
)
from wastelens.explain.scoring.scores import CONTROL, Outcome, PairScores
from wastelens.figures.heatmap import heat_png

MATERIALS = factories.MATERIALS
METHODS = {"gradcam": "Grad-CAM", "scorecam": "Score-CAM", "shap": "SHAP", "centre": "centre of the photo"}
SQUARE = np.array([[0.25, 0.5], [0.75, 0.5], [0.75, 1.0], [0.25, 1.0]])
TRIANGLE = np.array([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1]])
NASTY = """<b>"a" & 'b'</b> </script></style> {{ 1 }} é ゴミ"""
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """The page's elements with their attributes, and its texts with their elements; fails if tags do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.content = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(self.content)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self._open[-1] if self._open else "", data.strip()))

    def all(self, tag: str, **attributes: str) -> list[dict[str, Any]]:
        """Return the attributes of the elements with this tag that have all these attributes."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]

    def cards(self) -> list[dict[str, Any]]:
        return self.all("article")

    def said(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    @property
    def text(self) -> str:
        return " ".join(text for tag, text in self.texts if tag not in ("style", "script"))


def a_header(**changes: Any) -> GalleryHeader:
    values: dict[str, Any] = {
        "title": "a run",
        "run_id": "0123abc",
        "dataset": "sample",
        "split": "test",
        "sentences": ["Grad-CAM looks at the litter."],
        "columns": list(METHODS.values()),
        "rows": [SummaryRow("Energy", "higher", "Over chance.", ["1.82 [1.41, 2.30]", "2", "", "1.0"])],
        "notes": ["3 were left out."],
        "materials": MATERIALS,
        "methods": METHODS,
        "signed": {"shap"},
    }
    return GalleryHeader(**(values | changes))


def a_photo(name: str = "a.jpg", seed: int = 0, outlines: Sequence[DrawnOutline] = ()) -> ShownPhoto:
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return ShownPhoto(name, np.asarray(Image.fromarray(pixels).resize((320, 240))), outlines, "test")


SCORES: Mapping[str, Mapping[str, float]] = {
    "gradcam": {"energy": 1.5, "pointing": 1.0},
    "shap": {"energy": 0.5, "additivity_error": 0.0123},
}


def a_pair(
    material: str = "plastic",
    outcome: Outcome = "right",
    *,
    overlays: Mapping[str, npt.NDArray[np.float32]] | None = None,
    scores: Mapping[str, Mapping[str, float]] = SCORES,
    empty: Collection[str] = (),
    **changes: Any,
) -> ExplainedPair:
    values: dict[str, Any] = {
        "file_name": "a.jpg",
        "material": material,
        "outcome": outcome,
        "label": outcome != "false_alarm",
        "decision": outcome != "missed",
        "probability": 0.83,
        "threshold": 0.41,
        "area_share": 0.2,
        "localised": True,
    }
    drawn = maps() if overlays is None else overlays
    rows = {
        method: PairScores(method=method, empty=method in empty, **(values | changes | dict(scores.get(method, {}))))
        for method in (*drawn, CONTROL)
    }
    return ExplainedPair(drawn, rows)


def maps(seed: int = 0, methods: Sequence[str] = ("gradcam", "shap")) -> dict[str, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(160, 160)).astype(np.float32) if name == "shap" else rng.random((5, 5), dtype=np.float32)
        for name in methods
    }


def written(
    folder: Path, photos: Sequence[tuple[ShownPhoto, Sequence[ExplainedPair]]], header: GalleryHeader | None = None
) -> Page:
    with GalleryWriter(folder) as writer:
        for photo, pairs in photos:
            writer.add(photo, pairs)
        path = writer.finish(header or a_header())
    assert path == folder / "index.html"
    assert list(folder.iterdir()) == [path]
    return Page(path)


def test_a_card_shows_the_outcome_for_a_material(tmp_path: Path) -> None:
    pairs = [a_pair(), a_pair("other_objects", "missed", probability=0.125), a_pair("glass", "false_alarm")]
    page = written(tmp_path, [(a_photo(), pairs)])
    cards = page.cards()
    assert [card["data-outcome"] for card in cards] == ["right", "missed", "false_alarm"]
    assert [MATERIALS[int(card["data-material"])] for card in cards] == ["plastic", "other_objects", "glass"]
    assert [card["data-probability"] for card in cards] == ["0.8300", "0.1250", "0.8300"]
    assert [json.loads(card["data-energies"]) for card in cards] == [{"gradcam": 1.5, "shap": 0.5}] * 3
    assert page.said("h3") == ["plastic,", "other objects,", "glass,"]
    assert [text for text in page.said("span") if text in ("right", "missed", "false alarm")] == [
        "right",
        "missed",
        "false alarm",
    ]
    assert "probability 0.83 , threshold 0.41" in page.text
    assert {card["tabindex"] for card in cards} == {"0"}


def test_cards_keep_the_order_of_the_photos(tmp_path: Path) -> None:
    names = ["c.jpg", "a.jpg", "b.jpg"]
    page = written(tmp_path, [(a_photo(name), [a_pair(), a_pair("paper")]) for name in names])
    assert [found["title"] for found in page.all("p", class_="file")] == [name for name in names for _ in range(2)]
    assert len(page.cards()) == 6


def test_each_map_is_a_picture_with_a_text_and_its_own_colours(tmp_path: Path) -> None:
    pair = a_pair()
    page = written(tmp_path, [(a_photo(), [pair])])
    images = page.all("img")
    assert [image["alt"] for image in images] == [
        "Grad-CAM evidence for plastic in a.jpg",
        "SHAP evidence for plastic in a.jpg",
    ]
    assert [image["class"] for image in images] == ["smooth", "blocks"]
    for image, method in zip(images, ("gradcam", "shap"), strict=True):
        content = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"), validate=True)
        assert content == heat_png(pair.maps[method], signed=method == "shap")


def test_a_signed_map_without_negative_values_has_the_colours_of_its_bar(tmp_path: Path) -> None:
    evidence = np.eye(4, dtype=np.float32)
    page = written(tmp_path, [(a_photo(), [a_pair(overlays={"shap": evidence})])])
    (image,) = page.all("img")
    content = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
    assert content == heat_png(evidence, signed=True) != heat_png(evidence, signed=False)
    assert len(page.all("span", class_="bar signed")) == 1
    assert {"against", "for"} <= set(page.said("span"))


def test_each_photo_is_stored_once_and_can_be_opened(tmp_path: Path) -> None:
    photos = [a_photo(f"{number}.jpg", number) for number in range(3)]
    page = written(tmp_path, [(photo, [a_pair(), a_pair("paper"), a_pair("glass")]) for photo in photos])
    rules = re.findall(r"\.p(\d+)\{background-image:url\(data:image/jpeg;base64,([^)]*)\)\}", page.content)
    assert [number for number, _ in rules] == ["0", "1", "2"]
    assert page.content.count("data:image/jpeg") == 3
    for photo, (_, content) in zip(photos, rules, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))), dtype=np.int64)
        assert np.abs(pixels - photo.photo).mean() < 4
    frames = [found["class"] for found in page.all("button", type="button") if "frame" in found.get("class", "")]
    assert frames == [f"frame p{number}" for number in (0, 1, 2) for _ in range(9)]


def test_outlines_are_at_their_place_and_this_materials_are_marked(tmp_path: Path) -> None:
    outlines = [DrawnOutline("plastic", (SQUARE, np.empty((0, 2)))), DrawnOutline("paper", (TRIANGLE,))]
    page = written(tmp_path, [(a_photo(outlines=outlines), [a_pair(), a_pair("paper")])])
    assert {found["viewbox"] for found in page.all("svg", class_="outlines")} == {"0 0 1000 750"}
    plastic, paper = MATERIALS.index("plastic"), MATERIALS.index("paper")
    square, triangle = "250,375 750,375 750,750 250,750", "0,0 100,0 0,75"
    found = [(one["class"], {*one["points"].split()}) for one in page.all("polygon")]
    assert found == [
        (f"m{paper}", {*triangle.split()}),
        (f"m{plastic} mine", {*square.split()}),
        (f"m{plastic}", {*square.split()}),
        (f"m{paper} mine", {*triangle.split()}),
    ]
    assert "1 plastic 1 paper" in page.text


def test_outlines_lose_only_invisible_points(tmp_path: Path) -> None:
    angles = np.linspace(0, 2 * np.pi, 3000, endpoint=False)
    circle = 0.5 + 0.4 * np.column_stack([np.cos(angles), np.sin(angles)])
    page = written(tmp_path, [(a_photo(outlines=[DrawnOutline("plastic", (circle,))]), [a_pair()])])
    (polygon,) = page.all("polygon")
    points = np.array([point.split(",") for point in polygon["points"].split()], dtype=float)
    assert len(points) < 150
    shares = np.concatenate([points, points[:1]]) / (1000, 750)
    between = np.concatenate([(1 - t) * shares[:-1] + t * shares[1:] for t in np.linspace(0, 1, 20)])
    radii = np.linalg.norm(between - 0.5, axis=1)
    assert np.abs(radii - 0.4).max() < 0.004


def test_materials_missing_in_the_header_have_a_colour_of_their_own(tmp_path: Path) -> None:
    photo = a_photo(outlines=[DrawnOutline("rust", (SQUARE,))])
    page = written(tmp_path, [(photo, [a_pair("wood")])])
    places = {page.cards()[0]["data-material"], page.all("polygon")[0]["class"].removeprefix("m")}
    assert places == {str(len(MATERIALS)), str(len(MATERIALS) + 1)}
    colours = re.findall(r"--material: (#[0-9A-F]{6});", page.content)
    assert len(colours) == len(set(colours)) == len(MATERIALS) + 2


def test_names_are_escaped(tmp_path: Path) -> None:
    header = a_header(
        title=NASTY,
        run_id=NASTY,
        dataset=NASTY,
        sentences=[NASTY],
        notes=[NASTY],
        columns=[NASTY],
        rows=[SummaryRow(NASTY, "", NASTY, [NASTY])],
        materials=[NASTY, "plastic"],
        methods={"gradcam": NASTY, NASTY: NASTY},
    )
    scores = {NASTY: {"energy": 2.0}, "gradcam": {"energy": 1.0}}
    pair = a_pair(NASTY, scores=scores, overlays=maps(methods=("gradcam", NASTY)))
    photo = a_photo(NASTY, outlines=[DrawnOutline(NASTY, (SQUARE,))])
    page = written(tmp_path, [(photo, [pair])], header)
    for tag in ("h1", "code", "li", "th", "summary", "option"):
        assert any(NASTY in text for text in page.said(tag))
    assert page.said("title") == [f"Explanations of {NASTY}"]
    assert page.said("h3") == [f"{NASTY},"]
    assert page.all("img")[0]["alt"] == f"{NASTY} evidence for {NASTY} in {NASTY}"
    assert json.loads(page.cards()[0]["data-energies"]) == {"gradcam": 1.0, NASTY: 2.0}
    assert len(page.all("script")) == 1


def test_names_that_are_not_unicode_are_written_too(tmp_path: Path) -> None:
    page = written(tmp_path, [(a_photo("\udcff.jpg"), [a_pair()])])
    assert page.all("p", class_="file")[0]["title"] == "?.jpg"


def test_nothing_can_leave_the_machine(tmp_path: Path) -> None:
    page = written(tmp_path, [(a_photo(outlines=[DrawnOutline("plastic", (SQUARE,))]), [a_pair()])])
    (policy,) = [found["content"] for found in page.all("meta") if found.get("http-equiv")]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["style-src"] == rules["script-src"] == "'unsafe-inline'"
    addresses = [found[name] for _, found in page.elements for name in ("src", "href", "action") if name in found]
    addresses += re.findall(r"url\(([^)]*)\)", page.content)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"https?:|localStorage|cookie|fetch\(|XMLHttpRequest|import\(", page.content)


def test_every_id_is_unique_and_every_reference_has_its_target(tmp_path: Path) -> None:
    outlines = [DrawnOutline("plastic", (SQUARE,))]
    page = written(tmp_path, [(a_photo(f"{n}.jpg", n, outlines), [a_pair(), a_pair("paper")]) for n in range(3)])
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    references = [found["href"][1:] for tag, found in page.elements if tag in ("use", "a")]
    references += [found["aria-labelledby"] for _, found in page.elements if "aria-labelledby" in found]
    assert set(references) <= set(ids)


def test_the_summary_comes_first(tmp_path: Path) -> None:
    page = written(tmp_path, [(a_photo(), [a_pair()])])
    assert page.text.index("Grad-CAM looks at the litter.") < page.text.index("Over chance.") < page.text.index("a.jpg")
    assert page.said("h1") == ["a run"]
    assert page.said("td") == []  # estimates stand in <b>, intervals beside them
    assert "1.82 [1.41, 2.30] 2 – 1.0" in page.text
    assert "↑ higher is better" in page.text
    assert {"3 were left out.", "Grad-CAM looks at the litter."} <= set(page.said("li"))
    assert "1 photo 1 pair of photo and material" in page.text


def test_filters_offer_what_is_on_the_page(tmp_path: Path) -> None:
    pairs = [a_pair(), a_pair("paper"), a_pair("paper", "missed")]
    page = written(tmp_path, [(a_photo(), pairs)])
    options = page.said("option")
    assert options == [
        *("all", "plastic (1)", "paper (2)"),
        *("all", "right (2)", "missed (1)"),
        *("Grad-CAM", "SHAP"),
        *("file order", "probability, highest first", "energy, lowest first", "energy, highest first"),
    ]
    assert page.said("output") == ["3 of 3 shown"]
    assert "hidden" in page.all("form")[0]  # shown by the script: without it, nothing filters


def test_without_any_energy_sorting_by_it_is_not_offered(tmp_path: Path) -> None:
    scores: Mapping[str, Mapping[str, float]] = {"gradcam": {"energy": math.nan, "insertion": 0.5}}
    pair = a_pair(scores=scores, localised=False)
    page = written(tmp_path, [(a_photo(), [pair])])
    assert json.loads(page.cards()[0]["data-energies"]) == {}
    assert not page.all("input", name="misplaced")
    assert not page.all("select", name="method")
    assert not any("energy" in option for option in page.said("option"))
    assert "it has no usable outline" in page.said("p")
    assert "insertion" in page.said("dt")
    assert "energy" not in page.said("dt")


def test_energy_below_chance_is_marked(tmp_path: Path) -> None:
    page = written(tmp_path, [(a_photo(), [a_pair()])])
    assert len(page.all("dd", class_="below")) == 1  # of SHAP


def test_an_empty_map_is_labelled_as_empty(tmp_path: Path) -> None:
    pairs = [a_pair(empty={"gradcam"}), a_pair("paper", empty={"shap"}, localised=False)]
    page = written(tmp_path, [(a_photo(), pairs)])
    notes = [text for text in page.said("p") if "empty map" in text]
    assert notes == ["an empty map: the same everywhere, scored as chance", "an empty map: the same everywhere"]


def test_scores_are_formatted() -> None:
    scores = {"additivity_error": 0.01234, "energy": 2.346, "randomised": -0.0001, "iou": math.nan, "unknown": 1.0}
    assert tile_scores(scores) == [
        ("energy", "energy", "2.35×"),
        ("randomised", "randomised", "0.00"),
        ("additivity_error", "additivity error", "0.012"),
    ]


def test_no_pairs_at_all(tmp_path: Path) -> None:
    page = written(tmp_path, [(a_photo(), [])])
    assert "No pairs to show" in page.text
    assert "1 photo 0 pairs" in page.text
    assert not page.cards()
    assert not page.all("form")


def test_photos_without_pairs_are_counted_and_not_stored(tmp_path: Path) -> None:
    page = written(tmp_path, [(a_photo("a.jpg"), []), (a_photo("b.jpg"), [a_pair()])])
    assert "2 photos 1 pair of" in page.text
    assert page.content.count("data:image/jpeg") == 1


def test_an_excerpt_holds_the_cards_of_these_photos_only(tmp_path: Path) -> None:
    square = (DrawnOutline("plastic", (SQUARE,)),)
    photos = [(a_photo(name, number, square), [a_pair(), a_pair("glass")]) for number, name in enumerate("abc")]
    photos.append((a_photo(NASTY, 3), [a_pair()]))
    whole = written(tmp_path, photos)
    (tmp_path / "part.html").write_text(excerpt(whole.content, ["c", NASTY]), encoding="utf-8")
    part = Page(tmp_path / "part.html")
    assert [found["title"] for found in part.all("p", class_="file")] == ["c", "c", NASTY]
    assert part.cards() == whole.cards()[4:]
    assert part.all("img") == whole.all("img")[8:]
    assert not {"script", "form", "dialog"} & {tag for tag, _ in part.elements}
    rules = re.findall(r"^\.(p\d+)\{background-image:url\(data:image/jpeg;base64,", part.content, re.MULTILINE)
    assert rules == ["p2", "p3"]
    assert part.said("style")[0] == whole.said("style")[0]


def test_a_failure_leaves_the_earlier_page(tmp_path: Path) -> None:
    before = written(tmp_path, [(a_photo("old.jpg"), [a_pair()])]).content

    def fails_midway() -> None:
        with GalleryWriter(tmp_path) as writer:
            writer.add(a_photo("new.jpg"), [a_pair()])
            writer.finish(a_header(methods=None))  # no page can be made of this

    with pytest.raises((TypeError, AttributeError)):
        fails_midway()
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == before


def test_a_failure_between_photos_leaves_nothing(tmp_path: Path) -> None:
    def fails_between() -> None:
        with GalleryWriter(tmp_path / "explanations") as writer:
            writer.add(a_photo(), [a_pair()])
            raise RuntimeError("the network is gone")

    with pytest.raises(RuntimeError, match="gone"):
        fails_between()
    assert list((tmp_path / "explanations").iterdir()) == []


def natural(seed: int) -> npt.NDArray[np.uint8]:
    """Draw a picture with the spectrum of photos, whose amplitudes fall with the frequency (Field 1987)."""
    rng = np.random.default_rng(seed)
    frequencies = np.hypot(np.fft.fftfreq(240)[:, None], np.fft.rfftfreq(320)[None]) + 1 / 320
    spectrum = np.fft.rfft2(rng.normal(size=(3, 240, 320))) / frequencies
    light, *colours = np.fft.irfft2(spectrum, s=(240, 320))
    planes = np.stack([light + 0.3 * colours[0], light, light + 0.3 * colours[1]], axis=-1)
    return np.clip(128 + 50 * planes / planes.std(), 0, 255).astype(np.uint8)


def test_the_page_of_200_photos_is_small(tmp_path: Path) -> None:
    pictures = [natural(seed) for seed in range(5)]
    outlines = [DrawnOutline(name, (SQUARE + np.random.default_rng(0).random((4, 2)) / 9,)) for name in MATERIALS]
    with GalleryWriter(tmp_path) as writer:
        for number in range(200):
            photo = ShownPhoto(f"batch_{number}.jpg", pictures[number % 5], outlines, "test")
            writer.add(photo, [a_pair(name, overlays=maps(number, list(METHODS))) for name in MATERIALS[:2]])
        path = writer.finish(a_header())
    content = path.read_text(encoding="utf-8")
    photos = sum(len(found) for found in re.findall(r"data:image/jpeg;base64,[^)]*", content))
    assert photos > 200 * 20_000  # TACO's come to 23 kB: no easier pictures than those
    assert len(content.encode()) < 15e6


def test_memory_does_not_grow_with_the_number_of_photos(tmp_path: Path) -> None:
    pair = a_pair()

    def peak_bytes(photos: int) -> int:
        tracemalloc.start()
        with GalleryWriter(tmp_path) as writer:
            for number in range(photos):
                writer.add(a_photo(f"{number}.jpg", number), [pair, pair])
            writer.finish(a_header())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(1)  # what is loaded once
    few, size = peak_bytes(5), (tmp_path / "index.html").stat().st_size
    many, grown = peak_bytes(80), (tmp_path / "index.html").stat().st_size - size
    assert grown > 500_000
    assert many - few < grown / 4
