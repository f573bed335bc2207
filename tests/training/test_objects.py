"""Outlines teach where to look: on planted cells, the evidence finds the objects and the answer follows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.factories import config

from wastelens.data.annotations.coco import Image
from wastelens.data.annotations.segmentation import Outline
from wastelens.data.prepared.tables import TestTable, TrainTable, ValTable
from wastelens.errors import ConfigError, NonFiniteLossError
from wastelens.evaluation.metrics import macro_average_precision
from wastelens.models.layers import LOGITS, layer_seeds
from wastelens.models.networks.objects import ATTENTION, EVIDENCE, LITTER, MATERIALS, evidence_head
from wastelens.training.objects import check_outlines, objects_phase, photos_that_teach
from wastelens.training.probe import fit_probe

SIDE, CHANNELS, NAMES = 6, 12, ("glass", "paper", "toxic")
TRAIN, VAL, TEST = np.arange(120), np.arange(120, 160), np.arange(160, 260)


@dataclass
class Planted:
    """Cells with an object of one material each, and a decoy of another that lacks the sign of litter."""

    cells: np.ndarray[Any, Any]
    frame: pd.DataFrame
    place: np.ndarray[Any, Any]
    outlined: frozenset[str]
    is_box: bool = False
    folder: str = "here"

    def outlines(self):
        return self

    def image(self, name):
        return Image(0, name, 10 * SIDE, 10 * SIDE)

    def of(self, name):
        if name not in self.outlined:
            return []
        row, column = self.place[int(name)]
        corners = 10.0 * np.array([[column, row], [column + 1, row], [column + 1, row + 1], [column, row + 1]])
        material = NAMES[int(self.frame.loc[int(name), list(NAMES)].to_numpy().argmax())]
        return [(Outline((corners,), None, 1 / SIDE**2, is_box=self.is_box), material)]

    def table(self, kind, rows):
        return kind(self.frame.iloc[rows].reset_index(drop=True), NAMES)

    def split(self, fold):
        return self

    @property
    def train(self):
        return self.table(TrainTable, TRAIN)


def planted(without_outlines=0):
    rng = np.random.default_rng(0)
    count = len(TRAIN) + len(VAL) + len(TEST)
    cells = rng.normal(0, 0.3, (count, SIDE, SIDE, CHANNELS)).astype(np.float32)
    place, decoy = (np.stack(np.unravel_index(p, (SIDE, SIDE)), 1) for p in _two_places(rng, count))
    material = rng.integers(len(NAMES), size=count)
    photo = np.arange(count)
    cells[photo, place[:, 0], place[:, 1], 0] += 3.0
    cells[photo, place[:, 0], place[:, 1], 1 + material] += 3.0
    cells[photo, decoy[:, 0], decoy[:, 1], 1 + rng.integers(len(NAMES), size=count)] += 3.0
    labels = np.eye(len(NAMES), dtype=int)[material]
    frame = pd.DataFrame(labels, columns=list(NAMES)).assign(
        file_name=[str(number) for number in photo], group=[f"g{number // 10}" for number in photo], photo_index=photo
    )
    return Planted(cells, frame, place, frozenset(str(number) for number in photo[without_outlines:]))


def _two_places(rng, count):
    first = rng.integers(SIDE * SIDE, size=count)
    return first, (first + rng.integers(1, SIDE * SIDE, size=count)) % (SIDE * SIDE)


class Watching:
    def __init__(self):
        self.epochs = []

    def batch_done(self, epoch):
        pass

    def epoch_done(self, epoch, metrics, progress, checkpoint):
        self.epochs.append((metrics, checkpoint()))


def phase_of(dataset):
    import keras

    cells = keras.Input((SIDE, SIDE, CHANNELS), name="cells")
    model = keras.Model(cells, evidence_head(cells, len(NAMES), 20.0, layer_seeds(0)))
    return objects_phase(model, model, dataset.cells, dataset.train, dataset, seed=0)


def fitted(dataset, resume_from=None):
    phase, watching = phase_of(dataset), Watching()
    progress = phase.fit(dataset.table(ValTable, VAL), config("train"), watching, resume_from=resume_from)
    return phase, progress, watching


@pytest.fixture(scope="module")
def fit(keras):
    dataset = planted()
    return dataset, *fitted(dataset)


def test_it_answers_by_the_object_where_pooled_features_cannot(fit):
    dataset, phase, progress, _ = fit
    test = dataset.table(TestTable, TEST)
    value = float(macro_average_precision(test.labels, phase.predict(test)))
    pooled = np.concatenate([dataset.cells.mean((1, 2)), dataset.cells.max((1, 2))], axis=1)
    train = dataset.train
    probe = fit_probe(pooled[TRAIN], train.labels, train.groups, seed=0)
    without = float(macro_average_precision(test.labels, pooled[TEST] @ probe.kernel + probe.bias))
    assert value > 0.95
    assert without < 0.85
    assert progress.best_value > 0.95


def test_the_evidence_is_at_the_object_and_names_it(fit, keras):
    dataset, phase, *_ = fit
    outputs = [phase.network.get_layer(name).output for name in (ATTENTION, EVIDENCE)]
    attention, evidence = keras.Model(phase.network.input, outputs).predict_on_batch(dataset.cells[TEST])
    np.testing.assert_allclose(np.asarray(attention).mean(axis=(1, 2, 3)), 1.0, rtol=1e-4)
    best = np.stack(np.unravel_index(np.asarray(attention).reshape(len(TEST), -1).argmax(1), (SIDE, SIDE)), 1)
    assert (best == dataset.place[TEST]).all(axis=1).mean() > 0.95
    assert (np.asarray(evidence) >= 0).all()
    material = dataset.frame[list(NAMES)].to_numpy()[TEST].argmax(1)
    assert (np.asarray(evidence).max((1, 2)).argmax(1) == material).mean() > 0.9


def test_measured_on_test_it_needs_the_right_places(fit):
    dataset, phase, *_ = fit
    found = phase.evidence_on(dataset.table(TestTable, TEST))
    assert found.counts == {"medium": len(TEST)}
    assert found.recall["medium"] == 1.0
    assert 0.3 < found.chance["medium"] < 0.8  # 20 of 36 cells
    ap = found.macro_ap
    assert ap["own"] == pytest.approx(
        float(
            macro_average_precision(
                dataset.table(TestTable, TEST).labels, phase.predict(dataset.table(TestTable, TEST))
            )
        )
    )
    assert ap["true_outlines"] > 0.95
    assert max(ap["other_photo"], ap["random_place"]) < 0.8
    assert found.metrics()["share_of_ceiling"] == pytest.approx(ap["own"] / ap["true_outlines"])
    assert "medium 100 % (100)" in found.sentence


def test_a_resumed_fit_takes_the_weights_of_the_checkpoint(fit):
    dataset, phase, progress, watching = fit
    again, resumed, told = fitted(dataset, resume_from=watching.epochs[0][1])
    test = dataset.table(TestTable, TEST)
    np.testing.assert_array_equal(again.predict(test), phase.predict(test))
    assert resumed == progress
    assert not told.epochs
    assert again.steps(0) == 1
    assert again.steps(1) == 0


def test_training_photos_are_answered_by_evidence_of_other_photos(keras, monkeypatch):
    """Features for the probe must not come from evidence that those photos taught."""
    dataset = planted()
    phase = phase_of(dataset)
    learnt_from = phase.learn()
    seen = phase.features.predict_on_batch(dataset.cells[TRAIN])
    attended = slice(2 * CHANNELS, None)
    np.testing.assert_allclose(learnt_from[:, : 2 * CHANNELS], seen[:, : 2 * CHANNELS], atol=1e-5)
    assert np.abs(learnt_from[:, attended] - seen[:, attended]).max() > 1e-3


def test_photos_without_outlines_teach_by_labels_only(keras, capsys):
    dataset = planted(without_outlines=60)
    phase, *_ = fitted(dataset)
    assert "60 of 120 training photos have no outlines: their labels teach." in " ".join(
        capsys.readouterr().out.split()
    )
    test = dataset.table(TestTable, TEST)
    assert float(macro_average_precision(test.labels, phase.predict(test))) > 0.95
    objects = phase.objects(dataset.train)
    assert photos_that_teach(objects, dataset.train).tolist() == [False] * 60 + [True] * 60
    empty = dataset.frame.iloc[:70].assign(**dict.fromkeys(NAMES, 0))
    assert photos_that_teach(phase.objects(TrainTable(empty, NAMES)), TrainTable(empty, NAMES)).all()


def test_boxes_teach_and_it_is_said(keras, capsys):
    dataset = planted()
    dataset.is_box = True
    fitted(dataset)
    assert "All 120 objects have boxes, not outlines" in " ".join(capsys.readouterr().out.split())


def test_without_any_outline_it_says_which_model_to_take():
    dataset = planted()
    check_outlines(dataset, 0)
    dataset.outlined = frozenset(str(number) for number in TEST)  # only photos that it must not learn from
    with pytest.raises(ConfigError, match=r"None of the training photos of here .* Use model=probe"):
        check_outlines(dataset, 0)


def test_cells_that_are_not_finite_are_refused(keras):
    dataset = planted()
    dataset.cells[3, 0, 0, 5] = np.inf
    with pytest.raises(NonFiniteLossError), np.errstate(invalid="ignore"):
        fitted(dataset)


@pytest.mark.parametrize(
    ("settings", "match"),
    [("freeze=0.5", "freeze=1.0"), ("cache_features=false", "cache_features"), ("augment=true", "augment=false")],
)
def test_settings_under_which_outlines_could_not_teach_are_refused(settings, match):
    with pytest.raises(ConfigError, match=match):
        config("train", f"model=objects {settings}")


def test_the_head_has_the_layers_that_are_fitted(fit):
    _, phase, *_ = fit
    names = [layer.name for layer in phase.network.layers if layer.weights]
    assert sorted(names) == sorted([LITTER, MATERIALS, LOGITS])
