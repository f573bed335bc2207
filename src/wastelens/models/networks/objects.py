"""A look at the whole photo, and close-ups of the places most like litter, which outlines taught it to find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from wastelens.config.networks import NETWORKS
from wastelens.models.backbones import BACKBONES
from wastelens.models.layers import HEAD_PREFIX, LOGITS, apart, layer_seeds, pooled, probabilities_of
from wastelens.models.networks.transfer import BackboneNetworkConfig, at_side

LITTER = tuple(f"{HEAD_PREFIX}litter_{scale}" for scale in ("fine", "middle", "coarse"))
MATERIALS = f"{HEAD_PREFIX}materials"
LITTER_MAP, PLACES, WINDOWS, CLOSE_UP, FEATURES = "litter", "places", "windows", "close_up", "features"
SHARPNESS = 10.0  # of the smooth maximum over close-ups, whose estimates are between 0 and 1
_BELOW_PEAKS = 10.0  # cells beside a higher one come after all peaks


@NETWORKS.register("objects")
class ObjectsConfig(BackboneNetworkConfig):
    """A backbone that sees the whole photo and close-ups of it: ``conf/model/objects.yaml``.

    A map of litter, which outlines taught, proposes places; the backbone sees them enlarged, and their materials are
    estimated and pooled by a smooth maximum (multiple-instance learning; Pinheiro & Collobert 2015, eq. 6). It is
    sliced inference (Akyon, Altinuc & Temizel 2022), of the likeliest slices only.
    """

    is_probe: ClassVar[bool] = True
    learns_from_outlines: ClassVar[bool] = True
    kind: Literal["objects"]
    places: int = Field(ge=1, le=64)
    close_up_shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(min_length=1)
    close_up_px: int = Field(ge=32, le=512)

    def build(self, *, image_side_px: int, outputs: int, seed: int) -> Any:
        """Return the network with random weights, the backbone's too, until :meth:`load_weights` and the fit."""
        import keras
        from keras import layers, ops

        seeds = layer_seeds(seed)
        photos = keras.Input((image_side_px, image_side_px, 3), name="photo_0_255")
        cells = self.features(photos)
        places = _peaks(_litter_map(photos, cells, seeds), self.places)
        windows = windows_at(places, self.sides(image_side_px), image_side_px, ops)
        windows = layers.Activation("linear", dtype="float32", name=WINDOWS)(windows)
        vectors = self._close_up(image_side_px)([photos, windows])
        kernel = keras.initializers.GlorotUniform(seed=next(seeds))
        estimates = layers.Dense(outputs, kernel_initializer=kernel, dtype="float32", name=MATERIALS)(vectors)
        answers = ops.divide(ops.logsumexp(ops.multiply(estimates, SHARPNESS), axis=1), SHARPNESS)
        parts = [pooled(cells, "average_and_max"), answers]
        features = layers.Concatenate(dtype="float32", name=FEATURES)(parts)
        kernel = keras.initializers.GlorotUniform(seed=next(seeds))
        logits = layers.Dense(outputs, kernel_initializer=kernel, dtype="float32", name=LOGITS)(features)
        return self.drawn(keras.Model(photos, probabilities_of(logits), name=self.kind), seeds)

    def load_weights(self, model: Any, weights: str) -> str:
        """Load the backbone's weights, for the whole photo and for close-ups."""
        digest = super().load_weights(model, weights)
        for layer in model.get_layer(CLOSE_UP).layers:
            if layer.weights:
                layer.set_weights(model.get_layer(layer.name).get_weights())
        return digest

    def sides(self, image_side_px: int) -> list[int]:
        """Return the sides of close-ups, in pixels of the photo."""
        return [max(1, round(share * image_side_px)) for share in self.close_up_shares]

    def _close_up(self, image_side_px: int) -> Any:
        """Return the network from photos and windows in them to features (batch, windows, channels).

        It is a network of its own, because it is also told where to look.
        """
        import keras
        from keras import ops

        backbone, side_px = BACKBONES[self.backbone], self.close_up_px
        sides = self.sides(image_side_px)
        photos = keras.Input((image_side_px, image_side_px, 3), name="close_up_photo_0_255")
        windows = keras.Input((len(sides) * self.places, 4), name="close_up_windows")
        pixels = _cut_out(photos, windows, sides, side_px)
        vectors = pooled(backbone.build(backbone.preprocess(pixels)), "average")
        vectors = ops.reshape(vectors, (-1, windows.shape[1], vectors.shape[-1]))
        return keras.Model([photos, windows], vectors, name=CLOSE_UP)


def windows_at(places: Any, sides: Sequence[int], image_side_px: int, array: Any) -> Any:
    """Return windows around places, moved inside the photo, of each side in turn.

    Args:
        places: row and column, as shares of the photo's side, float32 (batch, places, 2).
        sides: of the windows, in pixels.
        image_side_px: side of the photo.
        array: the module of array functions, ``numpy`` or ``keras.ops``.

    Returns:
        float32 (batch, sides · places, 4): top, left, bottom and right, whole numbers of pixels.
    """
    parts = []
    for side in sides:
        start = array.clip(array.floor(places * image_side_px - side / 2), 0, image_side_px - side)
        parts.append(array.concatenate([start, start + side], axis=-1))
    return array.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def maps_of_scales(photos: Any, cells: Any) -> list[Any]:
    """Return the last map of a backbone at each of its last three sizes, the finest first; fewer where there are."""
    import keras

    last = {}
    for layer in keras.Model(photos, cells).layers:
        if len(layer.output.shape) == 4 and (layer.output.shape[1] > 1 or cells.shape[1] == 1):
            last[layer.output.shape[1]] = layer.output
    return [last[side] for side in sorted(last)[: len(LITTER)]][::-1]


def evidence_map(model: Any) -> Any:
    """Return the evidence of a network of this kind, symbolic: float32 (batch, rows, columns, materials), at least 0.

    Each close-up's share in the smooth maximum, times its estimate of the material, on the cells that it covers.
    """
    import numpy as np
    from keras import ops

    side, count = model.input.shape[1], model.get_layer(LITTER_MAP).output.shape[1]
    middles = (np.arange(count, dtype=np.float32) + 0.5) * side / count

    def covered(first: Any, last: Any) -> Any:
        inside = ops.logical_and(ops.less_equal(first, middles), ops.less(middles, last))
        return ops.cast(inside, "float32")

    def on_cells(estimates: Any, windows: Any) -> Any:
        rows = covered(windows[..., 0:1], windows[..., 2:3])
        columns = covered(windows[..., 1:2], windows[..., 3:4])
        shares = ops.softmax(ops.multiply(estimates, SHARPNESS), axis=1)
        return ops.einsum("bky,bkx,bkm->byxm", rows, columns, ops.multiply(shares, ops.relu(estimates)))

    return apart("evidence_map", on_cells, model.get_layer(MATERIALS).output, model.get_layer(WINDOWS).output)


def _litter_map(photos: Any, cells: Any, seeds: Iterator[int]) -> Any:
    """Return how much each cell of the finest map is like litter: a linear function of the maps of three scales."""
    import keras
    from keras import layers

    maps = maps_of_scales(photos, cells)
    _, rows, columns, _ = maps[0].shape
    parts = []
    for name, one in zip(LITTER, maps, strict=False):
        kernel = keras.initializers.GlorotUniform(seed=next(seeds))
        x = layers.Conv2D(1, 1, kernel_initializer=kernel, dtype="float32", name=name)(one)
        x = layers.UpSampling2D(-(-rows // one.shape[1]), dtype="float32", name=f"{name}_enlarged")(x)
        parts.append(x[:, :rows, :columns])
    return layers.Add(dtype="float32", name=LITTER_MAP)(parts) if len(parts) > 1 else parts[0]


def _peaks(litter: Any, places: int) -> Any:
    """Return the middles of the cells most like litter, peaks among their neighbours first.

    Returns:
        float32 (batch, places, 2): row and column, as shares of the photo's side.
    """
    from keras import layers, ops

    _, rows, columns, _ = litter.shape
    highest = layers.MaxPooling2D(3, strides=1, padding="same", dtype="float32", name="highest_beside")(litter)
    ranked = ops.where(ops.greater_equal(litter, highest), litter, ops.subtract(litter, _BELOW_PEAKS))
    best = ops.top_k(ops.reshape(ranked, (-1, rows * columns)), min(places, rows * columns))[1]
    if rows * columns < places:
        best = ops.tile(best, (1, -(-places // (rows * columns))))[:, :places]
    row, column = ops.floor_divide(best, columns), ops.mod(best, columns)
    middles = [(ops.cast(row, "float32") + 0.5) / rows, (ops.cast(column, "float32") + 0.5) / columns]
    return layers.Activation("linear", dtype="float32", name=PLACES)(ops.stack(middles, axis=-1))


def _cut_out(photos: Any, windows: Any, sides: Sequence[int], close_up_px: int) -> Any:
    """Return the windows' pixels, enlarged or shrunk: (batch · windows, close_up_px, close_up_px, 3).

    The pixels of a window are gathered one by one, by an operation that every runtime knows.
    """
    import numpy as np
    from keras import ops

    _, side_px, _, colours = photos.shape
    places = windows.shape[1] // len(sides)
    pixels = ops.reshape(photos, (-1, side_px * side_px, colours))
    found = []
    for number, side in enumerate(sides):
        start = ops.cast(windows[:, number * places : (number + 1) * places, :2], "int32")
        along = np.arange(side, dtype=np.int32)
        rows, columns = start[..., 0:1] + along, start[..., 1:2] + along
        at = ops.expand_dims(rows * side_px, -1) + ops.expand_dims(columns, -2)
        cut = ops.take_along_axis(pixels, ops.reshape(at, (-1, places * side * side, 1)), axis=1)
        cut = at_side(ops.reshape(cut, (-1, side, side, colours)), close_up_px, f"window{number}")
        found.append(ops.reshape(cut, (-1, places, close_up_px, close_up_px, colours)))
    joined = ops.concatenate(found, axis=1) if len(found) > 1 else found[0]
    return ops.reshape(joined, (-1, close_up_px, close_up_px, colours))
