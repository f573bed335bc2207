"""The types of what networks are built of, and learners without labels: ``conf/model/`` and ``conf/pretrain/``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from wastelens.config.base import Config
from wastelens.config.kinds import kind_of

Units = Annotated[int, Field(ge=1)]


class HeadConfig(Config):
    """From a backbone's features to the materials: pool a map, dense layers, drop out."""

    pooling: Literal["flatten", "average", "max", "average_and_max"]
    hidden: tuple[Units, ...]
    dropout: float = Field(ge=0, lt=1)


class CnnConfig(HeadConfig):
    """The compact convolutional base model: ``conf/model/base.yaml``."""

    kind: Literal["cnn"]
    widths: tuple[Units, ...] = Field(min_length=1)


class NoiseConfig(Config):
    """What a denoising autoencoder sees instead of the clean photo."""

    name: Literal["none", "gaussian", "masking", "salt_and_pepper"]
    strength: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _named(self) -> NoiseConfig:
        if self.name == "none" and self.strength > 0:
            raise ValueError(f"noise of strength={self.strength:g} needs a name: gaussian, masking or salt_and_pepper")
        return self


class _AutoencoderConfig(Config):
    """What all autoencoders share: noise on the input, and the fit."""

    noise: NoiseConfig
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    patience_epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)


class DenseAutoencoderConfig(_AutoencoderConfig):
    """Dense layers down to a code and back, on photos shrunk to ``side_px``."""

    kind: Literal["dense_autoencoder"]
    side_px: int = Field(ge=4, le=256)
    hidden_units: tuple[Units, ...] = Field(min_length=1)


class ConvAutoencoderConfig(_AutoencoderConfig):
    """The base model's convolutions down to a map, and back."""

    kind: Literal["conv_autoencoder"]
    widths: tuple[Units, ...] = Field(min_length=1)


class ContrastiveDivergenceConfig(Config):
    """How restricted Boltzmann machines learn (Hinton 2010, "A practical guide to training RBMs")."""

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


class RbmConfig(ContrastiveDivergenceConfig):
    """One restricted Boltzmann machine."""

    kind: Literal["rbm"]
    hidden_units: Units

    @property
    def layers(self) -> tuple[int, ...]:
        """Hidden units of each layer."""
        return (self.hidden_units,)


class DbnConfig(ContrastiveDivergenceConfig):
    """A greedy stack of restricted Boltzmann machines; ``epochs`` are each layer's."""

    kind: Literal["dbn"]
    hidden_units: tuple[Units, ...] = Field(min_length=1)

    @property
    def layers(self) -> tuple[int, ...]:
        """Hidden units of each layer."""
        return self.hidden_units


def _of_kind(*kinds: str) -> Discriminator:
    known = ", ".join(kinds)
    return Discriminator(kind_of, custom_error_type="kind", custom_error_message=f"the kind must be one of {known}")


_DenseAutoencoder = Annotated[DenseAutoencoderConfig, Tag("dense_autoencoder")]
_ConvAutoencoder = Annotated[ConvAutoencoderConfig, Tag("conv_autoencoder")]
_Rbm = Annotated[RbmConfig, Tag("rbm")]
_Dbn = Annotated[DbnConfig, Tag("dbn")]
LearnerConfig = Annotated[
    _DenseAutoencoder | _ConvAutoencoder | _Rbm | _Dbn,
    _of_kind("dense_autoencoder", "conv_autoencoder", "rbm", "dbn"),
]


class AutoencoderNetworkConfig(HeadConfig):
    """An autoencoder's encoder with a head: ``conf/model/autoencoder.yaml``."""

    kind: Literal["autoencoder"]
    method: str
    learner: Annotated[_DenseAutoencoder | _ConvAutoencoder, _of_kind("dense_autoencoder", "conv_autoencoder")]


class DbnNetworkConfig(HeadConfig):
    """A stack of RBMs unrolled into a network, with a head: ``conf/model/dbn.yaml``."""

    kind: Literal["dbn"]
    method: str
    learner: Annotated[_Rbm | _Dbn, _of_kind("rbm", "dbn")]


class TransferConfig(HeadConfig):
    """A network trained on other photos, with a head: ``conf/model/vgg16.yaml``, ``efficientnetv2.yaml``."""

    kind: Literal["transfer"]
    backbone: Literal["vgg16", "efficientnetv2b0", "efficientnetv2b1", "efficientnetv2b2", "efficientnetv2b3"]


EncoderNetworkConfig = AutoencoderNetworkConfig | DbnNetworkConfig
NetworkConfig = Annotated[
    Annotated[CnnConfig, Tag("cnn")]
    | Annotated[AutoencoderNetworkConfig, Tag("autoencoder")]
    | Annotated[DbnNetworkConfig, Tag("dbn")]
    | Annotated[TransferConfig, Tag("transfer")],
    _of_kind("cnn", "autoencoder", "dbn", "transfer"),
]
