"""The feature cache: right, never trusted when spoiled, nothing lost by a kill; training on it is training live."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.factories import config, photo_array, table

from wastelens.data.batches.augment import AugmentedViews
from wastelens.data.batches.pipeline import TrainingBatches
from wastelens.data.prepared.tables import TrainTable, ValTable
from wastelens.errors import NonFiniteLossError
from wastelens.training import feature_cache
from wastelens.training.feature_cache import (
    BATCH_PHOTOS,
    FeatureBatches,
    architecture_digest,
    cached_features,
    prune,
    weights_digest,
)

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its version otherwise

# Keras 3.15 meets NumPy 2 with an old signature of __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

SIDE = 8
PHOTOS = photo_array(3 * BATCH_PHOTOS + 9, SIDE)
BATCHES = 4
KEY = {"photos": "a", "views": 3}


class Means:
    """A features network without Keras: each photo's channel means; counts batches, and can be killed at one."""

    output_shape = (None, 3)

    def __init__(self, kill_at=None, seconds=0.0):
        self.batches = 0
        self.kill_at = kill_at
        self.seconds = seconds

    def predict_on_batch(self, photos):
        if self.batches == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.batches += 1
        time.sleep(self.seconds)
        return photos.mean(axis=(1, 2))  # float64: the cache makes it float32


EXPECTED = PHOTOS.mean(axis=(1, 2)).astype(np.float32)


def computed(folder, model=None, photos=PHOTOS, key=KEY, **options):
    """Return the features and the number of batches they took."""
    model = model or Means()
    return cached_features(model, photos, folder=folder, key=key, **options), model.batches


def names(folder):
    return sorted(path.suffix for path in folder.iterdir())


def the_file(folder, ending):
    (path,) = folder.glob(f"*{ending}")
    return path


def test_features_of_every_photo_in_its_row_mapped_for_reading(tmp_path):
    features, batches = computed(tmp_path / "new" / "folder")
    np.testing.assert_array_equal(features, EXPECTED)
    assert (features.dtype, batches, features.flags.writeable) == (np.float32, BATCHES, False)
    assert isinstance(features, np.memmap)
    assert names(tmp_path / "new" / "folder") == [".json", ".npy"]


def test_a_finished_file_is_taken_and_another_key_is_not(tmp_path):
    computed(tmp_path)
    again, batches = computed(tmp_path, key=dict(reversed(KEY.items())))
    assert batches == 0
    np.testing.assert_array_equal(again, EXPECTED)
    assert computed(tmp_path, key={**KEY, "views": 4})[1] == BATCHES


def test_progress_counts_every_photo_once(tmp_path):
    for _ in range(2):
        counts = []
        computed(tmp_path, progress=counts.append)
        assert sum(counts) == len(PHOTOS)


def cut(path):
    os.truncate(path, path.stat().st_size - 8)


def spoil(path, place=-5):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [cut, spoil, empty, Path.unlink])
@pytest.mark.parametrize("ending", [".npy", ".json"])
def test_incomplete_features_are_computed_again(tmp_path, harm, ending):
    computed(tmp_path)
    harm(the_file(tmp_path, ending))
    features, batches = computed(tmp_path)
    assert batches == BATCHES
    np.testing.assert_array_equal(features, EXPECTED)
    assert computed(tmp_path)[1] == 0


def test_a_file_of_another_shape_is_not_taken(tmp_path):
    computed(tmp_path)
    features, batches = computed(tmp_path, photos=PHOTOS[:70])
    assert (len(features), batches) == (70, 2)


def killed(folder, batch):
    """Compute in a process that is killed at that batch, as by the system when memory runs out."""
    process = multiprocessing.get_context("spawn").Process(target=computed, args=(folder, Means(kill_at=batch)))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Return the folder of a run killed at its third batch of four."""
    folder = tmp_path_factory.mktemp("interrupted")
    killed(folder, 2)
    return folder


@pytest.fixture
def folder(interrupted, tmp_path):
    return shutil.copytree(interrupted, tmp_path / "copy")


def test_a_killed_run_continues_where_it_stopped(folder):
    assert not list(folder.glob("*.json"))
    counts = []
    features, batches = computed(folder, progress=counts.append)
    assert batches == 2
    assert counts[0] == 2 * BATCH_PHOTOS
    np.testing.assert_array_equal(features, EXPECTED)
    assert names(folder) == [".json", ".npy"]


@pytest.mark.parametrize(
    ("ending", "harm", "left"),
    [
        (".partial.npy", cut, 2),
        (".partial.npy", lambda path: os.truncate(path, 128 + 12 * BATCH_PHOTOS + 20), 3),
        (".partial.npy", empty, 4),
        (".partial.npy", Path.unlink, 4),
        (".partial.npy", lambda path: spoil(path, 130), 4),
        (".partial.npy", lambda path: spoil(path, 128 + 12 * BATCH_PHOTOS), 3),
        (".partial.jsonl", cut, 3),
        (".partial.jsonl", Path.unlink, 4),
        (".partial.jsonl", spoil, 3),
    ],
)
def test_only_undamaged_batches_are_reused(folder, ending, harm, left):
    harm(the_file(folder, ending))
    features, batches = computed(folder)
    assert batches == left
    np.testing.assert_array_equal(features, EXPECTED)


@pytest.mark.parametrize("ending", [".npy", ".json"])
def test_killed_while_finishing_loses_nothing(tmp_path, monkeypatch, ending):
    real = os.replace

    def killed_at(source, target):
        if str(target).endswith(ending):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", killed_at)
    with pytest.raises(KeyboardInterrupt):
        computed(tmp_path)
    monkeypatch.undo()
    features, batches = computed(tmp_path)
    assert batches == 0
    np.testing.assert_array_equal(features, EXPECTED)


def test_two_processes_at_once_share_the_work(tmp_path, capsys):
    first, second = Means(seconds=0.05), Means(seconds=0.05)
    answers = []
    threads = [
        threading.Thread(target=lambda model=model: answers.append(computed(tmp_path, model)[0]))
        for model in (first, second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert first.batches + second.batches == BATCHES
    assert "waiting for it" in capsys.readouterr().out
    for answer in answers:
        np.testing.assert_array_equal(answer, EXPECTED)


def refuse(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("how", ["reserve", "free"])
def test_a_full_disk_is_found_before_the_work_and_leaves_nothing(tmp_path, monkeypatch, how):
    if how == "reserve":
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    else:
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    model = Means()
    model.output_shape = (None, 300, 3)
    with pytest.raises(OSError, match="No space left on device"):
        computed(tmp_path, model)
    assert (model.batches, list(tmp_path.iterdir())) == (0, [])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_end_in_one_line_and_leave_nothing(tmp_path, value):
    class Diverging(Means):
        def predict_on_batch(self, photos):
            features = super().predict_on_batch(photos)
            if self.batches == 2:
                features[5, 1] = value
            return features

    with pytest.raises(NonFiniteLossError, match=r"features of photo 69 \(of 201, from 0\) are not finite") as raised:
        computed(tmp_path, Diverging())
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_no_photos_have_no_features(tmp_path):
    assert computed(tmp_path, photos=PHOTOS[:0])[0].shape == (0, 3)


def test_the_least_recently_used_go_and_nothing_else(tmp_path):
    other = tmp_path / "notes.npy"
    other.write_text("mine")
    for number in range(4):
        computed(tmp_path, key={"number": number})
        for path in tmp_path.glob("*.npy"):  # an hour passes
            os.utime(path, (path.stat().st_atime - 3600, path.stat().st_mtime - 3600))
        for path in tmp_path.glob("*.json"):
            os.utime(path, (0, 0))
    oldest, _ = computed(tmp_path, key={"number": 0})  # used again: no longer the oldest
    computed(tmp_path, key={"number": 4})
    assert len(list(tmp_path.glob("*.json"))) == feature_cache.KEPT
    assert other.read_text() == "mine"
    assert [computed(tmp_path, key={"number": number})[1] for number in (0, 2, 3, 4)] == [0] * 4
    np.testing.assert_array_equal(oldest, EXPECTED)
    prune(tmp_path, keep=0)
    assert list(tmp_path.iterdir()) == [other]
    np.testing.assert_array_equal(oldest, EXPECTED)  # mapped, it outlives its file


def test_half_computed_ones_of_other_keys_go_too(folder):
    for number in range(feature_cache.KEPT):
        computed(folder, key={"number": number})
    assert not list(folder.glob("*.partial.*"))


# Batches


ROWS = 23


def of(made, epoch):
    pieces = list(made.epoch(epoch))
    return np.concatenate([x for x, _ in pieces]), np.concatenate([y for _, y in pieces]), [len(x) for x, _ in pieces]


def numbered(count):
    """Return features that tell their row."""
    return np.arange(count, dtype=np.float32)[:, None] * np.ones((1, 2), dtype=np.float32)


def test_rows_come_in_the_order_of_the_live_batches():
    train = table(TrainTable, ROWS, first_photo=10).take(np.arange(ROWS + 9) % ROWS)
    photos = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), dtype=np.uint8)
    live = TrainingBatches(train, photos, batch_size=5, policy=None, seed=7)
    cached = FeatureBatches(train, numbered(40), batch_size=5, seed=7)
    assert len(cached) == len(live) == 7
    for epoch in (0, 1, 9):
        x, labels, sizes = of(cached, epoch)
        live_x, live_labels, live_sizes = of(live, epoch)
        np.testing.assert_array_equal(x[:, 0], live_x[:, 0, 0, 0])
        np.testing.assert_array_equal(labels, live_labels)
        assert (x.dtype, labels.dtype, sizes) == (np.float32, np.float32, live_sizes)


@pytest.fixture
def train():
    """Return rows that repeat photos."""
    return table(TrainTable, ROWS, first_photo=10).take(np.array([0, 0, 0, 3, 3, 8, 22, 1]))


def views_of(train, photos, views=4, policy="none"):
    augmentation = config("train", augment="true", augment_policy=policy).augmentation
    return AugmentedViews(photos, train.frame["photo_index"].to_numpy(), augmentation, views, seed=5)


def test_every_row_takes_every_view_once_in_a_round_and_its_own_photos(train):
    views = views_of(train, photo_array(40, SIDE))
    made = FeatureBatches(train, numbered(len(views)), batch_size=3, seed=0, views=views)
    seen = {}
    for epoch in range(8):
        order = np.random.default_rng([0, epoch]).permutation(len(train))
        rows, labels, _ = of(made, epoch)
        view, place = np.divmod(rows[:, 0].astype(int), len(views.photo_indices))
        np.testing.assert_array_equal(views.photo_indices[place], train.frame["photo_index"].to_numpy()[order])
        np.testing.assert_array_equal(labels, train.labels[order])
        assert len(set(view)) > 1  # an epoch mixes the views
        for row, its_view in zip(order, view, strict=True):
            seen.setdefault(row, []).append(int(its_view))
    for row in seen.values():
        assert sorted(row[:4]) == sorted(row[4:]) == [0, 1, 2, 3]
    assert any(row[:4] != row[4:] for row in seen.values())


def test_seed_and_epoch_alone_choose_views(train):
    views = views_of(train, photo_array(40, SIDE))

    def rows(seed, epoch):
        made = FeatureBatches(train, numbered(len(views)), batch_size=3, seed=seed, views=views)
        in_table_order = np.argsort(np.random.default_rng([seed, epoch]).permutation(len(train)))
        return of(made, epoch)[0][in_table_order]

    np.testing.assert_array_equal(rows(0, 6), rows(0, 6))
    for other in (rows(1, 6), rows(0, 7), rows(0, 2)):
        assert not np.array_equal(rows(0, 6), other)


def test_views_of_other_photos_and_features_of_other_views_are_refused(train):
    views = views_of(train, photo_array(40, SIDE))
    with pytest.raises(ValueError, match="no views of some of the photos"):
        FeatureBatches(table(TrainTable, ROWS), numbered(len(views)), batch_size=3, seed=0, views=views)
    with pytest.raises(ValueError, match="19 rows of features for 20 rows of views"):
        FeatureBatches(train, numbered(19), batch_size=3, seed=0, views=views)


def test_only_train_tables_are_trained_on():
    with pytest.raises(TypeError, match="training takes a TrainTable, not a ValTable"):
        FeatureBatches(table(ValTable, ROWS), numbered(40), batch_size=5, seed=0)


# With Keras


def network(keras, seed=0, activation="relu", dtype="float32", flat=False):
    """Frozen convolution and batch normalisation, then a head that learns; and the network split between them."""
    from keras import layers

    kernels = [keras.initializers.GlorotUniform(seed=seed + number) for number in range(3)]
    photos = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 255)(photos)
    x = layers.Conv2D(4, 3, activation=activation, kernel_initializer=kernels[0], dtype=dtype, trainable=False)(x)
    x = layers.BatchNormalization(trainable=False)(x)
    cut = layers.Flatten()(x) if flat else x
    x = layers.Dense(8, activation="relu", kernel_initializer=kernels[1])(cut if flat else layers.Flatten()(cut))
    model = keras.Model(photos, layers.Dense(6, kernel_initializer=kernels[2])(x))
    return model, keras.Model(photos, cut), keras.Model(cut, model.output)


def trained_on(keras, model, batches, epochs=3):
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    for epoch in range(epochs):
        for x, labels in batches.epoch(epoch):
            model.train_on_batch(x, labels)


def predictions(model, photos):
    return np.asarray(model(photos.astype(np.float32), training=False))


@pytest.mark.parametrize("augmented", [False, True])
def test_training_on_the_cache_is_training_live(keras, tmp_path, augmented):
    photos = photo_array(40, SIDE, seed=2)
    train = table(TrainTable, ROWS, first_photo=10).take(np.arange(ROWS + 5) % ROWS)
    views = views_of(train, photos, policy="default") if augmented else None
    live, _, _ = network(keras)
    whole, features_model, head = network(keras)
    untrained = predictions(live, photos)
    np.testing.assert_array_equal(untrained, predictions(whole, photos))

    trained_on(keras, live, FeatureBatches(train, views if augmented else photos, batch_size=8, seed=1, views=views))
    features = cached_features(features_model, views if augmented else photos, folder=tmp_path, key=KEY)
    trained_on(keras, head, FeatureBatches(train, features, batch_size=8, seed=1, views=views))

    np.testing.assert_allclose(predictions(whole, photos), predictions(live, photos), atol=1e-4)
    assert np.abs(predictions(live, photos) - untrained).max() > 0.05  # it did learn something


def test_features_of_any_shape_equal_the_networks_output(keras, tmp_path):
    photos = photo_array(70, SIDE)
    for flat in (False, True):
        _, features_model, _ = network(keras, flat=flat)
        features = cached_features(features_model, photos, folder=tmp_path, key={"flat": flat})
        assert features.shape == ((70, 144) if flat else (70, 6, 6, 4))
        np.testing.assert_allclose(features, predictions(features_model, photos), atol=1e-5)


def test_architecture_digest_counts_what_computes_and_no_name_or_seed(keras):
    digests = [
        architecture_digest(network(keras, **options)[1])
        for options in ({}, {"seed": 5}, {"activation": "tanh"}, {"dtype": "mixed_bfloat16"}, {"flat": True})
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4
    assert digests[0] != architecture_digest(network(keras)[0])


def test_architecture_digest_sees_precision_and_no_seed_of_dropout(keras):
    def only(layer):
        photos = keras.Input((4,))
        return architecture_digest(keras.Model(photos, layer(photos)))

    from keras import layers

    assert only(layers.Dropout(0.5, seed=1)) == only(layers.Dropout(0.5, seed=2))
    assert only(layers.Dense(4)) != only(layers.Dense(4, dtype="mixed_bfloat16"))


def test_architecture_digest_sees_how_layers_are_joined(keras):
    def joined(crossed):
        from keras import layers

        photos = keras.Input((4,))
        one, two = layers.Dense(4)(photos), layers.Dense(4)(photos)
        three = layers.Dense(4)(two if crossed else one)
        return architecture_digest(keras.Model(photos, layers.Subtract()([one, three])))

    assert joined(False) == joined(False)
    assert joined(False) != joined(True)


def test_weights_digest_sees_every_array(keras):
    _, features_model, _ = network(keras)
    assert weights_digest(features_model) == weights_digest(network(keras)[1])
    seen = {weights_digest(features_model)}
    for weight in features_model.weights:  # kernel, bias, and the four of batch normalisation
        changed = weight.numpy()
        changed.reshape(-1)[-1] += 1e-3
        weight.assign(changed)
        seen.add(weights_digest(features_model))
    assert len(seen) == 7


def test_the_file_about_it_is_json(tmp_path):
    computed(tmp_path)
    about = json.loads(the_file(tmp_path, ".json").read_text())
    assert about["shape"] == [len(PHOTOS), 3]


def test_large_photos_are_computed_few_at_a_time(keras, tmp_path):
    photos = keras.Input((16, 16, 3))
    large = keras.layers.UpSampling2D(32)(photos)  # 512 px
    model = keras.Model(photos, keras.layers.GlobalAveragePooling2D()(large))
    assert feature_cache.photos_per_pass(model) == 16
    seen = []
    compute = model.predict_on_batch
    model.predict_on_batch = lambda batch: seen.append(len(batch)) or compute(batch)
    pixels = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 3), dtype=np.uint8)
    features = feature_cache.cached_features(model, pixels, folder=tmp_path, key={"photos": "a"})
    assert seen == [16] * 4 + [6]
    np.testing.assert_allclose(features, pixels.mean(axis=(1, 2)), rtol=2e-3)  # float32 sums of 262,144 pixels
