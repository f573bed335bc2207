"""Predicting full-size photos: against decoding and network apart, a plain loop, and MLflow's own way of doing it."""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from bench.measure import ROOT, SHARED, Measurement, in_turns
from bench.photos import full_size_photos
from wastelens.config.files import load_config
from wastelens.config.predict import PredictConfig
from wastelens.config.train import TrainConfig
from wastelens.models.backend import load_backend
from wastelens.models.card import TEST_PREDICTIONS, ModelCard
from wastelens.models.export import export, served_model
from wastelens.models.familiarity import FILE as FAMILIARITY
from wastelens.models.familiarity import Familiarity
from wastelens.models.layers import LOGITS
from wastelens.steps import predict as step
from wastelens.system.decision_rule import DecisionRule
from wastelens.system.machine import worker_count
from wastelens.tracking.mlflow_tracker import MlflowTracker
from wastelens.using import predicting
from wastelens.using.chosen_model import BATCH_SIZE, open_model
from wastelens.using.output import write_tables
from wastelens.using.photo_list import PhotoList, photos_of
from wastelens.using.predicting import Asked, Block, Predictor, predict

PHOTOS = 2000
SIDE_PX = 160
PLAIN_PHOTOS = 60  # of the slow peers
REPEATS = 3  # turns, whose median ratio counts
MATERIALS = ("plastic", "aluminium", "paper", "glass", "other_objects", "toxic")


def measure(photos: int = PHOTOS) -> list[Measurement]:
    """Measure with the network of the linear probe, whose weights do not matter here."""
    with tempfile.TemporaryDirectory() as temporary, _in(Path(temporary)) as folder:
        files = full_size_photos(folder)
        real = SHARED in files[0].parents
        for number in range(photos):
            link = folder / "photos" / f"{number:05}{files[0].suffix}"
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(files[number % len(files)].resolve())
        tracker = MlflowTracker()
        run_id = _logged(tracker, folder)
        listed = photos_of(str(folder / "photos"), "", Path("data"), folder / "data")
        config = load_config("predict", parameters={"model": run_id})
        assert isinstance(config, PredictConfig)
        what = f"predict: {photos:,} {'real' if real else 'rendered'} full-size photos, linear probe at {SIDE_PX} px"
        with open_model(tracker, run_id) as model:
            predictor = Predictor(model, evidence=True)
            predictor(np.zeros((1, SIDE_PX, SIDE_PX, 3), np.uint8))
            rows = _against_perfect(what, listed, predictor, config, folder)
            rows += [_against_peers(what, listed, files, predictor, config, folder)]
        return [*rows, _first_row(run_id, folder)]


def _ours(listed: PhotoList, predictor: Predictor, config: PredictConfig, folder: Path) -> Callable[[], None]:
    """Return ``predict`` as a function that starts from nothing each time: tables, page and all."""

    def ours() -> None:
        blocks = Path(tempfile.mkdtemp(dir=folder))
        with contextlib.redirect_stdout(io.StringIO()):
            step._write(predict(listed, predictor, blocks, config), listed, predictor, folder, config)

    return ours


def _against_perfect(
    what: str, listed: PhotoList, predictor: Predictor, config: PredictConfig, folder: Path
) -> list[Measurement]:
    """Compare with decoding alone and the network alone, which both use all cores: their sum cannot be beaten.

    The page decodes its photos larger, and draws their maps, which is in neither.
    """
    asked = Asked(predictor.has_evidence, False, 200.0)
    block = Block(listed.files, folder / "x", folder, "", asked, worker_count("auto"))

    def decode() -> None:
        with listed.files.opened() as read:
            for _ in predicting._decoded(block, read, SIDE_PX):
                pass

    pixels = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    batches = -(-len(listed) // BATCH_SIZE)

    def tables() -> None:
        write_tables(predict(listed, predictor, Path(tempfile.mkdtemp(dir=folder)), config), folder)

    whole = _ours(listed, predictor, config, folder)
    turns = in_turns(REPEATS, tables, whole, decode, lambda: [predictor(pixels) for _ in range(batches)])
    tables_s, whole_s, decode_s, batch_s = (statistics.median(times) for times in zip(*turns, strict=True))
    rates = f"{len(listed) / decode_s:.0f} decoded, {len(listed) / batch_s:.0f} through the network"
    perfect = f"{len(listed) / (decode_s + batch_s):.1f} photos/s (all cores always busy; apart: {rates} a second)"
    ratios = [[(decode + net) / ours for ours in pair] for *pair, decode, net in turns]
    of_tables, of_whole = (statistics.median(each) for each in zip(*ratios, strict=True))
    return [
        Measurement(
            f"{what}, the tables, with evidence",
            f"{len(listed) / tables_s:.1f} photos/s",
            perfect,
            f"{of_tables:.2f}×",
            "≥ 0.85×",
            of_tables >= 0.85,
        ),
        Measurement(
            f"{what}, the tables and the page",
            f"{len(listed) / whole_s:.1f} photos/s",
            perfect,
            f"{of_whole:.2f}×",
            "–",
            True,
        ),
    ]


def _against_peers(
    what: str, listed: PhotoList, files: list[Path], predictor: Predictor, config: PredictConfig, folder: Path
) -> Measurement:
    """Compare with a loop of Pillow and Keras, and with MLflow's pyfunc."""
    import mlflow

    some = [files[number % len(files)] for number in range(PLAIN_PHOTOS)]
    model = predictor.model

    def plain_loop() -> None:
        for path in some:
            with Image.open(path) as image:
                photo = ImageOps.exif_transpose(image).convert("RGB").resize((SIDE_PX, SIDE_PX))
            model.network.predict(np.asarray(photo)[None], verbose=0)

    served = mlflow.pyfunc.load_model(str(model.folder), model_config={"allow_paths": True})
    frame = pd.DataFrame({"path": [str(path) for path in some]})
    served.predict(frame.head(2))
    model.network.predict(np.zeros((1, SIDE_PX, SIDE_PX, 3), np.uint8), verbose=0)
    rivals = (_ours(listed, predictor, config, folder), plain_loop, lambda: served.predict(frame))
    counts = (len(listed), len(some), len(some))
    turns = [
        [count / time_s for count, time_s in zip(counts, turn, strict=True)] for turn in in_turns(REPEATS, *rivals)
    ]
    ours, loop, pyfunc = (statistics.median(rates) for rates in zip(*turns, strict=True))
    over_loop, over_pyfunc = (statistics.median(turn[0] / turn[rival] for turn in turns) for rival in (1, 2))
    return Measurement(
        what,
        f"{ours:.1f} photos/s",
        f"{loop:.1f} photos/s (a loop of Pillow and Keras), {pyfunc:.1f} (MLflow's pyfunc on a frame)",
        f"{over_loop:.1f}×, {over_pyfunc:.1f}×",
        "≥ 3× the loop",
        over_loop >= 3,
    )


def _first_row(run_id: str, folder: Path) -> Measurement:
    """Measure from the start of the command to the first finished block, of one photo."""
    command = [sys.executable, str(ROOT / "src" / "wastelens"), "predict", "--model", run_id, "--photos", "photos"]
    command += ["--accept_unproven", "true", "--output", "first", "--set", "block_photos=1"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    while not list((folder / "first").glob(".unfinished/*/block_*.parquet")):
        assert process.poll() is None, "predict has ended"
        time.sleep(0.01)
    seconds = time.perf_counter() - started
    process.kill()
    process.wait()
    return Measurement("predict: start to first row", f"{seconds:.1f} s", "–", "–", "≤ 6 s", seconds <= 6)


def _logged(tracker: MlflowTracker, folder: Path) -> str:
    """Log a probe's network as a finished train run; return its id."""
    load_backend()
    config = load_config("train", parameters={"model": "probe"}, settings="weights=none")
    assert isinstance(config, TrainConfig)
    network = config.network.build(image_side_px=SIDE_PX, outputs=len(MATERIALS), seed=0)
    card = ModelCard(
        materials=MATERIALS,
        thresholds=dict.fromkeys(MATERIALS, 0.5),
        image_side_px=SIDE_PX,
        dataset="none",
        dataset_digest="",
        fold=0,
        collapsed=False,
        above_controls=False,
        strongest_control="colour",
        verdict="Random weights, to measure speed.",
        metrics={},
    )
    files = export(network, folder, rule=DecisionRule(card.thresholds), image_side_px=SIDE_PX)
    table = {f"{kind}_{name}": [0, 1] for kind in ("label", "probability", "decision") for name in MATERIALS}
    predictions = folder / TEST_PREDICTIONS
    pd.DataFrame({"file_name": ["a", "b"], "group": ["a", "b"], **table}).to_csv(predictions, index=False)
    features = np.random.default_rng(0).random((1000, network.get_layer(LOGITS).input.shape[-1]), dtype=np.float32)
    Familiarity.of(features, [str(row % 10) for row in range(1000)], features[:2], ["a", "b"]).write(
        folder / FAMILIARITY
    )
    served = {"network": files["network"], "decision_rule": files["decision_rule"], "test_predictions": predictions}
    served["familiarity"] = folder / FAMILIARITY
    photos = np.zeros((1, SIDE_PX, SIDE_PX, 3), np.uint8)
    with tracker.start("probe", tags={"step": "train"}) as run:
        run.log_model(served_model(network, served, photos, folder / "package", card), "model")
    return run.id


@contextlib.contextmanager
def _in(folder: Path) -> Iterator[Path]:
    """Work in a folder with a store of its own."""
    import mlflow

    before, uri = Path.cwd(), mlflow.get_tracking_uri()
    os.chdir(folder)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    try:
        yield folder
    finally:
        os.chdir(before)
        mlflow.set_tracking_uri(uri)
