"""Networks, and learners without labels: the settings and abilities that all their kinds share.

Each kind is a class in a file of its own, which registers itself and holds the settings that only it has. These files
import neither Keras nor NumPy at their top: the command line's help reads them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from wastelens.config.base import Config
from wastelens.system.registry import Registry

Units = Annotated[int, Field(ge=1)]
Pooling = Literal["flatten", "average", "max", "average_and_max"]

NETWORKS: Registry[type[NetworkConfig]] = Registry("network", "wastelens.models.networks")
LEARNERS: Registry[type[LearnerConfig]] = Registry("learner", "wastelens.training.learners")


class NetworkConfig(Config, ABC):
    """A network that classifies photos: ``conf/model/*.yaml``.

    Attributes:
        takes_weights: whether ``weights`` can name weights that were trained elsewhere.
        is_probe: whether the head is fitted by logistic regression on frozen features, not step by step.
        probes_encoders: whether it can take the encoder of any pretrain run in place of its backbone.
        learns_from_outlines: whether the head also learns from the annotated objects' outlines.
    """

    takes_weights: ClassVar[bool] = False
    is_probe: ClassVar[bool] = False
    probes_encoders: ClassVar[bool] = False
    learns_from_outlines: ClassVar[bool] = False
    kind: str

    @abstractmethod
    def build(self, *, image_side_px: int, outputs: int, seed: int) -> Any:
        """Return the Keras network, flat and functional, with random weights that follow from the seed alone.

        It takes photos float (batch, side, side, 3) in 0–255 and rescales them itself, returns probabilities float32
        (batch, outputs), and has a layer ``logits`` before them.
        """

    def check_weights(self, weights: str) -> None:
        """Find out before any long work whether weights are available.

        Raises:
            ConfigError: they are not.
        """

    def load_weights(self, model: Any, weights: str) -> str:
        """Load weights into a model that :meth:`build` returned, and return the digest of its backbone's weights.

        Raises:
            ConfigError: they are not available, cannot be read or do not fit.
        """
        raise NotImplementedError(f"networks of kind {self.kind} take no weights")

    def probe_of_start(self) -> NetworkConfig | None:
        """Return a linear probe of what the network starts from, as its control; None where nothing was learned."""
        return None


class HeadConfig(NetworkConfig, ABC):
    """A network with a head that is trained step by step: pool the feature map, dense layers, dropout."""

    pooling: Pooling
    hidden: tuple[Units, ...]
    dropout: float = Field(ge=0, lt=1)


class LearnerConfig(Config, ABC):
    """Learning from photos without labels: ``conf/pretrain/*.yaml``.

    Attributes:
        network_kind: the kind of network that starts from the encoder, which is also the model's name.
    """

    network_kind: ClassVar[str]
    kind: str

    @abstractmethod
    def encode(self, photos_0_255: Any, seeds: Iterator[int]) -> Any:
        """Apply the encoder's layers to photos (batch, side, side, 3) in 0–255; return the code, a map or vectors."""

    @abstractmethod
    def learning(self, photos: Any, *, seed: int, mixed_precision: bool, folder: Path) -> Any:
        """Return the ``training.learners.Learning`` that teaches the encoder.

        Args:
            photos: ``training.visible_photos.VisiblePhotos``.
            seed: for weights, order, noise and sampling.
            mixed_precision: multiply in bfloat16.
            folder: where large intermediate results take their space.
        """

    def visible_side_px(self, image_side_px: int) -> int:
        """Return the side of the photos that the learner sees, in pixels."""
        return image_side_px

    def standardise(self, network: Any, photos: Any, folder: Path) -> None:
        """Set the pixel statistics of an encoder that was not pretrained, as pretraining would have.

        Args:
            network: has the layers of :meth:`encode`.
            photos: ``data.batches.photo_rows.PhotoRows`` of the training photos.
            folder: where shrunk photos take their space.
        """


class EncoderNetworkConfig(NetworkConfig, ABC):
    """A network that starts from an encoder, which was learned without labels.

    Attributes:
        any_learner: whether it takes encoders of all learners, not only of those made for it.
        method: name of the pretraining method, the file ``conf/pretrain/<method>.yaml``.
        learner: settings of the encoder.
    """

    any_learner: ClassVar[bool] = False
    method: str
    learner: LearnerConfig

    @field_validator("learner")
    @classmethod
    def _of_this_network(cls, learner: LearnerConfig, info: ValidationInfo) -> LearnerConfig:
        kind = info.data.get("kind", "")
        if not cls.any_learner and learner.network_kind != kind:
            raise ValueError(f"the kind must be one of {', '.join(learners_for(kind))}")
        return learner


def learners_for(network_kind: str) -> list[str]:
    """Return the kinds of learners whose encoder a kind of network can start from."""
    return [kind for kind, learner in LEARNERS.parts.items() if learner.network_kind == network_kind]


class NoiseConfig(Config):
    """Noise that a denoising autoencoder's input gets."""

    name: Literal["none", "gaussian", "masking", "salt_and_pepper"]
    strength: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _named(self) -> NoiseConfig:
        if self.name == "none" and self.strength > 0:
            raise ValueError(f"noise of strength={self.strength:g} needs a name: gaussian, masking or salt_and_pepper")
        return self


class ContrastiveDivergenceConfig(Config):
    """Training of restricted Boltzmann machines (Hinton 2010, "A practical guide to training RBMs")."""

    side_px: int = Field(ge=4, le=256)
    visible: Literal["bernoulli", "gaussian"]
    gibbs_steps: int = Field(ge=1)
    persistent: bool
    sample_visible: bool
    learning_rate: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    sparsity_target: float = Field(ge=0, lt=1)
    sparsity_cost: float = Field(ge=0)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)


class AutoencoderConfig(LearnerConfig, ABC):
    """Settings of all autoencoders: noise on the input, and the training."""

    network_kind = "autoencoder"
    noise: NoiseConfig
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    patience_epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)

    @abstractmethod
    def decode(self, code: Any, side_px: int, seeds: Iterator[int]) -> Any:
        """Apply the layers from the code to photos (batch, side, side, 3) in [0, 1]."""

    @abstractmethod
    def filters(self, encoder: Any, side_px: int) -> Any:
        """Return the weights of the encoder's first layer as pictures (units, side, side, 3)."""


class BoltzmannConfig(ContrastiveDivergenceConfig, LearnerConfig, ABC):
    """Settings of restricted Boltzmann machines on photos shrunk to ``side_px``."""

    network_kind = "dbn"

    @property
    @abstractmethod
    def layers(self) -> tuple[int, ...]:
        """Hidden units of each layer, from the bottom up."""
