"""The figure of a model's evidence shows every number that it is given."""

from __future__ import annotations

from wastelens.evaluation.object_evidence import ObjectEvidence
from wastelens.figures.object_evidence import object_evidence


def test_every_number_is_drawn() -> None:
    macro_ap = {"own": 0.45, "true_outlines": 0.55, "other_photo": 0.4, "random_place": 0.3}
    evidence = ObjectEvidence(
        {"small": 0.5, "large": 1.0}, {"small": 0.1, "large": 0.6}, {"small": 7, "large": 2}, macro_ap
    )
    found, told = object_evidence(evidence).axes
    assert [bar.get_height() for bar in found.patches] == [0.5, 1.0]
    assert [tick.get_text() for tick in found.get_xticklabels()] == ["small\n7 objects", "large\n2 objects"]
    assert [segment[0][1] for segment in found.collections[0].get_segments()] == [0.1, 0.6]
    assert [bar.get_width() for bar in told.patches] == list(macro_ap.values())
    assert {text.get_text() for text in told.texts} == {f"{value:.3f}" for value in macro_ap.values()}
