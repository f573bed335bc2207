"""``promote``: who becomes the champion, and who does not; on MLflow's own registry, with planted predictions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.factories import MATERIALS, config
from tests.mlflow_store import mlflow_store

from wastelens.errors import ConfigError, RunError
from wastelens.steps import promote
from wastelens.tracking.mlflow_tracker import MlflowTracker
from wastelens.using.promoting import Promotion

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")
PHOTOS, GROUPS = 120, 24
SOUND = {"collapsed": False, "above_controls": True, "verdict": "Above floor and controls: test macro AP 0.600."}


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """MLflow's default store, in a folder of its own."""
    with mlflow_store(tmp_path_factory.mktemp("mlflow")) as mlflow:
        yield mlflow


class Workplace:
    """A registered model of its own name, and a dataset of its own digest, in the store."""

    def __init__(self, mlflow: Any, name: str) -> None:
        self.mlflow = mlflow
        self.client = mlflow.MlflowClient()
        self.tracker = MlflowTracker()
        self.name = name
        self.runs = 0

    def trained(
        self, skill: float, settings: str = "", *, seed: int = 0, fold: int = 0, model: bool = True, **about: Any
    ) -> str:
        """Write a run as ``train`` leaves it; skill: how far its probabilities tell positives from negatives."""
        about = {"dataset": "litter", "photos": "a", "mapping": "default", "materials": MATERIALS, **SOUND, **about}
        made = config("train", settings, seed=str(seed), fold=str(fold))
        digest = f"{self.name} {about['dataset']} {about['photos']} {about['mapping']}"
        described = {
            "step": "train",
            "config": made.model_dump(mode="json"),
            "dataset": about["dataset"],
            "dataset_digest": digest,
            "image_side_px": 32,
            "materials": list(about["materials"]),
        }
        self.runs += 1
        tags = {key: about[key] for key in (*SOUND, "mapping") if about[key] is not None}
        with self.tracker.start(
            "train", tags={"step": "train", "dataset_digest": digest, "model": "base", **tags}
        ) as run:
            run.log_text(json.dumps(described), "config.json")
            run.log_table(self._predictions(skill, fold, about), "predictions_test.csv")
            run.log_metrics({"test/macro_ap": 0.5 + skill / 10})
        if model:
            logged = self.client.create_logged_model("0", "model", source_run_id=run.id)
            self.client.finalize_logged_model(logged.model_id, "READY")
        return str(run.id)

    def _predictions(self, skill: float, fold: int, about: dict[str, Any]) -> pd.DataFrame:
        labels = np.random.default_rng([fold, len(about["photos"])]).random((PHOTOS, len(about["materials"]))) < 0.4
        rng = np.random.default_rng([7, self.runs])
        probabilities = np.clip(rng.normal(0.5 + 0.1 * skill * (labels - 0.5), 0.1), 0, 1)
        table = pd.DataFrame({"file_name": [f"{about['photos']}_{fold}_{photo}.jpg" for photo in range(PHOTOS)]})
        table["group"] = [f"{fold} {photo % GROUPS}" for photo in range(PHOTOS)]
        for number, material in enumerate(about["materials"]):
            table[f"label_{material}"] = labels[:, number].astype(int)
            table[f"probability_{material}"] = probabilities[:, number]
            table[f"decision_{material}"] = (probabilities[:, number] >= 0.5).astype(int)
        return table

    def promote(self, run_id: str = "", **parameters: str) -> Promotion:
        settings = config("promote", "bootstrap_resamples=200", name=self.name, run_id=run_id, **parameters)
        return promote.run(settings, self.tracker)

    def refused(self, run_id: str = "", **parameters: str) -> str:
        before = len(self.mlflow.search_runs(output_format="list"))
        with pytest.raises((RunError, ConfigError)) as caught:
            self.promote(run_id, **parameters)
        assert len(self.mlflow.search_runs(output_format="list")) == before
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @property
    def aliases(self) -> dict[str, int]:
        return self.tracker.registry_of(self.name).aliases()

    def version(self, number: int) -> Any:
        return self.client.get_model_version(self.name, str(number))


@pytest.fixture
def work(mlflow: Any, request: pytest.FixtureRequest) -> Workplace:
    return Workplace(mlflow, request.node.name[:60].replace("[", " ").replace("]", ""))


@pytest.fixture
def with_champion(work: Workplace) -> Workplace:
    """With a champion that was trained with the seeds 0 and 1."""
    work.trained(1, seed=1)
    assert work.promote(work.trained(1)).alias == "champion"
    return work


def better(work: Workplace, skill: float = 4, **about: Any) -> str:
    """Write two runs that differ from the champion in a setting; return the first."""
    work.trained(skill, "schedule.peak=0.004", seed=1, **about)
    return work.trained(skill, "schedule.peak=0.004", **about)


def test_the_first_sound_model_is_the_champion(work: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = work.trained(1)
    made = work.promote(run_id)
    assert (made.alias, made.number, work.aliases) == ("champion", 1, {"champion": 1})
    version = work.version(1)
    assert version.run_id == run_id
    assert version.source.startswith("models:/m-")
    expected = {"decision": "champion", "dataset": "litter", "mapping": "default", "model": "base", "seed": "0"}
    assert version.tags.items() >= expected.items()
    assert {"decided_by", "decided_at", "reason", "replaced_version", "dataset_digest"} <= version.tags.keys()
    assert version.description.startswith("**Champion**: It is the first champion: Above floor and controls")
    said = " ".join(capsys.readouterr().out.split())
    assert f"models:/{work.name}@champion is version 1 (run {run_id})." in said
    assert "To undo it" not in said
    # Again: no second version, no change.
    assert work.promote(run_id).reason == "It is the champion already."
    assert list(work.tracker.registry_of(work.name).versions()) == [1]
    logged = [one for one in work.tracker.finished({"step": "promote"}) if one.tags["registered_model"] == work.name]
    assert [one.tags["promotes_run"] for one in logged] == [run_id] * 2


@pytest.mark.parametrize(
    ("tags", "champion"),
    [
        ({"collapsed": True, "above_controls": False, "verdict": "COLLAPSED: all the same."}, True),
        ({"above_controls": False, "verdict": "Not above the controls: 0.3."}, False),
        ({"collapsed": None, "above_controls": None, "verdict": None}, False),
    ],
    ids=["collapsed", "not above the controls", "without a verdict"],
)
def test_an_unproven_model_is_no_champion(work: Workplace, tags: dict[str, Any], champion: bool) -> None:
    if champion:
        work.promote(work.trained(1))
    made = work.promote(work.trained(9, "schedule.peak=0.004", **tags))
    assert made.alias == "challenger"
    assert made.reason.startswith("It is not proven")
    assert (tags["verdict"] or "no verdict") in made.reason
    assert work.aliases == ({"champion": 1, "challenger": 2} if champion else {"challenger": 1})


def test_a_better_model_replaces_the_champion(with_champion: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    first = with_champion.version(1).run_id
    run_id = better(with_champion)
    made = with_champion.promote(run_id)
    assert (made.alias, with_champion.aliases) == ("champion", {"champion": 2}), made.reason
    assert made.reason.startswith("It beats the champion, version 1: macro AP 0.")
    assert "over 2 seeds, 1 fold, 120 photos in 24 groups" in made.reason
    tags = with_champion.version(2).tags
    expected = {"compared_with_version": "1", "compared_with_run": first, "seeds": "2", "pairs": "2", "margin": "0"}
    assert tags.items() >= expected.items()
    assert 0 < float(tags["difference_low"]) < float(tags["difference"]) < float(tags["difference_high"])
    assert float(tags["difference"]) == pytest.approx(
        float(tags["macro_ap"]) - float(tags["champion_macro_ap"]), abs=1e-5
    )
    assert "| difference_low | 0." in with_champion.version(2).description
    assert "- Replaced by version 2 (" in with_champion.version(1).description
    assert "rollback=true" in capsys.readouterr().out
    own = with_champion.tracker.finished({"step": "promote", "promotes_run": run_id})[0]
    assert own.metrics["difference"] == pytest.approx(float(tags["difference"]), abs=1e-5)
    assert own.tags["verdict"] == made.reason


@pytest.mark.parametrize(("skill", "said"), [(0.2, "is worse than"), (1, "does not beat")])
def test_a_model_that_is_not_better_is_the_challenger(with_champion: Workplace, skill: float, said: str) -> None:
    made = with_champion.promote(better(with_champion, skill))
    assert made.reason.startswith(f"It {said} the champion, version 1: macro AP")
    assert with_champion.aliases == {"champion": 1, "challenger": 2}
    assert with_champion.version(2).tags["decision"] == "challenger"


def test_a_margin_accepts_what_is_hardly_worse(with_champion: Workplace) -> None:
    run_id = better(with_champion, 1)
    assert (
        "may be worse than the champion, version 1 by more than 0.01"
        in with_champion.promote(run_id, margin="0.01").reason
    )
    made = with_champion.promote(run_id, margin="0.4")
    assert "is not worse than the champion, version 1 by more than 0.4" in made.reason
    assert with_champion.aliases == {"champion": 2}, "the alias challenger is gone"
    assert with_champion.version(2).tags["margin"] == "0.4"


def test_one_lucky_seed_does_not_win(with_champion: Workplace) -> None:
    with_champion.trained(1, seed=2)
    lucky = with_champion.trained(6, "schedule.peak=0.004", seed=0)
    for seed, skill in ((1, 0.6), (2, 1.1)):
        with_champion.trained(skill, "schedule.peak=0.004", seed=seed)
    made = with_champion.promote(lucky)
    assert made.alias == "challenger"
    assert "does not beat the champion" in made.reason
    assert "over 3 seeds" in made.reason
    assert float(with_champion.version(2).tags["difference"]) > 0.05, "the mean of the seeds"


def test_another_seed_of_the_champions_settings_is_luck(with_champion: Workplace) -> None:
    made = with_champion.promote(with_champion.trained(8, seed=5))
    assert made.alias == "challenger"
    assert "both have the same settings" in made.reason
    assert "(5 and 0; the champion's 0 and 0)" in made.reason


def test_a_single_training_of_each_says_that_seeds_were_not_compared(work: Workplace) -> None:
    work.promote(work.trained(1))
    run_id = work.trained(6, "schedule.peak=0.004")
    made = work.promote(run_id)
    assert (made.alias, work.aliases) == ("challenger", {"champion": 1, "challenger": 2})
    assert "beats the champion, version 1 on these photos, but seeds were not compared" in made.reason
    assert "1 seed, 1 fold, 120 photos in 24 groups" in made.reason
    accepted = work.promote(run_id, accept_single_seed="true")
    assert (accepted.alias, accepted.number) == ("champion", 2)
    assert "seeds were not compared, so a lucky one may be the cause" in accepted.reason


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"dataset": "beach"},
            "it is of another dataset (beach; the champion's: litter). Train it on the champion's dataset",
        ),
        ({"mapping": "fine"}, "another mapping from labels to materials (fine; the champion's: default)"),
        ({"photos": "other"}, "litter was prepared again in between"),
        (
            {"materials": MATERIALS[:4], "mapping": "four"},
            "it is of other materials (plastic, aluminium, paper, glass; the",
        ),
    ],
    ids=["dataset", "mapping", "split", "materials"],
)
def test_models_of_other_data_are_not_compared(with_champion: Workplace, other: dict[str, Any], said: str) -> None:
    made = with_champion.promote(better(with_champion, 9, **other))
    assert made.alias == "challenger"
    assert made.reason.startswith("It cannot be compared with the champion, version 1: ")
    assert said in made.reason
    assert "difference" not in with_champion.version(2).tags


def test_models_that_were_tested_on_other_folds_are_not_compared(with_champion: Workplace) -> None:
    made = with_champion.promote(with_champion.trained(9, "schedule.peak=0.004", fold=2))
    assert "other photos, those of other folds: champion [0] and challenger [2]. Train both on one" in made.reason


def test_a_champion_whose_run_is_gone_is_not_compared(with_champion: Workplace) -> None:
    with_champion.client.delete_run(with_champion.version(1).run_id)
    made = with_champion.promote(better(with_champion))
    assert made.alias == "challenger"
    assert "was deleted. Restore it" in made.reason


def test_rolling_back(with_champion: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    with_champion.promote(better(with_champion))
    capsys.readouterr()
    made = with_champion.promote(rollback="true")
    assert (made.number, with_champion.aliases) == (1, {"champion": 1})
    assert "Version 2 was rolled back, without a new comparison." in capsys.readouterr().out
    assert "- Version 2 was rolled back (" in with_champion.version(1).description
    assert "- Replaced by version 1, by hand (" in with_champion.version(2).description
    refused = with_champion.refused(rollback="true")
    assert "cannot be rolled back: version 1 replaced no other. Choose one with version=N: 1, 2." in refused
    # By hand there and back again.
    made = with_champion.promote(version="2")
    assert (made.reason, with_champion.aliases["champion"]) == (
        "Chosen by hand instead of version 1, without a new comparison.",
        2,
    )
    assert with_champion.version(2).tags["decision"] == "by hand"
    assert with_champion.promote(version="2").reason == "It is the champion already."
    assert with_champion.promote(rollback="true").number == 1


def test_choosing_an_unproven_version_warns(work: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    work.promote(work.trained(1, above_controls=False, verdict="Not above the controls: 0.3."))
    assert "has no champion" in capsys.readouterr().out
    work.promote(version="1")
    assert work.aliases == {"champion": 1}
    assert "Warning: Version 1 is not proven: Not above the controls: 0.3." in capsys.readouterr().out


def test_bad_input_is_refused_before_anything_is_written(work: Workplace, mlflow: Any) -> None:
    assert "promote needs run_id=RUN_ID" in work.refused()
    assert "three different commands" in _refused_config(run_id="a", version="2")
    for name in ("a/b", "a@b", "models:/x", ".."):
        assert "cannot be the name of a model" in _refused_config(name=name)
    with pytest.raises(ConfigError, match="needs the name"):
        promote.run(config("promote", run_id="a"), work.tracker)
    assert "There is no run 'gone'" in work.refused("gone")
    with work.tracker.start("prepare", tags={"step": "prepare"}) as other:
        pass
    assert "is not a run of train" in work.refused(other.id)
    assert "Give the id of a finished train run" in work.refused(other.id)
    running = work.trained(1)
    work.client.update_run(running, status="RUNNING")
    assert "is not finished (RUNNING)" in work.refused(running)
    assert "has no logged model to register" in work.refused(work.trained(1, model=False))
    assert f"There is no registered model '{work.name}'" in work.refused(rollback="true")
    assert f"There is no registered model '{work.name}'" in work.refused(version="3")
    work.promote(work.trained(1))
    assert "has no version 3. Choose one of 1." in work.refused(version="3")


def _refused_config(**parameters: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config("promote", **{"name": "x", **parameters})
    return str(caught.value)


def test_a_registry_that_is_not_there(work: Workplace, mlflow: Any) -> None:
    run_id = work.trained(1)
    mlflow.set_registry_uri("nonsense://user:secret@host/x")
    try:
        message = work.refused(run_id)
    finally:
        mlflow.set_registry_uri("")
    assert message.startswith("MLflow's registry nonsense://user:***@host/x cannot be used: ")
