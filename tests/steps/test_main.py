"""The step ``main`` on small data: every model, compared."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from tests.factories import config, write_dataset
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.errors import ConfigError, InputError
from wastelens.steps import explain, main

TINY = (
    "prepare.image_side_px=32 train.fit.epochs=1 train.fit.batch_size=16 train.bootstrap_resamples=100 "
    "train.network.widths=[4,8] models.autoencoder.network.learner.widths=[4,8] "
    "models.autoencoder.network.learner.epochs=1 models.dbn.network.learner.hidden_units=[12,6] "
    "models.dbn.network.learner.epochs=1 models.probe.network.side_px=0 "
    "models.efficientnet_lite.network.side_px=0 models.efficientnet_lite.fine_tune.epochs=1 "
    "cluster.k=3 cluster.draws=5 explain.photos=2 explain.shap.samples=2 explain.shap.background_photos=2 "
    "explain.steps=2 explain.randomised_photos=1"
)


@pytest.mark.slow
def test_main_runs_every_model_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "litter", side=(48, 48))
    tracker = MemoryTracker()
    folder = tmp_path / "data"
    settings = f"prepare.data_folder={folder} train.data_folder={folder} {TINY}"
    main.run(config("main", settings, dataset=str(tmp_path / "litter")), tracker)
    parent, prepared, *others = tracker.runs
    by_name = {run.name: run for run in others}
    models = ["probe @litter", "efficientnet_lite @litter", "base @litter", "base +aug @litter"]
    models += ["autoencoder @litter", "dbn @litter"]
    assert list(by_name) == [
        *models[:5],
        "pretrain conv_autoencoder @litter",
        models[5],
        "pretrain dbn @litter",
        "cluster conv_autoencoder @litter",
    ]
    assert {run.status for run in tracker.runs} == {"FINISHED"}
    assert {by_name[name].parent for name in models} | {prepared.parent} == {parent.id}
    assert by_name["pretrain dbn @litter"].parent == by_name[models[5]].id
    assert by_name[models[5]].tags["pretrained_run"] == by_name["pretrain dbn @litter"].id
    comparison = pd.read_csv(parent.folder / "comparison.csv")
    assert comparison["run_id"].tolist() == [by_name[name].id for name in models]
    scores = [by_name[name].metrics["test/macro_ap"] for name in models]
    assert comparison["test_macro_ap"].tolist() == pytest.approx(scores)
    printed = capsys.readouterr().out
    assert "Results" in printed
    assert "base +aug @litter" in printed
    assert_explains_the_best(parent, [by_name[name] for name in models], printed)


def assert_explains_the_best(parent: MemoryRun, models: list[MemoryRun], printed: str) -> None:
    """Only the model that is best on val is explained, in its own run; a collapsed one only if all are."""
    best = max(models, key=lambda run: (run.tags["collapsed"] == "false", run.metrics["val/macro_ap"]))
    assert [run.id for run in models if "explained_by" in run.tags] == [best.id]
    assert parent.tags["best_run"] == best.id
    assert best.metrics["explain/photos"] == 2
    assert "explained_by" not in parent.tags
    assert not [name for name in parent.metrics if name.startswith("explain")]
    assert (best.folder / "explanations" / "index.html").is_file()
    assert [run.id for run in models if (run.folder / "explanations").exists()] == [best.id]
    words = " ".join(printed.split())
    assert f"Where it looks: memory:{best.id}/explanations/index.html" in words
    assert words.index("Results") < words.rindex(" ".join(best.tags["explanations"].split()))


def test_methods_that_do_not_fit_the_best_model_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusing(*arguments: Any) -> None:
        raise ConfigError("The network dbn has no convolution. Use methods=shap.")

    monkeypatch.setattr(explain, "explained", refusing)
    assert main._explain(config("explain", run_id="abc"), MemoryTracker()) is None
    printed = " ".join(capsys.readouterr().out.split())
    assert printed == "Warning: Run abc is not explained. The network dbn has no convolution. Use methods=shap."


@pytest.mark.parametrize(
    ("settings", "match"),
    [("cluster.k=500", "k=500 is more than the 40 training photos"), ("cluster.run_id=nowhere", "no run 'nowhere'")],
)
def test_settings_that_cluster_refuses_stop_it_before_any_training(tmp_path: Path, settings: str, match: str) -> None:
    write_dataset(tmp_path / "litter", side=(48, 48))
    folder = tmp_path / "data"
    text = f"prepare.data_folder={folder} train.data_folder={folder} {TINY} {settings}"
    tracker = MemoryTracker()
    with pytest.raises(InputError, match=match):
        main.run(config("main", text, dataset=str(tmp_path / "litter")), tracker)
    assert [run.name.split()[0] for run in tracker.runs] == ["main", "prepare"]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (
            "explain.shap.background_photos=50 explain.shap.samples=50",
            "background_photos=50, but litter has 40 training photos",
        ),
        ("explain.file_names=nowhere.jpg", r"'nowhere\.jpg' is not a photo in split=test"),
        ("explain.run_id=nowhere", "no run 'nowhere'"),
    ],
)
def test_settings_that_explain_refuses_stop_it_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, match: str
) -> None:
    def training(*arguments: Any) -> None:
        raise AssertionError("it trains")

    monkeypatch.setattr(main.train, "judged", training)
    write_dataset(tmp_path / "litter", side=(48, 48))
    folder = tmp_path / "data"
    text = f"prepare.data_folder={folder} train.data_folder={folder} {TINY} {settings}"
    with pytest.raises(InputError, match=match):
        main.run(config("main", text, dataset=str(tmp_path / "litter")), MemoryTracker())


def test_the_best_model_is_one_that_is_not_collapsed_where_there_is_one() -> None:
    def compared(name: str, val: float, test: float, collapsed: bool) -> Any:
        verdict = SimpleNamespace(
            metrics=lambda: {"val/macro_ap": val, "test/macro_ap": test}, collapse=SimpleNamespace(collapsed=collapsed)
        )
        return main.Compared(SimpleNamespace(run_id=name, verdict=verdict), 1.0)  # type: ignore[arg-type]

    models = [
        compared("collapsed", 0.9, 0.1, True),
        compared("low", 0.2, 0.9, False),
        compared("good", 0.4, 0.3, False),
    ]
    shipped = config("main")
    assert main._explaining(shipped, models).run_id == "good"
    assert main._explaining(shipped, [models[0], compared("also", 0.8, 1.0, True)]).run_id == "collapsed"
    named = config("main", "explain.run_id=abc explain.photos=7")
    assert (main._explaining(named, models).run_id, main._explaining(named, models).photos) == ("abc", 7)


def test_unavailable_weights_stop_it_before_any_work(tmp_path: Path) -> None:
    write_dataset(tmp_path / "litter", side=(48, 48))
    folder = tmp_path / "data"
    settings = (
        f"prepare.data_folder={folder} train.data_folder={folder} models.efficientnet_lite.weights={tmp_path / 'no.h5'}"
    )
    tracker = MemoryTracker()
    with pytest.raises(ConfigError, match=r"no\.h5"):
        main.run(config("main", settings, dataset=str(tmp_path / "litter")), tracker)
    assert not tracker.runs
