"""The settings of ``explain``: ``conf/explain.yaml``, with a section per method from ``conf/explain/<method>.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model, model_validator

from wastelens.config.base import LARGEST_SEED, Config, NameList, auto_or_listed, listed
from wastelens.config.explanation_methods import METHODS, MethodConfig, method_names

if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[method_names()]

MethodList = Annotated[tuple[MethodName, ...], BeforeValidator(listed), Field(min_length=1)]


class _CommonExplainConfig(Config):
    """The settings of ``explain`` that do not belong to one method; ``conf/explain.yaml`` explains every key."""

    dataset: str
    data_folder: Path
    run_id: str
    split: Literal["test", "val", "train"]
    photos: int = Field(ge=1)
    file_names: NameList
    methods: Annotated[MethodList | Literal["auto"], BeforeValidator(auto_or_listed)]
    layer: str = Field(min_length=1)
    steps: int = Field(ge=2)
    randomised_photos: int = Field(ge=0)
    batch_size: int = Field(ge=1)
    bootstrap_resamples: int = Field(ge=100)
    seed: int = Field(ge=0, le=LARGEST_SEED)

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
