"""The settings of ``explain``: ``conf/explain.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from wastelens.config.base import LARGEST_SEED, Config, NameList, auto_or_listed, listed

ExplainMethod = Literal["gradcam", "gradcam_plus_plus", "scorecam", "shap", "shap_partition"]


MethodList = Annotated[tuple[ExplainMethod, ...], BeforeValidator(listed), Field(min_length=1)]


class ExplainConfig(Config):
    """Evidence for a model's decisions, and how good it is; every key is explained in ``conf/explain.yaml``."""

    dataset: str
    data_folder: Path
    run_id: str
    split: Literal["test", "val", "train"]
    photos: int = Field(ge=1)
    file_names: NameList
    methods: Annotated[MethodList | Literal["auto"], BeforeValidator(auto_or_listed)]
    layer: str = Field(min_length=1)
    samples: int = Field(ge=1)
    background_photos: int = Field(ge=1)
    evaluations: int = Field(ge=10)
    channels: int = Field(ge=1)
    steps: int = Field(ge=2)
    randomised_photos: int = Field(ge=0)
    batch_size: int = Field(ge=1)
    bootstrap_resamples: int = Field(ge=100)
    seed: int = Field(ge=0, le=LARGEST_SEED)

    @model_validator(mode="after")
    def _even_samples(self) -> ExplainConfig:
        if self.samples % self.background_photos:
            multiple = self.background_photos * -(-self.samples // self.background_photos)
            raise ValueError(
                f"samples={self.samples} is no multiple of background_photos={self.background_photos}, each of which "
                f"is drawn equally often; give samples={multiple}"
            )
        if self.methods != "auto" and len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods={','.join(self.methods)} names one of them twice; name each once")
        return self
