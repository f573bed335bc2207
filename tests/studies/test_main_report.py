"""The page of a main job: every model, the one chosen, and what is known of it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from tests.factories import MATERIALS
from tests.memory_tracking import MemoryTracker

from wastelens.data.prepared.tables import TestTable, ValTable
from wastelens.evaluation.evaluate import evaluate
from wastelens.evaluation.verdict import Verdict, judge_finished
from wastelens.experiment.comparison import Compared
from wastelens.experiment.train_one import Trained
from wastelens.studies.main_report import MainJob, html, log_main_report
from wastelens.system.decision_rule import DecisionRule

PHOTOS = 60


def _table(kind: Any, labels: Any) -> Any:
    frame = pd.DataFrame({"file_name": [f"{n}.jpg" for n in range(PHOTOS)], "group": [str(n) for n in range(PHOTOS)]})
    columns = {material: labels[:, place] for place, material in enumerate(MATERIALS)}
    split = {TestTable: "test", ValTable: "val"}[kind]
    return kind(frame.assign(photo_index=range(PHOTOS), split=split, **columns), MATERIALS)


def verdict_of(skill: float) -> Verdict:
    rng = np.random.default_rng(0)
    labels = (rng.random((PHOTOS, len(MATERIALS))) < 0.4).astype(np.uint8)
    thresholds = np.full(len(MATERIALS), 0.5)

    def answers() -> Any:
        return 1 / (1 + np.exp(-skill * (labels - 0.5) - rng.normal(size=labels.shape)))

    return judge_finished(
        _table(TestTable, labels),
        answers(),
        DecisionRule(dict.fromkeys(MATERIALS, 0.5)),
        control_macro_ap={"colour": 0.4},
        rivals=lambda _: rng.random(labels.shape),
        seed=0,
        resamples=100,
        val=evaluate(labels, answers(), thresholds, MATERIALS, rng, 100),
    )


def job(**changes: Any) -> MainJob:
    compared = [
        Compared(Trained(f"{number}" * 32, name, verdict_of(skill)), 1.5)
        for number, (name, skill) in enumerate([("ba|se", 0.0), ("probe <b>", 4.0)])
    ]
    about = {"clusters": "Clusters are materials.", "explanations": ["It looks at the litter."]}
    about |= {"page": "http://server/#/e/index.html", "report": "http://server/#/report.html"}
    return MainJob(**{"dataset": "demo", "compared": compared, "command": "predict --model 11", **about, **changes})


def test_every_model_stands_there_with_its_numbers_and_the_chosen_one_is_named() -> None:
    made = job()
    page = html(made)
    text = " ".join(re.sub("<[^>]+>", " ", page).split())
    assert "probe &lt;b&gt; is the best of 2 models on val" in text
    for one in made.compared:
        verdict = one.trained.verdict
        assert f"{verdict.gain.estimate:+.3f} [{verdict.gain.low:+.3f}, {verdict.gain.high:+.3f}]" in text
        assert verdict.word in text
        assert one.trained.run_id[:8] in text
    assert made.best.trained.verdict.word == "above controls"
    assert "ba|se" in text
    assert "<b>" not in page
    assert page.count("<svg") == 1
    assert "Photo by photo: http://server/#/e/index.html" in text
    assert "predict --model 11" in text
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)


def test_without_explanations_it_says_so() -> None:
    assert "It was not explained." in html(job(explanations=()))


def test_the_run_gets_the_page_and_a_description() -> None:
    tracker, made = MemoryTracker(), job()
    with tracker.start("main") as tracked:
        log_main_report(tracked, made)
    (run,) = tracker.runs
    assert (run.folder / "report.html").read_text(encoding="utf-8") == html(made)
    note = run.tags["mlflow.note.content"]
    assert note.startswith(f"**{made.sentence}**")
    assert "predict --model 11" in note
    assert "[All models](http://server/#/report.html)" in note
    assert "(http://server/#/e/index.html)" in note
