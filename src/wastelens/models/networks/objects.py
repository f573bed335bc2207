"""Evidence from outlines: a map of where the litter is tells a linear probe where to look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from wastelens.config.networks import NETWORKS
from wastelens.models.layers import HEAD_PREFIX, LOGITS, layer_seeds, pooled, probabilities_of
from wastelens.models.networks.transfer import BackboneNetworkConfig

LITTER, MATERIALS = f"{HEAD_PREFIX}litter", f"{HEAD_PREFIX}materials"
ATTENTION, EVIDENCE = "attention", "evidence"


@NETWORKS.register("objects")
class ObjectsConfig(BackboneNetworkConfig):
    """A backbone whose places are weighted by what outlines taught about litter: ``conf/model/objects.yaml``.

    Attention as in multiple-instance learning (Ilse, Tomczak & Welling 2018, eq. 7–8), but taught by outlines, not by
    the photos' labels alone.
    """

    is_probe: ClassVar[bool] = True
    learns_from_outlines: ClassVar[bool] = True
    kind: Literal["objects"]
    attention_sharpness: float = Field(gt=0, le=1000)

    def build(self, *, image_side_px: int, outputs: int, seed: int) -> Any:
        """Return the network with random weights, the backbone's too, until :meth:`load_weights` and the fit."""
        import keras

        seeds = layer_seeds(seed)
        photos = keras.Input((image_side_px, image_side_px, 3), name="photo_0_255")
        probabilities = evidence_head(self.features(photos), outputs, self.attention_sharpness, seeds)
        return self.drawn(keras.Model(photos, probabilities, name=self.kind), seeds)


def evidence_head(cells: Any, outputs: int, sharpness: float, seeds: Iterator[int]) -> Any:
    """Return probabilities (batch, outputs) of a map (batch, rows, columns, channels).

    Two 1 × 1 convolutions estimate how much of each cell is litter, and of which material. ``attention`` is the softmax
    of the litter over the cells, times their number; ``evidence``, attention times the positive part of the materials,
    is the model's own explanation. A dense layer sees the map's average and maximum, its average by attention, the
    average evidence and, last, the average of the positive part of the materials over all cells.
    """
    import keras
    from keras import layers

    def estimated(channels: int, name: str) -> Any:
        kernel = keras.initializers.GlorotUniform(seed=next(seeds))
        return layers.Conv2D(channels, 1, kernel_initializer=kernel, dtype="float32", name=name)(cells)

    litter, materials = estimated(1, LITTER), estimated(outputs, MATERIALS)
    x = layers.Rescaling(sharpness, dtype="float32", name="sharpen")(litter)
    x = layers.Softmax(axis=(1, 2), dtype="float32", name="share")(x)
    attention = layers.Rescaling(cells.shape[1] * cells.shape[2], dtype="float32", name=ATTENTION)(x)
    positive = layers.ReLU(dtype="float32", name="positive")(materials)
    evidence = layers.Multiply(dtype="float32", name=EVIDENCE)([positive, attention])
    attended = layers.Multiply(dtype="float32", name="attended")([cells, attention])
    parts = [
        pooled(cells, "average_and_max"),
        layers.GlobalAveragePooling2D(dtype="float32", name="pool_attended")(attended),
        layers.GlobalAveragePooling2D(dtype="float32", name="pool_evidence")(evidence),
        layers.GlobalAveragePooling2D(dtype="float32", name="pool_positive")(positive),
    ]
    features = layers.Concatenate(dtype="float32", name="features")(parts)
    kernel = keras.initializers.GlorotUniform(seed=next(seeds))
    return probabilities_of(layers.Dense(outputs, kernel_initializer=kernel, dtype="float32", name=LOGITS)(features))
