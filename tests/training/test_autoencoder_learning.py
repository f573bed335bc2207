"""Autoencoders of any size, and their encoders."""

from __future__ import annotations

import numpy as np
import pytest
from tests.factories import config

from wastelens.data.photos.shrink import shrink
from wastelens.models.encoders import build_encoder, copy_weights
from wastelens.training.autoencoder_learning import build_autoencoder

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

SMALL = {
    "dense_autoencoder": "learner.side_px=8 learner.hidden_units=[9,5]",
    "conv_autoencoder": "learner.widths=[4,6,8]",
}


def learner(method):
    return config("pretrain", SMALL[method], method=method).learner


def photos(count, side):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def predicted(model, pictures):
    return np.asarray(model(pictures.astype("float32"), training=False))


@pytest.mark.parametrize("method", ["dense_autoencoder", "conv_autoencoder"])
@pytest.mark.parametrize("side", [8, 15, 33, 64])
def test_an_autoencoder_rebuilds_photos_of_any_side(keras, method, side):
    made = build_autoencoder(learner(method), image_side_px=side, seed=0)
    pictures = photos(2, made.side_px)
    rebuilt = predicted(made.network, pictures)
    assert rebuilt.shape == pictures.shape
    assert rebuilt.dtype == np.float32
    assert rebuilt.min() >= 0
    assert rebuilt.max() <= 1
    # The code is the narrowest layer.
    assert predicted(made.encoder, pictures).shape[-1] == (5 if method == "dense_autoencoder" else 8)


@pytest.mark.parametrize("method", ["dense_autoencoder", "conv_autoencoder"])
def test_the_encoder_of_shrunk_photos_is_that_of_whole_ones(keras, method):
    config_ = learner(method)
    made = build_autoencoder(config_, image_side_px=32, seed=0)
    encoder = build_encoder(config_, image_side_px=32, seed=1)
    copied = copy_weights(made.encoder, encoder)
    assert copied
    pictures = photos(3, 32)
    seen = pictures if method == "conv_autoencoder" else shrink(pictures, config_.side_px)
    np.testing.assert_allclose(predicted(encoder, pictures), predicted(made.encoder, seen), atol=0.02)
