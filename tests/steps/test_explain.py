"""The step ``explain`` on small data: its additions to a model's run, and its choice of photos and runs."""

from __future__ import annotations

import gc
import json
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.factories import (
    MATERIALS,
    annotation,
    config,
    default_mapping,
    image_bytes,
    slim_vgg,
    write_dataset,
    write_json,
    write_photo,
)
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.config.explanation_methods import MethodInputs
from wastelens.data.prepared.dataset import load_prepared
from wastelens.errors import ConfigError, RunError
from wastelens.explain.methods.evidence import Evidence, without_sum
from wastelens.explain.page.gallery import GalleryWriter
from wastelens.steps import explain, prepare, pretrain, train
from wastelens.system.console import Bar
from wastelens.system.decision_rule import DecisionRule

pytestmark = pytest.mark.usefixtures("no_served_models")

TINY = (
    "shap.samples=4 shap.background_photos=2 shap_partition.evaluations=10 scorecam.channels=4 steps=2 "
    "randomised_photos=1 batch_size=4 bootstrap_resamples=100"
)
FOUR_METHODS = ("gradcam", "gradcam_plus_plus", "scorecam", "shap")
LEARNER = "network.learner.epochs=1"
# Model → its parameters, its settings, the layer whose map is drawn (nothing: it has none).
MODELS: dict[str, tuple[dict[str, str], str, str]] = {
    "base": ({}, "network.widths=[4,8]", "block1_pool"),
    "autoencoder": (
        {"model": "autoencoder", "pretrained": "none"},
        f"{LEARNER} network.learner.widths=[4,8]",
        "block1_pool",
    ),
    "dense autoencoder": (
        {"model": "autoencoder", "pretrained": "none"},
        f"network.method=dense_autoencoder {LEARNER} network.learner.side_px=8 network.learner.hidden_units=[16,6]",
        "",
    ),
    "dbn": (
        {"model": "dbn", "pretrained": "none"},
        f"{LEARNER} network.learner.side_px=8 network.learner.hidden_units=[12,6]",
        "",
    ),
    "vgg16": ({"model": "vgg16", "weights": "none"}, "network.hidden=[8,4]", "block5_conv3"),
    "base of fold 1": ({"fold": "1"}, "network.widths=[4,8]", "block1_pool"),
}
Make = Callable[[str], MemoryRun]


@pytest.fixture(scope="module")
def trained(prepared_folder: Path) -> Make:
    """Return a model of ``MODELS`` as a finished run, trained at its first use."""
    runs: dict[str, MemoryRun] = {}

    def of(name: str) -> MemoryRun:
        if name not in runs:
            parameters, network, _ = MODELS[name]
            small = f"fit.epochs=1 bootstrap_resamples=100 data_folder={prepared_folder / 'data'} {network}"
            tracker = MemoryTracker()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("wastelens.models.backbones.vgg.Vgg16.application", slim_vgg)
                train.run(config("train", small, dataset=str(prepared_folder / "litter"), **parameters), tracker)
            (runs[name],) = tracker.runs
        return runs[name]

    return of


@pytest.fixture
def tracker() -> MemoryTracker:
    return MemoryTracker()


@pytest.fixture
def model(tracker: MemoryTracker, trained: Make, tmp_path: Path) -> Make:
    """Return a function that puts a copy of a trained run into the test's tracker, as a run of its own."""

    def put(of: str = "base", **changed: Any) -> MemoryRun:
        original = trained(of)
        number = len(tracker.runs)
        folder = tmp_path / "runs" / str(number)
        shutil.copytree(original.folder, folder)
        fresh = {key: dict(getattr(original, key)) for key in ("parameters", "metrics", "tags")}
        run = replace(original, **{"id": f"run-{number}", "folder": folder, **fresh, **changed})
        run.set_tags({"collapsed": False})  # so small, and after one epoch, nearly all are
        tracker.runs.append(run)
        return run

    return put


@pytest.fixture
def own_copy(prepared_folder: Path, tmp_path: Path) -> Path:
    """Copy the prepared dataset with its raw photos, to change them; its digest, and so its runs, stay."""
    shutil.copytree(prepared_folder, tmp_path / "own")
    return tmp_path / "own"


def explained(
    root: Path, tracker: MemoryTracker, settings: str = "", dataset: str = "litter", **parameters: str
) -> MemoryRun:
    text = f"{TINY} data_folder={root / 'data'} {settings}"
    chosen = config("explain", text, dataset=str(root / dataset), **{"photos": "3", **parameters})
    result = explain.run(chosen, tracker)
    return next(run for run in tracker.runs if run.id == result.run_id)


class StandIn:
    """A fast stand-in for a method: evidence where the photo differs from its mean."""

    def __call__(self, photos: Any, pairs: Any) -> Evidence:
        self.called_with(photos)
        unlike = np.abs(photos - photos.mean(axis=(1, 2), keepdims=True)).sum(axis=-1)
        return without_sum(unlike.astype(np.float32)[pairs[:, 0]] + pairs[:, 1, None, None].astype(np.float32))

    def called_with(self, photos: Any) -> None:
        """Do nothing; subclasses watch."""


def cheaply(root: Path, tracker: MemoryTracker, settings: str = "", method: Any = None, **parameters: str) -> MemoryRun:
    """Explain by the stand-in or another method, under the name of shap."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explain, "build_methods", lambda *arguments, **options: {"shap": method or StandIn()})
        return explained(root, tracker, f"randomised_photos=0 {settings}", **{"methods": "shap", **parameters})


def refused(
    error: type[Exception], match: str, root: Path, tracker: MemoryTracker, settings: str = "", **parameters: str
) -> None:
    """Check that ``explain`` refuses in one line and adds nothing to any run."""
    before = [state_of(run) for run in tracker.runs]
    with pytest.raises(error, match=match) as caught:
        explained(root, tracker, settings, **parameters)
    assert "\n" not in str(caught.value)
    assert [state_of(run) for run in tracker.runs] == before


def state_of(run: MemoryRun) -> tuple[Any, ...]:
    """Return a run's whole state: status, metrics, tags, and every file with its content."""
    files = {str(path.relative_to(run.folder)): path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    return run.id, run.status, dict(run.metrics), dict(run.tags), dict(run.parameters), files


def files_of(run: MemoryRun) -> set[str]:
    """Return the artifacts that ``explain`` added, by their paths below explanations/."""
    folder = run.folder / "explanations"
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def scores_of(run: MemoryRun) -> pd.DataFrame:
    return pd.read_csv(run.folder / "explanations" / "scores.csv")


def photos_of(run: MemoryRun) -> list[str]:
    return sorted(set(scores_of(run)["file_name"]))


def page_of(run: MemoryRun) -> str:
    return (run.folder / "explanations" / "index.html").read_text(encoding="utf-8")


def labels_of(root: Path, dataset: str = "litter") -> pd.DataFrame:
    return pd.read_csv(root / "data" / "prepared" / dataset / "labels.csv").set_index("file_name")


def split_of(root: Path, split: str) -> set[str]:
    labels = labels_of(root)
    return set(labels.index[labels["split"] == split])


def about(run: MemoryRun, **changed: object) -> None:
    """Change the config that a run was made from."""
    file = run.folder / "config.json"
    write_json(file, {**json.loads(file.read_text()), **changed})


# ── What a run gets ──────────────────────────────────────────────────────────────────────────────────────────────


def test_adds_everything_to_the_models_own_run(
    prepared_folder: Path, tracker: MemoryTracker, model: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    run = model("base")
    _, status, metrics, tags, parameters, files = state_of(run)
    assert explained(prepared_folder, tracker, methods=",".join(FOUR_METHODS)) is run
    assert tracker.runs == [run]
    assert (run.status, run.parameters) == (status, parameters) == ("FINISHED", parameters)
    # Everything from the training is unchanged.
    assert metrics.items() <= run.metrics.items()
    assert tags.items() <= run.tags.items()
    assert files.items() <= state_of(run)[-1].items()

    photos = photos_of(run)
    assert len(photos) == 3
    assert files_of(run) == {"index.html", "scores.csv", "settings.json"}
    page = page_of(run)
    assert [words for words in (run.id, run.name, *photos) if words not in page] == []
    settings = json.loads((run.folder / "explanations" / "settings.json").read_text())
    assert (settings["methods"], settings["layer"], settings["shap"]) == (
        list(FOUR_METHODS),
        "block1_pool",
        {"samples": 4, "background_photos": 2},
    )
    added = {key: value for key, value in run.tags.items() if key not in tags}
    assert set(added) == {"explained_by", "explained_layer", "explained_split", "explanations"}
    assert (added["explained_by"], added["explained_layer"]) == (", ".join(FOUR_METHODS), "block1_pool")
    assert added["explained_split"] == "test"
    printed = " ".join(capsys.readouterr().out.split())
    for title in ("Grad-CAM:", "Grad-CAM++:", "Score-CAM:", "SHAP (expected gradients):"):
        assert f"{title} " in added["explanations"]
    assert " ".join(added["explanations"].split()) in printed
    assert "explanations/index.html" in printed


def test_metrics_are_named_as_documented_and_are_the_means_of_scores_csv(
    prepared_folder: Path, tracker: MemoryTracker, model: Make
) -> None:
    run = model("base")
    before = set(run.metrics)
    explained(prepared_folder, tracker, "randomised_photos=2", photos="9")
    added = {key: value for key, value in run.metrics.items() if key not in before}
    counts = {"explain/photos", "explain/pairs", "explain/covered_too_much", "explain/without_outline"}
    counts |= {"explain/outlines", "explain/boxes"}
    scores = (
        *("energy", "energy_over_centre", "above_chance", "pointing", "pointing_chance", "iou"),
        *("right_label_wrong_place", "insertion", "deletion", "randomised", "additivity_error", "empty"),
    )
    pattern = rf"explain/(gradcam|shap|centre)/(energy_low|energy_high|{'|'.join(scores)})"
    assert {name for name in added if not re.fullmatch(pattern, name)} == counts
    assert np.isfinite(list(added.values())).all()
    common = {"energy", "pointing", "pointing_chance", "iou", "insertion", "deletion", "randomised", "empty"}
    for method, wanted in {"gradcam": common, "shap": common | {"additivity_error"}}.items():
        for score in wanted:
            assert np.isfinite(added[f"explain/{method}/{score}"])
        assert added[f"explain/{method}/energy_low"] <= added[f"explain/{method}/energy_high"]
    assert "explain/gradcam/additivity_error" not in added
    frame = scores_of(run)
    pairs = frame[frame["method"] == "shap"]
    assert added["explain/pairs"] == len(pairs) > added["explain/photos"] == 9
    assert len(frame) == 3 * len(pairs)
    assert added["explain/shap/insertion"] == pytest.approx(pairs["insertion"].mean(), abs=1e-6)
    localised = pairs[pairs["localised"] == 1]
    assert 0 < len(localised) < len(pairs)
    assert added["explain/shap/energy"] == pytest.approx(localised["energy"].mean(), abs=1e-6)
    assert added["explain/shap/iou"] == pytest.approx(localised["iou"].mean(), abs=1e-6)
    assert pairs.loc[pairs["randomised"].notna(), "file_name"].nunique() == 2


def test_explains_what_is_annotated_and_what_the_model_says(
    prepared_folder: Path, tracker: MemoryTracker, model: Make
) -> None:
    run = cheaply(prepared_folder, tracker, run_id=model("base").id, photos="100")
    told = pd.read_csv(run.folder / "predictions_test.csv").set_index("file_name")
    assert set(photos_of(run)) <= set(told.index) == split_of(prepared_folder, "test")
    frame = scores_of(run)
    frame = frame[frame["method"] == "shap"]
    for row in frame.itertuples(index=False):
        assert row.label == told.loc[row.file_name, f"label_{row.material}"]
        assert row.probability == pytest.approx(told.loc[row.file_name, f"probability_{row.material}"], abs=2e-5)
        assert row.threshold == pytest.approx(run.metrics[f"threshold/{row.material}"], abs=1e-6)
        outcomes = {(1, 1): "right", (1, 0): "missed", (0, 1): "false_alarm"}
        assert row.outcome == outcomes[row.label, row.decision]
    pairs = {(row.file_name, row.material) for row in frame.itertuples(index=False)}
    unsure = {
        (name, material)
        for name in told.index
        for material in MATERIALS
        if abs(told.loc[name, f"probability_{material}"] - run.metrics[f"threshold/{material}"]) < 1e-5
    }
    said = {
        (name, material)
        for name in told.index
        for material in MATERIALS
        if told.loc[name, f"label_{material}"] or told.loc[name, f"decision_{material}"]
    }
    assert pairs - unsure == said - unsure


def test_a_second_call_replaces_everything_of_the_first(
    prepared_folder: Path, tracker: MemoryTracker, model: Make
) -> None:
    run = model("base")
    first, second = sorted(split_of(prepared_folder, "test"))[:2]
    explained(prepared_folder, tracker, methods="gradcam", file_names=first)
    (run.folder / "explanations" / "left").write_text("by an earlier version")
    cheaply(prepared_folder, tracker, file_names=second)
    assert files_of(run) == {"index.html", "scores.csv", "settings.json"}
    assert photos_of(run) == [second]
    assert first not in page_of(run)
    assert (run.tags["explained_by"], run.tags["explained_layer"]) == ("shap", "")
    assert run.status == "FINISHED"
    # A metric cannot be removed from a run.
    of_gradcam = [value for name, value in run.metrics.items() if name.startswith("explain/gradcam/")]
    assert len(of_gradcam) > 0
    assert np.isnan(of_gradcam).all()
    assert np.isfinite([run.metrics[f"explain/{name}"] for name in ("photos", "shap/insertion", "centre/energy")]).all()
    trained = [value for name, value in run.metrics.items() if not name.startswith("explain/")]
    assert np.isfinite(trained).all()


def test_same_seed_same_scores(prepared_folder: Path, tracker: MemoryTracker, model: Make) -> None:
    one, other = model("base"), model("base")
    for run in (one, other):
        explained(prepared_folder, tracker, methods="shap", run_id=run.id)
    pd.testing.assert_frame_equal(scores_of(one), scores_of(other), atol=1e-4)
    assert one.metrics.keys() == other.metrics.keys()


def test_no_check_against_random_weights_if_switched_off(
    prepared_folder: Path, tracker: MemoryTracker, model: Make
) -> None:
    model("base")
    run = explained(prepared_folder, tracker, "randomised_photos=0", methods="shap")
    assert not [name for name in run.metrics if "randomised" in name]
    assert scores_of(run)["randomised"].isna().all()


# ── Which run ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_takes_the_best_finished_model_of_this_dataset_by_val(
    prepared_folder: Path, tracker: MemoryTracker, model: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"low": 0.3, "good": 0.5, "collapsed": 0.9, "elsewhere": 0.95, "failed": 0.97, "pretrained": 0.98}
    runs = {name: model("base", name=f"the {name} one") for name in (*values, "unscored")}
    for name, value in values.items():
        runs[name].metrics["val/macro_ap"] = value
        runs[name].metrics["test/macro_ap"] = 1 - value  # test is for reporting, not for choosing
    del runs["unscored"].metrics["val/macro_ap"]
    runs["collapsed"].set_tags({"collapsed": True})
    runs["elsewhere"].set_tags({"dataset_digest": "another"})
    runs["failed"].status = "FAILED"
    runs["pretrained"].set_tags({"step": "pretrain"})
    untouched = {name: state_of(run) for name, run in runs.items() if name != "good"}
    assert cheaply(prepared_folder, tracker) is runs["good"]
    assert {name: state_of(runs[name]) for name in untouched} == untouched
    said = capsys.readouterr().out
    assert f"Explaining run {runs['good'].id}, the good one, the best of litter by val macro AP (0.500)." in said
    assert "collapsed" not in said.lower()

    for name in ("low", "good"):
        runs[name].set_tags({"collapsed": True})
    assert cheaply(prepared_folder, tracker) is runs["collapsed"]
    said = capsys.readouterr().out
    assert f"Explaining run {runs['collapsed'].id}, the collapsed one, the best of" in said
    assert "Warning: This model is collapsed" in said


def test_a_named_run_is_preferred_to_a_better_one(
    prepared_folder: Path, tracker: MemoryTracker, model: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    better, named = model("base"), model("base")
    better.metrics["val/macro_ap"], named.metrics["val/macro_ap"] = 0.9, 0.1
    assert cheaply(prepared_folder, tracker, run_id=named.id) is named
    said = capsys.readouterr().out
    assert f"Explaining run {named.id}, {named.name}." in said
    assert "explained_by" not in better.tags


def test_no_finished_model_run(prepared_folder: Path, tracker: MemoryTracker, model: Make) -> None:
    missing = r"no finished train run on the current preparation of litter.*-e train .*-P dataset=.*litter"
    refused(RunError, missing, prepared_folder, tracker)
    model("base", status="RUNNING")
    model("base").set_tags({"dataset_digest": "another"})
    refused(RunError, missing, prepared_folder, tracker)
    refused(RunError, r"not finished \(its status is RUNNING\)", prepared_folder, tracker, run_id="run-0")
    refused(RunError, "There is no run 'nowhere'", prepared_folder, tracker, run_id="nowhere")


def test_runs_that_do_not_fit(prepared_folder: Path, tracker: MemoryTracker, model: Make) -> None:
    run = model("base")
    whole = (run.folder / "config.json").read_text()
    for match, changed in {
        r"another preparation \(bottles; here litter\)": {"dataset_digest": "other", "dataset": "bottles"},
        "other materials.*wood, stone": {"materials": ["wood", "stone"], "dataset_digest": "other"},
        "64 px, but here they are shrunk to 32 px": {"image_side_px": 64},
        "no network to use here.*: train": {"step": "prepare"},
    }.items():
        about(run, **changed)
        refused(RunError, match, prepared_folder, tracker, run_id=run.id)
        refused(RunError, match, prepared_folder, tracker)
        (run.folder / "config.json").write_text(whole)


def test_a_pretrain_run_has_no_decisions_to_explain(prepared_folder: Path, tracker: MemoryTracker) -> None:
    settings = f"learner.epochs=1 learner.widths=[4,8] data_folder={prepared_folder / 'data'}"
    pretrain.run(config("pretrain", settings, dataset=str(prepared_folder / "litter")), tracker)
    refused(RunError, "no network to use here.*: train", prepared_folder, tracker, run_id=tracker.runs[0].id)
    refused(RunError, "no finished train run", prepared_folder, tracker)


@pytest.mark.parametrize("name", ["model.weights.h5", "architecture.json", "decision_rule.json"])
@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_a_run_whose_network_is_gone_or_damaged(
    prepared_folder: Path, tracker: MemoryTracker, model: Make, name: str, damage: str
) -> None:
    run = model("base")
    file = run.folder / "export" / name
    if damage == "gone" and name == "decision_rule.json":  # as in runs of earlier versions: the thresholds are metrics
        file.unlink()
        explained(prepared_folder, tracker, run_id=run.id)
        return
    if damage == "gone":
        file.unlink()
        match = rf"Run {run.id} has no export/{name}: it was deleted"
    else:
        file.write_bytes(file.read_bytes()[:100])
        match = rf"network of run {run.id} cannot be read.*Run it again|rule.json of run {run.id} is damaged.*Train it"
    refused(RunError, match, prepared_folder, tracker, run_id=run.id)


# ── Every model ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [name for name in MODELS if "fold" not in name])
def test_every_model_is_explained_by_what_fits_it(
    prepared_folder: Path, tracker: MemoryTracker, model: Make, name: str
) -> None:
    run = model(name)
    layer = MODELS[name][2]
    explained(prepared_folder, tracker, photos="2")
    methods = {"gradcam", "shap"} if layer else {"shap"}
    assert set(run.tags["explained_by"].split(", ")) == methods
    assert run.tags["explained_layer"] == layer
    frame = scores_of(run)
    assert set(frame["method"]) == {*methods, "centre"}
    maps = frame[frame["method"] != "centre"]
    assert maps[["insertion", "deletion"]].notna().all().all()
    assert maps.loc[maps["label"] == 1, "energy"].notna().all()
    shap = frame[frame["method"] == "shap"]
    assert (shap["additivity_error"] >= 0).all()
    assert shap["empty"].sum() == 0
    assert set(re.findall(r'<figure data-method="(\w+)">', page_of(run))) == methods


@pytest.mark.parametrize("name", ["dbn", "dense autoencoder"])
@pytest.mark.parametrize("methods", ["gradcam", "shap,scorecam", "gradcam_plus_plus"])
def test_class_activation_of_a_model_without_convolutions_is_refused_with_a_fix(
    prepared_folder: Path, tracker: MemoryTracker, model: Make, name: str, methods: str
) -> None:
    run = model(name)
    match = "no convolution with a map larger than 1 × 1.*methods=shap"
    refused(ConfigError, match, prepared_folder, tracker, run_id=run.id, methods=methods)


def test_partition_shap_needs_no_gradient(prepared_folder: Path, tracker: MemoryTracker, model: Make) -> None:
    model("dbn")
    run = explained(prepared_folder, tracker, methods="shap_partition", photos="2")
    shap = scores_of(run).query("method == 'shap_partition'")
    assert len(shap) > 0
    assert shap["additivity_error"].max() < 1e-3
    assert run.tags["explained_by"] == "shap_partition"


def test_the_layer_can_be_named(prepared_folder: Path, tracker: MemoryTracker, model: Make) -> None:
    last, early = model("base"), model("base")
    explained(prepared_folder, tracker, methods="gradcam", run_id=last.id)
    explained(prepared_folder, tracker, methods="gradcam", run_id=early.id, layer="block0_relu0")
    assert (last.tags["explained_layer"], early.tags["explained_layer"]) == ("block1_pool", "block0_relu0")
    assert json.loads((early.folder / "explanations" / "settings.json").read_text())["layer"] == "block0_relu0"
    ours, theirs = (scores_of(run).query("method == 'gradcam'")["energy"].dropna() for run in (last, early))
    assert len(ours) == len(theirs) > 0
    assert not np.allclose(ours, theirs)


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        ("block0_rleu0", r"has no layer 'block0_rleu0'\. Did you mean 'block0_relu0'\?"),
        ("qqqqq", r"has no layer 'qqqqq'\. Its last map is block1_pool"),
        ("logits", r"layer=logits of base_cnn is not spatial.*layer=auto, which is block1_pool"),
        ("rescale", r"layer=rescale of base_cnn is not spatial"),
    ],
)
def test_layers_that_cannot_be_drawn(
    prepared_folder: Path, tracker: MemoryTracker, model: Make, layer: str, match: str
) -> None:
    model("base")
    refused(ConfigError, match, prepared_folder, tracker, layer=layer)


def test_a_layer_that_no_method_draws_is_refused(prepared_folder: Path, tracker: MemoryTracker, model: Make) -> None:
    model("base")
    match = "layer=block1_pool, but methods=shap draws the map of no layer. Add one of gradcam"
    refused(ConfigError, match, prepared_folder, tracker, methods="shap", layer="block1_pool")


# ── Which photos ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_photos_of_a_split_and_no_more_than_there_are(
    prepared_folder: Path, tracker: MemoryTracker, model: Make
) -> None:
    model("base")
    for split in ("val", "train"):
        run = cheaply(prepared_folder, tracker, split=split, photos="4")
        assert run.tags["explained_split"] == split
        assert set(photos_of(run)) < split_of(prepared_folder, split)
        assert run.metrics["explain/photos"] == 4
        assert f"<span>split {split}</span>" in page_of(run)
    run = cheaply(prepared_folder, tracker, photos="5000")
    assert set(photos_of(run)) == split_of(prepared_folder, "test")


def test_the_seed_draws_the_photos_whatever_the_model(
    prepared_folder: Path, tracker: MemoryTracker, model: Make
) -> None:
    base, dbn = model("base"), model("dbn")
    drawn = [photos_of(cheaply(prepared_folder, tracker, run_id=run.id)) for run in (base, dbn)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 3
    others = [photos_of(cheaply(prepared_folder, tracker, run_id=base.id, seed=str(seed))) for seed in (1, 2)]
    assert [drawn[0]] * 2 != others


def test_chosen_photos(prepared_folder: Path, tracker: MemoryTracker, model: Make) -> None:
    model("base")
    one, other, third = sorted(split_of(prepared_folder, "test"))[:3]
    run = cheaply(prepared_folder, tracker, file_names=f" {other}, {one},{other} ", photos="1")
    assert photos_of(run) == [one, other]
    run = cheaply(prepared_folder, tracker, f"file_names=[{third}]")
    assert photos_of(run) == [third]
    of_train = min(split_of(prepared_folder, "train"))
    run = cheaply(prepared_folder, tracker, split="train", file_names=of_train)
    assert photos_of(run) == [of_train]


def test_chosen_photos_that_are_not_there(prepared_folder: Path, tracker: MemoryTracker, model: Make) -> None:
    model("base")
    known = min(split_of(prepared_folder, "test"))
    near = rf"file_names: '{known}g' is not a photo in split=test of litter\. Did you mean '{known}'\?"
    refused(ConfigError, near, prepared_folder, tracker, file_names=f"{known},{known}g")
    far = r"'§' is not a photo in split=test.*The names are in .*litter/labels\.csv"
    refused(ConfigError, far, prepared_folder, tracker, file_names="§")
    of_train = min(split_of(prepared_folder, "train"))
    refused(
        ConfigError,
        f"'{of_train}' is not a photo in split=test of litter. It is in split=train",
        prepared_folder,
        tracker,
        file_names=of_train,
    )


def test_the_photos_are_those_of_the_runs_own_fold(
    prepared_folder: Path, tracker: MemoryTracker, model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backgrounds = []

    def spy(network: Any, names: Any, config: Any, inputs: MethodInputs) -> Any:
        backgrounds.append(inputs.training_photos(20))
        return {"shap": StandIn()}

    monkeypatch.setattr(explain, "build_methods", spy)
    model("base of fold 1")
    chosen = "shap.samples=20 shap.background_photos=20"
    run = explained(prepared_folder, tracker, chosen, photos="100", methods="shap")
    dataset = load_prepared(prepared_folder / "data" / "prepared" / "litter")
    fold, whole = dataset.split(1), dataset.split(0)
    assert set(photos_of(run)) == set(fold.test.file_names) != set(whole.test.file_names)
    assert set(photos_of(run)) == set(pd.read_csv(run.folder / "predictions_test.csv")["file_name"])
    # No photo of val or test is in the background.
    learnt = {dataset.photos[row].tobytes() for row in fold.train.frame["photo_index"]}
    drawn = [{photo.tobytes() for photo in one} for one in backgrounds]
    assert len(drawn[0]) == 20
    assert drawn[0] <= learnt
    assert all(one == drawn[0] for one in drawn)


# ── Outlines ─────────────────────────────────────────────────────────────────────────────────────────────────────


def adopt(run: MemoryRun, root: Path, dataset: str) -> None:
    """Turn a run into one of another dataset of the same materials."""
    loaded = load_prepared(root / "data" / "prepared" / dataset)
    about(run, dataset=loaded.name, dataset_digest=loaded.digest)
    run.set_tags({"dataset": loaded.name, "dataset_digest": loaded.digest})


def write_class_per_folder(folder: Path) -> None:
    """Write a folder per category, one label per photo, no outlines; and photos without any label."""
    whole = write_dataset(folder, batches=6, side=(48, 48))
    bare = {"segmentation": [], "bbox": [0, 0, 0, 0], "area": 0}
    annotations = [{**one, **bare} for one in whole["annotations"]]
    for number in range(4):
        name = f"nothing/{number}.jpg"
        write_photo(folder / name, seed=9000 + number, side=(48, 48))
        whole["images"].append({"id": 900 + number, "file_name": name, "width": 48, "height": 48})
    write_json(folder / "annotations.json", {**whole, "annotations": annotations})


@pytest.fixture(scope="module")
def without_outlines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("without-outlines")
    write_class_per_folder(root / "classes")
    settings = f"image_side_px=32 data_folder={root / 'data'} group_by=photo"
    prepare.run(config("prepare", settings, dataset=str(root / "classes")), MemoryTracker())
    return root


def test_without_outlines_localisation_is_left_out_with_a_note(
    without_outlines: Path, tracker: MemoryTracker, model: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    run = model("base")
    adopt(run, without_outlines, "classes")
    explained(without_outlines, tracker, dataset="classes", photos="100")
    frame = scores_of(run)
    assert not frame["localised"].any()
    assert frame[["area_share", "energy", "pointing", "pointing_chance", "iou"]].isna().all().all()
    local = ("energy", "pointing", "iou", "above_chance", "right_label")
    assert [name for name in run.metrics if name.startswith("explain") and any(word in name for word in local)] == []
    labelled = frame[(frame["label"] == 1) & (frame["method"] == "shap")]
    assert run.metrics["explain/without_outline"] == len(labelled) > 0
    assert {"explain/gradcam/insertion", "explain/shap/deletion", "explain/shap/additivity_error"} <= set(run.metrics)
    sentence = "No outlines of litter here: localisation scores are left out."
    printed, page = " ".join(capsys.readouterr().out.split()), page_of(run)
    note = f"Left out of localisation because their material has no usable outline: {len(labelled)}."
    for words in (sentence, note):
        assert words in printed
        assert words in page
    assert run.tags["explanations"] == sentence


def test_a_photo_without_annotated_or_predicted_materials(
    without_outlines: Path, tracker: MemoryTracker, model: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    run = model("base")
    adopt(run, without_outlines, "classes")
    labels = labels_of(without_outlines, "classes")
    nothing = labels[labels[list(MATERIALS)].sum(axis=1) == 0]
    split, name = next((row.split, row.Index) for row in nothing.itertuples())
    rule = DecisionRule(dict.fromkeys(MATERIALS, 2.0))  # nothing is ever predicted
    write_json(run.folder / "export" / "decision_rule.json", rule.as_json())
    before = set(run.metrics)
    explained(without_outlines, tracker, dataset="classes", split=split, file_names=name)
    assert files_of(run) == {"index.html", "scores.csv", "settings.json"}
    assert scores_of(run).empty
    added = {key: value for key, value in run.metrics.items() if key not in before}
    counts = ("photos", "pairs", "covered_too_much", "without_outline", "outlines", "boxes")
    assert added == {f"explain/{name}": 0.0 for name in counts}
    assert "Photos without any annotated or predicted material: 1." in capsys.readouterr().out


def test_outlines_that_cover_more_than_half_are_left_out_and_counted(
    own_copy: Path, tracker: MemoryTracker, model: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    from wastelens.system.digests import file_digest

    run = model("base")
    prepared = own_copy / "data" / "prepared" / "litter"
    file = prepared / "outlines.json"
    whole = json.loads(file.read_text())
    mapping = default_mapping()
    plastic = {one["id"] for one in whole["categories"] if mapping[one["name"]] == "plastic"}
    large = annotation(0, 0, 0, box=(0, 0, 48, 40))["segmentation"]
    for one in whole["annotations"]:
        if one["category_id"] in plastic:
            one["segmentation"] = large
    write_json(file, whole)
    manifest = json.loads((prepared / "manifest.json").read_text())
    manifest["files"]["outlines.json"] = file_digest(file)
    write_json(prepared / "manifest.json", manifest)
    cheaply(own_copy, tracker, photos="100")
    frame = scores_of(run).query("method == 'shap' and label == 1").set_index("material")
    covered = len(frame.loc[["plastic"]])
    assert run.metrics["explain/covered_too_much"] == covered > 0
    assert run.metrics["explain/without_outline"] == 0
    assert not frame.loc["plastic", "localised"].any()
    assert frame.loc["plastic", "area_share"].to_numpy() == pytest.approx(40 / 48, abs=0.01)
    assert frame.loc["plastic", "energy"].isna().all()
    rest = frame.drop(index="plastic")
    assert rest["localised"].all()
    assert run.metrics["explain/shap/energy"] == pytest.approx(rest["energy"].mean(), abs=1e-6)
    note = f"Left out of localisation because their outlines cover more than half of the photo: {covered}."
    assert note in capsys.readouterr().out
    assert note in page_of(run)
    assert page_of(run).count("its outlines cover more than half of the photo") >= covered


@pytest.mark.parametrize("fate", ["deleted", "damaged", "replaced"])
def test_a_photo_gone_since_prepare_is_shown_from_the_cache(
    own_copy: Path,
    prepared_folder: Path,
    tracker: MemoryTracker,
    model: Make,
    capsys: pytest.CaptureFixture[str],
    fate: str,
) -> None:
    run, undisturbed = model("base"), model("base")
    gone, kept = sorted(split_of(own_copy, "test"))[:2]
    photo = own_copy / "litter" / labels_of(own_copy).loc[gone, "source_file"]
    contents = {"damaged": photo.read_bytes()[:300], "replaced": image_bytes(np.full((60, 400, 3), 255, np.uint8))}
    photo.unlink() if fate == "deleted" else photo.write_bytes(contents[fate])
    cheaply(own_copy, tracker, run_id=run.id, file_names=f"{gone},{kept}")
    note = f"Photo files missing or changed since prepare: 1 (the first, {gone}: "
    assert note in capsys.readouterr().out
    assert note in page_of(run)
    assert set(re.findall(r'<p class="file" title="([^"]+)">', page_of(run))) == {gone, kept}
    # The scores are what the model saw: the cache.
    cheaply(prepared_folder, tracker, run_id=undisturbed.id, file_names=f"{gone},{kept}")
    assert "missing or changed since prepare" not in capsys.readouterr().out
    pd.testing.assert_frame_equal(scores_of(run), scores_of(undisturbed), atol=1e-4)


# ── Settings ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("shap.samples=7", ["samples=7 is no multiple of background_photos=2"]),
        ("shap.background_photos=3", ["samples=4 is no multiple of background_photos=3"]),
        ("methods=shap,gradcam,shap", ["methods=shap,gradcam,shap names one of them twice; name each once"]),
        ("methods=gradcm", ["'methods'", "'gradcam', 'gradcam_plus_plus', 'scorecam', 'shap'", "not 'gradcm'"]),
        ("methods=[]", ["'methods'", "at least 1 item"]),
        ("photos=0", ["'photos'", "greater than or equal to 1", "not 0"]),
        ("split=tset", ["'split'", "'test', 'val' or 'train'"]),
        ("steps=1", ["'steps'", "greater than or equal to 2"]),
        ("method=shap", ["Unknown key 'method'", "Did you mean 'methods'?"]),
    ],
)
def test_invalid_settings(settings: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config("explain", f"{TINY} {settings}")
    assert "\n" not in str(caught.value)
    assert [one for one in words if one not in str(caught.value)] == []


def test_more_background_photos_than_training_photos(
    prepared_folder: Path, tracker: MemoryTracker, model: Make
) -> None:
    model("base")
    match = r"shap\.background_photos=41, but litter has 40 training photos\. Give 40 or less"
    refused(ConfigError, match, prepared_folder, tracker, "shap.samples=41 shap.background_photos=41")
    run = explained(prepared_folder, tracker, "shap.samples=40 shap.background_photos=40", photos="1", methods="shap")
    assert "explain/shap/insertion" in run.metrics


# ── Interruptions and memory ─────────────────────────────────────────────────────────────────────────────────────


def test_stopped_in_the_middle_it_leaves_the_run_as_it_was(
    prepared_folder: Path, tracker: MemoryTracker, model: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = model("base")
    cheaply(prepared_folder, tracker, photos="2")
    before = state_of(run)
    add, added = GalleryWriter.add, []

    def stopping(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    def stopping_at_the_second(*arguments: Any) -> None:
        added.append(arguments)
        if len(added) == 2:
            raise KeyboardInterrupt
        add(*arguments)

    (tmp_path / "temporary").mkdir()
    places: dict[tuple[Any, str], Any] = {
        (GalleryWriter, "add"): stopping_at_the_second,
        (explain, "summarise"): stopping,
        (explain, "header"): stopping,
        (pd.DataFrame, "to_csv"): stopping,
    }
    for (owner, name), stop in places.items():
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, stop)
            patch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
            with pytest.raises(KeyboardInterrupt):
                cheaply(prepared_folder, tracker, "seed=3")
        assert state_of(run) == before, name
        assert run.status == "FINISHED"
        assert list((tmp_path / "temporary").iterdir()) == []
    assert len(added) == 2


def test_an_error_in_the_middle_leaves_the_run_as_it_was_and_the_next_call_works(
    prepared_folder: Path, tracker: MemoryTracker, model: Make
) -> None:
    class Broken(StandIn):
        photos = 0

        def called_with(self, photos: Any) -> None:
            self.photos += len(photos)
            if self.photos > 1:
                raise RuntimeError

    run = model("base")
    before = state_of(run)
    with pytest.raises(RuntimeError):
        cheaply(prepared_folder, tracker, "batch_size=1", method=Broken())
    assert state_of(run) == before
    cheaply(prepared_folder, tracker)
    assert run.metrics["explain/photos"] == 3


def test_maps_of_earlier_batches_are_not_kept(prepared_folder: Path, tracker: MemoryTracker, model: Make) -> None:
    kept: list[weakref.ref[Any]] = []
    alive_at_call: list[int] = []

    class Watched(StandIn):
        def __call__(self, photos: Any, pairs: Any) -> Evidence:
            alive_at_call.append(sum(one() is not None for one in kept))
            evidence = super().__call__(photos, pairs)
            maps = evidence.maps.copy()  # owns its memory: every view of a map keeps this very array
            kept.append(weakref.ref(maps))
            return replace(evidence, maps=maps)

    model("base")
    cheaply(prepared_folder, tracker, "batch_size=1", split="train", photos="12", method=Watched())
    assert len(alive_at_call) == 12
    # The photo that was handed out last may still be in hand; nothing before it.
    assert max(alive_at_call) <= 1
    gc.collect()
    assert [one for one in kept if one() is not None] == []


def test_only_a_batch_of_photos_is_in_memory_at_once(
    prepared_folder: Path, tracker: MemoryTracker, model: Make
) -> None:
    sizes = []

    class Watched(StandIn):
        def called_with(self, photos: Any) -> None:
            sizes.append(len(photos))

    model("base")
    cheaply(prepared_folder, tracker, "batch_size=4", photos="10", method=Watched())
    assert sizes == [4, 4, 2]


def test_progress_names_each_part_of_a_batch(
    prepared_folder: Path, tracker: MemoryTracker, model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model("base")
    shown: list[str] = []
    monkeypatch.setattr(Bar, "show", lambda self, figures: shown.append(figures))
    cheaply(prepared_folder, tracker, "batch_size=4", photos="6")
    parts = ("shap", "random weights", "scores")
    assert shown == [f"photos {rows} of 6: {part}" for rows in ("1 to 4", "5 to 6") for part in parts]
