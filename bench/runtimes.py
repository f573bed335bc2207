"""A trained model in Keras, ONNX Runtime and OpenVINO, as float32 and int8: photos per second and average precision.

    python -m bench.runtimes MODEL_FOLDER DATASET

on the dataset's own test photos; for int8, statistics of val photos. OpenVINO is left out where it is not installed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import alternating
from wastelens.cli import prepare_environment
from wastelens.data.prepared.opening import open_dataset
from wastelens.evaluation.bootstrap import interval, multiplicities
from wastelens.evaluation.metrics import macro_average_precision
from wastelens.models.card import files_of
from wastelens.models.export import ONNX
from wastelens.models.features import compiled
from wastelens.models.onnx_network import OnnxNetwork
from wastelens.system.arrays import Float32Array, PhotoArray
from wastelens.using.chosen_model import BATCH_SIZE, open_folder

TIMED_PHOTOS = 2 * BATCH_SIZE
CALIBRATION_PHOTOS = 64
ALLOWED = 0.005
RESAMPLES = 1000
REPEATS = 3
Network = Callable[[PhotoArray], Float32Array]


def main(model_folder: Path, dataset_name: str) -> None:
    """Print a row for each runtime."""
    prepare_environment()
    model = open_folder(model_folder)
    dataset = open_dataset(dataset_name, Path("data")).at_side(model.card.image_side_px)
    tables = dataset.split(0)
    photos, seen = (dataset.photos[table.photo_index] for table in (tables.test, tables.val))
    file = files_of(model_folder) / ONNX
    with tempfile.TemporaryDirectory() as temporary:
        int8 = Path(temporary) / "int8.onnx"
        _quantise(file, int8, seen[:CALIBRATION_PHOTOS])
        networks: dict[str, Network] = {
            "Keras, float32": compiled(model.network, BATCH_SIZE),
            "ONNX Runtime, float32": OnnxNetwork(file),
            "ONNX Runtime, int8": OnnxNetwork(int8),
            **_by_openvino(file),
        }
        timed = [lambda one=one: _answers(one, photos[:TIMED_PHOTOS]) for one in networks.values()]
        times = alternating(REPEATS, *timed)
        answers = [_answers(one, photos) for one in networks.values()]
    weights = multiplicities(len(photos), RESAMPLES, np.random.default_rng(0), tables.test.groups)
    for name, time_s, found in zip(networks, times, answers, strict=True):
        values = [macro_average_precision(tables.test.labels, one) for one in (found, answers[0])]
        drawn = [macro_average_precision(tables.test.labels, one, weights) for one in (found, answers[0])]
        difference = float(values[0] - values[1])
        low, high = interval(drawn[0] - drawn[1], estimate=difference)
        holds = "holds" if max(-low, high) <= ALLOWED else "does not hold"
        print(
            f"| {name} | {TIMED_PHOTOS / time_s:.1f} photos/s | {times[0] / time_s:.2f} × | {values[0]:.4f} | "
            f"{difference:+.4f} [{low:+.4f}, {high:+.4f}] | {holds} |",
            flush=True,
        )


def _answers(network: Network, photos: PhotoArray) -> Float32Array:
    pieces = [photos[start : start + BATCH_SIZE] for start in range(0, len(photos), BATCH_SIZE)]
    return np.concatenate([network(piece) for piece in pieces])


def _quantise(file: Path, target: Path, photos: PhotoArray) -> None:
    """Write a network with weights and activations of 8 bits, a scale for each channel of the weights."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(np.array_split(photos, max(1, len(photos) // 16)))

        def get_next(self) -> Any:
            batch = next(self._batches, None)
            return None if batch is None else {"photo_0_255": batch.astype(np.float32)}

    ready = target.with_name("ready.onnx")
    quant_pre_process(file, ready, skip_symbolic_shape=True)
    # The resizing of photos and the last layer stay as they are: the first keeps 0-255, the second is small.
    kinds = ["Conv", "Add", "Clip", "GlobalAveragePool"]
    quantize_static(ready, target, Reader(), per_channel=True, op_types_to_quantize=kinds)


def _by_openvino(file: Path) -> dict[str, Network]:
    """Return the float32 network; OpenVINO 2026.4 refuses the int8 one."""
    try:
        import openvino
    except ImportError:
        print("OpenVINO is not installed: pip install openvino")
        return {}
    core = openvino.Core()
    precise = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    network = core.compile_model(core.read_model(file), "CPU", precise)
    output = next(one for one in network.outputs if "probabilities" in one.get_names())
    return {"OpenVINO, float32": lambda photos: np.asarray(network(photos.astype(np.float32))[output])}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
