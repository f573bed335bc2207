"""The photos that a setting ``photos=`` or ``dataset=`` means: names, in order, and how to read each."""

from __future__ import annotations

import contextlib
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Protocol, Self

from wastelens.data.annotations.layouts.label_csv import FILE_COLUMNS
from wastelens.data.annotations.sources import choose_source
from wastelens.data.annotations.tables import named_column, read_table
from wastelens.data.photos.decode import MAX_FILE_BYTES, BadPhotoError, read_photo
from wastelens.data.photos.files import (
    PHOTO_SUFFIXES,
    UNREAD_PHOTO_SUFFIXES,
    exists,
    files_below,
    find_photo,
    how_to_read,
)
from wastelens.data.prepared.opening import open_dataset
from wastelens.errors import ConfigError, DatasetError, InputError
from wastelens.system.files import read_text
from wastelens.system.text import one_line

_LONGEST_LIST_BYTES = 500_000_000
_LARGEST_RATIO = 1000  # of a file in an archive to its compressed bytes; photos hardly shrink at all

Read = Callable[[int], bytes]  # number of a photo → its file's bytes; raises BadPhotoError


class PhotoFiles(Protocol):
    """Photo files that can be read, on any machine that sees them.

    Attributes:
        names: of the photos, as tables name them, sorted.
    """

    @property
    def names(self) -> Sequence[str]: ...

    def part(self, start: int, stop: int) -> Self:
        """Return those from one number to another."""

    def opened(self) -> contextlib.AbstractContextManager[Read]:
        """Open them for the block."""

    @property
    def place(self) -> Path:
        """The path that a machine has to see to read them."""


@dataclass(frozen=True)
class PhotoList:
    """The photos to predict.

    Attributes:
        title: of the folder, list or dataset, which names the output.
        files: the photos.
        digest: of names, sizes and times: another one means other photos.
        notes: what else was found there, in sentences.
        dataset_digest: of the prepared dataset that they are of; "" for other photos.
    """

    title: str
    files: PhotoFiles
    digest: str
    notes: Sequence[str] = ()
    dataset_digest: str = ""

    def __len__(self) -> int:
        return len(self.files.names)


@dataclass(frozen=True)
class LooseFiles:
    """Files in folders; ``faults``: name → why it cannot be read as a photo."""

    names: Sequence[str]
    paths: Sequence[str]  # texts: a Path takes several times their memory
    faults: Mapping[str, str]

    def part(self, start: int, stop: int) -> LooseFiles:
        names = self.names[start:stop]
        faults = {name: self.faults[name] for name in names if name in self.faults}
        return LooseFiles(names, self.paths[start:stop], faults)

    @contextlib.contextmanager
    def opened(self) -> Iterator[Read]:
        yield self._read

    @property
    def place(self) -> Path:
        return Path(self.paths[0]).parent

    def _read(self, number: int) -> bytes:
        if fault := self.faults.get(self.names[number]):
            raise BadPhotoError(fault)
        return read_photo(Path(self.paths[number]))


@dataclass(frozen=True)
class ZippedFiles:
    """Files in a zip archive, which are read without being unpacked to a disk."""

    names: Sequence[str]
    archive: Path

    def part(self, start: int, stop: int) -> ZippedFiles:
        return replace(self, names=self.names[start:stop])

    @contextlib.contextmanager
    def opened(self) -> Iterator[Read]:
        with zipfile.ZipFile(self.archive) as archive:
            yield lambda number: _unzipped(archive, self.names[number])

    @property
    def place(self) -> Path:
        return self.archive


def photos_of(photos: str, dataset: str, data_folder: Path, leave: Path) -> PhotoList:
    """Return the photos that the settings name.

    Args:
        photos: a folder, a ``.txt`` or ``.csv`` list, a ``.zip``, or one photo; or "".
        dataset: raw data of a known layout, a prepared dataset, or its name; or "".
        data_folder: the folder that holds ``raw/`` and ``prepared/``.
        leave: a folder that is not searched, where it lies among the photos.

    Raises:
        ConfigError: neither or both are given.
        InputError: there is no such place, it cannot be read, or has no photo.
    """
    if bool(photos) == bool(dataset):
        what = "Both photos= and dataset= are given" if photos else "No photos are given"
        raise ConfigError(f"{what}. Give photos=FOLDER (or a list, or a .zip), or dataset=DATASET.")
    if dataset:
        return _of_dataset(dataset, data_folder)
    place = Path(photos)
    kinds = {".txt": _of_text, ".csv": _of_table, ".zip": _of_archive}
    if os.path.isdir(place):
        return _of_folder(place, leave)
    if not exists(place):
        raise DatasetError(f"photos='{photos}' is not there. Correct the path.")
    if place.suffix.lower() in PHOTO_SUFFIXES:
        return _loose(place.stem, {place.name: str(place)}, {})
    if place.suffix.lower() not in kinds:
        raise DatasetError(
            f"photos='{photos}' is no folder, no list (.txt, .csv), no .zip and no photo that can be read."
        )
    try:
        return kinds[place.suffix.lower()](place)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"photos='{photos}' cannot be read: it {_as_verb(str(reason))}. Correct it.") from None


def _as_verb(reason: str) -> str:
    return reason if reason.startswith(("is ", "has ")) else f"is no usable file ({one_line(reason, 150)})"


def _of_folder(folder: Path, leave: Path) -> PhotoList:
    paths: dict[str, str] = {}
    faults: dict[str, str] = {}
    others = Counter[str]()
    if leave.is_dir() and folder.samefile(leave):
        raise DatasetError(
            f"photos='{folder}' is the folder that predictions are written to. Write them elsewhere, such as "
            f"output={folder / 'predictions'}."
        )
    for path, error in files_below(folder, [leave]):
        name, suffix = path.relative_to(folder).as_posix(), path.suffix.lower()
        if error is not None:
            name = f"{name}/"
            faults[name] = f"a folder that cannot be read ({error.strerror})"
        elif suffix in UNREAD_PHOTO_SUFFIXES:
            faults[name] = f"a {suffix} file: {how_to_read(suffix)}"
        elif suffix not in PHOTO_SUFFIXES:
            others[suffix or "other"] += 1
            continue
        paths[name] = str(path)
    found = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(3))
    if not set(paths) - set(faults):
        what = found or f"{len(faults):,} that cannot be read, such as {next(iter(faults))}" if faults or found else ""
        raise DatasetError(f"photos='{folder}' has no photos in it or below it ({what or 'it is empty'}). Add photos.")
    notes = [f"Files that are no photos, not read: {sum(others.values()):,} ({found})."] if others else []
    return _loose(folder.resolve().name or "photos", paths, faults, notes)


def _loose(title: str, paths: Mapping[str, str], faults: Mapping[str, str], notes: Sequence[str] = ()) -> PhotoList:
    """Return a list of files, and their digest of sizes and times."""
    names = sorted(paths)
    digest = blake2b(digest_size=16)
    for name in names:
        try:
            status = os.stat(paths[name])
            # a folder changes whenever a hidden file in it does
            known = f"{status.st_size}|{status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else "no file"
        except OSError:
            known = "missing"
        digest.update(f"{name}\0{known}\0{faults.get(name, '')}\n".encode("utf-8", "surrogateescape"))
    files = LooseFiles(names, [os.path.abspath(paths[name]) for name in names], faults)
    return PhotoList(title, files, digest.hexdigest(), notes)


def _of_text(file: Path) -> PhotoList:
    lines = [line.strip() for line in read_text(file, _LONGEST_LIST_BYTES, errors="surrogateescape").splitlines()]
    return _of_names(file, [line for line in lines if line and not line.startswith("#")])


def _of_table(file: Path) -> PhotoList:
    table = read_table(file, errors="surrogateescape")
    column = named_column(table.header, FILE_COLUMNS)
    if not column:
        raise ValueError(f"has no column {', '.join(FILE_COLUMNS[:-1])} or {FILE_COLUMNS[-1]}")
    place = table.header.index(column)
    return _of_names(file, [cells[place] for _, cells in table.lines if len(cells) > place and cells[place]])


def _of_names(file: Path, names: Sequence[str]) -> PhotoList:
    """Return the photos of a list; relative names are below the list's own folder."""
    if not names:
        raise ValueError("has no names of photos")
    paths = {name: str(find_photo(file.parent, name.replace("\\", "/"))) for name in dict.fromkeys(names)}
    if not any(exists(Path(path)) for path in paths.values()):
        raise DatasetError(
            f"None of the {len(paths):,} photos in {file} was found (the first is {one_line(names[0], 100)}). Relative "
            "names start in the list's own folder."
        )
    repeated = len(names) - len(paths)
    notes = [f"Names that {file.name} has more than once: {repeated:,}; each gets one row."] if repeated else []
    return _loose(file.stem, paths, {}, notes)


def _of_archive(file: Path) -> PhotoList:
    digest, others, names = blake2b(digest_size=16), 0, set[str]()
    with zipfile.ZipFile(file) as archive:
        for info in sorted(archive.infolist(), key=lambda one: one.filename):
            path = PurePosixPath(info.filename)
            if info.is_dir() or any(_is_hidden(part) for part in path.parts):
                continue
            if path.suffix.lower() not in PHOTO_SUFFIXES | UNREAD_PHOTO_SUFFIXES:
                others += 1
                continue
            names.add(info.filename)
            digest.update(f"{info.filename}\0{info.file_size}|{info.CRC}\n".encode("utf-8", "surrogateescape"))
    if not names:
        raise ValueError("has no photos")
    notes = [f"Files in {file.name} that are no photos, not read: {others:,}."] if others else []
    return PhotoList(file.stem, ZippedFiles(sorted(names), file.absolute()), digest.hexdigest(), notes)


def _is_hidden(part: str) -> bool:
    return part == "__MACOSX" or (part.startswith(".") and part not in (".", ".."))


def _unzipped(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if (suffix := PurePosixPath(name).suffix.lower()) in UNREAD_PHOTO_SUFFIXES:
        raise BadPhotoError(f"a {suffix} file: {how_to_read(suffix)}")
    if info.file_size > min(MAX_FILE_BYTES, max(info.compress_size, 1) * _LARGEST_RATIO):
        raise BadPhotoError(f"a file of {info.file_size / 1e6:,.1f} MB in {info.compress_size:,} bytes of the archive")
    if info.flag_bits & 1:
        raise BadPhotoError("encrypted: unpack the archive, and give the folder")
    try:
        content = archive.read(info)
    except Exception as error:  # zlib, lzma, a wrong checksum, an unknown method
        raise BadPhotoError(f"damaged in the archive ({one_line(str(error), 100)})") from None
    if not content:
        raise BadPhotoError("an empty file")
    return content


def _of_dataset(dataset: str, data_folder: Path) -> PhotoList:
    """Return the photos of a prepared dataset, from their own files, or of raw data in a known layout."""
    dataset_digest = ""
    try:
        prepared = open_dataset(dataset, data_folder)
    except InputError:
        source = choose_source(dataset, data_folder)
        names = [image.file_name.replace("\\", "/") for image in source.layout.read().images]
        paths, title = {name: str(source.find_photo(name)) for name in names}, source.name
    else:
        files = prepared.raw_files
        of_name = dict(zip(files["file_name"], files["path"], strict=True))
        columns = (prepared.frame[name] for name in ("source_file", "file_name"))
        paths = {str(name): str(of_name[flat]) for name, flat in zip(*columns, strict=True) if flat in of_name}
        title, dataset_digest = prepared.name, prepared.digest
    if not any(exists(Path(path)) for path in paths.values()):
        raise DatasetError(
            f"None of the photos of dataset={dataset} is on this machine. Give photos=FOLDER, the folder they are in."
        )
    return replace(_loose(title, paths, {}), dataset_digest=dataset_digest)
