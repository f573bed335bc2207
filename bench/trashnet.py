"""``python -m bench.trashnet TARGET``: TrashNet's photos, a folder a class, as a COCO dataset that prepare takes.

TrashNet (Thung & Yang 2016) has one object on white board a photo, so each photo gets one annotation: all of it. Six
classes make five materials: none of them is toxic, and prepare takes the materials that the mapping has.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from bench.measure import SHARED

TRASHNET = SHARED / "data" / "trashnet"
# TrashNet's class → our material, and why where that is not plain.
MATERIALS = {
    "cardboard": ("paper", "paperboard: the same fibre"),
    "glass": ("glass", ""),
    "metal": ("aluminium", "cans and foil; as in conf/materials/default.csv, the class stands for metals"),
    "paper": ("paper", ""),
    "plastic": ("plastic", ""),
    "trash": ("other_objects", "what is none of the others, mostly wrappers: no material may be claimed"),
}


def whole_photo(identity: int, image: dict[str, Any], category: int) -> dict[str, Any]:
    """An annotation whose box and outline are the photo's edge; sizes in pixels."""
    width, height = image["width"], image["height"]
    return {
        "id": identity,
        "image_id": image["id"],
        "category_id": category,
        "bbox": [0, 0, width, height],
        "segmentation": [[0, 0, width, 0, width, height, 0, height]],
        "area": width * height,
        "iscrowd": 0,
    }


def link_or_copy(photo: Path, place: Path) -> None:
    """Put a photo in its place without its bytes where the file system can, otherwise with them."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() and place.samefile(photo):  # linked before, or below a linked folder: then it is the original
        return
    place.unlink(missing_ok=True)
    try:
        place.symlink_to(photo.resolve())
    except OSError:
        shutil.copyfile(photo, place)


def write_trashnet(source: Path, target: Path) -> dict[str, int]:
    """Write annotations.json, materials.csv and photos/ below ``target``; returns class → photos."""
    images, annotations, counts = [], [], {}
    for category, name in enumerate(MATERIALS):
        photos = sorted((source / name).glob("*.jpg"))
        counts[name] = len(photos)
        for photo in photos:
            with Image.open(photo) as opened:
                width, height = opened.size
            image = {"id": len(images) + 1, "file_name": f"{name}/{photo.name}", "width": width, "height": height}
            images.append(image)
            annotations.append(whole_photo(len(images), image, category))
            link_or_copy(photo, target / "photos" / name / photo.name)
    categories = [{"id": n, "name": name, "supercategory": MATERIALS[name][0]} for n, name in enumerate(MATERIALS)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (target / "annotations.json").write_text(json.dumps(coco), encoding="utf-8")
    with (target / "materials.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [(name, material, reason) for name, (material, reason) in MATERIALS.items()]
        csv.writer(file, lineterminator="\n").writerows([("category", "material", "reason"), *rows])
    return counts


def main() -> None:
    """Write the dataset, and say what it is."""
    parser = argparse.ArgumentParser(description="TrashNet as a COCO dataset that prepare takes.")
    parser.add_argument("target", type=Path, help="the folder to write it into")
    target: Path = parser.parse_args().target
    if not TRASHNET.is_dir():
        print(f"skipped: there is no TrashNet in {TRASHNET}")
        return
    if target.exists() and not target.is_dir():
        sys.exit(f"{target} is a file. Name a folder.")
    target.mkdir(parents=True, exist_ok=True)
    counts = write_trashnet(TRASHNET, target)
    print(f"{sum(counts.values()):,} photos in {target}: {', '.join(f'{n} {name}' for name, n in counts.items())}")
    print(f"Next: prepare --dataset {target} --materials {target / 'materials.csv'} --group_by photo")


if __name__ == "__main__":
    main()
