"""The settings of ``main``: ``conf/main.yaml``, and a section for each step that it runs."""

from __future__ import annotations

from pydantic import Field, model_validator

from wastelens.config.base import Config
from wastelens.config.cluster import ClusterConfig
from wastelens.config.explain import ExplainConfig
from wastelens.config.prepare import PrepareConfig
from wastelens.config.train import TrainConfig


class MainConfig(Config):
    """The main job: a section for each step it runs; ``models`` are laid over the section ``train``."""

    prepare: PrepareConfig
    train: TrainConfig
    models: dict[str, TrainConfig] = Field(min_length=1)
    cluster: ClusterConfig
    explain: ExplainConfig

    @model_validator(mode="after")
    def _one_job(self) -> MainConfig:
        for key in ("dataset", "data_folder"):
            sections = {"train": self.train, "cluster": self.cluster, "explain": self.explain, **self.models}
            for name, section in sections.items():
                if getattr(self.prepare, key) != getattr(section, key):
                    raise ValueError(f"prepare.{key} and {name}.{key} must be the same: one job has one dataset")
        folds = {self.train.fold, self.cluster.fold, *(model.fold for model in self.models.values())}
        if len(folds) > 1:
            raise ValueError("every model and cluster must have the fold of train: one job has one split")
        if self.train.policy:
            raise ValueError("train.augment cannot be set: main trains without and with augmentation")
        if self.train.resume or any(model.resume for model in self.models.values()):
            raise ValueError("train.resume cannot be set: resume a run with the entry point train")
        return self
