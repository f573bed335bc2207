"""Borrowed private parts of other projects are still there, and do what they are borrowed for."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wastelens.system import borrowed


@pytest.fixture(scope="module")
def network(keras: Any) -> Any:
    photos = keras.Input((4, 4, 3), name="photos")
    flat = keras.layers.Flatten(name="flat")(photos)
    return keras.Model(photos, keras.layers.Dense(2, name="dense")(flat))


def test_keras_history(network: Any) -> None:
    assert borrowed.keras_history(network.output).operation is network.get_layer("dense")


def test_inputs_of_maker_are_those_of_this_network(keras: Any, network: Any) -> None:
    features = keras.Input((48,))
    again = keras.Model(features, network.get_layer("dense")(features))
    (wanted,) = borrowed.inputs_of_maker(again.output)
    assert wanted is features
    assert network.get_layer("dense").input is not features


def test_keras_home(keras: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    assert borrowed.keras_home() == str(tmp_path)


@pytest.mark.parametrize(
    ("name", "address"), [("vgg16", "WEIGHTS_PATH_NO_TOP"), ("efficientnet_v2", "BASE_WEIGHTS_PATH")]
)
def test_keras_application(keras: Any, name: str, address: str) -> None:
    assert getattr(borrowed.keras_application(name), address).startswith("https://")


def test_keras_snake_case(keras: Any, network: Any, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    network.save_weights(tmp_path / "w.weights.h5")
    with h5py.File(tmp_path / "w.weights.h5") as file:
        assert borrowed.keras_snake_case("Dense") in file["layers"]
    assert borrowed.keras_snake_case("DepthwiseConv2D") == "depthwise_conv2d"


def test_adam_slots(keras: Any) -> None:
    optimizer = keras.optimizers.AdamW()
    variables = [keras.Variable(np.zeros(3)), keras.Variable(np.zeros((2, 2)))]
    optimizer.build(variables)
    momentum, velocity = borrowed.adam_slots(optimizer, variables[1])
    assert momentum.shape == velocity.shape == (2, 2)
    assert momentum is not velocity


def test_forget_custom_gradients(keras: Any) -> None:
    import tensorflow as tf
    from tensorflow.python.framework import ops

    @tf.custom_gradient
    def identity(x: Any) -> Any:
        return tf.identity(x), lambda slope: slope

    tf.function(lambda: identity(tf.constant(1.0)))()
    assert any(name.startswith("CustomGradient-") for name in ops.gradient_registry._registry)
    borrowed.forget_custom_gradients()
    assert not any(name.startswith("CustomGradient-") for name in ops.gradient_registry._registry)


def test_mlflow_answer() -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(503)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            assert borrowed.mlflow_answer(5, address) == 503
        finally:
            server.shutdown()
            thread.join()
    assert borrowed.mlflow_answer(1, address) is None


def test_create_mlflow_store(tmp_path: Path) -> None:
    borrowed.create_mlflow_store(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_mlflow_makes_up() -> None:
    from mlflow.utils.name_utils import _generate_random_name

    assert all(borrowed.mlflow_makes_up(_generate_random_name()) for _ in range(50))
    assert not any(borrowed.mlflow_makes_up(name) for name in ("", "train", "vgg-attempt-2", "bemused-rat-second"))


def test_mlflow_knows_schema() -> None:
    from mlflow.store.db.utils import _get_latest_schema_revision

    assert borrowed.mlflow_knows_schema(_get_latest_schema_revision())
    assert borrowed.mlflow_knows_schema("451aebb31d03")  # of an early one
    assert not borrowed.mlflow_knows_schema("fffffffffff1")


def test_delete_artifact(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    borrowed.delete_artifact(tmp_path.as_uri(), "folder")
    assert not (tmp_path / "folder").exists()


def test_mlflow_view_tag() -> None:
    import mlflow

    scripts = (Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js").glob("main*.js")
    (script,) = (file.read_text(encoding="utf-8") for file in scripts)
    assert f'"{borrowed.mlflow_view_tag("")}"' in script
    assert '"viewStateShareKey"' in script


def test_stop_system_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monitors = mlflow.tracking.fluent.run_id_to_system_metrics_monitor
    monitor = SystemMetricsMonitor("a run", tracking_uri="http://127.0.0.1:9")
    asked = threading.Event()
    monkeypatch.setattr(monitor, "collect_metrics", asked.set)
    monkeypatch.setitem(monitors, "a run", monitor)
    monitor.start()
    thread = monitor._process
    assert thread is not None
    assert asked.wait(10)
    borrowed.stop_system_metrics("a run")
    borrowed.stop_system_metrics("another")
    assert "a run" not in monitors
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.filterwarnings("ignore:.*type hint is inferred:UserWarning")  # of MLflow's own types
def test_guard_mlflow_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.pyfunc import scoring_server

    for name in ("_parse_json_data", "invocations"):
        monkeypatch.setattr(scoring_server, name, getattr(scoring_server, name))
    types: list[str | None] = []

    class Model:
        metadata = None

        def predict(self, data: Any, params: Any = None) -> Any:
            return [data, params]

    for turn in range(3):  # a process may load many models: the last one's checks hold, and they do not pile up
        borrowed.guard_mlflow_server(lambda found, turn=turn: types.append(f"{turn} {found}"), bytes.decode)
    answer = scoring_server.invocations(b"body", "application/json", Model(), None)
    assert (answer.response, answer.status) == ('{"predictions": ["body", null]}', 200)
    assert types == ["2 application/json"]


def test_guard_mlflow_server_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mlflow.pyfunc.scoring_server", raising=False)
    borrowed.guard_mlflow_server(pytest.fail, pytest.fail)
    assert "mlflow.pyfunc.scoring_server" not in sys.modules
