"""Served models: the same answers in a process that has only the files that travel with them."""

from __future__ import annotations

import base64
import io
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.factories import config, image_bytes, photo_array

from wastelens.data.photos.decode import decode
from wastelens.models import export as exporting
from wastelens.models.card import CARD, ModelCard
from wastelens.models.export import export, served_model
from wastelens.models.features import feature_network
from wastelens.models.onnx_export import NotExportedError
from wastelens.models.requests import answer_frame
from wastelens.system.decision_rule import DecisionRule, RisingMap
from wastelens.system.digests import file_digest
from wastelens.tracking.mlflow_run import contents_of
from wastelens.tracking.tracker import PyfuncModel

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),  # MLflow 3.17 on pandas 3
    pytest.mark.filterwarnings("ignore:.*type hint is inferred:UserWarning"),  # of its own types
]

SIDE = 16
PHOTOS = photo_array(4, SIDE)
FILES = [image_bytes(photo, "PNG") for photo in PHOTOS]
JPEG = image_bytes(Image.fromarray(PHOTOS[0]).resize((480, 640), Image.Resampling.BICUBIC), "JPEG", quality=90)
THRESHOLDS = {"glass": 0.4, "paper": 0.6}
RULE = DecisionRule(
    THRESHOLDS, {"glass": RisingMap((0.0, 1.0), (0.3, 2.3))}, {"glass": (0.55, 0.6), "paper": (0.3, 0.5)}
)
CARD_OF_TESTS = ModelCard(
    materials=tuple(THRESHOLDS),
    thresholds=THRESHOLDS,
    image_side_px=SIDE,
    dataset="litter",
    dataset_digest="d" * 32,
    fold=0,
    collapsed=False,
    above_controls=True,
    strongest_control="colour",
    verdict="Above floor and controls.",
    metrics={"test/macro_ap": 0.6, "test/macro_ap_low": 0.5, "test/macro_ap_high": 0.7},
)
ASK = """
import json, pickle, sys
from concurrent.futures import ThreadPoolExecutor
for name in sys.argv[4:]:
    sys.modules[name] = None  # as if it were not installed
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1], model_config=json.loads(sys.argv[3]))
import wastelens
def answer(request):
    try:
        return model.predict(request)
    except mlflow.exceptions.MlflowException as error:
        return str(error)
with open(sys.argv[2], "rb") as file, ThreadPoolExecutor(8) as threads:
    answers = list(threads.map(answer, pickle.load(file)))
with open(sys.argv[2], "wb") as file:
    pickle.dump((wastelens.__file__, answers), file)
"""

ROUTE = """
import asyncio, pickle, sys
from mlflow.pyfunc import scoring_server
model = scoring_server.load_model_with_mlflow_config(sys.argv[1])
app = scoring_server.init(model)
def answer(content_type, body):
    said = []
    async def receive():
        return {"type": "http.request", "body": body}
    async def send(message):
        said.append(message)
    headers = [(b"content-type", content_type.encode())] if content_type else []
    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": headers, "query_string": b""}
    asyncio.run(app(scope, receive, send))
    return said[0]["status"], b"".join(message.get("body", b"") for message in said[1:]).decode()
with open(sys.argv[2], "rb") as file:
    answers = [answer(*request) for request in pickle.load(file)]
with open(sys.argv[2], "wb") as file:
    pickle.dump(answers, file)
"""

LOAD = """
import sys, mlflow
for folder in sys.argv[1:]:
    try:
        mlflow.pyfunc.load_model(folder)
        print("loaded")
    except mlflow.exceptions.MlflowException as error:
        print(error)
"""


@pytest.fixture(scope="module")
def network(keras: Any) -> Any:
    made = config("train", "network.widths=[4,8]").network
    return made.build(image_side_px=SIDE, outputs=len(THRESHOLDS), seed=0)


def made(network: Any, folder: Path, card: ModelCard | None = CARD_OF_TESTS) -> PyfuncModel:
    files = export(network, folder, rule=RULE, image_side_px=SIDE)
    kept = ("network", "decision_rule") if card else ("network",)
    return served_model(network, {name: files[name] for name in kept}, PHOTOS, folder, card)


@pytest.fixture(scope="module")
def classifier(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(made(network, tmp_path_factory.mktemp("files")), tmp_path_factory.mktemp("saved"))


def saved(model: PyfuncModel, folder: Path) -> Path:
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_UV_AUTO_DETECT", "false")
        mlflow.pyfunc.save_model(folder / "model", **contents_of(model))
    return folder / "model"


def asked(model: Path, requests: list[Any], settings: Any = None, without: tuple[str, ...] = ()) -> list[Any]:
    """Load a model in another process, and return its answers to requests that eight threads send at once."""
    exchange = model.parent / "exchange.pkl"
    exchange.write_bytes(pickle.dumps(requests))
    call = [sys.executable, "-I", "-c", ASK, str(model), str(exchange), json.dumps(settings or {}), *without]
    done = subprocess.run(call, cwd=model.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == "", "it says nothing"
    code, answers = pickle.loads(exchange.read_bytes())
    assert code.startswith(str(model)), "it needs only the code that travels with it"
    return list(answers)


def test_a_classifier_answers_without_tensorflow_whatever_form_photos_have(network: Any, classifier: Path) -> None:
    expected = answer_frame(network.predict_on_batch(PHOTOS), RULE)
    texts = [base64.b64encode(file).decode() for file in FILES]
    decoded = np.asarray(Image.open(io.BytesIO(JPEG)))
    requests = [
        pd.DataFrame({"image": FILES}), pd.DataFrame({"image": texts}), {"image": [{"b64": text} for text in texts]},
        FILES, list(PHOTOS), PHOTOS, [Image.fromarray(photo) for photo in PHOTOS],
        *([file] for file in FILES * 5),
        [FILES[0], b"junk", FILES[1]], [FILES[0]] * 300, [{"path": "/etc/passwd"}],
        *([form] for form in (JPEG, Image.fromarray(decoded), decoded)),
    ]  # fmt: skip
    answers = asked(classifier, requests, without=("tensorflow", "keras"))
    for answer in answers[:7]:
        pd.testing.assert_frame_equal(answer, expected, atol=1e-4)
    for number, answer in enumerate(answers[7:27]):
        pd.testing.assert_frame_equal(answer, expected[number % 4 :][:1].reset_index(drop=True), atol=1e-4)
    assert answers[27]["problem"].tolist() == ["", "not an image", ""]
    assert "300 rows: send at most 256" in answers[28]
    assert "may not open" in answers[29]["problem"][0]
    by_file, by_image, by_array = (answer["probability_paper"][0] for answer in answers[30:])
    trained = network.predict_on_batch(decode(JPEG, SIDE).pixels_0_255[None])[0, 1]
    assert by_file == pytest.approx(trained, abs=1e-4)
    assert by_image == by_array == pytest.approx(by_file, abs=0.01)  # it is decoded at another scale


def test_settings_open_paths_and_set_limits(network: Any, classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FILES[0])
    rows = pd.DataFrame({"path": [str(tmp_path / "a.png"), str(tmp_path / "b.png")]})
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    requests = [rows, FILES, paths, paths[0]]
    answer, refused, again, single = asked(classifier, requests, {"allow_paths": True, "max_rows": 3})
    assert answer["problem"].tolist() == ["", "missing"]
    pd.testing.assert_frame_equal(again, answer)
    pd.testing.assert_frame_equal(single, answer[:1], check_dtype=False)
    expected = RULE.calibrated(network.predict_on_batch(PHOTOS[:1]))
    assert answer["probability_glass"][0] == pytest.approx(expected[0, 0], abs=1e-4)
    assert "4 rows: send at most 3" in refused


def test_the_server_takes_only_json(classifier: Path) -> None:
    exchange = classifier.parent / "requests.pkl"
    texts = [base64.b64encode(file).decode() for file in FILES]
    parquet = pd.DataFrame({"image": texts}).to_parquet()
    body = json.dumps({"inputs": texts}).encode()
    requests = [
        ("application/json", body), ("application/json; charset=utf-8", body),
        ("application/vnd.apache.parquet", parquet), ("application/vnd.apache.parquet", b"junk"),
        ("text/csv", "\n".join(["image", *texts]).encode()), ("text/csv; charset=utf-8", b"\xff"),
        ("text/plain", body), ("", body),
    ]  # fmt: skip
    exchange.write_bytes(pickle.dumps(requests))
    subprocess.run([sys.executable, "-I", "-c", ROUTE, str(classifier), str(exchange)], check=True)
    answers = pickle.loads(exchange.read_bytes())
    assert [(status, len(json.loads(text)["predictions"])) for status, text in answers[:2]] == [(200, len(FILES))] * 2
    for (given, _), (status, text) in zip(requests[2:], answers[2:], strict=True):
        wanted = f"The request's Content-Type is {given or 'none'}: send JSON, photos as base64 text"
        assert (status, json.loads(text)["message"]) == (400, f"{wanted}, as application/json.")
        assert "stack_trace" not in text


def test_a_model_with_other_files_is_not_loaded(classifier: Path, tmp_path: Path) -> None:
    never = json.dumps({"thresholds": dict.fromkeys(THRESHOLDS, 0.0)})
    damages: dict[str, Callable[[Path], object]] = {
        "loaded": lambda model: None,
        "decision_rule.json is not the file": lambda model: (model / "artifacts/decision_rule.json").write_text(never),
        "network.onnx is not the file": lambda model: (model / "artifacts/network.onnx").write_bytes(b"x"),
        "network.keras is missing": lambda model: (model / "artifacts/network.keras").unlink(),
        "network.keras has no digest": lambda model: replace(model / "MLmodel", " network.keras:", " x.keras:"),
        "decision_rule.json has no digest": lambda model: replace(model / "MLmodel", "  wastelens:", "  another:"),
    }
    copies = [shutil.copytree(classifier, tmp_path / str(number) / "model") for number in range(len(damages))]
    for damage, copy in zip(damages.values(), copies, strict=True):
        damage(copy)
    call = [sys.executable, "-I", "-c", LOAD, *map(str, copies)]
    said = subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines()
    for line, copy, wanted in zip(said, copies, damages, strict=True):
        assert wanted in line
        assert wanted == "loaded" or (line.startswith(f"{copy}/artifacts: ") and "get it again" in line)


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_the_model_says_what_it_is(classifier: Path) -> None:
    import mlflow

    about = mlflow.models.Model.load(classifier)
    card = ModelCard.model_validate(about.metadata[CARD])
    assert card.model_copy(update={"files": {}}) == CARD_OF_TESTS
    files = {file.name: file_digest(file) for file in (classifier / "artifacts").iterdir()}
    assert card.files == files
    assert set(files) == {"network.keras", "network.onnx", "decision_rule.json"}
    assert about.metadata["served_by"] == "onnx"
    assert about.metadata["onnx_difference"] <= 1e-4
    assert set(about.metadata["inputs"]) == {"image", "path"}
    names = ["probability_glass", "decision_glass", "probability_paper", "decision_paper", "problem"]
    assert about.signature.outputs.input_names() == names
    assert about.load_input_example(str(classifier))["image"][0] == base64.b64encode(FILES[0]).decode()
    required = (classifier / "requirements.txt").read_text()
    assert "onnxruntime==" in required
    assert "tensorflow" not in required
    assert not {"uv.lock", "pyproject.toml"} & {file.name for file in classifier.iterdir()}


def test_a_network_that_does_not_export_is_served_by_keras(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*arguments: Any) -> float:
        raise NotExportedError("no such operator")

    monkeypatch.setattr(exporting, "write_onnx", fails)
    model = made(network, tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert said == (
        "Warning: The model is served by Keras, with TensorFlow, as ONNX cannot stand in for it: no such operator."
    )
    assert model.metadata["served_by"] == "keras"
    assert {line.split("==")[0] for line in model.requirements} >= {"tensorflow", "keras", "mlflow-skinny"}
    answers = asked(saved(model, tmp_path / "saved"), [FILES, [*FILES, b""]])
    expected = answer_frame(network.predict_on_batch(PHOTOS), RULE)
    pd.testing.assert_frame_equal(answers[0], expected, atol=1e-6)
    assert answers[1]["problem"].tolist()[:4] == [""] * 4


def test_an_encoder_answers_with_features(network: Any, tmp_path: Path) -> None:
    features = feature_network(network)
    model = made(features, tmp_path, card=None)
    assert set(model.metadata[CARD]) == {"files"}  # type: ignore[call-overload]
    (answer,) = asked(saved(model, tmp_path / "saved"), [[*FILES, b"junk"]], without=("tensorflow", "keras"))
    np.testing.assert_allclose(np.stack(answer["features"][:4]), features.predict_on_batch(PHOTOS), atol=1e-4)
    assert answer["features"][4] is None
    assert answer["problem"].tolist() == [*[""] * 4, "not an image"]
