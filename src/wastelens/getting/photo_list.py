"""The photos that the annotations name, and where each is available."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from wastelens.data.annotations.coco import image_columns, read_coco
from wastelens.errors import AnnotationsError

NOT_STATED = "not stated"
_NAMES_OF_OTHER_FILES = re.compile(r"\..*|annotations[^/]*\.json|download\.csv[^/]*", re.IGNORECASE)


@dataclass(frozen=True)
class WantedPhoto:
    """A photo that the annotations name.

    Attributes:
        file_name: its path below the dataset's folder, with forward slashes.
        url: where to fetch it; empty if the annotations do not say.
        same_at: URLs from which the same photo at the same size may have been fetched before.
        width: as annotated, in pixels; may be nonsense.
        height: as annotated, in pixels; may be nonsense.
        licence: as the annotations state it.
    """

    file_name: str
    url: str
    same_at: frozenset[str]
    width: float
    height: float
    licence: str


def wanted_photos(
    annotations: Path, size: Literal["original", "640"], archive_url: str, *, from_archive: bool = False
) -> list[WantedPhoto]:
    """Return the photos of a COCO file with TACO's fields, sorted by name.

    Args:
        annotations: the file.
        size: which URL to use: that of the original, or that of the small copy for photos that have one.
        archive_url: of an archive of the originals.
        from_archive: use the archive for all of them.

    Raises:
        AnnotationsError: not COCO, or a file name that would replace another file of the folder.
    """
    columns = {int(image["id"]): image for image in image_columns(annotations)}
    photos = []
    for image in read_coco(annotations).images:
        name = PurePosixPath(image.file_name.replace("\\", "/")).as_posix()
        if _NAMES_OF_OTHER_FILES.fullmatch(name):
            raise AnnotationsError(
                f"{annotations}: image {image.id} has file_name '{image.file_name}', which is reserved. "
                "Use a name in a folder of photos, like 'batch_1/000006.jpg'."
            )
        fields = columns[image.id]
        original = _text(fields, "flickr_url")
        small = _text(fields, "flickr_640_url") if size == "640" and not from_archive else ""
        url = archive_url if from_archive else small or original
        same_at = frozenset({small}) if small else frozenset({original, archive_url})
        licence = _text(fields, "license") or NOT_STATED
        photos.append(WantedPhoto(name, url, same_at, image.width, image.height, licence))
    return sorted(photos, key=lambda photo: photo.file_name)


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return " ".join(value.split()) if isinstance(value, str) else ""
