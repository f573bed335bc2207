"""Networks whose evidence is known by construction: methods and scores find it, and find none where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.factories import annotation, coco_dict, write_json

from wastelens.data.annotations.coco import read_coco
from wastelens.data.annotations.outlines import AnnotatedOutlines
from wastelens.data.prepared.tables import TestTable
from wastelens.explain.examination import Examination
from wastelens.explain.methods.gradcam import GradientMaps, gradcam, gradcam_plus_plus
from wastelens.explain.methods.scorecam import ScoreCam
from wastelens.explain.methods.shap_gradients import ExpectedGradients
from wastelens.explain.scoring.scores import score_frame, summarise
from wastelens.models.layers import randomised_copy
from wastelens.system.console import progress_bar
from wastelens.system.decision_rule import DecisionRule

SIDE_PX, WIDTH_PX, HEIGHT_PX = 32, 64, 48
BOX = (16, 24, 16, 12)  # x, y, width, height in the photo: columns 8 to 16, rows 16 to 24 of the square
MATERIALS = ("aluminium", "glass")
PATCH = (slice(16, 24), slice(8, 16))
PHOTOS = 12


def reader(keras: Any, weight: float) -> Any:
    """Build a network that reads the patch alone: its brightness is evidence for both materials (weight 0: neither)."""
    inputs = keras.Input((SIDE_PX, SIDE_PX, 3))
    convolution = keras.layers.Conv2D(1, 1, name="brightness")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = convolution(x)
    convolution.set_weights([np.full((1, 1, 3, 1), 1 / 3), np.zeros(1)])
    rows, columns = PATCH
    x = keras.layers.Cropping2D(((rows.start, SIDE_PX - rows.stop), (columns.start, SIDE_PX - columns.stop)))(x)
    x = keras.layers.ZeroPadding2D(
        ((rows.start, SIDE_PX - rows.stop), (columns.start, SIDE_PX - columns.stop)), name="patch"
    )(x)
    head = keras.layers.Dense(len(MATERIALS), name="logits")
    logits = head(keras.layers.GlobalAveragePooling2D()(x))
    head.set_weights([np.full((1, 2), weight), np.full(2, -1.0)])
    return keras.Model(inputs, keras.layers.Activation("sigmoid")(logits))


@pytest.fixture
def outlines(tmp_path: Any) -> AnnotatedOutlines:
    content = coco_dict(images=PHOTOS, annotations_per_image=0, size=(WIDTH_PX, HEIGHT_PX))
    content["annotations"] = [annotation(photo, 10 + photo, 0, BOX) for photo in range(PHOTOS)]
    coco = read_coco(write_json(tmp_path / "annotations.json", content))
    return AnnotatedOutlines(coco, {"Drink can": "aluminium", "Glass bottle": "glass"})


def examined(keras: Any, model: Any, outlines: AnnotatedOutlines) -> pd.DataFrame:
    """Return scores.csv of dim photos, each with a bright aluminium object where the network reads."""
    rng = np.random.default_rng(0)
    bright = rng.integers(0, 60, (PHOTOS, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    bright[:, *PATCH] = rng.integers(200, 250, (PHOTOS, 8, 8, 3), dtype=np.uint8)
    dark = np.zeros((2, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)

    def methods(network: Any) -> dict[str, Any]:
        return {
            "gradcam": GradientMaps(network, "patch", gradcam),
            "gradcam_plus_plus": GradientMaps(network, "patch", gradcam_plus_plus),
            "scorecam": ScoreCam(network, "patch", channels=4),
            "shap": ExpectedGradients(network, dark, samples=4, seed=0),
        }

    names = [f"batch_1_{number:06}.jpg" for number in range(PHOTOS)]
    frame = pd.DataFrame({"file_name": names, "photo_index": range(PHOTOS), "aluminium": 1, "glass": 0})
    examination = Examination(
        network=model,
        methods=methods(model),
        randomised=methods(randomised_copy(model, 3)),
        rule=DecisionRule(dict(zip(MATERIALS, [0.5, 2.0], strict=True))),
        outlines=outlines,
        steps=8,
        randomised_photos=2,
    )
    with progress_bar("Explaining", len(frame)) as bar:
        explained = list(examination.explain(TestTable(frame, MATERIALS), bright, 4, bar))
    assert [row for row, _ in explained] == list(range(PHOTOS))
    return score_frame([scores for _, pairs in explained for pair in pairs for scores in pair.scores.values()])


def test_a_network_that_reads_one_patch_is_shown_to_read_it(keras: Any, outlines: AnnotatedOutlines) -> None:
    frame = examined(keras, reader(keras, weight=100.0), outlines)
    share = BOX[2] * BOX[3] / (WIDTH_PX * HEIGHT_PX)
    assert frame["area_share"].to_numpy() == pytest.approx(share)
    assert (frame["outcome"] == "right").all()
    for method in ("gradcam", "gradcam_plus_plus", "scorecam", "shap"):
        of_method = frame[frame["method"] == method]
        assert len(of_method) == PHOTOS
        assert of_method["pointing"].to_numpy() == pytest.approx(1)
        # A hair under 1 / share: enlarged to the grid, a map's edge fades over the cells beside it.
        assert (of_method["energy"] > 0.9 / share).all()
        assert (of_method["energy"] <= 1 / share + 1e-6).all()
        assert (of_method["iou"] > 0.8).all()
        assert (of_method["insertion"] > of_method["deletion"]).all()
        assert of_method["randomised"].dropna().between(0, 1).all()
    # Whatever weights the head gets, its SHAP values are the patch's brightness, up to their sign: the check tells.
    shap = frame.loc[frame["method"] == "shap", "randomised"]
    assert shap.notna().sum() == 2
    assert shap.min() > 0.99
    centre = frame[frame["method"] == "centre"]
    assert (centre["energy"] < 2.1).all()
    summary = summarise(frame, methods=["gradcam", "centre"], seed=0, resamples=200)
    assert summary.means["gradcam", "energy_over_centre"].low > 0
    assert "more than a blob in the middle of the photo" in summary.sentences()[0]


def test_a_network_that_ignores_its_input_scores_as_chance(keras: Any, outlines: AnnotatedOutlines) -> None:
    frame = examined(keras, reader(keras, weight=0.0), outlines)
    share = BOX[2] * BOX[3] / (WIDTH_PX * HEIGHT_PX)
    constant = 1 / (1 + np.exp(1.0))
    for method in ("gradcam", "gradcam_plus_plus", "scorecam", "shap"):
        of_method = frame[frame["method"] == method]
        assert (of_method["empty"] == 1).all()
        assert of_method["energy"].to_numpy() == pytest.approx(1)
        assert of_method["pointing"].to_numpy() == pytest.approx(share)
        assert of_method["iou"].to_numpy() == pytest.approx(share)
        assert of_method["insertion"].to_numpy() == pytest.approx(constant, abs=1e-5)
        assert of_method["deletion"].to_numpy() == pytest.approx(constant, abs=1e-5)
        assert of_method["randomised"].isna().all()
    assert (frame["outcome"] == "missed").all()


def test_random_weights_differ_and_the_statistics_stay(keras: Any) -> None:
    inputs = keras.Input((4, 4, 3))
    standardise = keras.layers.Normalization(name="standardise")
    x = keras.layers.Flatten()(standardise(inputs))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(5, name="dense")(x))
    model = keras.Model(inputs, x)
    standardise.adapt(np.random.default_rng(0).uniform(0, 255, (9, 4, 4, 3)))
    model.get_layer("norm").set_weights([np.full(5, 3.0)] * 4)
    before = [np.array(one) for one in model.get_weights()]
    first, again, other = (randomised_copy(model, seed) for seed in (1, 1, 2))
    for mine, theirs in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)  # the network itself is left alone
    kernels = [one.get_layer("dense").get_weights()[0] for one in (model, first, again, other)]
    np.testing.assert_array_equal(kernels[1], kernels[2])
    assert not np.allclose(kernels[0], kernels[1])
    assert not np.allclose(kernels[1], kernels[3])
    gamma, beta, mean, variance = first.get_layer("norm").get_weights()
    assert (gamma, beta, mean, variance) == (pytest.approx(1), pytest.approx(0), pytest.approx(0), pytest.approx(1))
    photos = np.random.default_rng(1).uniform(0, 255, (2, 4, 4, 3)).astype(np.float32)
    mine, theirs = (np.asarray(one.get_layer("standardise")(photos)) for one in (model, first))
    np.testing.assert_allclose(mine, theirs)
