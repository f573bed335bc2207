"""Photos that were made from one source photo, by what their names and metadata tell.

Exporters and offline augmentation name each copy after its source: ``IMG_1_jpg.rf.0f3a….jpg`` (Roboflow),
``IMG_1_rot90.jpg``, ``IMG_1 - Copy.jpg``. The same number in two folders is no evidence: cameras count from 1 in each.
The folders of a split do not count, as copies of one source may be in several of them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from wastelens.data.annotations.layout import split_folders
from wastelens.system.arrays import IntArray

# The name of the photo that was uploaded to Roboflow, with its suffix, and a digest of the copy.
_ROBOFLOW = re.compile(r"(.+?)(?:[-_.](?:jpe?g|png|webp|bmp|gif|tiff?|heic|heif|avif|jfif|mpo))?\.rf\.[\w-]{6,}", re.I)
# Augmentor's FOLDER_original_NAME.jpg_UUID
_AUGMENTOR = re.compile(r".*?_original_(.+?)(?:\.\w+)?_[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
_WORD = (
    r"(?:aug(?:mented|mentation)?|rot(?:ated?|ation)?|(?:h|v|horizontal|vertical)?[-_]?flip(?:ped)?|flip[-_]?(?:lr|ud|h|v)|"
    r"mirror(?:ed)?|shear(?:ed)?|crop(?:ped)?|copy|zoom(?:ed)?|shift(?:ed)?|bright(?:ness|er)?|dark(?:er)?|contrast|"
    r"noise|noisy|blur(?:red|ry)?|gamma|hue|saturation|jitter|cutout|gr[ae]yscale)"
)
_NUMBER = r"(?:[-_ ]?[-+]?\(?\d+(?:\.\d+)?(?:deg)?\)?){0,2}"
_MARK_BEHIND = re.compile(rf"(.*?[^-_. ])(?:[-_. ]+{_WORD}{_NUMBER})+", re.I)
_MARK_BEFORE = re.compile(rf"(?:{_WORD}{_NUMBER}[-_. ]+|copy of )+(.+)", re.I)
_LAST_NUMBER = re.compile(r"(.*\d.*?)[-_. ]+\d+")  # IMG_7_2 and clip3_0001, but not IMG_7
_MOST_COPIES = 50  # more photos of one name, such as a phone's "image.jpg", are a collection


def source_of(file: str, told: str = "") -> str:
    """Return the source of a photo: its folders but for those of splits, then the source's name without suffix.

    told: the source's name by the annotations, as in ``extra.name`` of Roboflow's COCO; "" if they tell none.
    """
    folders, stem = _place(file)
    found = _ROBOFLOW.fullmatch(stem) or _AUGMENTOR.fullmatch(stem)
    name = PurePosixPath(told.replace("\\", "/")).stem or (found[1] if found else stem)
    return "/".join([*folders, name])


def stem_of(file: str, told: str = "") -> str:
    """Return what ``group_by=stem`` groups by: the source without marks of copies, and without a last number.

    The number stays if no earlier one is left: IMG_7_2 becomes IMG_7, which stays as it is.
    """
    *folders, name = source_of(file, told).split("/")
    found = _MARK_BEHIND.fullmatch(name)
    name = found[1] if found else name
    found = _LAST_NUMBER.fullmatch(name)
    return "/".join([*folders, found[1] if found else name])


def shared_source_links(files: Sequence[str], told: Mapping[str, str]) -> IntArray:
    """Return pairs of photos that link all those of one source, by their names; int64 (pairs, 2), i < j.

    files: paths of the photos in their dataset. told: path → the source's name, where the annotations tell it.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, source in enumerate(_sources(files, told)):
        rows_of[source].append(row)
    shared = [rows for rows in rows_of.values() if len(rows) <= _MOST_COPIES]
    links = [(rows[0], row) for rows in shared for row in rows[1:]]
    return np.array(sorted(links), np.int64).reshape(-1, 2)


def _sources(files: Sequence[str], told: Mapping[str, str]) -> list[str]:
    """Return what names each photo's source; photos that name none get their own path."""
    named = [source_of(file, told.get(file, "")) for file in files]
    plain = {_bare(file) for file in files}
    behind = [_behind(source) for source in named]
    copies = Counter(base for base in behind if base)
    sources = []
    for source, base in zip(named, behind, strict=True):
        is_copy = base in plain or (copies[base] > 1 and any(map(str.isdigit, PurePosixPath(base).name)))
        before = _before(source)
        sources.append(base if is_copy else before if before in plain else source)
    # 1.jpg and 1.png, or train/1.jpg and test/1.jpg, may be two photos: a plain name is no evidence by itself.
    evident = {one for one, file in zip(sources, files, strict=True) if one != _bare(file)}
    return [one if one in evident else file for one, file in zip(sources, files, strict=True)]


def _bare(file: str) -> str:
    folders, stem = _place(file)
    return "/".join([*folders, stem])


def _place(file: str) -> tuple[list[str], str]:
    """Return the folders of a photo that are no split's, and its name without suffix."""
    path = PurePosixPath(file)
    return [folder for folder in path.parts[:-1] if not split_folders([folder])], path.stem


def _behind(source: str) -> str:
    """Return a source without the marks of copies behind its name, "" if there are none."""
    *folders, name = source.split("/")
    found = _MARK_BEHIND.fullmatch(name)
    return "/".join([*folders, found[1]]) if found else ""


def _before(source: str) -> str:
    """Return a source without the marks of copies before its name, "" if there are none."""
    *folders, name = source.split("/")
    found = _MARK_BEFORE.fullmatch(name)
    return "/".join([*folders, found[1]]) if found else ""
