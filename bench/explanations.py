"""Compare explanations with their peers: Grad-CAM with tf-keras-vis, expected gradients with shap's; and memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.factories import write_dataset

from bench.measure import ROOT, Measurement, alternating, run_python
from wastelens.config.files import load_config
from wastelens.config.train import TrainConfig
from wastelens.explain.methods.gradcam import GradientMaps
from wastelens.explain.methods.gradcam import gradcam as gradcam_rule
from wastelens.explain.methods.shap_gradients import ExpectedGradients
from wastelens.models.features import choose_layer
from wastelens.models.freezing import logits_tensor

SIDE_PX, PHOTOS, MATERIALS, BATCH = 128, 200, 6, 32
SHAP_PHOTOS, SAMPLES, BACKGROUND = 8, 50, 10
EXPLAIN = """
import os
from wastelens.cli import prepare_environment, run_step
os.chdir({folder!r})
prepare_environment()
values = dict(dataset="litter", run_id="", split="train", photos="{photos}", file_names="", methods="auto",
              layer="auto", seed="0", config="",
              set="shap.samples=4 shap.background_photos=4 steps=3 randomised_photos=4")
run_step("explain", values, set(values))
"""


def _network(materials: int = MATERIALS) -> Any:
    config = load_config("train", parameters={"model": "base"})
    assert isinstance(config, TrainConfig)
    return config.network.build(image_side_px=SIDE_PX, outputs=materials, seed=0)


def _in_batches(work: Callable[[Any], Any], photos: Any) -> list[Any]:
    return [work(np.asarray(photos[start : start + BATCH])) for start in range(0, len(photos), BATCH)]


def gradcam() -> list[Measurement]:
    """Compare, for all materials of 200 photos, ours, tf-keras-vis per material, and the forward passes alone."""
    import keras

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tf_keras_vis.gradcam import Gradcam

    model = _network()
    layer = choose_layer(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photos.npy"
        np.save(path, np.random.default_rng(0).integers(0, 256, (PHOTOS, SIDE_PX, SIDE_PX, 3), dtype=np.uint8))
        photos = np.load(path, mmap_mode="r")
        maps = GradientMaps(model, layer, gradcam_rule)
        visualisation = Gradcam(keras.Model(model.input, logits_tensor(model)), clone=False)

        def ours(some: Any) -> Any:
            every = np.array([(row, material) for row in range(len(some)) for material in range(MATERIALS)])
            return maps(some, every).maps.reshape(len(some), MATERIALS, *model.get_layer(layer).output.shape[1:3])

        def theirs(some: Any) -> Any:
            of_material = [
                visualisation(
                    lambda output, material=material: output[:, material],
                    some.astype(np.float32),
                    penultimate_layer=layer,
                    seek_penultimate_conv_layer=False,
                    expand_cam=False,
                    normalize_cam=False,
                )
                for material in range(MATERIALS)
            ]
            return np.stack([np.asarray(one) for one in of_material], axis=1)

        mine, others = (np.concatenate(_in_batches(work, photos)) for work in (ours, theirs))
        difference = float(np.abs(mine - others).max() / np.abs(others).max())
        seconds, peer = alternating(3, lambda: _in_batches(ours, photos), lambda: _in_batches(theirs, photos))
        again, forward = alternating(
            5, lambda: _in_batches(ours, photos), lambda: _in_batches(model.predict_on_batch, photos)
        )
    what = f"Grad-CAM, {MATERIALS} materials × {PHOTOS} photos of {SIDE_PX} px, base model"
    return [
        Measurement(
            what,
            f"{seconds:.2f} s",
            f"{peer:.2f} s (tf-keras-vis, one call per material; largest difference {difference:.0e} of the maximum)",
            f"{peer / seconds:.1f}×",
            "≥ 4×, maps equal to 1e-4",
            peer / seconds >= 4 and difference < 1e-4,
        ),
        Measurement(
            what,
            f"{again:.2f} s",
            f"{forward:.2f} s (the forward passes and reading the photos)",
            f"{again / forward:.2f}×",
            "≤ 1.5×",
            again / forward <= 1.5,
        ),
    ]


def shap() -> Measurement:
    """Compare ours and shap's GradientExplainer with equally many gradients, for two materials and eight photos."""
    import keras

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import shap as library

    model = _network(2)
    rng = np.random.default_rng(0)
    photos, background = (
        rng.integers(0, 256, (count, SIDE_PX, SIDE_PX, 3), dtype=np.uint8) for count in (SHAP_PHOTOS, BACKGROUND)
    )
    pairs = np.array([(photo, material) for photo in range(SHAP_PHOTOS) for material in (0, 1)])
    logits = keras.Model(model.input, logits_tensor(model))
    method = ExpectedGradients(model, background, samples=SAMPLES, seed=0)
    explainer = library.GradientExplainer(logits, background.astype(np.float32))

    def theirs() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(explainer.shap_values(photos.astype(np.float32), nsamples=SAMPLES, rseed=0))

    ours_error = float(method(photos, pairs).additivity_error.mean())
    sums = theirs().sum(axis=(1, 2, 3))
    wanted = np.asarray(logits(photos.astype(np.float32))) - np.asarray(logits(background.astype(np.float32))).mean(0)
    their_error = float(np.abs(sums - wanted).mean())
    seconds, peer = alternating(2, lambda: method(photos, pairs), theirs)
    return Measurement(
        f"SHAP by {SAMPLES} gradients, {SHAP_PHOTOS} photos of {SIDE_PX} px × 2 materials, base model; error of sums",
        f"{seconds / SHAP_PHOTOS:.2f} s per photo; {ours_error:.4f}",
        f"{peer / SHAP_PHOTOS:.2f} s per photo; {their_error:.4f} (shap's GradientExplainer)",
        f"{peer / seconds:.1f}×; {their_error / ours_error:.1f}× the error",
        "–",
        seconds <= peer,
    )


def memory() -> Measurement:
    """Compare the peak memory of a process that explains 40 photos and of one that explains five times as many."""
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder) / "litter", batches=25, photos_per_batch=20, side=(160, 120))
        program = [sys.executable, str(ROOT / "src" / "wastelens")]
        for step in (["prepare", "--image_side_px", "128"], ["train", "--set", "fit.epochs=1"]):
            command = [*program, *step, "--dataset", "litter"]
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        peaks = {photos: run_python(EXPLAIN.format(folder=folder, photos=photos))[1] for photos in (40, 200)}
    return Measurement(
        "explain's peak memory, 200 photos of 128 px",
        f"{peaks[200]:.2f} GiB",
        f"{peaks[40]:.2f} GiB (40 photos)",
        f"{peaks[200] / peaks[40]:.2f}×",
        "does not grow: ≤ 1.1×",
        peaks[200] / peaks[40] <= 1.1,
    )


def measure() -> list[Measurement]:
    """Measure all budgets of explanations."""
    return [*gradcam(), shap(), memory()]


if __name__ == "__main__":
    for one in measure():
        print(one)
