"""Every step and the type of its settings."""

from __future__ import annotations

from wastelens.config.base import Config
from wastelens.config.cluster import ClusterConfig
from wastelens.config.collect import CollectConfig
from wastelens.config.download import DownloadConfig
from wastelens.config.evaluate import EvaluateConfig
from wastelens.config.explain import ExplainConfig
from wastelens.config.labels import LabelsConfig
from wastelens.config.main import MainConfig
from wastelens.config.predict import PredictConfig
from wastelens.config.prepare import PrepareConfig
from wastelens.config.pretrain import PretrainConfig
from wastelens.config.promote import PromoteConfig
from wastelens.config.study import CompareConfig, StudyConfig
from wastelens.config.train import TrainConfig
from wastelens.config.tune import TuneConfig

STEP_CONFIGS: dict[str, type[Config]] = {
    "prepare": PrepareConfig,
    "pretrain": PretrainConfig,
    "train": TrainConfig,
    "tune": TuneConfig,
    "download": DownloadConfig,
    "collect": CollectConfig,
    "cluster": ClusterConfig,
    "explain": ExplainConfig,
    "labels": LabelsConfig,
    "predict": PredictConfig,
    "study": StudyConfig,
    "compare": CompareConfig,
    "evaluate": EvaluateConfig,
    "promote": PromoteConfig,
    "main": MainConfig,
}
