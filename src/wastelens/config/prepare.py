"""The settings of ``prepare``: ``conf/prepare.yaml``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from wastelens.config.base import LARGEST_SEED, Config, parameter
from wastelens.config.engine import ENGINE_HELP, EngineName, Retries

PATTERN = "pattern:"  # before a regular expression as the value of group_by


class FractionsConfig(Config):
    """Shares of the photos that go to each split; they add up to 1."""

    train: float = Field(gt=0, lt=1)
    val: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _add_up(self) -> FractionsConfig:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, val and test add up to {total:g}, not to 1")
        return self


class PrepareConfig(Config):
    """From annotations and photos to a prepared dataset; every key is explained in ``conf/prepare.yaml``."""

    dataset: str = parameter(
        "auto, taco, sample, or a folder of photos with their labels (data/README.md has the layouts)"
    )
    data_folder: Path
    name: str = parameter(
        "name of the prepared dataset, by which other steps open it; empty: that of the data",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$",
    )
    materials: str = parameter("{materials}, or a CSV file of category,material,reason")
    image_side_px: int = parameter("side of the square photos in the cache, in pixels", ge=16, le=2048)
    group_by: str = parameter(
        "auto, batch, scene, photo, stem, pattern:REGEX or a column of the images: groups stay in one split",
        min_length=1,
    )
    split: Literal["made", "given"] = parameter("made: from whole groups; given: the split that the data come with")
    fractions: FractionsConfig
    corrections: str = parameter("a CSV file of file_name,material,label, as the page of labels writes it; empty: none")
    correct_test: bool = parameter("true or false: correct the labels that photos are tested by, too")
    folds: int = parameter(
        "number of cross-validation splits besides the one split; 0: none, otherwise 3 or more", ge=0, le=50
    )
    near_duplicate_distance: int = Field(ge=0, le=7)
    outlines_frame: Literal["upright", "stored"] = parameter(
        "upright or stored: the photo that outlines were drawn on, where EXIF turns it and sizes do not tell"
    )
    find_augmented_copies: bool
    balance_target: float = parameter(
        "oversample until each material reaches this fraction of the most common one's count", gt=0, le=1
    )
    max_copies: Annotated[int, Field(ge=1)] | Literal["auto"] = parameter("maximum number of copies of one photo")
    max_problem_share: float = parameter("stop if more than this share of the photos is left out", ge=0, lt=1)
    max_megapixels: float = Field(gt=0)
    workers: Annotated[int, Field(ge=1)] | Literal["auto"]
    engine: EngineName = parameter(ENGINE_HELP)
    retries: Retries
    seed: int = parameter("the same seed gives the same split and copies", ge=0, le=LARGEST_SEED)

    @model_validator(mode="after")
    def _something_to_correct(self) -> PrepareConfig:
        if self.correct_test and not self.corrections:
            raise ValueError("correct_test=true, but no corrections are given")
        return self

    @field_validator("folds")
    @classmethod
    def _folds(cls, folds: int) -> int:
        if folds in (1, 2):
            raise ValueError("must be 0 (no cross-validation) or at least 3 (train, val and test need one each)")
        return folds

    @field_validator("group_by")
    @classmethod
    def _pattern(cls, group_by: str) -> str:
        if group_by.startswith(PATTERN):
            try:
                groups = re.compile(group_by.removeprefix(PATTERN)).groups
            except (re.error, RecursionError, OverflowError) as error:
                raise ValueError(f"is no regular expression ({error})") from None
            if groups != 1:
                raise ValueError(f"needs one group in parentheses, which has the value, and has {groups}")
        return group_by
