"""Served models as real processes: MLflow's scoring server, the examples of docs/serving.md, a Dockerfile, Spark."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.factories import blocks, image_bytes
from tests.project.running import ROOT, environment, ok, run
from tests.project.serving import Ask, asking, free_port, served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = BLOCK.findall((ROOT / "docs" / "serving.md").read_text(encoding="utf-8"))
SERVE = next(block for language, block in EXAMPLES if language == "sh").strip()
FILES = [image_bytes(blocks(np.random.default_rng(seed), (96, 64)), "JPEG", quality=95) for seed in range(8)]
TEXTS = [base64.b64encode(file).decode() for file in FILES]


@pytest.fixture(scope="module")
def place(filled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, from which commands reach the store with the trained model."""
    folder = tmp_path_factory.mktemp("serving")
    (folder / "photo.jpg").write_bytes(FILES[0])
    Image.fromarray(blocks(np.random.default_rng(9), (80, 60))).save(folder / "another.png")
    return folder


@pytest.fixture(scope="module")
def store(filled_store: Path) -> dict[str, str]:
    return {"MLFLOW_TRACKING_URI": f"sqlite:///{filled_store / 'mlflow.db'}"}


@pytest.fixture(scope="module")
def run_id(filled_store: Path, store: dict[str, str]) -> str:
    import mlflow

    client = mlflow.MlflowClient(store["MLFLOW_TRACKING_URI"])
    (found, *_) = client.search_runs(["0"], "tags.step = 'train' and tags.model = 'base' and params.seed = '3'")
    return str(found.info.run_id)


@pytest.fixture(scope="module")
def expected(run_id: str, store: dict[str, str], place: Path) -> list[dict[str, Any]]:
    """The model's answers in Python."""
    asking = (
        "import sys, json, base64, mlflow; model = mlflow.pyfunc.load_model(sys.argv[1]); "
        "print(model.predict([base64.b64decode(x) for x in sys.stdin.read().split()]).to_json(orient='records'))"
    )
    call = [sys.executable, "-c", asking, f"runs:/{run_id}/model"]
    done = subprocess.run(
        call, cwd=place, env=environment(**store), input="\n".join(TEXTS), capture_output=True, text=True, check=True
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


@pytest.fixture(scope="module")
def server(place: Path, store: dict[str, str], run_id: str) -> Iterator[tuple[Ask, Path]]:
    port = free_port()
    with served(SERVE.replace("RUN_ID", run_id).replace("5001", port), port, place, store) as output:
        yield asking(port), output


def noise(output: Path) -> list[str]:
    return [line for line in output.read_text().splitlines() if "INFO" not in line]


def test_a_server_starts_without_noise(server: tuple[Ask, Path]) -> None:
    assert noise(server[1]) == []


def assert_close(rows: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, abs=1e-6)


def test_all_forms_of_requests_give_the_answers_of_python(
    server: tuple[Ask, Path], expected: list[dict[str, Any]]
) -> None:
    ask, _ = server
    wrapped = [{"b64": text} for text in TEXTS]
    for request in (
        {"inputs": TEXTS},
        {"inputs": wrapped},
        {"inputs": {"image": TEXTS}},
        {"instances": wrapped},
        {"instances": [{"image": one} for one in wrapped]},
        {"dataframe_split": {"columns": ["image"], "data": [[text] for text in TEXTS]}},
        {"dataframe_records": [{"image": text} for text in TEXTS]},
    ):
        status, rows = ask(request)
        assert status == 200
        assert_close(rows, expected)


def test_bad_rows_and_hostile_requests_cost_themselves(
    server: tuple[Ask, Path], expected: list[dict[str, Any]]
) -> None:
    ask, output = server
    bomb = base64.b64encode(image_bytes(Image.new("1", (30_000, 30_000)), "PNG")).decode()
    bad = ["!", "anVuaw==", bomb, None, 3, [[1]], {"b64": {}}, {"path": "/etc/passwd"}, "A" * 1_000_000, ""]
    status, rows = ask({"inputs": [TEXTS[0], *bad, TEXTS[1]]})
    assert status == 200
    assert_close([rows[0], rows[-1]], expected[:2])
    assert all(row["problem"] and row["probability_glass"] is None for row in rows[1:-1])
    assert "absurdly large" in rows[3]["problem"]
    assert "may not open" in rows[8]["problem"]
    for request, reason in (
        ({"inputs": [""] * 257}, "257 rows: send at most 256"),
        ({"inputs": []}, "has no photo"),
        ({"dataframe_records": 3}, ""),
        ({"photo": TEXTS[0]}, "must be a JSON object with one of"),
        (b"{", "not JSON"),
    ):
        status, message = ask(request)
        assert (status, reason in str(message)) == (400, True) or request == {"dataframe_records": 3}
        assert "Traceback" not in str(message)
    assert_close(ask({"inputs": TEXTS})[1], expected)
    assert "Traceback" not in output.read_text()
    assert "tensorflow" not in output.read_text().lower()


def test_many_callers_at_once_get_their_own_answers(server: tuple[Ask, Path], expected: list[dict[str, Any]]) -> None:
    ask, _ = server
    with ThreadPoolExecutor(16) as threads:
        for number, (status, rows) in enumerate(threads.map(ask, [{"inputs": [TEXTS[i % 8]]} for i in range(160)])):
            assert status == 200
            assert_close(rows, [expected[number % 8]])


def test_the_examples_of_the_document_work(
    server: tuple[Ask, Path], place: Path, store: dict[str, str], run_id: str
) -> None:
    port = server[1].stem.split("_")[1]
    done = []
    for language, block in EXAMPLES:
        code = block.replace("RUN_ID", run_id).replace("5001", port)
        if any(word in code for word in ("models serve", "docker build", "pyspark", "openvino", "litert")):
            continue  # other tests start them
        program = [sys.executable, "-c"] if language == "python" else ["bash", "-ec"]
        done.append(ok(run(*program, code, cwd=place, env=store)).stdout)
    curl, asked, python = done
    (row,) = json.loads(curl)["predictions"]
    assert row["problem"] == ""
    assert asked.count("probability_glass") == 2
    assert "macro AP" in python


def test_settings_reach_the_server(place: Path, store: dict[str, str], run_id: str) -> None:
    port = free_port()
    block = next(block for language, block in EXAMPLES if "SERVING_MODEL_CONFIG" in block).strip()
    with served(block.replace("RUN_ID", run_id).replace("5001", port), port, place, store):
        status, message = asking(port)({"inputs": TEXTS * 5})
    assert status == 400
    assert "40 rows: send at most 32" in message


def test_a_dockerfile_is_made_that_installs_no_tensorflow(place: Path, store: dict[str, str], run_id: str) -> None:
    block = next(block for _, block in EXAMPLES if "generate-dockerfile" in block)
    ok(run("bash", "-ec", block.splitlines()[0].replace("RUN_ID", run_id), cwd=place, env=store))
    text = (place / "image" / "Dockerfile").read_text()
    assert text.count("FROM python:3.11") == (sys.version_info[:2] == (3, 11))
    assert "COPY model_dir" in text
    assert "container as C; C._serve('local')" in text
    required = next((place / "image").rglob("requirements.txt")).read_text()
    assert "onnxruntime==" in required
    assert "tensorflow" not in required + text


def test_the_models_own_environment_serves_it_and_is_small(place: Path, store: dict[str, str], run_id: str) -> None:
    ok(run("mlflow", "artifacts", "download", "-u", f"runs:/{run_id}/model", "-d", "own", cwd=place, env=store))
    (requirements,) = (place / "own").rglob("requirements.txt")
    made = run("uv", "venv", "-q", "--python", sys.executable, "venv", cwd=place)
    made = (
        made
        if made.returncode
        else run("uv", "pip", "install", "-q", "--python", "venv", "-r", str(requirements), cwd=place)
    )
    if made.returncode:
        pytest.skip(f"no environment could be made here: {made.stderr[-300:]}")
    size_mb = sum(file.stat().st_size for file in (place / "venv").rglob("*") if not file.is_symlink()) / 1e6
    assert size_mb < 600
    port = free_port()
    command = SERVE.replace("runs:/RUN_ID/model", str(requirements.parent)).replace("5001", port)
    with served(f"PATH={place}/venv/bin:$PATH\n{command}", port, place, {}) as output:
        status, rows = asking(port)({"inputs": TEXTS})
        assert (status, len(rows)) == (200, 8)
    assert noise(output) == []


def test_spark_gives_the_same_rows(
    place: Path, store: dict[str, str], run_id: str, expected: list[dict[str, Any]]
) -> None:
    pytest.importorskip("pyspark", reason="pyspark is not installed (uv sync --group spark)")
    if not shutil.which("java"):
        pytest.skip("there is no Java (apt install openjdk-17-jre-headless)")
    photos = place / "spark"
    photos.mkdir()
    for number, file in enumerate(FILES):
        (photos / f"{number}.jpg").write_bytes(file)
    block = next(block for _, block in EXAMPLES if "spark_udf" in block).replace("RUN_ID", run_id)
    assert block.count(".show()") == 1
    asked = block.replace(".show()", ".orderBy('path').toPandas().to_json('rows.json', orient='records')")
    env = {**store, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    ok(run(sys.executable, "-c", asked, cwd=photos, env=env))
    rows = json.loads((photos / "rows.json").read_text())
    assert [Path(row.pop("path")).name for row in rows] == [f"{number}.jpg" for number in range(8)]
    assert_close(rows, expected)


OPENVINO = """
import numpy as np
network = openvino.Core().compile_model("network.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
output = next(one for one in network.outputs if "probabilities" in one.get_names())
found = network(photos.astype(np.float32))[output]
"""
LITERT = """
import numpy as np, tensorflow as tf
network = tf.lite.Interpreter("network.tflite")
network.resize_tensor_input(network.get_input_details()[0]["index"], photos.shape)
network.allocate_tensors()
network.set_tensor(network.get_input_details()[0]["index"], photos.astype(np.float32))
network.invoke()
found = network.get_tensor(network.get_output_details()[0]["index"])
"""
COMPARE = """
import onnxruntime
session = onnxruntime.InferenceSession("model/artifacts/network.onnx")
(wanted,) = session.run(["probabilities"], {"photo_0_255": photos.astype(np.float32)})
assert np.abs(found - wanted).max() < 1e-4 < np.ptp(wanted), (found, wanted)
"""


@pytest.mark.parametrize(("runtime", "use"), [("openvino", OPENVINO), ("litert", LITERT)])
def test_other_runtimes_give_the_same_answers(
    tmp_path: Path, store: dict[str, str], run_id: str, runtime: str, use: str
) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed (uv sync --group openvino)")
    place = ("--run-id", run_id, "--artifact-path", "model", "--dst-path", ".")
    ok(run("mlflow", "artifacts", "download", *place, cwd=tmp_path, env=store))
    block = next(block for language, block in EXAMPLES if language == "python" and runtime in block)
    drawn = "import numpy as np; photos = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)\n"
    ok(run(sys.executable, "-c", block + drawn + use + COMPARE, cwd=tmp_path))
