"""Other labels on the same photos: each against a loop over the objects, and files that are shared, never written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.factories import write_mapping

from wastelens.data.annotations.materials import MaterialMapping, read_mapping
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import ConfigError, MappingError
from wastelens.preparing.relabel import (
    other_mapping,
    read_as_text,
    relabelled_objects,
    relabelled_photos,
    share_file,
)

MATERIALS = ("glass", "paper", "metal")
OWN = [("Jar", "glass"), ("007", "paper"), ("NA", "paper"), ("Tin", "metal")]
OTHER = [("Jar", "metal"), ("007", "paper"), ("NA", "glass"), ("Tin", "metal")]
PHOTOS = 12


@pytest.fixture
def dataset(tmp_path: Path) -> PreparedDataset:
    """Twelve photos of up to three objects, the last without any, as the tables of a prepared dataset."""
    rng = np.random.default_rng(5)
    folder = tmp_path / "litter"
    folder.mkdir()
    write_mapping(folder / "materials.csv", OWN)
    names = [f"{row:03}" for row in range(PHOTOS)]
    objects = [(name, OWN[at]) for name in names[:-1] for at in rng.integers(0, len(OWN), rng.integers(1, 4))]
    frame = pd.DataFrame([(name, *one) for name, one in objects], columns=["file_name", "category", "material"])
    frame.assign(area_share=["", *rng.random(len(frame) - 1)]).to_csv(folder / "objects.csv", index=False)
    splits = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    folds = pd.DataFrame({"file_name": names, "fold_1": splits, "copies_1": 0, "fold_2": splits[::-1], "copies_2": 9})
    folds.to_csv(folder / "folds.csv", index=False)
    labels = pd.DataFrame({"file_name": names, "group": "NA", "split": splits, "photo_index": np.arange(PHOTOS)})
    shown = {material: set(frame.loc[frame["material"] == material, "file_name"]) for material in MATERIALS}
    labels = labels.assign(
        **{material: labels["file_name"].isin(shown[material]).astype(int) for material in MATERIALS}
    )
    manifest = {
        "name": "litter",
        "source": "/photos/litter",
        "materials": list(MATERIALS),
        "files": {},
        "counts": {"photos": PHOTOS, "materials": {}},
        "split": {"folds": 2, "rule": "batch", "largest_share_difference": 9.0},
    }
    return PreparedDataset(folder, manifest, labels)


def no_links(*_: object) -> None:
    raise OSError("not on this disk")


def mapping(folder: Path, rows: list[tuple[str, str]]) -> MaterialMapping:
    return read_mapping(write_mapping(folder / "other.csv", rows))


def test_labels_are_what_a_loop_over_the_objects_finds(tmp_path: Path, dataset: PreparedDataset) -> None:
    objects = relabelled_objects(dataset, mapping(tmp_path, OTHER))
    labelled = relabelled_photos(dataset, objects)
    by_category = dict(OTHER)
    expected = np.zeros((PHOTOS, len(MATERIALS)), dtype=np.uint8)
    for _, one in read_as_text(dataset.folder / "objects.csv").iterrows():
        expected[int(one["file_name"]), MATERIALS.index(by_category[one["category"]])] = 1
    assert not np.array_equal(expected, dataset.frame[list(MATERIALS)])
    assert np.array_equal(labelled.frame[list(MATERIALS)], expected)
    assert not expected[-1].any()
    unchanged = [name for name in dataset.frame if name not in MATERIALS]
    pd.testing.assert_frame_equal(labelled.frame[unchanged], dataset.frame[unchanged])
    assert list(labelled.frame) == list(dataset.frame)
    assert labelled.split().test.labels.tolist() == expected[-3:].tolist()


def test_objects_change_in_their_material_only(tmp_path: Path, dataset: PreparedDataset) -> None:
    objects = relabelled_objects(dataset, mapping(tmp_path, OTHER))
    assert objects["material"].tolist() == [dict(OTHER)[category] for category in objects["category"]]
    own = relabelled_objects(dataset, mapping(tmp_path, OWN))
    assert own.to_csv(index=False) == (dataset.folder / "objects.csv").read_text()


def test_a_material_of_no_object_is_in_no_photo(tmp_path: Path, dataset: PreparedDataset) -> None:
    objects = relabelled_objects(dataset, mapping(tmp_path, [(name, "glass") for name, _ in OWN[:-1]] + [OWN[-1]]))
    assert (relabelled_photos(dataset, objects).frame["paper"] == 0).all()


def test_another_order_of_the_same_materials_is_welcome(tmp_path: Path, dataset: PreparedDataset) -> None:
    path = write_mapping(tmp_path / "other.csv", OTHER[::-1])
    assert other_mapping(dataset, str(path)).materials != MATERIALS


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([*OTHER[:3], ("Tin", "wood")], ConfigError, "the materials metal, paper, glass, wood, but litter was"),
        ([("Jar", "wood"), *OTHER[1:3], ("Tin", "wood")], ConfigError, "prepared with glass, paper, metal. Mappings"),
        ([(name, "paper" if name == "Jar" else "glass") for name, _ in OTHER], ConfigError, "the materials paper, gl"),
        (OTHER[1:], MappingError, "/photos/litter/annotations.json: category 'Jar' has no material. Add a row to"),
        ([*OTHER, ("Jug", "glass")], MappingError, "'Jug' is not a category of /photos/litter/annotations.json."),
    ],
)
def test_mappings_that_cannot_be_compared(
    tmp_path: Path, dataset: PreparedDataset, rows: list[tuple[str, str]], error: type[Exception], words: str
) -> None:
    path = write_mapping(tmp_path / "other.csv", rows)
    with pytest.raises(error) as caught:
        other_mapping(dataset, str(path))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_mapping_is_named(dataset: PreparedDataset) -> None:
    with pytest.raises(MappingError, match=r"no material mapping 'predecesor'\. Did you mean 'predecessor'"):
        other_mapping(dataset, "predecesor")


@pytest.mark.parametrize("disk_has_links", [True, False])
@pytest.mark.parametrize("through_a_link", [True, False])
def test_a_shared_file_survives_the_first_ones_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk_has_links: bool, through_a_link: bool
) -> None:
    (tmp_path / "elsewhere").write_bytes(b"photos")
    first, folder = tmp_path / "first", tmp_path / "second"
    folder.mkdir()
    (first.symlink_to if through_a_link else first.hardlink_to)(tmp_path / "elsewhere")
    if not disk_has_links:
        monkeypatch.setattr(os, "link", no_links)
    share_file(first, folder)
    assert (folder / "first").samefile(first) == disk_has_links
    first.unlink()
    assert (folder / "first").read_bytes() == b"photos"
    assert not (folder / "first").is_symlink()


def test_what_an_interrupted_run_has_linked_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier, file, folder = tmp_path / "earlier", tmp_path / "photos.npy", tmp_path / "draft"
    earlier.write_bytes(b"the photos of another dataset")
    file.write_bytes(b"photos")
    folder.mkdir()
    (folder / "photos.npy").hardlink_to(earlier)
    monkeypatch.setattr(os, "link", no_links)
    share_file(file, folder)
    assert (folder / "photos.npy").read_bytes() == b"photos"
    assert earlier.read_bytes() == b"the photos of another dataset"
