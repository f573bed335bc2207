"""Weights: every kind of file that Keras writes, misfits, damaged files, and machines without a network."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import threading
import zipfile
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from wastelens.errors import ConfigError
from wastelens.models import keras_applications
from wastelens.models.backbones import BACKBONES
from wastelens.models.freezing import backbone_layers
from wastelens.models.networks.transfer import TransferConfig
from wastelens.models.weights import (
    backbone_digest,
    check_weights_available,
    load_backbone_weights,
)

SIDE = 32

# Keras 3.15 meets NumPy 2 with an old signature of __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


def built(backbone, seed=0, **changes):
    settings = {"kind": "transfer", "side_px": 0, "pooling": "average", "hidden": (), "dropout": 0.2, **changes}
    config = TransferConfig(backbone=backbone, **settings)
    return config.build(image_side_px=SIDE, outputs=3, seed=seed)


def bare(keras, backbone):
    """Return Keras' own model, as somebody else would save it."""
    build = keras.applications.VGG16 if backbone == "vgg16" else keras.applications.EfficientNetV2B0
    return build(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))


def assert_loaded(model, donor, digest):
    """Assert that the backbone has the donor's weights, and that the digest says so."""
    for layer in backbone_layers(model):
        for ours, theirs in zip(layer.get_weights(), donor.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert digest == backbone_digest(model)
    assert len(digest) == 32


def assert_refused(model, backbone, path, match):
    """Assert that loading stops with one line and changes nothing in the network."""
    before = [weight.copy() for weight in model.get_weights()]
    with pytest.raises(ConfigError, match=match) as caught:
        load_backbone_weights(model, backbone, str(path))
    assert "\n" not in str(caught.value)
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.fixture(scope="module")
def efficientnet(keras):
    return built("efficientnetv2b0")


@pytest.fixture(scope="module")
def vgg16(keras):
    return built("vgg16")


@pytest.fixture(scope="module")
def vgg16_weights(keras, tmp_path_factory):
    """Return a .weights.h5 of Keras 3, and its model."""
    path = tmp_path_factory.mktemp("weights") / "vgg16.weights.h5"
    donor = bare(keras, "vgg16")
    donor.save_weights(path)
    return path, donor


def write_legacy(path, layers, root="", cut=None):
    """An .h5 of Keras 2: layers is a list of (layer, [(weight's name, array), …])."""
    with h5py.File(path, "w") as file:
        group = file.create_group(root) if root else file
        names = [name.encode() for name, _ in layers]
        if cut is None:
            group.attrs["layer_names"] = names
        else:
            group.attrs["layer_names0"], group.attrs["layer_names1"] = names[:cut], names[cut:]
        for name, arrays in layers:
            inner = group.create_group(name)
            inner.attrs["weight_names"] = [weight.encode() for weight, _ in arrays]
            for weight, array in arrays:
                inner.create_dataset(weight, data=array)
    return path


def legacy_layers(donor, naming):
    return [
        (layer.name, [(naming(layer, weight), weight.numpy()) for weight in layer.weights]) for layer in donor.layers
    ]


def scoped(layer, weight):
    return f"{layer.name}/{weight.name}:0"


def test_every_kind_of_file_that_keras_writes(keras, efficientnet, tmp_path):
    donor = bare(keras, "efficientnetv2b0")
    files = [tmp_path / name for name in ("bare.weights.h5", "bare.keras", "bare.h5")]
    donor.save_weights(files[0])
    donor.save(files[1])
    donor.save(files[2])
    for number, file in enumerate(files):
        start = built("efficientnetv2b0", seed=number + 1)
        check_weights_available("efficientnetv2b0", str(file))
        assert_loaded(start, donor, load_backbone_weights(start, "efficientnetv2b0", str(file)))


def test_what_a_run_exports(keras, efficientnet, tmp_path):
    donor = built("efficientnetv2b0", seed=5, hidden=(6,))
    donor.compile(optimizer="adam", loss="mse")
    donor.optimizer.build(donor.trainable_variables)
    donor.save(tmp_path / "network.keras")
    donor.save_weights(tmp_path / "model.weights.h5")
    for name in ("network.keras", "model.weights.h5"):
        start = built("efficientnetv2b0", seed=1)
        head = start.get_layer("logits").get_weights()
        assert_loaded(start, donor, load_backbone_weights(start, "efficientnetv2b0", str(tmp_path / name)))
        np.testing.assert_array_equal(start.get_layer("logits").get_weights()[0], head[0])


def test_a_backbone_nested_in_another_model(keras, vgg16, tmp_path):
    donor = bare(keras, "vgg16")
    photos = keras.Input((SIDE, SIDE, 3))
    outer = keras.Model(photos, keras.layers.Dense(2)(keras.layers.Flatten()(donor(photos))))
    outer.save(tmp_path / "nested.keras")
    outer.save(tmp_path / "nested.h5")
    for name in ("nested.keras", "nested.h5"):
        assert_loaded(vgg16, donor, load_backbone_weights(vgg16, "vgg16", str(tmp_path / name)))


def test_keras_2_weight_files(keras, vgg16, tmp_path):
    donor = bare(keras, "vgg16")
    top = ("predictions", [("predictions/kernel:0", np.ones((512, 10), np.float32))])

    def as_the_real_file(layer, weight):
        return f"{layer.name}_{'W' if weight.name == 'kernel' else 'b'}_1:0"

    plain = legacy_layers(donor, scoped)
    nested = [("input_1", []), ("vgg16", [pair for _, arrays in plain for pair in arrays]), top]
    files = {
        "real.h5": {"layers": legacy_layers(donor, as_the_real_file)},
        "plain.h5": {"layers": plain},
        "top.h5": {"layers": [*plain, top]},
        "cut.h5": {"layers": plain, "cut": 7},
        "whole.h5": {"layers": plain, "root": "model_weights"},
        "nested.h5": {"layers": nested, "root": "model_weights"},
    }
    for number, (name, content) in enumerate(files.items()):
        file = write_legacy(tmp_path / name, **content)
        backbone_layers(vgg16)[0].set_weights([np.full((3, 3, 3, 64), number), np.zeros(64)])
        assert_loaded(vgg16, donor, load_backbone_weights(vgg16, "vgg16", str(file)))


def test_weights_files_without_names_go_by_place(vgg16, vgg16_weights, tmp_path):
    path, donor = vgg16_weights
    nameless = tmp_path / "early.weights.h5"
    shutil.copyfile(path, nameless)
    with h5py.File(nameless, "r+") as file:
        for group in file["layers"].values():
            group["vars"].attrs.pop("name", None)
    assert_loaded(vgg16, donor, load_backbone_weights(vgg16, "vgg16", str(nameless)))


def test_none_changes_nothing(vgg16):
    before = vgg16.get_weights()
    check_weights_available("vgg16", "none")
    digest = load_backbone_weights(vgg16, "vgg16", "none")
    for one, two in zip(before, vgg16.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert digest == backbone_digest(vgg16)


def test_the_digest_is_of_the_backbone_alone(vgg16):
    digest = backbone_digest(vgg16)
    kernel, bias = vgg16.get_layer("logits").get_weights()
    vgg16.get_layer("logits").set_weights([kernel + 1, bias])
    assert backbone_digest(vgg16) == digest
    first, bias = backbone_layers(vgg16)[0].get_weights()
    backbone_layers(vgg16)[0].set_weights([first, bias + 1])
    assert backbone_digest(vgg16) != digest


def test_the_first_layer_that_does_not_fit_is_named(keras, vgg16, efficientnet, vgg16_weights, tmp_path):
    path, donor = vgg16_weights
    assert_refused(efficientnet, "efficientnetv2b0", path, "layer 'stem_conv' is missing from the file")
    layers = legacy_layers(donor, scoped)
    names = [name for name, _ in layers]
    at = names.index("block2_conv2")
    lacking = write_legacy(tmp_path / "lacking.h5", layers[:at])
    assert_refused(vgg16, "vgg16", lacking, "layer 'block2_conv2' is missing from the file")
    wide = [*layers]
    wide[at] = ("block2_conv2", [("block2_conv2/kernel:0", np.zeros((3, 3, 128, 4))), layers[at][1][1]])
    wide[at + 2] = (names[at + 2], [])
    misshaped = write_legacy(tmp_path / "wide.h5", wide)
    expected = r"'block2_conv2' has shape \(3, 3, 128, 4\) in the file and \(3, 3, 128, 128\) in the network"
    assert_refused(vgg16, "vgg16", misshaped, expected)
    wide[at] = ("block2_conv2", layers[at][1][:1])
    unbiased = write_legacy(tmp_path / "unbiased.h5", wide)
    assert_refused(vgg16, "vgg16", unbiased, "'block2_conv2' has 1 arrays in the file and 2 in the network")


def test_arrays_that_are_not_finite_numbers_are_refused(vgg16, vgg16_weights, tmp_path):
    layers = legacy_layers(vgg16_weights[1], scoped)
    spoiled = layers[-2][1][1][1].copy()
    spoiled[3] = np.nan
    layers[-2] = (layers[-2][0], [layers[-2][1][0], (layers[-2][1][1][0], spoiled)])
    assert_refused(vgg16, "vgg16", write_legacy(tmp_path / "nan.h5", layers), "'block5_conv3' .* not finite")
    layers[-2] = (layers[-2][0], [layers[-2][1][0], (layers[-2][1][1][0], np.full(spoiled.shape, b"x"))])
    assert_refused(vgg16, "vgg16", write_legacy(tmp_path / "text.h5", layers), "has no numbers")


def broken_files(folder, good):
    """Return the name of every broken file and the message about it."""
    content = good.read_bytes()
    (folder / "truncated.weights.h5").write_bytes(content[: len(content) // 2])
    (folder / "start.h5").write_bytes(content[:100])
    (folder / "text.h5").write_text("weights", encoding="utf-8")
    (folder / "empty.h5").write_bytes(b"")
    (folder / "text.keras").write_text("weights", encoding="utf-8")
    (folder / "folder.h5").mkdir()
    (folder / "weights.pkl").write_bytes(b"cos\nsystem\n")
    h5py.File(folder / "nothing.h5", "w").close()
    with zipfile.ZipFile(folder / "other.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with zipfile.ZipFile(folder / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(101 << 20))
    with zipfile.ZipFile(folder / "text_inside.keras", "w") as archive:
        archive.writestr("model.weights.h5", "weights")
    with h5py.File(folder / "lying.h5", "w") as file:
        file.attrs["layer_names"] = [b"block1_conv1"]
    with h5py.File(folder / "linking.h5", "w") as file:
        group = file.create_group("block1_conv1")
        file.attrs["layer_names"] = [b"block1_conv1"]
        group.attrs["weight_names"] = [b"kernel"]
        group["kernel"] = h5py.ExternalLink(str(good), "layers/conv2d/vars/0")
    return {
        **dict.fromkeys(("truncated.weights.h5", "start.h5", "text.h5", "empty.h5"), "cannot be read as weights"),
        **dict.fromkeys(("text.keras", "text_inside.keras", "lying.h5", "linking.h5"), "cannot be read as weights"),
        "folder.h5": "is not a file",
        "weights.pkl": "unknown file type",
        "nothing.h5": "has no layers with weights",
        "other.keras": "no model.weights.h5 in the archive",
        "bomb.keras": "unpacks to",
        "missing.h5": "does not exist",
        "~nobody/missing.h5": "does not exist",
    }


def test_broken_files_are_refused_in_one_line(vgg16, vgg16_weights, tmp_path):
    for name, said in broken_files(tmp_path, vgg16_weights[0]).items():
        path = name if name.startswith("~") else tmp_path / name
        with pytest.raises(ConfigError, match=said) as caught:
            check_weights_available("vgg16", str(path))
        assert "\n" not in str(caught.value)
        assert_refused(vgg16, "vgg16", path, said)


def test_nothing_in_a_file_is_run(keras, vgg16, tmp_path):
    x = photos = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Lambda(lambda pixels: pixels / 0, name="code")(x)
    donor = keras.applications.VGG16(include_top=False, weights=None, input_tensor=x)
    keras.Model(photos, donor.output).save(tmp_path / "with_code.keras")
    path = str(tmp_path / "with_code.keras")
    assert_loaded(vgg16, donor, load_backbone_weights(vgg16, "vgg16", path))


@pytest.fixture
def keras_folder(keras, monkeypatch, tmp_path):
    """Return an empty folder as Keras' download cache."""
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")  # or a proxy would answer for the addresses below
    return tmp_path


@contextlib.contextmanager
def silent_server():
    """Yield an address that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/weights.h5"


def imagenet_place(backbone):
    """Return where Keras caches a backbone's ImageNet weights, and the address it gets them from."""
    return BACKBONES[backbone].cached_file(), BACKBONES[backbone].imagenet_url()


def redirect_imagenet(monkeypatch, url):
    monkeypatch.setattr("keras.src.applications.vgg16.WEIGHTS_PATH_NO_TOP", url)
    monkeypatch.setattr("keras.src.applications.efficientnet_v2.BASE_WEIGHTS_PATH", url.rpartition("/")[0] + "/")


def end_of_probes():
    for thread in threading.enumerate():
        if thread.name == "probe-imagenet-weights":
            thread.join(10)


def test_where_keras_gets_imagenet(keras_folder):
    path, url = imagenet_place("vgg16")
    assert path == keras_folder / "models" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert url.startswith("https://storage.googleapis.com/tensorflow/keras-applications/vgg16/")
    path, url = imagenet_place("efficientnetv2b2")
    assert path == keras_folder / "models" / "efficientnetv2-b2_notop.h5"
    assert url.endswith("/efficientnet_v2/efficientnetv2-b2_notop.h5")


def test_imagenet_without_an_answer_stops_soon(keras_folder, monkeypatch):
    assert keras_applications.PROBE_LIMIT_S <= 8
    monkeypatch.setattr(keras_applications, "PROBE_LIMIT_S", 0.5)
    with silent_server() as url:
        redirect_imagenet(monkeypatch, url)
        with pytest.raises(ConfigError, match=r"vgg16 are not available: .*weights=FILE .*weights=none") as caught:
            check_weights_available("vgg16", "imagenet")
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)
    end_of_probes()


def test_imagenet_with_a_hanging_name_lookup_stops_soon(keras_folder, monkeypatch):
    monkeypatch.setattr(keras_applications, "PROBE_LIMIT_S", 0.3)
    done = threading.Event()

    def lookup(*_):
        done.wait(300)
        raise socket.gaierror("no name")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(ConfigError, match=r"are not available: no answer within 0\.3 s"):
        check_weights_available("efficientnetv2b0", "imagenet")
    done.set()
    end_of_probes()


def test_imagenet_behind_a_closed_door(keras_folder, monkeypatch):
    with silent_server() as url:
        pass
    redirect_imagenet(monkeypatch, url)
    with pytest.raises(ConfigError, match=r"are not available: .*refused"):
        check_weights_available("vgg16", "imagenet")


def test_a_failing_download_is_one_line(keras_folder, monkeypatch, vgg16, capsys):
    with silent_server() as url:
        pass
    redirect_imagenet(monkeypatch, url)
    assert_refused(vgg16, "vgg16", "imagenet", "are not available: URL fetch failure")
    assert socket.getdefaulttimeout() is None


def test_imagenet_in_keras_cache_needs_no_network(keras_folder, monkeypatch, vgg16, vgg16_weights):
    donor = vgg16_weights[1]
    cached, _ = imagenet_place("vgg16")
    cached.parent.mkdir()
    write_legacy(cached, legacy_layers(donor, scoped))
    monkeypatch.setattr(socket, "getaddrinfo", None)
    check_weights_available("vgg16", "imagenet")

    stand_in = SimpleNamespace(
        get_file=lambda *_, **__: str(cached), exists=os.path.exists
    )  # but for the file's digest
    monkeypatch.setattr(sys.modules["keras.src.applications.vgg16"], "file_utils", stand_in)
    assert_loaded(vgg16, donor, load_backbone_weights(vgg16, "vgg16", "imagenet"))


def test_half_a_download_in_keras_cache_is_none(keras_folder, monkeypatch):
    with silent_server() as url:
        pass
    redirect_imagenet(monkeypatch, url)
    cached, _ = imagenet_place("vgg16")
    cached.parent.mkdir()
    cached.write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ConfigError, match="are not available"):
        check_weights_available("vgg16", "imagenet")
