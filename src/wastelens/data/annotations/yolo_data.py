"""YOLO's names of classes and places of photos: ``data.yaml``, darknet's ``obj.data``, or ``classes.txt``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from wastelens.data.annotations.layout import name_below
from wastelens.data.annotations.materials import label_name
from wastelens.errors import AnnotationsError
from wastelens.system.files import read_text
from wastelens.system.plain_yaml import LARGEST_BYTES, load_yaml
from wastelens.system.text import one_line

YAML_SUFFIXES = (".yaml", ".yml")
DARKNET_SUFFIX = ".data"
CLASSES = "classes.txt"  # of Label Studio and labelImg
PHOTOS = "images"
SPLITS = ("train", "val", "test")
LEAVES = "leaves the dataset's folder"
_NOTHING = ("", "null", "~")
_PAIR = re.compile(r"\s*(\w{1,40})\s*=\s*(\S(?:.*\S)?)?\s*")


class YoloData(NamedTuple):
    """Class number → name; the photos' folders or lists of each split, below the root; numbers of an object's pose."""

    names: dict[int, str]
    places: dict[str, list[str]]
    key_point_numbers: int | None = None  # after the box of each object; None if nothing tells


def read_data(file: Path) -> YoloData:
    """Read a file of classes and places.

    Raises:
        AnnotationsError: it cannot be used.
    """
    if file.suffix.lower() in YAML_SUFFIXES:
        return _of_yaml(file)
    if file.suffix.lower() == DARKNET_SUFFIX:
        return _of_darknet(file)
    return YoloData(_of_lines(file), {"train": [PHOTOS if (file.parent / PHOTOS).is_dir() else "."]})


def is_data(file: Path) -> bool:
    """Return whether a YAML or darknet file names classes and a split."""
    try:
        is_darknet = file.suffix.lower() == DARKNET_SUFFIX
        content = _pairs(file) if is_darknet else load_yaml(file, as_texts=True)
    except (OSError, ValueError, AnnotationsError):
        return False
    return isinstance(content, dict) and "names" in content and any(split in content for split in (*SPLITS, "valid"))


def error(file: Path, fact: str, fix: str) -> AnnotationsError:
    """Return an error about a file of classes and places."""
    return AnnotationsError(f"{file}: {one_line(fact)}. {fix}.")


def _of_yaml(file: Path) -> YoloData:
    content = _loaded(file)
    names = _names(content.get("names"))
    if names is None:
        raise error(file, "has no 'names'", "Add the classes' names in their order: names: [plastic, paper]")
    base = _base(file, content.get("path"))
    places = {split: _places(file, content, split, base) for split in SPLITS}
    if not any(places.values()):
        if not (file.parent / PHOTOS).is_dir():
            raise error(file, "names no photos", "Add train: images/train and val: images/val")
        places = {"train": [PHOTOS]}
    return YoloData(names, places, _key_point_numbers(file, content.get("kpt_shape")))


def _loaded(file: Path) -> dict[str, Any]:
    try:
        content = load_yaml(file, as_texts=True)
    except OSError as reason:
        raise error(file, f"cannot be read ({reason.strerror})", "Repair the file or its permissions") from None
    except ValueError as reason:
        raise error(file, f"is not YAML ({reason})", "Export it again, or correct it") from None
    if not isinstance(content, dict):
        raise error(file, "holds no keys", "Write names:, train: and val: into it")
    return content


def _names(value: object) -> dict[int, str] | None:
    """Return class number → name, from a list or a dict; None if there are none."""
    pairs = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    names = {}
    for number, name in pairs:
        if not re.fullmatch(r"[0-9]{1,9}", str(number)) or not isinstance(name, str) or not label_name(name):
            return None
        names[int(number)] = label_name(name)
    return names or None


def _key_point_numbers(file: Path, value: object) -> int | None:
    """Return how many numbers follow the box of each object: ``kpt_shape`` is [points, 2 or 3 numbers each]."""
    if value is None:
        return None
    shape = [int(one) for one in value if re.fullmatch(r"[0-9]{1,4}", str(one))] if isinstance(value, list) else []
    if not isinstance(value, list) or len(shape) != len(value) or len(shape) != 2 or shape[1] not in (2, 3):
        raise error(
            file, f"'kpt_shape' is '{one_line(str(value), 60)}'", "Write [number of points, 2 or 3], or remove it"
        )
    return shape[0] * shape[1]


def _base(file: Path, path: object) -> str:
    """Return the folder that the splits' paths start from, below the root; '.' is the root.

    A path that is not there is one of the machine that the dataset was made on.
    """
    root = file.parent
    if path is None or path in (*_NOTHING, "."):
        return "."
    fix = "Remove it: the splits' paths start from the folder of data.yaml"
    if not isinstance(path, str) or "\0" in path:
        raise error(file, "'path' is not a path", fix)
    if not _exists(root / path) or (root / path).resolve() == root.resolve():
        return "."
    below = name_below(root, path)
    if below is None:
        raise error(file, f"'path' is '{path}', outside of {root}", fix)
    return below


def _places(file: Path, content: dict[str, Any], split: str, base: str) -> list[str]:
    """Return where a split's photos are, below the root."""
    value = content.get(split, content.get("valid") if split == "val" else None)
    texts = value if isinstance(value, list) else [] if value is None or value in _NOTHING else [value]
    places = [_place(file, split, text, base) for text in texts]
    there = [place for place in places if _exists(file.parent / place)]
    missing = next((place for place in places if place not in there), None)
    if missing is not None and split != "test":  # exporters name a test split even if they made none
        raise error(file, f"'{split}' is '{missing}', which is not there", "Put the photos there, or correct the path")
    return there


def _place(file: Path, split: str, text: object, base: str) -> str:
    if not isinstance(text, str):
        raise error(file, f"'{split}' is not a path", "Write a folder below the dataset's, like images/train")
    root = file.parent
    is_absolute = Path(text).is_absolute() or bool(PureWindowsPath(text).drive)
    below = name_below(root, text if is_absolute else f"{base}/{text}")
    if below is None and text.startswith("../") and text != "../":
        below = name_below(root, text.removeprefix("../"))  # Roboflow writes it beside train/images
    if below is None and is_absolute and not _exists(Path(text)):
        below = moved_here(root, text)
    if below is None:
        raise error(file, f"'{split}' is '{text}', which {LEAVES}", "Use a path below the folder")
    return below


def moved_here(root: Path, text: str, *, fewest: int = 1) -> str | None:
    """Return the longest end of another machine's path that is there below the root, of ``fewest`` parts or more."""
    parts = [part for part in PurePosixPath(text.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    ends = ("/".join(parts[start:]) for start in range(1, len(parts) - fewest + 1))
    return next((end for end in ends if name_below(root, end) is not None and _exists(root / end)), None)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _of_darknet(file: Path) -> YoloData:
    """Read lines of ``key = value``; paths may begin with a folder of the machine that trained, such as ``data/``."""
    content = _pairs(file)
    names = _there(file, "names", content.get("names", ""))
    if not names:
        raise error(file, "names no file of class names", "Add a line such as names = obj.names")
    of_split = {split: [content[key] for key in keys if content.get(key)] for split, keys in _DARKNET_KEYS.items()}
    places = {
        split: [place for text in texts if (place := _there(file, split, text))] for split, texts in of_split.items()
    }
    if not places["train"]:
        raise error(file, "names no list of photos", "Add a line such as train = train.txt")
    return YoloData(_of_lines(file.parent / names), places)


def _pairs(file: Path) -> dict[str, str]:
    pairs = (_PAIR.fullmatch(line) for line in _lines(file))
    return {pair[1].lower(): pair[2] or "" for pair in pairs if pair}


_DARKNET_KEYS = {"train": ("train",), "val": ("valid", "val"), "test": ("test",)}


def _there(file: Path, key: str, text: str) -> str:
    """Return a path of darknet's below the root, "" for none; one that is not there is an error, unless of a test."""
    if not text:
        return ""
    below = name_below(file.parent, text)
    found = below if below and _exists(file.parent / below) else moved_here(file.parent, text)
    if found is None and key in ("names", "train"):
        raise error(file, f"'{key}' is '{text}', which is not there", "Put the file there, or correct the path")
    return found or ""


def _of_lines(file: Path) -> dict[int, str]:
    """Return class number → name of a file with a name a line."""
    names = {number: label_name(line) for number, line in enumerate(_lines(file)) if label_name(line)}
    if not names:
        raise error(file, "names no class", "Write the classes' names in their order, one a line")
    return names


def _lines(file: Path) -> Iterable[str]:
    try:
        return read_text(file, LARGEST_BYTES).splitlines()
    except OSError as reason:
        raise error(file, f"cannot be read ({reason.strerror})", "Repair the file or its permissions") from None
    except ValueError as reason:
        raise error(file, str(reason), "Save it as UTF-8 text") from None
