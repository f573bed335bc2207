"""The card of a logged model, which takes this file along: materials, how well it does, digests of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

CARD = "wastelens"  # the key among the metadata in MLflow's file MLmodel
TEST_PREDICTIONS = "predictions_test.csv"


class ModelCard(BaseModel):
    """The metadata of a classifier.

    Attributes:
        form: of the card; another one is of another version.
        model: the run's name, such as ``base +aug``.
        materials: what the network answers for, in its order.
        thresholds: material → calibrated probability from which the decision is yes, chosen on val.
        calibration: kind of the map from the network's probabilities to calibrated ones.
        no_guarantee: why the recall of the bands is not guaranteed; "" where it is, or there are none.
        bands: material → probabilities below which the answer is no, and from which it is yes; empty: never unsure.
        image_side_px: of the photos that the network takes.
        dataset: that it was trained on, with its digest and the fold.
        collapsed, above_controls, strongest_control, verdict: the run's tags.
        metrics: the run's final metrics, those that are finite.
        files: name → digest, of the files that are logged with the model.
    """

    model_config = ConfigDict(frozen=True)

    form: Literal[1] = 1
    model: str = ""
    materials: tuple[str, ...] = Field(min_length=1)
    thresholds: dict[str, float]
    calibration: str = "none"
    bands: dict[str, tuple[float, float]] = {}
    no_guarantee: str = ""
    image_side_px: int = Field(gt=0)
    dataset: str
    dataset_digest: str
    fold: int
    collapsed: bool
    above_controls: bool
    strongest_control: str
    verdict: str
    metrics: dict[str, float]
    files: dict[str, str] = {}

    def metadata(self) -> dict[str, Any]:
        """Return the card as MLflow stores it."""
        return self.model_dump(mode="json")


def files_of(model_folder: Path) -> Path:
    """Return the folder in a logged model that holds its files."""
    return model_folder / "artifacts"
