"""Photos without labels: each decodable one once, and no near-duplicate of val or test photos."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from tests.factories import blocks, image_bytes, write_dataset, write_photo

from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.photos import cache as photo_cache
from wastelens.data.photos.decode import decode
from wastelens.data.photos.files import PHOTO_SUFFIXES
from wastelens.data.prepared.dataset import draft
from wastelens.errors import DatasetError
from wastelens.training import unlabelled
from wastelens.training.unlabelled import NEAR_DUPLICATE, find_photos, load_unlabelled

SIDE = 32
NONE = np.empty((0, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Write six photos, two folders deep, among files that are not photos."""
    for number in range(6):
        write_photo(tmp_path / "web" / ("a", "b/c")[number % 2] / f"{number}.jpg", seed=number)
    (tmp_path / "web" / "readme.txt").write_text("text")
    return tmp_path / "web"


@pytest.fixture
def decoded(monkeypatch):
    """Record the content of each decode."""
    calls = []
    real = photo_cache.decode

    def counting(content, *arguments):
        calls.append(content)
        return real(content, *arguments)

    monkeypatch.setattr(photo_cache, "decode", counting)
    return calls


def load(folder, forbidden=NONE, **options):
    settings = {"side_px": SIDE, "max_problem_share": 0.3, "workers": 1, "near_duplicate_distance": 6, **options}
    return load_unlabelled(folder, cache_folder=folder.parent / "cache", forbidden=forbidden, **settings)


def pixels_of(path):
    return decode(path.read_bytes(), SIDE).pixels_0_255


def reasons(found):
    return dict(found.problems.itertuples(index=False, name=None))


def test_every_photo_below_the_folder_in_the_order_of_names(folder):
    found = load(folder)
    assert found.names == ["a/0.jpg", "a/2.jpg", "a/4.jpg", "b/c/1.jpg", "b/c/3.jpg", "b/c/5.jpg"]
    assert found.rows.tolist() == list(range(6))
    for row, name in enumerate(found.names):
        np.testing.assert_array_equal(found.photos[row], pixels_of(folder / name))
    assert isinstance(found.photos, np.memmap)
    assert list(found.problems.columns) == ["file", "reason"]
    assert (len(found.problems), found.unusable, found.near_duplicates, found.repeats) == (0, 0, 0, 0)


def test_nothing_is_written_but_to_the_cache(folder, tmp_path):
    before = sorted(folder.rglob("*"))
    for path in (*before, folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    load(folder)
    assert sorted(folder.rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "web"]
    (kept,) = (tmp_path / "cache").iterdir()  # and no draft
    assert kept.name.startswith(f"web_{SIDE}px_")
    for path in (folder, *before):
        path.chmod(0o755)


def test_photos_are_known_by_their_suffix_in_any_case(tmp_path):
    for suffix in (*PHOTO_SUFFIXES, ".JPG", ".TiFF"):
        (tmp_path / f"photo{suffix}").write_text("")
    for name in ("jpg", ".jpg", "photo.txt", "photo.jpg.part", "photo.xcf"):
        (tmp_path / name).write_text("")
    found = find_photos(tmp_path)
    assert set(found.names) == {f"photo{suffix}" for suffix in (*PHOTO_SUFFIXES, ".JPG", ".TiFF")}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "TGA"])
def test_every_photo_suffix_can_be_decoded(tmp_path, kind):
    suffixes = [suffix for suffix, of in Image.registered_extensions().items() if of == kind]
    known = [suffix for suffix in suffixes if suffix in PHOTO_SUFFIXES]
    assert known
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / f"photo{known[0]}").write_bytes(image_bytes(blocks(np.random.default_rng(0), (64, 48)), kind))
    assert load(tmp_path / "web").unusable == 0


def test_hidden_files_and_folders_are_ignored(folder):
    write_photo(folder / ".thumbnails" / "1.jpg", seed=50)
    write_photo(folder / "a" / "._0.jpg", seed=51)
    assert len(find_photos(folder).names) == 6


def test_names_are_sorted_over_all_folders(folder):
    for name in ("z.jpg", "a.jpg", "0/1.jpg"):
        write_photo(folder / name)
    names = find_photos(folder).names
    assert names == sorted(names)
    assert (names[0], names[1], names[-1]) == ("0/1.jpg", "a.jpg", "z.jpg")


def test_links_in_a_circle_end_and_linked_folders_are_entered_once(folder, tmp_path):
    write_photo(tmp_path / "elsewhere" / "far.jpg", seed=60)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "linked again").symlink_to(tmp_path / "elsewhere")
    (folder / "b" / "up").symlink_to(folder)
    (folder / "b" / "further up").symlink_to(tmp_path)
    (folder / "b" / "self").symlink_to(folder / "b" / "self")
    names = find_photos(folder).names
    assert len(names) == 7
    assert "linked/far.jpg" in names


def test_broken_files_are_left_out_with_their_reasons(folder):
    (folder / "a" / "0.jpg").write_text("text")
    (folder / "b" / "gone.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    found = load(folder, max_problem_share=0.5)
    assert reasons(found) == {
        "a/0.jpg": "not an image",
        "b/gone.png": "missing",
        "pipe.jpg": "a pipe or device, not a file",
    }
    assert found.unusable == 3
    assert [found.names[row] for row in found.rows] == ["a/2.jpg", "a/4.jpg", "b/c/1.jpg", "b/c/3.jpg", "b/c/5.jpg"]


def test_too_many_broken_files_stop_it_and_what_was_decoded_stays(folder, decoded):
    for number in (0, 2):
        (folder / "a" / f"{number}.jpg").write_text("text")
    with pytest.raises(
        DatasetError, match=r"2 of 6 photos \(33\.3%\) .*max_problem_share=0\.3.*a/0\.jpg: not an "
    ) as error:
        load(folder)
    message = str(error.value)
    assert "\n" not in message
    listed = next(Path(word) for word in message.split() if word.endswith("index.json"))
    assert json.loads(listed.read_text())["problems"] == {"a/0.jpg": "not an image", "a/2.jpg": "not an image"}
    decoded.clear()
    assert len(load(folder, max_problem_share=0.34).rows) == 4
    assert decoded == []


def test_not_one_usable_photo(tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "0.jpg").write_text("text")
    with pytest.raises(DatasetError, match=r"1 of 1 photos \(100\.0%\)"):
        load(tmp_path / "web", max_problem_share=1.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a folder"),
        ("file", "is not a folder"),
        ([], r"no photos in it.*\(it is empty\)"),
        (["a.txt", "b.psd", ".c.jpg"], r"no photos in it.*\(2 other files\)"),
    ],
)
def test_folders_that_hold_no_photos(tmp_path, content, message):
    folder = tmp_path / "web"
    if content == "file":
        folder.write_text("text")
    elif content is not None:
        folder.mkdir()
        for name in content:
            (folder / name).write_text("text")
    with pytest.raises(DatasetError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "cache").exists()


def test_folder_that_cannot_be_read_is_listed(folder, monkeypatch):
    real = Path.iterdir

    def refusing(path):
        if path.name in refused:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "iterdir", refusing)
    refused = ["b"]
    found = load(folder)
    assert reasons(found) == {"b": "a folder that cannot be read (Permission denied)"}
    assert (len(found.rows), found.unusable) == (3, 0)
    refused = ["web"]
    with pytest.raises(DatasetError, match="cannot be read"):
        load(folder)


def turned_and_resaved(source, path, quarter_turns, mirrored, kind="JPEG", **options):
    """Save the photo again as someone else might have it: rotated, mirrored, enlarged."""
    with Image.open(source) as photo:
        picture = (ImageOps.mirror(photo) if mirrored else photo).rotate(90 * quarter_turns, expand=True)
        path.write_bytes(image_bytes(picture.resize((120, 90), Image.Resampling.BICUBIC), kind, **options))


def test_near_duplicates_of_val_and_test_photos_are_left_out_in_all_orientations(folder, tmp_path):
    judged = [write_photo(tmp_path / "judged" / f"{number}.jpg", seed=100 + number) for number in range(3)]
    forbidden = np.stack([pixels_of(path) for path in judged])
    copies = []
    for number, turns in enumerate((0, 1, 2, 3)):
        for mirrored in (False, True):
            copies.append(folder / f"copy_{turns}_{mirrored}.jpg")
            turned_and_resaved(judged[number % 3], copies[-1], turns, mirrored, quality=80)
    found = load(folder, forbidden)
    assert reasons(found) == {path.name: NEAR_DUPLICATE for path in copies}
    assert (found.near_duplicates, found.unusable) == (8, 0)
    assert [found.names[row] for row in found.rows] == [name for name in found.names if "copy" not in name]
    # They are left out only because they are forbidden.
    assert load(folder, forbidden[:0]).near_duplicates == 0
    assert {file for file, _ in reasons(load(folder, forbidden[2:])).items()} == {
        "copy_2_False.jpg",
        "copy_2_True.jpg",
    }


@pytest.mark.parametrize("compared_at_once", [1, 4, 4096])
def test_dataset_s_own_photos_give_back_the_training_photos_alone(tmp_path, monkeypatch, compared_at_once):
    monkeypatch.setattr(unlabelled, "_COMPARED_AT_ONCE", compared_at_once)
    coco = write_dataset(tmp_path / "litter", batches=4, photos_per_batch=5)
    names = [image["file_name"] for image in coco["images"]]
    cache = np.stack([pixels_of(tmp_path / "litter" / name) for name in names])
    split = np.random.default_rng(0).permutation(np.repeat(["train", "val", "test"], [10, 5, 5]))
    held_out = PhotoRows([(cache, np.flatnonzero(split == name)) for name in ("val", "test")])
    found = load(tmp_path / "litter", held_out)
    assert {found.names[row] for row in found.rows} == {names[k] for k in np.flatnonzero(split == "train")}
    assert set(reasons(found)) == {names[k] for k in np.flatnonzero(split != "train")}
    assert found.near_duplicates == 10
    np.testing.assert_array_equal(
        found.photos[found.rows], np.stack([cache[names.index(n)] for n in map(found.names.__getitem__, found.rows)])
    )


def test_only_near_duplicates_of_what_is_judged(folder):
    photos = np.array(load(folder).photos)
    with pytest.raises(DatasetError, match="all 6 usable photos in it are near-duplicates of val or test") as error:
        load(folder, photos)
    assert "\n" not in str(error.value)


def test_photos_that_are_equal_count_once_the_first_by_name(folder):
    (folder / "a" / "1 copy.jpg").write_bytes((folder / "b" / "c" / "1.jpg").read_bytes())
    drawn = blocks(np.random.default_rng(70), (64, 48))
    for name, kind in (("y.bmp", "BMP"), ("z.png", "PNG")):  # the same pixels in other formats
        (folder / name).write_bytes(image_bytes(drawn, kind))
    found = load(folder)
    assert reasons(found) == {"b/c/1.jpg": "the same photo as a/1 copy.jpg", "z.png": "the same photo as y.bmp"}
    assert found.repeats == 2
    assert [found.names[row] for row in found.rows] == sorted({*found.names} - {"b/c/1.jpg", "z.png"})
    # Copies of forbidden photos count as near-duplicates, not as repeats.
    forbidden = load(folder, np.stack([pixels_of(folder / "z.png")]))
    assert reasons(forbidden)["z.png"] == reasons(forbidden)["y.bmp"] == NEAR_DUPLICATE
    assert (forbidden.near_duplicates, forbidden.repeats) == (2, 1)


def test_digest_is_that_of_the_photos_learnt_from(folder, tmp_path):
    digest = load(folder).digest
    folder.rename(tmp_path / "other")
    assert load(tmp_path / "other").digest == digest
    assert load(tmp_path / "other", np.stack([pixels_of(tmp_path / "other/a/0.jpg")])).digest != digest
    write_photo(tmp_path / "other" / "a" / "0.jpg", seed=77)
    assert load(tmp_path / "other").digest != digest


def test_second_call_reuses_results_of_broken_files_too(folder, decoded):
    (folder / "a" / "0.jpg").write_text("text")
    first = load(folder)
    (kept,) = (folder.parent / "cache").iterdir()
    before = {path: path.stat().st_mtime_ns for path in (kept, *kept.iterdir())}
    decoded.clear()
    counts = []
    second = load(folder, progress=counts.append)
    assert decoded == []
    assert counts == [6]
    assert {path: path.stat().st_mtime_ns for path in (kept, *kept.iterdir())} == before
    np.testing.assert_array_equal(first.photos, second.photos)
    assert (first.rows.tolist(), reasons(first), first.digest) == (second.rows.tolist(), reasons(second), second.digest)


def test_only_what_changed_is_decoded_again(folder, decoded):
    first = load(folder)
    old = np.array(first.photos)
    write_photo(folder / "a" / "2.jpg", seed=200)
    write_photo(folder / "a" / "1.jpg", seed=201)  # new, which moves the later rows
    (folder / "b" / "c" / "5.jpg").unlink()
    decoded.clear()
    second = load(folder)
    assert sorted(decoded) == sorted((folder / "a" / f"{number}.jpg").read_bytes() for number in (1, 2))
    assert second.names == ["a/0.jpg", "a/1.jpg", "a/2.jpg", "a/4.jpg", "b/c/1.jpg", "b/c/3.jpg"]
    for row, name in enumerate(second.names):
        np.testing.assert_array_equal(second.photos[row], pixels_of(folder / name))
    np.testing.assert_array_equal(first.photos, old)  # users of the old array still have it


def test_photo_that_could_not_be_read_is_tried_again(folder, monkeypatch):
    real = photo_cache.read_photo

    def failing(path):
        if path.name == "4.jpg":
            raise photo_cache.BadPhotoError("cannot be read (Input/output error)")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(photo_cache, "read_photo", failing)
        assert reasons(load(folder)) == {"a/4.jpg": "cannot be read (Input/output error)"}
    assert reasons(load(folder)) == {}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_interrupted_decoding_resumes(folder, decoded, interruption):
    done = []

    def interrupt(count):
        done.append(count)
        if sum(done) == 4:
            raise interruption

    with pytest.raises(interruption):
        load(folder, progress=interrupt)
    decoded.clear()
    found = load(folder)
    assert decoded == [(folder / name).read_bytes() for name in found.names[4:]]
    for row, name in enumerate(found.names):
        np.testing.assert_array_equal(found.photos[row], pixels_of(folder / name))


@pytest.mark.parametrize("damage", ["index", "array", "fewer rows", "no array", "not a dict"])
def test_damaged_cache_is_rebuilt(folder, damage):
    load(folder)
    (kept,) = (folder.parent / "cache").iterdir()
    array, index = kept / f"photos_{SIDE}px.npy", kept / "index.json"
    if damage == "index":
        index.write_text(index.read_text()[:50])
    elif damage == "not a dict":
        index.write_text("[]")
    elif damage == "array":
        array.write_bytes(array.read_bytes()[:200])
    elif damage == "fewer rows":
        np.save(array, np.zeros((3, SIDE, SIDE, 3), np.uint8))
        (kept / f"photos_{SIDE}px.jsonl").unlink()
    else:
        array.unlink()
    found = load(folder)
    for row, name in enumerate(found.names):
        np.testing.assert_array_equal(found.photos[row], pixels_of(folder / name))


def test_caches_of_other_folders_and_sides_are_kept_separately(folder, tmp_path, decoded):
    write_photo(tmp_path / "other" / "web" / "0.jpg", seed=300)
    load(folder)
    load(folder, np.empty((0, 16, 16, 3), np.uint8), side_px=16)
    load_unlabelled(
        tmp_path / "other" / "web",
        cache_folder=tmp_path / "cache",
        side_px=SIDE,
        max_problem_share=0,
        workers=1,
        forbidden=NONE,
        near_duplicate_distance=6,
    )
    assert len(list((tmp_path / "cache").iterdir())) == 3
    decoded.clear()
    assert len(load(folder).rows) == 6
    assert decoded == []


def test_forbidden_photos_of_another_side_raise(folder):
    with pytest.raises(ValueError, match="not of side 32"):
        load(folder, np.zeros((1, 16, 16, 3), np.uint8))


def test_another_process_is_decoding_the_same_folder(folder):
    load(folder)
    (kept,) = (folder.parent / "cache").iterdir()
    write_photo(folder / "new.jpg", seed=400)
    with pytest.raises(DatasetError, match="Another") as error, draft(kept):
        load(folder)
    assert "\n" not in str(error.value)


def test_names_that_are_not_valid_text_can_be_written(tmp_path):
    folder = tmp_path / "web"
    write_photo(folder / "good.jpg")
    odd = os.fsencode(folder) + b"/\xff\nodd.jpg"
    try:
        Path(os.fsdecode(odd)).write_text("text")
    except OSError:
        pytest.skip("this file system has no such names")
    found = load(folder, max_problem_share=0.5)
    assert found.problems["file"].tolist() == ["\\udcff\\nodd.jpg"]
    found.problems.to_csv(tmp_path / "problems.csv", index=False)
    assert len(load(folder, max_problem_share=0.5).rows) == 1
