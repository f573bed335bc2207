"""The photos of an explanation page, from their files where these still show what was prepared."""

from __future__ import annotations

import cv2
import numpy as np

from wastelens.data.photos.decode import BadPhotoError, DecodedPhoto, Photo, decode, read_photo
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.raw_files import is_unchanged

SHOWN_SIDE_PX = 320
COMPARED_SIDE_PX = 32
LARGEST_DIFFERENCE = 8.0  # grey levels on average; decoding at another size makes less than 2


class ShownPhotos:
    """A prepared dataset's photos, upright and in their own proportions, the longer side 320 px or another length.

    Attributes:
        gone: file name → why its file is not what was prepared any more; the cached square is shown instead, stretched
            back.
    """

    def __init__(self, dataset: PreparedDataset, side_px: int = SHOWN_SIDE_PX) -> None:
        self._side_px = side_px
        self.gone: dict[str, str] = {}
        files = dataset.raw_files
        self._files = dict(zip(files["file_name"], files.itertuples(index=False), strict=True))
        self._cache = dataset.photos
        self._max_megapixels = float(dataset.manifest["settings"]["max_megapixels"])
        self._rows = {str(row["file_name"]): row for row in dataset.frame.to_dict("records")}

    def __getitem__(self, file_name: str) -> Photo:
        """uint8 (height, width, 3)."""
        row = self._rows[file_name]
        try:
            decoded = self._original(file_name, self._cache[int(row["photo_index"])])
            square, width, height = decoded.pixels_0_255, decoded.width, decoded.height
        except BadPhotoError as error:
            self.gone[file_name] = str(error)
            square, width, height = self._cache[int(row["photo_index"])], int(row["width"]), int(row["height"])
        scale = self._side_px / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return np.asarray(cv2.resize(np.asarray(square), size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def _original(self, file_name: str, cached: Photo) -> DecodedPhoto:
        """Return a photo from its file, or raise BadPhotoError where the file is gone or shows another picture."""
        file = self._files.get(file_name)
        if file is None:
            raise BadPhotoError("its place is not known")
        decoded = decode(read_photo(file.path), self._side_px, self._max_megapixels)
        if not is_unchanged(file.path, file.size_bytes, file.modified_ns):  # a copy, or only touched, perhaps
            _check_same(decoded.pixels_0_255, cached)
        return decoded


def _check_same(square: Photo, cached: Photo) -> None:
    """Raise BadPhotoError where a file shows another picture than the cached one; both uint8, squares of any side."""
    side = min(len(square), len(cached), COMPARED_SIDE_PX)
    small = [cv2.resize(np.asarray(one), (side, side), interpolation=cv2.INTER_AREA) for one in (square, cached)]
    difference = np.abs(small[0].astype(np.int16) - small[1].astype(np.int16)).mean()
    if difference > LARGEST_DIFFERENCE:
        raise BadPhotoError("the file now shows a different picture")
