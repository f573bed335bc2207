"""A served network in OpenVINO as int8, quantised by NNCF: photos per second and average precision.

NNCF does not import beside the project's packages, so that it has an environment of its own:

    python -m bench.openvino_int8 save DATASET FOLD photos.npz
    python3 -m venv /tmp/nncf && /tmp/nncf/bin/pip install openvino nncf onnxruntime scikit-learn
    /tmp/nncf/bin/python bench/openvino_int8.py compare MODEL_FOLDER/artifacts/network.onnx photos.npz
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CALIBRATION_PHOTOS, BATCH, TIMED_PHOTOS, REPEATS, RESAMPLES = 128, 32, 64, 3, 500
Network = Callable[[Any], Any]


def save(dataset_name: str, fold: int, file: Path, side_px: int = 256) -> None:
    """Save a fold's test photos at a model's side with their labels, and some val photos."""
    from wastelens.data.prepared.opening import open_dataset

    dataset = open_dataset(dataset_name, Path("data")).at_side(side_px)
    tables = dataset.split(fold)
    val = dataset.photos[tables.val.photo_index[:CALIBRATION_PHOTOS]]
    np.savez(file, test=dataset.photos[tables.test.photo_index], labels=tables.test.labels, val=val)


def compare(network: str, file: str) -> None:
    """Print a row for each runtime: speed, macro AP, and its difference to ONNX Runtime with a paired interval."""
    stored = np.load(file)
    photos, labels = stored["test"], stored["labels"]
    networks = _networks(network, stored["val"])
    answers = {name: np.concatenate(list(map(one, _batches(photos)))) for name, one in networks.items()}
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(labels), len(labels)) for _ in range(RESAMPLES)]
    own = next(iter(answers.values()))
    for name, one in networks.items():
        speed = max(_speed(one, photos[:TIMED_PHOTOS]) for _ in range(REPEATS))
        reached = _macro_ap(labels, answers[name])
        gains = [_macro_ap(labels[rows], answers[name][rows]) - _macro_ap(labels[rows], own[rows]) for rows in drawn]
        low, high = np.quantile(gains, (0.025, 0.975))
        difference = reached - _macro_ap(labels, own)
        print(f"| {name} | {speed:.0f} photos/s | {reached:.4f} | {difference:+.4f} [{low:+.4f}, {high:+.4f}] |")


def _networks(network: str, val: Any) -> dict[str, Network]:
    import nncf
    import onnxruntime
    import openvino

    core, session = openvino.Core(), onnxruntime.InferenceSession(network)
    seen = nncf.Dataset([batch.astype(np.float32) for batch in np.array_split(val, len(val) // 8)])
    mixed = nncf.quantize(core.read_model(network), seen, preset=nncf.QuantizationPreset.MIXED)
    corrected = nncf.quantize(core.read_model(network), seen, fast_bias_correction=False)

    def compiled(model: Any) -> Network:
        made = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})
        output = next(one for one in made.outputs if "probabilities" in one.get_names())
        return lambda batch: np.asarray(made(batch.astype(np.float32))[output])

    return {
        "ONNX Runtime, float32": lambda x: session.run(["probabilities"], {"photo_0_255": x.astype(np.float32)})[0],
        "OpenVINO, float32": compiled(core.read_model(network)),
        "OpenVINO, int8, mixed preset": compiled(mixed),
        "OpenVINO, int8, accurate bias correction": compiled(corrected),
    }


def _batches(photos: Any) -> list[Any]:
    return [photos[start : start + BATCH] for start in range(0, len(photos), BATCH)]


def _speed(network: Network, photos: Any) -> float:
    began = time.perf_counter()
    for batch in _batches(photos):
        network(batch)
    return len(photos) / (time.perf_counter() - began)


def _macro_ap(labels: Any, scores: Any) -> float:
    from sklearn.metrics import average_precision_score

    each = [
        average_precision_score(labels[:, column], scores[:, column])
        for column in range(labels.shape[1])
        if labels[:, column].any()
    ]
    return float(np.mean(each))


if __name__ == "__main__":
    if sys.argv[1] == "save":
        save(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    else:
        compare(sys.argv[2], sys.argv[3])
