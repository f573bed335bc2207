"""Served models: the same answers in a process that has only the files that travel with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.factories import config, photo_array

from wastelens.models.export import export, served_model
from wastelens.models.features import feature_network
from wastelens.models.requests import answer_frame

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
    pytest.mark.filterwarnings(
        "ignore:.*Any type hint is inferred:UserWarning"
    ),  # it infers types from hints, and finds Any
]

SIDE = 16
THRESHOLDS = {"glass": 0.4, "paper": 0.6}
ASK = """
import json, sys
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
import wastelens
answer = model.predict(pd.read_pickle(sys.argv[2]))
plain = answer.to_dict(orient="list") if isinstance(answer, pd.DataFrame) else answer.tolist()
print(json.dumps({"code": wastelens.__file__, "answer": plain}))
"""


@pytest.fixture
def network(keras: Any) -> Any:
    made = config("train", "network.widths=[4,8]").network
    return made.build(image_side_px=SIDE, outputs=len(THRESHOLDS), seed=0)


def asked(folder: Path, served: Any) -> Any:
    """Save a model with MLflow, load it in another process and return its answer to the example."""
    import mlflow

    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(served.code),
        artifacts={name: str(file) for name, file in served.files.items()},
        code_paths=[str(served.packages)],
        model_config=dict(served.settings),
        pip_requirements=served.requirements,
    )
    served.input_example.to_pickle(folder / "example.pkl")
    call = [sys.executable, "-I", "-c", ASK, str(folder / "model"), str(folder / "example.pkl")]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["code"].startswith(str(folder / "model")), "it needs only the code that travels with it"
    return found["answer"]


def test_a_classifier_answers_with_probabilities_and_decisions(network: Any, tmp_path: Path) -> None:
    photo = photo_array(1, SIDE)
    files = export(network, tmp_path, thresholds=THRESHOLDS, image_side_px=SIDE)
    answer = answer_frame(network.predict_on_batch(photo), THRESHOLDS)
    served = served_model({name: files[name] for name in ("network", "decision_rule")}, photo[0], answer, tmp_path)
    got = pd.DataFrame(asked(tmp_path, served))
    assert list(got.columns) == ["probability_glass", "decision_glass", "probability_paper", "decision_paper"]
    pd.testing.assert_frame_equal(got, answer, atol=1e-6)


def test_an_encoder_answers_with_features(network: Any, tmp_path: Path) -> None:
    photo = photo_array(1, SIDE)
    features = feature_network(network)
    features.save(tmp_path / "features.keras")
    expected = features.predict_on_batch(photo)
    served = served_model({"network": tmp_path / "features.keras"}, photo[0], expected, tmp_path)
    np.testing.assert_allclose(asked(tmp_path, served), expected, atol=1e-6)


def test_decisions_start_at_the_threshold() -> None:
    answer = answer_frame(np.array([[0.4, 0.59]], np.float64), THRESHOLDS)
    assert answer["decision_glass"].tolist() == [True]
    assert answer["decision_paper"].tolist() == [False]
