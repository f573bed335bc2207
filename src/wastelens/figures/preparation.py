"""The figures and tables of a dataset that was just prepared, to look at before any training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.figures import dataset as figures
from wastelens.figures.contact_sheet import contact_sheet, near_duplicate_sheet, near_duplicate_table
from wastelens.preparing.writing import Preparation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def look_at(dataset: PreparedDataset, made: Preparation) -> tuple[dict[str, Figure], dict[str, pd.DataFrame]]:
    """Draw the photos, counts and near-duplicates; return name → figure, and name → table that belongs to one."""
    labels, objects, mapping = made.split.frame, made.cached.objects, made.mapping
    materials, settings = mapping.materials, dataset.manifest["settings"]
    rng = np.random.default_rng(settings["seed"])
    drawn = {
        "contact_sheet": contact_sheet(labels, dataset.photos, dataset.outlines().drawn, materials, rng=rng),
        "photos_per_material": figures.photos_per_material(labels, materials),
        "photos_per_category": figures.photos_per_category(objects, materials),
        "material_cooccurrence": figures.material_cooccurrence(labels, materials),
        "photos_per_group": figures.photos_per_group(labels),
    }
    if made.coco.has_outlines:
        drawn["object_size"] = figures.object_size(objects, materials, image_side_px=settings["image_side_px"])
    pairs = near_duplicate_table(labels, dataset.photos, made.split.groups.copies.by_content)
    if len(pairs):
        drawn["near_duplicates"] = near_duplicate_sheet(pairs, labels, dataset.photos)
    categories = figures.category_table(objects, mapping.material_of, mapping.reasons)
    return drawn, {"near_duplicates": pairs, "categories": categories}
