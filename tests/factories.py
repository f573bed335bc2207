"""Small data for tests: COCO dicts, datasets on disk with real photos, label tables, mappings."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from wastelens.config.base import Config
from wastelens.config.files import load_config
from wastelens.data.prepared.tables import LabelTable

DEFAULT_MAPPING = Path(__file__).resolve().parents[1] / "conf" / "materials" / "default.csv"
MATERIALS = ("plastic", "aluminium", "paper", "glass", "other_objects", "toxic")
# One colour per material, far apart, so that a network can learn the photos of `write_dataset`.
COLOURS = ((230, 30, 30), (30, 230, 30), (30, 30, 230), (230, 230, 30), (230, 30, 230), (30, 230, 230))

AnyTable = TypeVar("AnyTable", bound=LabelTable)
Pixels = npt.NDArray[np.uint8]


def default_mapping() -> dict[str, str]:
    """Return category → material, from the mapping that ships."""
    with DEFAULT_MAPPING.open(encoding="utf-8", newline="") as file:
        return {row["category"]: row["material"] for row in csv.DictReader(file)}


def config(step: str = "train", settings: str = "", **parameters: str) -> Any:
    """Load a step's shipped config with settings as on the command line: ``config("train", "fit.epochs=3").fit``.

    The model of ``train`` is ``base`` unless they name one: the shipped default is larger, and takes other settings.
    """
    own = {"model": "base"} if step == "train" else {}
    loaded: Config = load_config(step, parameters={**own, **parameters}, settings=settings)
    return loaded


def train_machine(
    machine: Any, data: Any, learner: Any, *, seed: int, mixed_precision: bool = False
) -> tuple[Any, list[float]]:
    """Train a Boltzmann machine for the learner's epochs; return it and its reconstruction error in each."""
    from wastelens.models.contrastive_divergence import ContrastiveDivergence

    training = ContrastiveDivergence(machine, learner, seed, mixed_precision)
    return machine, [training.epoch(data, number)["reconstruction_error"] for number in range(learner.epochs)]


def train_stack(network: Any, data: Any, learner: Any, *, seed: int) -> Any:
    """Train a deep belief network, layer by layer, and return it."""
    from wastelens.models.dbn import LayerwiseTraining

    training = LayerwiseTraining(network, data, learner, seed)
    while not training.finished:
        training.epoch()
    return network


def coco_dict(
    images: int = 3,
    annotations_per_image: int = 1,
    categories: tuple[str, ...] = ("Drink can", "Glass bottle"),
    size: tuple[int, int] = (64, 48),
) -> dict[str, Any]:
    """Return a COCO dict: images 10, 11, … named ``batch_1/000000.jpg``, annotations of each category in turn."""
    width, height = size
    return {
        "images": [
            {"id": 10 + number, "file_name": f"batch_1/{number:06}.jpg", "width": width, "height": height}
            for number in range(images)
        ],
        "annotations": [
            annotation(100 + number, 10 + number // annotations_per_image, number % len(categories))
            for number in range(images * annotations_per_image)
        ],
        "categories": [
            {"id": number, "name": name, "supercategory": "Litter"} for number, name in enumerate(categories)
        ],
    }


def annotation(identity: int, image: int, category: int, box: tuple[int, int, int, int] = (8, 8, 16, 12)) -> Any:
    """Return an annotation with a rectangular outline; box: x, y, width, height in pixels."""
    x, y, width, height = box
    outline = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {
        "id": identity,
        "image_id": image,
        "category_id": category,
        "segmentation": [[float(number) for number in outline]],
        "bbox": [x, y, width, height],
        "area": width * height,
        "iscrowd": 0,
    }


def write_json(path: Path, content: Any) -> Path:
    """Write json (with NaN, as Python's own writer does) and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_mapping(path: Path, rows: list[tuple[str, str]] | None = None) -> Path:
    """Write a mapping CSV, by default with the two categories of `coco_dict`, and return its path."""
    pairs = [("Drink can", "aluminium"), ("Glass bottle", "glass")] if rows is None else rows
    path.write_text("category,material,reason\n" + "".join(f"{a},{b},\n" for a, b in pairs), encoding="utf-8")
    return path


def blocks(rng: np.random.Generator, side: tuple[int, int]) -> Pixels:
    """Draw a unique picture, uint8 (height, width, 3): an 8 × 6 grid of greyish colours; side: width, height."""
    grid = rng.integers(60, 190, (6, 8, 1)) + rng.integers(-15, 16, (6, 8, 3))
    return np.asarray(Image.fromarray(grid.astype(np.uint8)).resize(side, Image.Resampling.NEAREST))


def image_bytes(pixels: Pixels | Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Return the bytes of an image file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_photo(path: Path, seed: int = 0, side: tuple[int, int] = (64, 48)) -> Path:
    """Write a small unique JPEG and return its path; side: width, height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image_bytes(blocks(np.random.default_rng(seed), side), quality=90))
    return path


def write_dataset(
    folder: Path, batches: int = 12, photos_per_batch: int = 5, side: tuple[int, int] = (64, 48), seed: int = 0
) -> dict[str, Any]:
    """Write a dataset like TACO: ``annotations.json`` of all 60 categories, and photos in folders ``batch_1`` … .

    Every batch shows each of the six materials, as a rectangle of the material's colour at its outline, so that splits
    by batch exist and a network can learn. Return the COCO dict.
    """
    rng = np.random.default_rng(seed)
    mapping = default_mapping()
    names = list(mapping)
    of_material = {material: [n for n, name in enumerate(names) if mapping[name] == material] for material in MATERIALS}
    images, annotations = [], []
    for batch in range(batches):
        for number in range(photos_per_batch):
            shown = _shown(rng, batch, number, photos_per_batch)
            pixels = np.array(blocks(rng, side))
            identity = len(images) + 1
            for material, box in zip(shown, _boxes(rng, side, len(shown)), strict=True):
                x, y, width, height = box
                pixels[y : y + height, x : x + width] = COLOURS[material]
                category = int(rng.choice(of_material[MATERIALS[material]]))
                annotations.append(annotation(len(annotations) + 1, identity, category, box))
            name = f"batch_{batch + 1}/{number:06}.jpg"
            images.append({"id": identity, "file_name": name, "width": side[0], "height": side[1]})
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(image_bytes(pixels, quality=90))
    categories = [{"id": n, "name": name, "supercategory": mapping[name]} for n, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_json(folder / "annotations.json", content)
    return content


def coloured_photo(rng: np.random.Generator, side_px: int, number: int) -> Any:
    """Draw a photo as `write_dataset` does, uint8 (side, side, 3)."""
    pixels, shown = np.array(blocks(rng, (side_px, side_px))), _shown(rng, number // 5, number % 5, 5)
    for material, (x, y, width, height) in zip(shown, _boxes(rng, (side_px, side_px), len(shown)), strict=True):
        pixels[y : y + height, x : x + width] = COLOURS[material]
    return pixels


def _shown(rng: np.random.Generator, batch: int, number: int, photos: int) -> list[int]:
    """Choose the materials of a photo: each of the six within a batch, plus plastic in a third of the photos."""
    turn = [(material + batch) % len(MATERIALS) for material in range(len(MATERIALS))]
    shown = set(turn[number::photos])
    if rng.random() < 1 / 3:
        shown.add(0)
    return sorted(shown)


def _boxes(rng: np.random.Generator, side: tuple[int, int], count: int) -> list[tuple[int, int, int, int]]:
    """Draw boxes beside one another, without overlap: x, y, width, height."""
    width, height = side
    column = width // max(1, count)
    wide, high = max(2, min(column - 1, width // 3)), height // 3
    return [
        (
            place * column + int(rng.integers(0, max(1, column - wide))),
            int(rng.integers(0, height - high)),
            wide,
            high,
        )
        for place in range(count)
    ]


def table(
    kind: type[AnyTable],
    rows: int = 20,
    materials: tuple[str, ...] = MATERIALS,
    *,
    groups: int = 4,
    seed: int = 0,
    first_photo: int = 0,
) -> AnyTable:
    """Return a table of random labels, each material in at least one row. Row i is photo ``first_photo + i``."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, len(materials))) < 0.3).astype(np.uint8)
    for column in range(len(materials)):
        labels[column % rows, column] = 1
    frame = pd.DataFrame({"file_name": [f"batch_1_{first_photo + row:06}.jpg" for row in range(rows)]})
    frame = frame.assign(**{name: labels[:, column] for column, name in enumerate(materials)})
    frame["group"] = [f"batch_{row % groups + 1}" for row in range(rows)]
    frame["split"] = kind.__name__.removesuffix("Table").lower()
    frame["photo_index"] = np.arange(first_photo, first_photo + rows)
    return kind(frame, materials)


def photo_array(photos: int = 20, side_px: int = 16, seed: int = 0) -> Pixels:
    """Return random photos, uint8 (photos, side, side, 3)."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (photos, side_px, side_px, 3), dtype=np.uint8)


def slim_vgg(backbone: object, pixels: Any, *, weights: str | None) -> Any:
    """Build VGG16's layers by name, an eighth as wide: tests need its structure, not its 15 million weights."""
    import keras

    assert weights is None
    x = pixels
    for block, (depth, width) in enumerate([(2, 8), (2, 16), (3, 32), (3, 64), (3, 64)], 1):
        for number in range(1, depth + 1):
            name = f"block{block}_conv{number}"
            x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name=name)(x)
        x = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    return keras.Model(keras.utils.get_source_inputs(pixels), x)


def log_colour_model(
    tracker: Any,
    folder: Path,
    *,
    proven: bool = True,
    side_px: int = 32,
    bands: Mapping[str, Any] | None = None,
    groups: int = 20,
) -> str:
    """Log a finished train run whose network finds the colours of `write_dataset`; return its id. No training.

    The network maps each pixel to six activations, high where it has a material's colour, and takes the largest of
    each; its probabilities on photos of `write_dataset` are near 0 or 1. Plastic is calibrated to 0.2 and 0.8.
    The 60 photos of its test are of as many ``groups``.
    """
    import keras

    from wastelens.models.card import TEST_PREDICTIONS, ModelCard
    from wastelens.models.export import export, served_model
    from wastelens.models.familiarity import FILE as FAMILIARITY
    from wastelens.models.familiarity import Familiarity
    from wastelens.models.layers import LOGITS, probabilities_of
    from wastelens.system.decision_rule import DecisionRule, RisingMap
    from wastelens.system.tables import write_csv

    colours = np.array(COLOURS, dtype=np.float64) / 255
    pixels = keras.Input((side_px, side_px, 3))
    x = keras.layers.Rescaling(1 / 255)(pixels)
    likeness = keras.layers.Conv2D(6, 1, activation="relu", name="likeness")
    x = keras.layers.GlobalMaxPooling2D()(keras.layers.AveragePooling2D(4)(likeness(x)))
    logits = keras.layers.Dense(6, dtype="float32", name=LOGITS)
    network = keras.Model(pixels, probabilities_of(logits(x)))
    # |x - c|² < 0.15, without the quadratic part: c is at a corner of the cube nearly
    signs = np.where(colours > 0.5, 1.0, -1.0)
    likeness.set_weights([signs.T[None, None], np.array([0.7 - sign[sign > 0].sum() for sign in signs]) + 0.1])
    logits.set_weights([20 * np.eye(6), np.full(6, -4.0)])
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, 6))
    probabilities = np.where(rng.random((60, 6)) < 0.1, 1 - labels, labels) * 0.9 + 0.05
    columns: dict[str, Any] = {"file_name": [f"{row}.jpg" for row in range(60)], "group": np.arange(60) * groups // 60}
    for place, name in enumerate(MATERIALS):
        columns |= {
            f"label_{name}": labels[:, place],
            f"probability_{name}": probabilities[:, place],
            f"decision_{name}": (probabilities[:, place] >= 0.5).astype(int),
        }
    card = ModelCard(
        materials=MATERIALS,
        thresholds=dict.fromkeys(MATERIALS, 0.5),
        image_side_px=side_px,
        dataset="litter",
        dataset_digest="0" * 32,
        fold=0,
        collapsed=not proven,
        above_controls=proven,
        strongest_control="colour",
        verdict="Above floor and controls: as drawn." if proven else "COLLAPSED: as drawn.",
        calibration="platt",
        bands=dict(bands or {}),
        metrics={"test/macro_ap": 0.9, "test/macro_ap_low": 0.8, "test/macro_ap_high": 0.95},
    )
    softened = {MATERIALS[0]: RisingMap((-4.0, 4.0), (-1.0, 1.0))}
    rule = DecisionRule(card.thresholds, softened, bands or {})
    folder.mkdir(parents=True, exist_ok=True)
    files = export(network, folder, rule=rule, image_side_px=side_px)
    write_csv(pd.DataFrame(columns), folder / TEST_PREDICTIONS)
    served = {name: files[name] for name in ("network", "decision_rule")}
    served |= {"test_predictions": folder / TEST_PREDICTIONS, "familiarity": folder / FAMILIARITY}
    drawn = np.stack([coloured_photo(rng, side_px, row) for row in range(120)])
    features, groups = keras.Model(pixels, x).predict_on_batch(drawn), [str(row // 6) for row in range(60)]
    Familiarity.of(features[:60], groups, features[60:], groups).write(folder / FAMILIARITY)
    photos = photo_array(1, side_px)
    tags = {"step": "train", "collapsed": not proven, "above_controls": proven, "verdict": card.verdict}
    with tracker.start("train", tags=tags) as run:
        run.log_model(served_model(network, served, photos, folder / "package", card), "model")
    return str(run.id)
