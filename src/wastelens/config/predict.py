"""The settings of ``predict``: ``conf/predict.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from wastelens.config.base import LARGEST_SEED, Config, parameter
from wastelens.config.engine import ENGINE_HELP, EngineName, Retries

MODEL_HELP = "models:/NAME@ALIAS, models:/NAME/VERSION, a train run's id, or the folder of a downloaded model"


class PredictConfig(Config):
    """From a model and photos to a table and a page; every key is explained in ``conf/predict.yaml``."""

    model: str = parameter(MODEL_HELP)
    photos: str = parameter(
        "a folder of photos, with its sub-folders; a list (.txt, a name per line, or .csv); a .zip; or one photo"
    )
    dataset: str = parameter("predict the photos of this dataset instead: a prepared one, or raw data")
    data_folder: Path
    output: str = parameter("the folder to write to; empty: data/predictions/ and the name of the photos")
    overwrite: bool = parameter("true or false: replace predictions that are there already")
    accept_unproven: bool = parameter(
        "true or false: use a model that collapsed, or is not above the controls, all the same"
    )
    evidence: bool = parameter("true or false: say where in the photo the most probable material is seen")
    exif: bool = parameter("true or false: add the time and place that the photos' EXIF data tell")
    gallery_photos: int = parameter("show at most this many photos on the page", ge=1, le=5000)
    max_megapixels: float = Field(gt=0)
    block_photos: int = Field(ge=1)
    workers: Annotated[int, Field(ge=1)] | Literal["auto"]
    engine: EngineName = parameter(ENGINE_HELP)
    retries: Retries
    bootstrap_resamples: int = Field(ge=100)
    seed: int = parameter("of the bootstrap behind the intervals", ge=0, le=LARGEST_SEED)
