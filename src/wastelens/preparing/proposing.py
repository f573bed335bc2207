"""Propose a mapping from the labels of a dataset to materials, for a person to check."""

from __future__ import annotations

from pathlib import Path

from wastelens.config.files import conf_folder
from wastelens.data.annotations.materials import proposed_mapping, read_mapping
from wastelens.data.annotations.sources import choose_source
from wastelens.errors import AnnotationsError

SHIPPED = ("default", "trashnet")  # the first that knows a label counts


def mapping_text(dataset: str, data_folder: Path) -> str:
    """Return a mapping of all labels that occur in a dataset, as CSV.

    Raises:
        InputError: the dataset cannot be read, or has no labels.
    """
    shipped = [read_mapping(conf_folder() / "materials" / f"{name}.csv") for name in SHIPPED]
    known = frozenset(name for mapping in shipped for name in (*mapping.material_of, *mapping.materials))
    layout = choose_source(dataset, data_folder, known).layout
    coco = layout.read()
    used = {one.category_id for one in coco.annotations}
    labels = sorted({category.name for category in coco.categories if category.id in used})
    if not labels:
        raise AnnotationsError(layout.no_labels())
    return proposed_mapping(labels, shipped).to_csv(index=False)
