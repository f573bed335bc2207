"""``evaluate``: a model that knows colours, judged on photos that show them, do not show them, or are too few."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score
from tests.factories import COLOURS, MATERIALS, blocks, config, image_bytes, log_colour_model, write_dataset
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.errors import AnnotationsError, ConfigError, DatasetError, MappingError, PreparedDatasetError, RunError
from wastelens.evaluation import controls
from wastelens.models.card import ModelCard
from wastelens.steps import evaluate, prepare
from wastelens.using import chosen_model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def tracker(root: Path, keras: Any) -> MemoryTracker:
    """A tracker whose run 0 has a model of colours, trained on nothing that is here, and run 1 a collapsed one."""
    tracker = MemoryTracker(draws=True)
    for proven in (True, False):
        log_colour_model(tracker, root / f"model {proven}", proven=proven)
    return tracker


@pytest.fixture(scope="module")
def beach(root: Path) -> Path:
    """Raw data in TACO's layout: 60 photos in 12 batches."""
    write_dataset(root / "beach", side=(48, 48), seed=3)
    return root / "beach"


@pytest.fixture(scope="module")
def prepared_beach(root: Path, beach: Path) -> Path:
    """The same, prepared."""
    settings = f"image_side_px=32 data_folder={root / 'elsewhere'}"
    prepare.run(config("prepare", settings, dataset=str(beach)), MemoryTracker())
    return root / "elsewhere" / "prepared" / "beach"


@pytest.fixture(autouse=True)
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "TREES", 20)


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the colours from the controls: on these photos they say everything."""
    monkeypatch.setattr(
        controls, "colour_features", lambda photos, index: np.random.default_rng(5).random((len(index), 3))
    )


def judged(tracker: MemoryTracker, root: Path, dataset: Path | str, **parameters: str) -> evaluate.Evaluated:
    chosen = {"model": "run-0", "dataset": str(dataset), **parameters}
    settings = f"bootstrap_resamples=100 data_folder={root / 'data'}"
    return evaluate.run(config("evaluate", settings, **chosen), tracker)


def refused(tracker: MemoryTracker, root: Path, dataset: Path | str, **parameters: str) -> str:
    before = len(tracker.runs)
    errors = (AnnotationsError, ConfigError, DatasetError, MappingError, PreparedDatasetError, RunError)
    with pytest.raises(errors) as caught:
        judged(tracker, root, dataset, **parameters)
    assert len(tracker.runs) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def run_of(tracker: MemoryTracker, done: evaluate.Evaluated) -> MemoryRun:
    return next(run for run in tracker.runs if run.id == done.run_id)


def class_folders(folder: Path, per_class: int, materials: tuple[str, ...] = MATERIALS, *, grey: bool = False) -> Path:
    """Write photos of one material each, in a folder of its name; grey: without the material's colour."""
    rng = np.random.default_rng(11)
    for material in materials:
        for number in range(per_class):
            pixels = np.array(blocks(rng, (48, 48)))
            if not grey:
                pixels[8:30, 10:34] = COLOURS[MATERIALS.index(material)]
            target = folder / material / f"{number:03}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(image_bytes(pixels, quality=90))
    return folder


def test_raw_data_on_which_the_model_holds(
    tracker: MemoryTracker, root: Path, beach: Path, blind: None, capsys: pytest.CaptureFixture[str]
) -> None:
    done = judged(tracker, root, beach)
    own = run_of(tracker, done)
    assert done.judgement.holds == "yes", done.judgement.answer
    assert 0.05 < own.metrics["unlike_p"] < 1, "drawn as the model's photos are"
    assert done.judgement.answer.startswith("The model holds on beach: macro AP ")
    # The numbers, by another road.
    table = pd.read_csv(own.folder / "predictions.csv")
    annotated = json.loads((beach / "annotations.json").read_text())
    assert len(table) == len(annotated["images"]) == 60
    assert table["group"].nunique() == 12
    expected = [average_precision_score(table[f"label_{m}"], table[f"probability_{m}"]) for m in MATERIALS]
    assert own.metrics["test/macro_ap"] == pytest.approx(np.mean(expected), abs=1e-4)
    trained = tracker.runs[0].folder / "model" / "artifacts" / "predictions_test.csv"
    test = pd.read_csv(trained)
    before = np.mean([average_precision_score(test[f"label_{m}"], test[f"probability_{m}"]) for m in MATERIALS])
    assert own.metrics["own_test/macro_ap"] == pytest.approx(before, abs=1e-6)
    # The own test with materials as frequent as here, by photos that count several times.
    weighted = [
        average_precision_score(
            test[f"label_{m}"],
            test[f"probability_{m}"],
            sample_weight=np.where(
                test[f"label_{m}"] == 1,
                table[f"label_{m}"].mean() / test[f"label_{m}"].mean(),
                (1 - table[f"label_{m}"].mean()) / (1 - test[f"label_{m}"].mean()),
            ),
        )
        for m in MATERIALS
    ]
    assert own.metrics["own_test/macro_ap_reweighted"] == pytest.approx(np.mean(weighted), abs=1e-6)
    assert own.metrics["drop_macro_ap"] == pytest.approx(np.mean(expected) - np.mean(weighted), abs=1e-4)
    assert own.metrics["drop_macro_ap_low"] < own.metrics["drop_macro_ap"] < own.metrics["drop_macro_ap_high"]
    for name in MATERIALS:
        decided = table[f"probability_{name}"] >= 0.5
        assert (decided == (table[f"decision_{name}"] == 1)).all()
    for name in ("random", "neighbours", "size", "colour"):
        assert 0 < own.metrics[f"controls/{name}_macro_ap"] < own.metrics["test/macro_ap"]
    assert own.metrics["gain_over_controls_low"] > 0
    assert (
        own.tags.items() >= {"step": "evaluate", "holds": "yes", "evaluated_run": "run-0", "dataset": "beach"}.items()
    )
    assert own.tags["mlflow.note.content"].startswith(f"**{done.judgement.answer}**")
    figures = {path.name for path in (own.folder / "figures").iterdir()}
    assert figures == {
        "average_precision.png",
        "precision_recall.png",
        "confusion.png",
        "thresholds.png",
        "reliability.png",
        "risk_coverage.png",
        "own_test.png",
    }
    said = " ".join(capsys.readouterr().out.split())
    assert "is not here, so photos that it has seen could not be looked for" in said
    assert done.judgement.answer in said


def test_the_same_photos_prepared(tracker: MemoryTracker, root: Path, beach: Path, prepared_beach: Path) -> None:
    from_raw, prepared = (judged(tracker, root, one).judgement.predictions for one in (beach, prepared_beach))
    pd.testing.assert_frame_equal(from_raw, prepared)


def test_controls_that_know_as_much(tracker: MemoryTracker, root: Path, beach: Path) -> None:
    done = judged(tracker, root, beach)
    assert done.judgement.holds == "no"
    assert "The model is not shown to hold on beach: macro AP 1.000" in done.judgement.answer
    assert "against the strongest control (colour), which is fitted on such photos; +0." in done.judgement.answer


def test_worse_than_on_its_own_test(
    tracker: MemoryTracker, root: Path, beach: Path, blind: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = evaluate._answers

    def noisy(*arguments: Any) -> Any:
        answers, _ = answer(*arguments)
        noise = np.random.default_rng(2).random(answers.shape)
        return np.where(noise < 0.8, noise, answers), 0.001

    monkeypatch.setattr(evaluate, "_answers", noisy)
    done = judged(tracker, root, beach)
    own = run_of(tracker, done)
    assert own.metrics["unlike_p"] == 0.001
    assert "do not resemble what the model learnt from (p = 0.0010)" in own.tags["mlflow.note.content"]
    assert done.judgement.holds == "partly", done.judgement.answer
    assert "The model holds on beach in part" in done.judgement.answer
    assert "so worse than its own test with materials as frequent as here." in done.judgement.answer


def test_photos_that_show_no_colours(tracker: MemoryTracker, root: Path) -> None:
    done = judged(tracker, root, class_folders(root / "grey", 12, grey=True))
    own = run_of(tracker, done)
    assert done.judgement.holds == "no"
    assert done.judgement.answer.startswith("The model does not hold on grey: The probabilities are near-constant")
    assert own.tags["collapsed"] == "true"
    assert own.metrics["drop_macro_ap_high"] < 0


def test_materials_that_one_side_lacks_are_named_and_in_no_mean(tracker: MemoryTracker, root: Path) -> None:
    folder = class_folders(root / "some", 15, ("plastic", "paper", "glass", "aluminium"))
    class_folders(folder, 3, ("toxic",))
    done = judged(tracker, root, folder)
    own = run_of(tracker, done)
    note = next(note for note in done.judgement.notes if "toxic" in note)
    assert "toxic: only 3 of these photos show it." in note
    assert "other_objects: no label of these photos means it." in note
    assert note.endswith("They are left out of all means, on both sides.")
    scored = ("plastic", "aluminium", "paper", "glass")
    table = pd.read_csv(own.folder / "predictions.csv")
    expected = np.mean([average_precision_score(table[f"label_{m}"], table[f"probability_{m}"]) for m in scored])
    assert own.metrics["test/macro_ap"] == pytest.approx(expected, abs=1e-4)
    test = pd.read_csv(tracker.runs[0].folder / "model" / "artifacts" / "predictions_test.csv")
    before = np.mean([average_precision_score(test[f"label_{m}"], test[f"probability_{m}"]) for m in scored])
    assert own.metrics["own_test/macro_ap"] == pytest.approx(before, abs=1e-6)
    assert pd.read_csv(own.folder / "materials.csv")["material"].tolist() == list(scored)
    assert "probability_other_objects" in table
    assert "label_other_objects" not in table


def test_too_few_photos_for_a_verdict(tracker: MemoryTracker, root: Path) -> None:
    done = judged(tracker, root, class_folders(root / "few", 7))
    own = run_of(tracker, done)
    assert done.judgement.holds == "unknown"
    assert done.judgement.answer == (
        "Whether the model holds on few cannot be told: there are only 42 photos; label at least 50."
    )
    assert "test/macro_ap" not in own.metrics
    assert len(pd.read_csv(own.folder / "predictions.csv")) == 42


def with_card(tracker: MemoryTracker, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let models be opened as if they had been trained on another dataset."""
    read = chosen_model._card

    def changed(*arguments: Any) -> ModelCard:
        return read(*arguments).model_copy(update=changes)

    monkeypatch.setattr(chosen_model, "_card", changed)


def digest_of(prepared: Path) -> str:
    return str(json.loads((prepared / "manifest.json").read_text())["digest"])


@pytest.mark.parametrize("prepared_side_px", [32, 40])  # the model takes photos of 32 px
def test_photos_that_the_model_has_seen_are_left_out(
    tracker: MemoryTracker,
    root: Path,
    beach: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepared_side_px: int,
) -> None:
    settings = f"image_side_px={prepared_side_px} data_folder={tmp_path / 'data'}"
    prepare.run(config("prepare", settings, dataset=str(beach)), MemoryTracker())
    prepared = tmp_path / "data" / "prepared" / "beach"
    with_card(tracker, monkeypatch, dataset="beach", dataset_digest=digest_of(prepared))
    split = pd.read_csv(prepared / "labels.csv").set_index("file_name")["split"]
    mixed = tmp_path / "mixed"
    shutil.copytree(beach, mixed)
    done = judged(tracker, root, mixed, trained_on=str(prepared))
    assert set(done.judgement.predictions["file_name"]) == set(split.index[split == "test"])
    left_out = pd.read_csv(run_of(tracker, done).folder / "left_out.csv")
    assert set(left_out["file_name"]) == set(split.index[split != "test"])
    assert left_out["reason"].unique().tolist() == ["seen by the model: a photo of beach"]
    assert "only" in done.judgement.answer, "what is left is too little"


def test_the_models_own_test(
    tracker: MemoryTracker, root: Path, prepared_beach: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_card(tracker, monkeypatch, dataset="beach", dataset_digest=digest_of(prepared_beach))
    monkeypatch.setattr("wastelens.using.judging.FEWEST_PHOTOS", 5)
    monkeypatch.setattr("wastelens.using.judging.FEWEST_SHOWING", 1)
    done = judged(tracker, root, prepared_beach)
    split = pd.read_csv(prepared_beach / "labels.csv").set_index("file_name")["split"]
    assert set(done.judgement.predictions["file_name"]) == set(split.index[split == "test"])
    assert done.judgement.drop is None
    manifest = json.loads((prepared_beach / "manifest.json").read_text())
    metrics = run_of(tracker, done).metrics
    assert metrics["controls/colour_macro_ap"] == manifest["control_macro_ap"][0]["colour"]


def test_an_unproven_model_is_judged_with_a_warning(
    tracker: MemoryTracker, root: Path, beach: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged(tracker, root, beach, model="run-1")
    assert "Warning: The model is unproven by its own test: COLLAPSED: as drawn." in capsys.readouterr().out


def test_bad_input(tracker: MemoryTracker, root: Path, beach: Path, prepared_beach: Path, tmp_path: Path) -> None:
    assert "No model is given" in refused(tracker, root, beach, model="")
    assert "No dataset is given" in refused(tracker, root, "")
    assert "There is no run 'gone'" in refused(tracker, root, beach, model="gone")
    assert "There is no registered model 'litter'" in refused(tracker, root, beach, model="models:/litter@champion")
    assert "is neither" in refused(tracker, root, tmp_path / "gone")
    foreign = tmp_path / "mapping.csv"
    foreign.write_text("category,material,reason\n" + "".join(f"{m},wood_{m[0]},\n" for m in MATERIALS))
    message = refused(tracker, root, class_folders(tmp_path / "wood", 2), materials=str(foreign))
    assert "wood has none of the model's materials: it has wood_p, " in message
    unknown = class_folders(tmp_path / "unknown", 2)
    (unknown / "glass").rename(unknown / "kryptonite")
    assert "'kryptonite' has no material in" in refused(tracker, root, unknown)
    with pytest.MonkeyPatch.context() as patch:
        with_card(tracker, patch, dataset="beach", dataset_digest=digest_of(prepared_beach))
        message = refused(tracker, root, unknown, trained_on=str(prepared_beach))
    assert (
        "'kryptonite' has no material in the mapping of dataset 'beach'. Write a mapping of your own with:" in message
    )
    assert f"wastelens materials --dataset {unknown} > my.csv" in message
    assert "materials.csv" not in message
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(image_bytes(blocks(np.random.default_rng(0), (48, 48))))
    assert "holds no dataset of a known layout" in refused(tracker, root, photos)
    other = f"image_side_px=16 data_folder={tmp_path / 'other'}"
    prepare.run(config("prepare", other, dataset=str(beach)), MemoryTracker())
    message = refused(tracker, root, tmp_path / "other" / "prepared" / "beach")
    assert "was prepared at 16 px, but the model takes photos of 32 px. Give the raw data" in message
    assert str(beach) in message
    message = refused(tracker, root, beach, trained_on=str(prepared_beach))
    assert "is not the dataset that the model was trained on (litter, digest 00000000)" in message
