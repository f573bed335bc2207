"""TACO's annotations: fetched once, then compared with the published ones; the user's file is never lost."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from wastelens.data.annotations.coco import read_coco
from wastelens.data.annotations.coco_files import ANNOTATIONS
from wastelens.errors import AnnotationsError
from wastelens.system.console import say, warn
from wastelens.web.addresses import locate
from wastelens.web.client import Web
from wastelens.web.errors import NoNetwork, Unfetchable
from wastelens.web.files import sha256_of

MAX_BYTES = 50_000_000


@dataclass(frozen=True)
class _Published:
    """The newest annotations that were published: their URL, the server's name for the version, and their SHA-256."""

    url: str = ""
    etag: str = ""
    sha256: str = ""


class AnnotationsFile:
    """``annotations.json`` in a folder, and beside it older or newer versions as ``annotations.<digest>.json``.

    Attributes:
        path: the file in use.
    """

    def __init__(self, folder: Path, changed: Literal["keep", "update"]) -> None:
        self.path = folder / ANNOTATIONS
        self._update = changed == "update"
        self._draft, self._copy = folder / ".annotations.draft.json", folder / ".annotations.copy.json"
        self._published_path = folder / ".annotations.seen.json"

    def fetch(self, web: Web, url: str, setting: str) -> None:
        """Fetch the annotations, or find out whether they have changed.

        Args:
            web: the client to fetch with.
            url: of the published annotations.
            setting: the setting that holds the URL, for messages.

        Raises:
            AnnotationsError: there are none here and none available, or what was fetched is not COCO.
            NoNetwork: there are none here, and no host at all can be reached.
        """
        for left_by_a_kill in (self._draft, self._copy):
            left_by_a_kill.unlink(missing_ok=True)
        published = self._published()
        known = published.url == url and self._has(published.sha256)
        try:
            fetched = web.fetch_if_changed(url, self._draft, published.etag if known else "", max_bytes=MAX_BYTES)
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
        if fetched is not None:
            self._check_draft(url, setting)
            published = _Published(url, fetched.etag, fetched.sha256)
        self._settle(published)

    def take(self, file: Path, url: str, setting: str) -> None:
        """Use a file that came with an archive as `fetch` uses what it fetches; it is moved.

        Raises:
            AnnotationsError: it is not COCO.
        """
        os.replace(file, self._draft)
        self._check_draft(url, setting)
        self._settle(_Published(url, "", sha256_of(self._draft)))

    def _check_draft(self, url: str, setting: str) -> None:
        try:
            read_coco(self._draft)
        except AnnotationsError as error:
            self._draft.unlink()
            what = str(error).removeprefix(f"{self._draft}: ")
            raise AnnotationsError(
                f"The annotations from {locate(url).shown} cannot be used, and nothing here was changed: {what} "
                f'Or give another URL with set="{setting}=URL".'
            ) from None

    def _settle(self, published: _Published) -> None:
        """Put the published annotations in their place: in use if they are the first or wanted, otherwise beside."""
        if self._draft.exists():
            same = self.path.exists() and sha256_of(self.path) == published.sha256
            os.replace(self._draft, self.path if same else self._beside(published.sha256))
        if not self.path.exists():
            os.replace(self._beside(published.sha256), self.path)
        self._published_path.write_text(json.dumps(asdict(published)) + "\n", encoding="utf-8")
        here = sha256_of(self.path)
        if here != published.sha256:
            self._settle_change(here, published.sha256)

    def _settle_change(self, here: str, newest: str) -> None:
        fact = f"The published annotations have changed: sha256 {here} here, {newest} there."
        if not self._update:
            warn(
                f"{fact} Those here stay in use, the new ones are saved as {self._beside(newest).name}. "
                "To use them: -P annotations=update"
            )
            return
        shutil.copyfile(self.path, self._copy)
        os.replace(self._copy, self._beside(here))
        os.replace(self._beside(newest), self.path)
        say(f"{fact} The new ones are in use now, the old ones are saved as {self._beside(here).name}.")

    def _beside(self, sha256: str) -> Path:
        return self.path.with_name(f"annotations.{sha256[:8]}.json")

    def _has(self, sha256: str) -> bool:
        """Tell whether the annotations with this digest are here, in use or beside."""
        places = (self.path, self._beside(sha256))
        return any(place.is_file() and sha256_of(place) == sha256 for place in places)

    def _published(self) -> _Published:
        try:
            return _Published(**json.loads(self._published_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # none yet, or torn by a kill: fetch them again
            return _Published()
