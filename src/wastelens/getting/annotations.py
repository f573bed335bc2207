"""TACO's annotations: fetched once, then compared with those upstream; none that were here are ever lost."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from wastelens.data.annotations.coco import read_coco
from wastelens.data.annotations.layouts.coco_files import ANNOTATIONS
from wastelens.errors import AnnotationsError
from wastelens.getting.digest import sha256_of
from wastelens.system.console import say, warn
from wastelens.web.addresses import locate
from wastelens.web.client import Web
from wastelens.web.errors import NoNetwork, Unfetchable

MAX_BYTES = 50_000_000
_DRAFT = ".annotations.draft.json"
_COPY = ".annotations.copy.json"
_SEEN = ".annotations.seen.json"


@dataclass(frozen=True)
class _Seen:
    """The newest annotations that were upstream: from where, the server's name for the version, and the SHA-256."""

    url: str = ""
    etag: str = ""
    sha256: str = ""


class AnnotationsFile:
    """``annotations.json`` in a folder, and beside it, as ``annotations.<digest>.json``, others that were or came.

    Attributes:
        path: the file in use.
    """

    def __init__(self, folder: Path, changed: Literal["keep", "update"]) -> None:
        self.path = folder / ANNOTATIONS
        self._update = changed == "update"
        self._draft, self._copy = folder / _DRAFT, folder / _COPY
        self._seen_path = folder / _SEEN

    def ask(self, web: Web, url: str, setting: str) -> None:
        """Fetch the annotations, or find out whether they have changed.

        Args:
            web: what fetches.
            url: of the annotations upstream.
            setting: the key of the configuration that has the URL, for messages.

        Raises:
            AnnotationsError: none are here, and none to be had; or what came is not COCO, and what was here stays.
            NoNetwork: none are here, and nobody at all can be reached.
        """
        for left_by_a_kill in (self._draft, self._copy):
            left_by_a_kill.unlink(missing_ok=True)
        seen = self._seen()
        known = seen.url == url and self._has(seen.sha256)
        try:
            fetched = web.fetch_if_changed(url, self._draft, seen.etag if known else "", max_bytes=MAX_BYTES)
        except Unfetchable as error:
            if not self.path.exists():
                raise AnnotationsError(
                    f'The annotations are not to be had: {error}. Try later, or elsewhere with set="{setting}=URL".'
                ) from None
            _say_unknown(str(error))
            return
        except NoNetwork as error:  # the photos, elsewhere, may still be had
            if not self.path.exists():
                raise
            _say_unknown(error.fact)
            return
        if fetched is not None:
            self._accept_draft(locate(url).shown)
            seen = _Seen(url, fetched.etag, fetched.sha256)
        self._settle(seen)

    def take(self, file: Path, url: str) -> None:
        """The same with a file that came otherwise; it is moved.

        Raises:
            AnnotationsError: it is not COCO; what was here stays.
        """
        os.replace(file, self._draft)
        self._accept_draft(locate(url).shown)
        self._settle(_Seen(url, "", sha256_of(self._draft)))

    def _accept_draft(self, where: str) -> None:
        try:
            read_coco(self._draft)
        except AnnotationsError as error:
            self._draft.unlink()
            what = str(error).removeprefix(f"{self._draft}: ")
            raise AnnotationsError(f"What {where} sent cannot be used, nothing here is changed: {what}") from None

    def _settle(self, seen: _Seen) -> None:
        """Give the newest annotations their place: in use if they are the first, or wanted; otherwise beside."""
        if self._draft.exists():
            same = self.path.exists() and sha256_of(self.path) == seen.sha256
            os.replace(self._draft, self.path if same else self._beside(seen.sha256))
        if not self.path.exists():
            os.replace(self._beside(seen.sha256), self.path)
        self._seen_path.write_text(json.dumps(asdict(seen)) + "\n", encoding="utf-8")
        here = sha256_of(self.path)
        if here != seen.sha256:
            self._settle_change(here, seen.sha256)

    def _settle_change(self, here: str, newest: str) -> None:
        fact = f"The annotations have changed upstream: sha256 {here} here, {newest} there."
        if not self._update:
            warn(
                f"{fact} Those here stay in use, the new ones are kept beside as {self._beside(newest).name}. "
                "To take them: -P annotations=update"
            )
            return
        shutil.copyfile(self.path, self._copy)
        os.replace(self._copy, self._beside(here))
        os.replace(self._beside(newest), self.path)
        say(f"{fact} The new ones are taken, the old ones kept beside as {self._beside(here).name}.")

    def _beside(self, sha256: str) -> Path:
        return self.path.with_name(f"annotations.{sha256[:8]}.json")

    def _has(self, sha256: str) -> bool:
        """Whether the annotations of this digest are here, in use or beside."""
        places = (self.path, self._beside(sha256))
        return any(place.is_file() and sha256_of(place) == sha256 for place in places)

    def _seen(self) -> _Seen:
        try:
            return _Seen(**json.loads(self._seen_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # none yet, or torn by a kill: then they are fetched again
            return _Seen()


def _say_unknown(why: str) -> None:
    say(f"Whether the annotations have changed is not known, going on with those that are here: {why}.")
