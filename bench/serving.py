"""A served model beside its bare network: one photo by the pyfunc, and photos per second by ONNX and Keras."""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.measure import Measurement
from wastelens.config.files import load_config
from wastelens.config.train import TrainConfig
from wastelens.models.backend import load_backend
from wastelens.models.export import export, served_model
from wastelens.models.features import compiled
from wastelens.models.onnx_network import OnnxNetwork
from wastelens.system.decision_rule import DecisionRule
from wastelens.tracking.mlflow_run import contents_of

SIDE_PX = 160
PHOTO_PX = (1024, 768)
CALLS = 60
BATCH = 32


def _p50_ms(turns: int, *calls: Callable[[], Any]) -> list[float]:
    """Return the median time of each call; they take turns, so that a busy moment of the machine counts for all."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(-2, turns):  # the first are for caches
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if turn >= 0:
                taken.append((time.perf_counter() - start) * 1000)
    return [statistics.median(taken) for taken in times]


def measure(model: str = "probe", side_px: int = SIDE_PX, calls: int = CALLS) -> list[Measurement]:
    """Measure a probe of 160 px, whose network enlarges photos to 256 px, and a photo of 1024 × 768 px as JPEG."""
    import mlflow

    load_backend()
    config = load_config("train", parameters={"model": model})
    assert isinstance(config, TrainConfig)
    network = config.network.build(image_side_px=side_px, outputs=6, seed=0)
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (BATCH, side_px, side_px, 3), dtype=np.uint8)
    file = io.BytesIO()
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    coarse.resize(PHOTO_PX, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = export(network, folder, rule=DecisionRule({}), image_side_px=side_px)
        began = time.process_time()
        exported = served_model(network, {"network": files["network"]}, photos[:16], folder)
        export_s = time.process_time() - began
        os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")
        mlflow.pyfunc.save_model(folder / "model", **contents_of(exported))
        served = mlflow.pyfunc.load_model(str(folder / "model"))
        onnx, keras = OnnxNetwork(folder / "network.onnx"), compiled(network, BATCH)
        one, single = [file.getvalue()], photos[:1]
        whole, bare = _p50_ms(calls, lambda: served.predict(one), lambda: onnx(single))
        times_ms = _p50_ms(max(1, calls // 10), lambda: onnx(photos), lambda: keras(photos))
        fast, slow = (BATCH / ms * 1000 for ms in times_ms)
    return [
        Measurement(
            what=f"one photo by the served model, p50 (exported in {export_s:.1f} s of processor time)",
            ours=f"{whole:.1f} ms",
            peer=f"the bare network {bare:.1f} ms",
            ratio=f"{whole / bare:.2f}",
            wanted="≤ 1.5",
            reached=whole <= 1.5 * bare,
        ),
        Measurement(
            what=f"a network in ONNX Runtime, batches of {BATCH}",
            ours=f"{fast:.0f} photos/s",
            peer=f"Keras as a graph {slow:.0f} photos/s",
            ratio=f"{fast / slow:.2f}",
            wanted="≥ 1",
            reached=fast >= slow,
        ),
    ]


if __name__ == "__main__":
    for one in measure():
        print(one)
