"""Transfer models: a backbone that was trained on other photos, with a head of our own."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from wastelens.config.networks import NETWORKS, HeadConfig, NetworkConfig
from wastelens.errors import ConfigError
from wastelens.models.backbones import BACKBONES
from wastelens.models.freezing import backbone_layers
from wastelens.models.layers import classification_head, layer_seeds, reinitialise

if TYPE_CHECKING:
    BackboneName = str
else:
    BackboneName = Literal[tuple(BACKBONES.parts)]


class BackboneNetworkConfig(NetworkConfig, ABC):
    """A network whose backbone was trained on other photos."""

    takes_weights: ClassVar[bool] = True
    backbone: BackboneName
    side_px: int = Field(ge=0, le=1024)

    def features(self, photos_0_255: Any) -> Any:
        """Return the backbone's last map for photos (batch, side, side, 3) in 0–255, seen at ``side_px``.

        Raises:
            ConfigError: photos smaller than the backbone takes.
        """
        photos_0_255 = at_side(photos_0_255, self.side_px or photos_0_255.shape[1], "photo")
        backbone, side_px = BACKBONES[self.backbone], photos_0_255.shape[1]
        if side_px < backbone.smallest_side_px:
            raise ConfigError(
                f"{self.backbone} needs photos of at least {backbone.smallest_side_px} px, but sees them at {side_px} "
                f"px. Set network.side_px={backbone.smallest_side_px} or more."
            )
        return backbone.build(backbone.preprocess(photos_0_255))

    def drawn(self, model: Any, seeds: Iterator[int]) -> Any:
        """Return the same network with the backbone's random weights from these seeds; Keras' own are unknown."""
        reinitialise(backbone_layers(model), seeds)
        _seed_dropout(model, seeds)
        return model

    def check_weights(self, weights: str) -> None:
        """Find out within 5 seconds whether weights are available: ``imagenet``, ``none`` or a file."""
        from wastelens.models.weights import check_weights_available

        check_weights_available(self.backbone, weights)

    def load_weights(self, model: Any, weights: str) -> str:
        """Load the backbone's weights, all or none."""
        from wastelens.models.weights import load_backbone_weights

        return load_backbone_weights(model, self.backbone, weights)

    def probe_of_start(self) -> NetworkConfig | None:
        """Return the probe that ``model=probe`` is, on this backbone at this size."""
        probe: type[NetworkConfig] = NETWORKS["probe"]
        seen = {"backbone": self.backbone, "side_px": self.side_px}
        return probe.model_validate({"kind": "probe", "pooling": "average_and_max", **seen})


@NETWORKS.register("transfer")
class TransferConfig(BackboneNetworkConfig, HeadConfig):
    """A pretrained backbone with a head, such as ``conf/model/vgg16.yaml``."""

    kind: Literal["transfer"]

    def build(self, *, image_side_px: int, outputs: int, seed: int) -> Any:
        """Return the network with random weights, the backbone's too; :meth:`load_weights` replaces those."""
        import keras

        seeds = layer_seeds(seed)
        photos = keras.Input((image_side_px, image_side_px, 3), name="photo_0_255")
        probabilities = classification_head(self.features(photos), self, outputs=outputs, seeds=seeds)
        return self.drawn(keras.Model(photos, probabilities, name=self.backbone), seeds)


def at_side(photos: Any, side_px: int, name: str) -> Any:
    """Enlarge or shrink square photos (batch, side, side, channels); the layers' names begin with ``name``."""
    from keras import layers

    # By averages first, where they come near the side: sampling alone would turn fine texture into noise.
    if (factor := int(photos.shape[1] / side_px + 0.25)) > 1:
        photos = layers.AveragePooling2D(factor, dtype="float32", name=f"{name}_shrunk")(photos)
    if photos.shape[1] == side_px:
        return photos
    return layers.Resizing(side_px, side_px, dtype="float32", name=f"{name}_resized")(photos)


def _seed_dropout(model: Any, seeds: Iterator[int]) -> None:
    """Replace the unknown seeds of Keras' own dropout layers."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout) and layer.seed is None and layer.rate > 0:
            layer.seed = next(seeds)
            layer.seed_generator.state.assign(keras.random.SeedGenerator(layer.seed).state)
