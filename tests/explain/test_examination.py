"""The rank correlation of two maps against scipy's; a pair's outlines are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.factories import coco_dict, write_json

from wastelens.data.annotations.coco import read_coco
from wastelens.data.annotations.outlines import AnnotatedOutlines
from wastelens.explain.examination import Examination, rank_correlation
from wastelens.explain.scoring.scores import PairScores
from wastelens.system.decision_rule import DecisionRule


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_rank_correlation_is_spearmans(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 6, 7)).astype(np.float32)
    b += rng.uniform(-2, 2) * a
    if ties:
        a, b = np.maximum(a, 0), np.round(b)
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-12)


def test_outlines_and_boxes_of_a_pair_are_counted(tmp_path: Path) -> None:
    content = coco_dict(images=1, annotations_per_image=3)  # two cans and a bottle
    content["annotations"][0]["segmentation"] = []
    outlines = AnnotatedOutlines(
        read_coco(write_json(tmp_path / "annotations.json", content)), {"Drink can": "can", "Glass bottle": "glass"}
    )
    examination = Examination(None, {}, {}, DecisionRule({"can": 0.5, "glass": 0.5}), outlines, 1, 0)
    maps = {"gradcam": np.ones((8, 8), np.float32)}
    for material, label, counted in (("can", True, (2, 1)), ("glass", True, (1, 0)), ("can", False, (0, 0))):
        about = PairScores("batch_1_000000.jpg", material, "", "right", label, True, 1.0, 0.5, 0.0, False, False)
        for found in examination._against_outlines(about, maps).values():
            assert (found["outlines"], found["boxes"]) == counted
            assert found.get("localised", False) is label


def test_rank_correlation_depends_only_on_the_order() -> None:
    cells = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    assert rank_correlation(cells, np.exp(cells)) == pytest.approx(1)
    assert rank_correlation(cells, -cells) == pytest.approx(-1)
    assert rank_correlation(cells, cells) <= 1


def test_rank_correlation_with_a_constant_is_undefined() -> None:
    cells = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.isnan(rank_correlation(cells, np.zeros((2, 3), np.float32)))
    assert np.isnan(rank_correlation(np.full((2, 3), 0.1, np.float32), cells))
    with pytest.raises(ValueError, match="compared"):
        rank_correlation(cells, cells.T)
