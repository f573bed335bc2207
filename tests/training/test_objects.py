"""Outlines teach where to look: on planted photos, the close-ups are of the objects and the answer follows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.factories import config

from wastelens.data.annotations.coco import Image
from wastelens.data.annotations.coverage import ObjectCells
from wastelens.data.annotations.segmentation import Outline
from wastelens.data.prepared.tables import TestTable, TrainTable, ValTable
from wastelens.errors import ConfigError, NonFiniteLossError
from wastelens.evaluation.metrics import macro_average_precision
from wastelens.models.layers import LOGITS
from wastelens.models.networks.objects import CLOSE_UP, FEATURES, LITTER, MATERIALS, evidence_map
from wastelens.training.objects import (
    CloseUps,
    check_outlines,
    named,
    objects_phase,
    photos_that_teach,
    say_what_teaches,
)
from wastelens.training.probe import fit_probe

SIDE, OBJECT, DECOYS, NAMES = 128, 16, 4, ("glass", "paper", "toxic")
COLOURS = np.array([[220, 40, 40], [40, 200, 60], [50, 80, 220]])
TRAIN, VAL, TEST = np.arange(120), np.arange(120, 160), np.arange(160, 220)
SMALL = "model=objects network.places=2 network.close_up_px=32 network.side_px=0 network.close_up_shares=[0.125,0.25]"


@dataclass
class Planted:
    """Photos with a striped object of one material's colour each, and plain decoys of any, which are no litter."""

    photos: np.ndarray[Any, Any]
    frame: pd.DataFrame
    place: np.ndarray[Any, Any]
    outlined: frozenset[str]
    is_box: bool = False
    folder: str = "here"

    def outlines(self):
        return self

    def image(self, name):
        return Image(0, name, SIDE, SIDE)

    def of(self, name):
        if name not in self.outlined:
            return []
        row, column = self.place[int(name)]
        corners = column + OBJECT * np.array([0.0, 1, 1, 0]), row + OBJECT * np.array([0.0, 0, 1, 1])
        material = NAMES[int(self.frame.loc[int(name), list(NAMES)].to_numpy().argmax())]
        outline = Outline((np.stack(corners, axis=1),), None, (OBJECT / SIDE) ** 2, is_box=self.is_box)
        return [(outline, material)]

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
    photos = rng.integers(90, 150, (count, SIDE, SIDE, 3), dtype=np.uint8)
    cells = SIDE // OBJECT
    drawn = np.stack([rng.permutation(cells**2)[: 1 + DECOYS] for _ in range(count)], axis=1)
    place, *decoys = (OBJECT * np.stack(np.unravel_index(one, (cells, cells)), axis=1) for one in drawn)
    material = rng.integers(len(NAMES), size=count)
    for number, photo in enumerate(photos):
        _square(photo, place[number])[:] = COLOURS[material[number]]
        _square(photo, place[number])[::4] = 255
        for decoy in decoys:
            _square(photo, decoy[number])[:] = COLOURS[rng.integers(len(NAMES))]
    labels = np.eye(len(NAMES), dtype=int)[material]
    frame = pd.DataFrame(labels, columns=list(NAMES)).assign(
        file_name=[str(number) for number in range(count)],
        group=[f"g{number // 40}" for number in range(count)],
        photo_index=np.arange(count),
    )
    return Planted(photos, frame, place, frozenset(str(number) for number in range(without_outlines, count)))


def _square(photo, corner):
    return photo[corner[0] : corner[0] + OBJECT, corner[1] : corner[1] + OBJECT]


class Watching:
    def __init__(self):
        self.epochs = []

    def batch_done(self, epoch):
        pass

    def epoch_done(self, epoch, metrics, progress, checkpoint):
        self.epochs.append((metrics, checkpoint()))


def phase_of(dataset):
    network = config("train", SMALL).network
    model = network.build(image_side_px=SIDE, outputs=len(NAMES), seed=0)
    network.load_weights(model, "imagenet")
    return objects_phase(model, network, dataset.train, dataset, seed=0)


def fitted(dataset, resume_from=None):
    phase, watching = phase_of(dataset), Watching()
    progress = phase.fit(dataset.table(ValTable, VAL), config("train"), watching, resume_from=resume_from)
    return phase, progress, watching


@pytest.fixture(scope="module")
def fit(keras):
    dataset = planted()
    return dataset, *fitted(dataset)


def test_it_answers_by_the_object_where_the_whole_photo_does_not_tell(fit):
    dataset, phase, progress, _ = fit
    test, train = dataset.table(TestTable, TEST), dataset.train
    value = float(macro_average_precision(test.labels, phase.predict(test)))
    whole = phase.inputs[:, : -len(NAMES)]
    probe = fit_probe(whole[TRAIN], train.labels, train.groups, seed=0)
    without = float(macro_average_precision(test.labels, whole[TEST] @ probe.kernel + probe.bias))
    assert value > 0.85
    assert without < value - 0.05
    assert progress.best_value > 0.85


def test_it_answers_photos_as_the_whole_network_does(fit):
    dataset, phase, *_ = fit
    answers = phase.model.predict_on_batch(dataset.photos[TEST])
    np.testing.assert_allclose(phase.predict(dataset.table(TestTable, TEST)), answers, atol=1e-5)


def test_the_evidence_is_at_the_object_and_names_it(fit, keras):
    dataset, phase, *_ = fit
    evidence = np.asarray(
        keras.Model(phase.model.input, evidence_map(phase.model)).predict_on_batch(dataset.photos[TEST])
    )
    assert (evidence >= 0).all()
    cell_px = SIDE / evidence.shape[1]
    best = np.stack(np.unravel_index(evidence.sum(-1).reshape(len(TEST), -1).argmax(1), evidence.shape[1:3]), axis=1)
    assert (np.abs((best + 0.5) * cell_px - (dataset.place[TEST] + OBJECT / 2)) <= OBJECT).all(axis=1).mean() > 0.95
    material = dataset.frame[list(NAMES)].to_numpy()[TEST].argmax(1)
    assert (evidence.max((1, 2)).argmax(1) == material).mean() > 0.8


def test_measured_on_test_it_needs_the_right_places(fit):
    dataset, phase, *_ = fit
    test = dataset.table(TestTable, TEST)
    found = phase.evidence_on(test)
    assert found.counts == {"medium": len(TEST)}
    assert found.recall["medium"] > 0.95
    assert found.chance["medium"] < found.recall["medium"] - 0.1
    ap = found.macro_ap
    assert ap["own"] == pytest.approx(float(macro_average_precision(test.labels, phase.predict(test))))
    assert ap["true_outlines"] > 0.85
    assert max(ap["other_photo"], ap["random_place"]) < ap["true_outlines"] - 0.02
    assert found.metrics()["share_of_ceiling"] == pytest.approx(ap["own"] / ap["true_outlines"])
    assert f"medium {100 * found.recall['medium']:.0f} % ({len(TEST)})" in found.sentence


def test_a_resumed_fit_takes_the_weights_of_the_checkpoint(fit):
    dataset, phase, progress, watching = fit
    again, resumed, told = fitted(dataset, resume_from=watching.epochs[0][1])
    test = dataset.table(TestTable, TEST)
    np.testing.assert_allclose(again.predict(test), phase.predict(test), atol=1e-6)
    assert resumed == progress
    assert not told.epochs
    assert again.steps(0) == 1
    assert again.steps(1) == 0


def test_training_photos_are_answered_by_outlines_of_other_photos(fit, keras):
    """Inputs that the last layer learns from must not come from regressions that those photos taught."""
    dataset, phase, *_ = fit
    features = keras.Model(phase.model.input, phase.model.get_layer(FEATURES).output)
    seen = np.asarray(features.predict_on_batch(dataset.photos[TRAIN]))
    answers = slice(-len(NAMES), None)
    np.testing.assert_allclose(phase.inputs[TRAIN, : -len(NAMES)], seen[:, : -len(NAMES)], atol=1e-4)
    assert np.abs(phase.inputs[TRAIN, answers] - seen[:, answers]).max() > 1e-3
    of_others = np.asarray(features.predict_on_batch(dataset.photos[TEST]))
    np.testing.assert_allclose(phase.inputs[TEST], of_others, atol=1e-4)


def test_materials_that_a_photo_teaches_do_not_change_its_own_answer(monkeypatch):
    """With other materials on one fold's objects, other folds are answered otherwise, but that fold is not."""
    rng = np.random.default_rng(0)
    photos = 30
    folds = np.arange(photos) % 3
    coverage = np.zeros((photos, 4, 4), np.float32)
    coverage[np.arange(photos), rng.integers(4, size=photos), rng.integers(4, size=photos)] = 1.0
    windows = np.tile(np.array([[0, 0, 0.5, 0.5], [0, 0.5, 0.5, 1], [0.5, 0, 1, 1]], np.float32), (photos, 1, 1))
    vectors = rng.normal(size=(photos, 3, 5)).astype(np.float16)
    seen = CloseUps(np.zeros((photos, 1), np.float32), windows, vectors)
    table = planted().table(TrainTable, np.arange(photos))
    teaching = [np.flatnonzero(folds == fold) for fold in range(3)]
    monkeypatch.setattr("wastelens.training.objects.STRENGTHS", (0.1,))

    def answers(material):
        objects = ObjectCells(photos, np.arange(photos), material, coverage, boxes=0)
        return named(seen, objects, table, folds, teaching)[1]

    material = rng.integers(3, size=photos)
    before, after = answers(material), answers(np.where(folds == 0, (material + 1) % 3, material))
    np.testing.assert_array_equal(before[folds == 0], after[folds == 0])
    assert (np.abs(before - after)[folds != 0].max(axis=1) > 1e-3).all()


def test_photos_without_outlines_teach_by_labels_only(keras, capsys):
    dataset = planted(without_outlines=60)
    phase, *_ = fitted(dataset)
    assert "60 of 120 training photos have no outlines: their labels teach." in " ".join(
        capsys.readouterr().out.split()
    )
    test = dataset.table(TestTable, TEST)
    assert float(macro_average_precision(test.labels, phase.predict(test))) > 0.8
    objects = phase.objects(dataset.train)
    assert photos_that_teach(objects, dataset.train).tolist() == [False] * 60 + [True] * 60
    empty = dataset.frame.iloc[:70].assign(**dict.fromkeys(NAMES, 0))
    assert photos_that_teach(phase.objects(TrainTable(empty, NAMES)), TrainTable(empty, NAMES)).all()


def test_boxes_teach_and_it_is_said(keras, capsys):
    dataset = planted()
    dataset.is_box = True
    objects = phase_of(dataset).objects(dataset.train)
    say_what_teaches(objects, photos_that_teach(objects, dataset.train))
    assert "All 120 objects have boxes, not outlines" in " ".join(capsys.readouterr().out.split())


def test_without_any_outline_it_says_which_model_to_take():
    dataset = planted()
    check_outlines(dataset, 0)
    dataset.outlined = frozenset(str(number) for number in TEST)  # only photos that it must not learn from
    with pytest.raises(ConfigError, match=r"None of the training photos of here .* Use model=probe"):
        check_outlines(dataset, 0)


def test_a_fit_without_any_outline_says_the_same(keras):
    dataset = planted()
    dataset.outlined = frozenset(str(number) for number in TEST)
    with pytest.raises(ConfigError, match=r"Use model=probe"):
        phase_of(dataset).learn()


def test_features_that_are_not_finite_are_refused(keras):
    phase = phase_of(planted())
    top = phase.model.get_layer("top_conv")
    top.set_weights([np.full_like(top.get_weights()[0], np.nan)])
    with pytest.raises(NonFiniteLossError, match="not finite"), np.errstate(invalid="ignore"):
        phase.learn()


@pytest.mark.parametrize(
    ("settings", "match"),
    [("freeze=0.5", "freeze=1.0"), ("fine_tune.epochs=2", "fine_tune.epochs=0"), ("augment=true", "augment=false")],
)
def test_settings_under_which_outlines_could_not_teach_are_refused(settings, match):
    with pytest.raises(ConfigError, match=match):
        config("train", f"model=objects {settings}")


def test_the_head_has_the_layers_that_are_fitted(fit):
    _, phase, *_ = fit
    assert [layer.name for layer in phase.solved_layers()] == [*LITTER, MATERIALS, LOGITS]


def test_close_ups_are_seen_with_the_same_weights(fit):
    _, phase, *_ = fit
    close_up = phase.model.get_layer(CLOSE_UP)
    layers = [layer for layer in close_up.layers if layer.weights]
    assert len(layers) > 40
    for layer in layers:
        of_whole = phase.model.get_layer(layer.name).get_weights()
        for own, whole in zip(layer.get_weights(), of_whole, strict=True):
            np.testing.assert_array_equal(own, whole)
