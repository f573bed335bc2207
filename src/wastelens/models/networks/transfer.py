"""Transfer models: a backbone that was trained on other photos, with a head of our own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from wastelens.config.networks import NETWORKS, NetworkConfig
from wastelens.errors import ConfigError
from wastelens.models.backbones import BACKBONES
from wastelens.models.freezing import backbone_layers
from wastelens.models.layers import classification_head, layer_seeds, reinitialise

if TYPE_CHECKING:
    BackboneName = str
else:
    BackboneName = Literal[tuple(BACKBONES.parts)]


@NETWORKS.register("transfer")
class TransferConfig(NetworkConfig):
    """A pretrained backbone with a head: ``conf/model/vgg16.yaml``, ``efficientnetv2.yaml``."""

    takes_weights: ClassVar[bool] = True
    kind: Literal["transfer"]
    backbone: BackboneName

    def build(self, *, image_side_px: int, outputs: int, seed: int) -> Any:
        """Return the network with random weights, the backbone's too; :meth:`load_weights` replaces those.

        Raises:
            ConfigError: photos smaller than the backbone takes.
        """
        import keras

        backbone = BACKBONES[self.backbone]
        if image_side_px < backbone.smallest_side_px:
            raise ConfigError(
                f"{self.backbone} needs photos of at least {backbone.smallest_side_px} px, but image_side_px is "
                f"{image_side_px}. Prepare the dataset with image_side_px={backbone.smallest_side_px} or more."
            )
        seeds = layer_seeds(seed)
        photos = keras.Input((image_side_px, image_side_px, 3), name="photo_0_255")
        features = backbone.build(backbone.preprocess(photos), weights=None).output
        probabilities = classification_head(features, self, outputs=outputs, seeds=seeds)
        model = keras.Model(photos, probabilities, name=self.backbone)
        reinitialise(backbone_layers(model), seeds)  # Keras drew its weights from unknown seeds
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


def _seed_dropout(model: Any, seeds: Iterator[int]) -> None:
    """Replace the unknown seeds of Keras' own dropout layers."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout) and layer.seed is None and layer.rate > 0:
            layer.seed = next(seeds)
            layer.seed_generator.state.assign(keras.random.SeedGenerator(layer.seed).state)
