"""The settings of ``explain``: ``conf/explain.yaml``, with a section per method from ``conf/explain/<method>.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model, model_validator

from wastelens.config.base import (
    DATASET_HELP,
    LARGEST_SEED,
    Config,
    NameList,
    auto_or_listed,
    listed,
    parameter,
)
from wastelens.config.explanation_methods import METHODS, MethodConfig, automatic_methods, method_names

if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[method_names()]

MethodList = Annotated[tuple[MethodName, ...], BeforeValidator(listed), Field(min_length=1)]


class _CommonExplainConfig(Config):
    """The settings of ``explain`` that do not belong to one method; ``conf/explain.yaml`` explains every key."""

    dataset: str = parameter(DATASET_HELP)
    data_folder: Path
    run_id: str = parameter("a train run; empty: the dataset's best by val_macro_ap")
    split: Literal["test", "val", "train"] = parameter("whose photos are explained: test, val or train")
    photos: int = parameter("explain at most this many of them, drawn by the seed", ge=1)
    file_names: NameList = parameter("explain these photos instead: names as in labels.csv, separated by commas")
    methods: Annotated[MethodList | Literal["auto"], BeforeValidator(auto_or_listed)] = parameter(
        f"separated by commas: {', '.join(method_names())}; auto: those of {', '.join(automatic_methods())} that fit "
        "the model"
    )
    layer: str = parameter(
        "the layer whose map class activation methods draw; auto: the last layer with a map larger than 1 × 1",
        min_length=1,
    )
    steps: int = Field(ge=2)
    randomised_photos: int = Field(ge=0)
    batch_size: int = Field(ge=1)
    bootstrap_resamples: int = Field(ge=100)
    seed: int = parameter("of the photos drawn, the random weights and the methods' own draws", ge=0, le=LARGEST_SEED)

    @model_validator(mode="after")
    def _each_method_once(self) -> _CommonExplainConfig:
        if self.methods != "auto" and len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods={','.join(self.methods)} names one of them twice; name each once")
        return self

    def method(self, name: str) -> MethodConfig:
        """Return the settings of one explanation method.

        Raises:
            ConfigError: there is no such method.
        """
        kind = METHODS[name]
        settings: MethodConfig = getattr(self, name) if name in type(self).model_fields else kind()
        return settings


def methods_with_settings() -> tuple[str, ...]:
    """Return the names of the methods that have settings of their own, and so a section of the config and a file."""
    return tuple(name for name in method_names() if METHODS[name].model_fields)


if TYPE_CHECKING:

    class ExplainConfig(_CommonExplainConfig):
        """The settings of ``explain``: the common ones, and a section per method that has settings."""
else:
    _SECTIONS: dict[str, Any] = {name: (METHODS[name], ...) for name in methods_with_settings()}
    ExplainConfig = create_model("ExplainConfig", __base__=_CommonExplainConfig, __module__=__name__, **_SECTIONS)
