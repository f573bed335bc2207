"""Networks that others trained on other photos: VGG16 and EfficientNetV2, with our head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wastelens.config.networks import TransferConfig
from wastelens.errors import ConfigError
from wastelens.models.freezing import backbone_layers
from wastelens.models.head import classification_head
from wastelens.models.initialisers import initialise_anew
from wastelens.models.seeds import layer_seeds

SMALLEST_SIDE_PX = {
    "vgg16": 32,  # five halvings
    "efficientnetv2b0": 32,  # as Keras has it: below, the last map is one pixel of mostly padding
    "efficientnetv2b1": 32,
    "efficientnetv2b2": 32,
    "efficientnetv2b3": 32,
}
VGG_MEAN_BGR = (103.939, 116.779, 123.68)  # of ImageNet's pixels, 0–255; Simonyan & Zisserman 2015, §2.1
IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)  # of ImageNet's pixels, 0–1
IMAGENET_DEVIATION_RGB = (0.229, 0.224, 0.225)


def build_transfer(config: TransferConfig, *, image_side_px: int, outputs: int, seed: int) -> Any:
    """A flat functional network: photos float (batch, side, side, 3) in 0–255 → probabilities (batch, outputs).

    VGG16 (Simonyan & Zisserman 2015) or EfficientNetV2 B0–B3 (Tan & Le 2021) without their own top. Each gets its
    pixels as it was trained on them, from standard Keras operations, in float32 under any dtype policy. The weights
    are random, from the seed alone; ``models.weights`` loads others in their place.

    Raises:
        ConfigError: photos smaller than the backbone takes.
    """
    import keras

    smallest_px = backbone_smallest_side(config.backbone)
    if image_side_px < smallest_px:
        raise ConfigError(
            f"{config.backbone} takes photos of {smallest_px} px at least, but image_side_px is {image_side_px}. "
            f"Prepare the dataset with image_side_px={smallest_px} or more."
        )
    seeds = layer_seeds(seed)
    photos = keras.Input((image_side_px, image_side_px, 3), name="photo_0_255")
    backbone = keras_backbone(config.backbone, preprocessed(photos, config.backbone), weights=None)
    probabilities = classification_head(backbone.output, config, outputs=outputs, seeds=seeds)
    model = keras.Model(photos, probabilities, name=config.backbone)
    initialise_anew(backbone_layers(model), seeds)  # Keras drew its weights from seeds nobody knows
    _seed_dropout(model, seeds)
    return model


def backbone_smallest_side(backbone: str) -> int:
    """The smallest photo a backbone takes, in pixels a side."""
    return SMALLEST_SIDE_PX[backbone]


def keras_backbone(backbone: str, pixels: Any, *, weights: str | None) -> Any:
    """Keras' own model without its top, from preprocessed pixels (batch, side, side, 3) to its last map.

    ``weights``: None for random ones, or ``imagenet``, which Keras downloads where it has not got them.
    """
    import keras

    if backbone == "vgg16":
        return keras.applications.VGG16(include_top=False, weights=weights, input_tensor=pixels)
    builder = getattr(keras.applications, backbone.replace("efficientnetv2b", "EfficientNetV2B"))
    # Keras' own rescaling would run in the policy's bfloat16, under names that count up from model to model.
    return builder(include_top=False, weights=weights, input_tensor=pixels, include_preprocessing=False)


def preprocessed(photos_0_255: Any, backbone: str) -> Any:
    """Photos (batch, side, side, 3) in 0–255, RGB → float32 of the same shape as the backbone was trained on.

    VGG16: BGR less ImageNet's mean. EfficientNetV2 B0–B3: RGB less ImageNet's mean, over its deviation.
    """
    import keras
    from keras import layers

    if backbone == "vgg16":
        scale, offset = [1.0] * 3, [-mean for mean in VGG_MEAN_BGR]
        pixels = keras.ops.flip(photos_0_255, axis=-1)
        pixels._keras_history.operation.name = "rgb_to_bgr"  # or it counts up: flip_1, flip_2 …
    else:
        scale = [1 / (255 * deviation) for deviation in IMAGENET_DEVIATION_RGB]
        offset = [-mean / deviation for mean, deviation in zip(IMAGENET_MEAN_RGB, IMAGENET_DEVIATION_RGB, strict=True)]
        pixels = photos_0_255
    return layers.Rescaling(scale, offset=offset, dtype="float32", name="rescale")(pixels)


def _seed_dropout(model: Any, seeds: Iterator[int]) -> None:
    """Keras seeded its own layers with numbers nobody knows."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout) and layer.seed is None and layer.rate > 0:
            layer.seed = next(seeds)
            layer.seed_generator.state.assign(keras.random.SeedGenerator(layer.seed).state)
