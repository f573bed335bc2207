"""TACO's annotations: fetched, and compared with those in use, which are never lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

from wastelens.data.annotations.coco import read_coco
from wastelens.data.annotations.layout import ANNOTATIONS
from wastelens.errors import AnnotationsError
from wastelens.system.console import say, warn
from wastelens.web.addresses import locate
from wastelens.web.client import Web
from wastelens.web.errors import NoNetwork, Unfetchable
from wastelens.web.files import sha256_of

MAX_BYTES = 50_000_000


class AnnotationsFile:
    """``annotations.json`` in a folder, and beside it older or newer versions as ``annotations.<digest>.json``.

    Attributes:
        path: the file in use.
    """

    def __init__(self, folder: Path, changed: Literal["keep", "update"]) -> None:
        self.path = folder / ANNOTATIONS
        self._update = changed == "update"
        self._draft, self._copy = folder / ".annotations.draft.json", folder / ".annotations.copy.json"

    def fetch(self, web: Web, url: str, setting: str) -> None:
        """Fetch the annotations, and report whether those in use differ.

        Args:
            web: the client to fetch with.
            url: of the published annotations.
            setting: the setting that holds the URL, for messages.

        Raises:
            AnnotationsError: there are none here and none available, or what was fetched is not COCO.
            NoNetwork: there are none here, and no host at all can be reached.
        """
        self._copy.unlink(missing_ok=True)  # left by a kill
        try:
            web.fetch_file(url, self._draft, max_bytes=MAX_BYTES)
        except (Unfetchable, NoNetwork) as error:  # the photos, elsewhere, may still be available
            fact = error.fact if isinstance(error, NoNetwork) else str(error)
            if self.path.exists():
                say(f"Cannot check whether the annotations have changed ({fact}); using those that are here.")
                return
            if isinstance(error, NoNetwork):
                raise
            raise AnnotationsError(
                f'The annotations are not available: {fact}. Try again later, or another URL with set="{setting}=URL".'
            ) from None
        self._use_draft(url, setting)

    def take(self, file: Path, url: str, setting: str) -> None:
        """Use a file that came with an archive as `fetch` uses what it fetches; it is moved.

        Raises:
            AnnotationsError: it is not COCO.
        """
        os.replace(file, self._draft)
        self._use_draft(url, setting)

    def _use_draft(self, url: str, setting: str) -> None:
        """Give the published annotations their name: in use if they are the first or wanted, otherwise beside."""
        try:
            read_coco(self._draft)
        except AnnotationsError as error:
            self._draft.unlink()
            what = str(error).removeprefix(f"{self._draft}: ")
            raise AnnotationsError(
                f"The annotations from {locate(url).shown} cannot be used, and nothing here was changed: {what} "
                f'Or give another URL with set="{setting}=URL".'
            ) from None
        newest = sha256_of(self._draft)
        here = sha256_of(self.path) if self.path.exists() else newest
        fact = f"The published annotations have changed: sha256 {here} here, {newest} there."
        if here == newest:
            os.replace(self._draft, self.path)
        elif not self._update:
            os.replace(self._draft, self._beside(newest))
            warn(
                f"{fact} Those here stay in use, the new ones are saved as {self._beside(newest).name}. "
                "To use them: -P annotations=update"
            )
        else:
            shutil.copyfile(self.path, self._copy)
            os.replace(self._copy, self._beside(here))
            os.replace(self._draft, self.path)
            say(f"{fact} The new ones are in use now, the old ones are saved as {self._beside(here).name}.")

    def _beside(self, sha256: str) -> Path:
        return self.path.with_name(f"annotations.{sha256[:8]}.json")
