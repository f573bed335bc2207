"""A file that is on its way: ``NAME.part``, and beside it, in ``NAME.part.json``, what is needed to go on with it.

The note goes before the part gets its final name, so that no kill leaves one behind beside a whole file; a part without
a note is begun anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

_PIECE = 1 << 16


@dataclass(frozen=True)
class Version:
    """Which version of which file a part is of.

    Attributes:
        url: that was asked for.
        etag: as the server says; may be empty.
        validator: a strong ETag or a Last-Modified, to ask for the rest of this very version; empty: there is none.
        total: the whole file's size in bytes, where the server has told it.
    """

    url: str
    etag: str
    validator: str
    total: int | None


class Part:
    """The part of one file."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")

    def size_bytes(self) -> int:
        """How much there is."""
        with contextlib.suppress(FileNotFoundError):
            return self._path.stat().st_size
        return 0

    def version(self, url: str) -> Version | None:
        """What the part is of, if one can go on with it."""
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError, LookupError):
            note = json.loads(self._note.read_bytes())
            version = Version(**{field.name: note[field.name] for field in fields(Version)})
            total = version.total
            fits = isinstance(total, int) and self.size_bytes() <= total if total is not None else True
            if version.url == url and fits and version.validator and self.size_bytes() > 0:
                return version
        return None

    def begin(self, version: Version) -> BinaryIO:
        """Start from nothing."""
        self.discard()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("wb")
        if version.validator:
            self._note.write_text(json.dumps(asdict(version)), encoding="utf-8")  # torn by a kill, it is no note
        return file

    def go_on(self) -> BinaryIO:
        """Write behind what there is."""
        return self._path.open("ab")

    def digest(self) -> Any:
        """SHA-256 of what there is, to go on with."""
        digest = hashlib.sha256()
        with self._path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
        return digest

    def finish(self) -> None:
        """Give the file its name."""
        self._note.unlink(missing_ok=True)
        os.replace(self._path, self._target)

    def discard(self) -> None:
        """Remove it."""
        self._note.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def discard_unless_of_use(self, url: str) -> None:
        """Remove what one could not go on with."""
        if self.version(url) is None:
            self.discard()
