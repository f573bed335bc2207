"""COCO files: read whole or refused with one line that names file, record and fix; outlines judged one by one."""

from __future__ import annotations

import codecs
import json
import math
import os
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.factories import annotation, coco_dict, write_json

from wastelens.data.annotations.coco import (
    LARGEST_COORDINATE_PX,
    Image,
    annotations_by_image,
    flat_name,
    image_columns,
    read_coco,
)
from wastelens.data.annotations.frames import fit_to_photos
from wastelens.data.annotations.outlines import outlines_json
from wastelens.data.annotations.segmentation import outline
from wastelens.errors import AnnotationsError


def refusal(path):
    with pytest.raises(AnnotationsError) as caught:
        read_coco(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def refusal_of(tmp_path, content):
    return refusal(write_json(tmp_path / "annotations.json", content))


def changed(**parts):
    return {**coco_dict(), **parts}


def test_whole_file_is_read(tmp_path):
    content = coco_dict(images=3, annotations_per_image=2)
    content["annotations"][1]["iscrowd"] = 1
    dataset = read_coco(write_json(tmp_path / "annotations.json", content))
    assert [image.id for image in dataset.images] == [10, 11, 12]
    assert dataset.images[0] == Image(10, "batch_1/000000.jpg", 64, 48)
    assert [one.iscrowd for one in dataset.annotations] == [0, 1, 0, 0, 0, 0]
    assert [category.name for category in dataset.categories] == ["Drink can", "Glass bottle"]
    grouped = {image.id: [one.id for one in found] for image, found in annotations_by_image(dataset)}
    assert grouped == {10: [100, 101], 11: [102, 103], 12: [104, 105]}


def test_what_exporters_write_besides(tmp_path):
    content = coco_dict(images=3)
    for one, crowd in zip(content["annotations"], (True, None, 0), strict=True):
        one["iscrowd"] = crowd
    content["categories"][0].update(name=" Drink can ", supercategory=None)
    path = write_json(tmp_path / "annotations.json", content)
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    dataset = read_coco(path)
    assert dataset.categories[0].name == "Drink can"
    assert [bool(one.iscrowd) for one in dataset.annotations] == [True, False, False]
    assert len(image_columns(path)) == 3


def test_photos_without_annotations_are_kept(tmp_path):
    dataset = read_coco(write_json(tmp_path / "annotations.json", changed(annotations=[])))
    assert [found for _, found in annotations_by_image(dataset)] == [[], [], []]


def test_missing_empty_and_folder(tmp_path):
    path = tmp_path / "annotations.json"
    assert "there is no such file. A dataset folder needs annotations.json." in refusal(path)
    for blank in (b"", b" \n\t"):
        path.write_bytes(blank)
        assert "the file is empty. Download or export the annotations again." in refusal(path)
    path.unlink()
    path.mkdir()
    assert "cannot be read (Is a directory). Repair the file or its permissions." in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        b"not json at all",
        b"<html>404</html>",
        b'{"images": [}',
        b"\xff\xd8\xff\xe0 a photo",
        json.dumps(coco_dict()).encode()[:-1] + b"}}",
        b'{"info": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_not_json(tmp_path, content):
    path = tmp_path / "annotations.json"
    path.write_bytes(content)
    assert re.search(r"not complete JSON \(.+\)\. Download or export the annotations again\.$", refusal(path))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_cut_in_half(tmp_path, share):
    path = tmp_path / "annotations.json"
    whole = json.dumps(coco_dict(images=20)).encode()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "not complete JSON" in refusal(path)


NEEDED = "A COCO file is an object with the lists 'images', 'annotations' and 'categories'."
PHOTO = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], f"holds a list. {NEEDED}"),
        ("text", f'holds "text". {NEEDED}'),
        (None, f"holds null. {NEEDED}"),
        ({"annotations": [], "categories": []}, f"has no 'images'. {NEEDED}"),
        ({"images": [], "categories": []}, f"has no 'annotations'. {NEEDED}"),
        ({"images": [], "annotations": []}, f"has no 'categories'. {NEEDED}"),
        (changed(images={}), f"'images' is an object, not a list. {NEEDED}"),
        (changed(images=["a.jpg"]), 'images[0] is "a.jpg". Write an object with keys and values, or remove it.'),
        (
            changed(images=[{"id": 1, "width": 1, "height": 1}]),
            "images[0] (id 1) has no 'file_name'. Write the photo's path below the dataset's folder.",
        ),
        (
            changed(images=[PHOTO, PHOTO | {"id": "IMG_2"}]),
            'images[1] (id "IMG_2"): \'id\' is "IMG_2". Write a whole number.',
        ),
        (changed(images=[PHOTO | {"id": 1.5}]), "images[0] (id 1.5): 'id' is 1.5. Write a whole number."),
        (
            changed(images=[PHOTO | {"width": [64]}]),
            "images[0] (id 1): 'width' is a list. Write a number of pixels, or leave it out.",
        ),
        (
            changed(images=[PHOTO | {"file_name": None}]),
            "images[0] (id 1): 'file_name' is null. Write the photo's path below the dataset's folder.",
        ),
        (changed(annotations=[{"category_id": 0}]), "annotations[0] has no 'image_id'. Write a whole number."),
        (changed(annotations=[annotation(7, 10, 0) | {"iscrowd": "no"}]), "'iscrowd' is \"no\". Write 0 or 1."),
        (changed(categories=[{"id": 0}]), "categories[0] (id 0) has no 'name'. Write a text."),
        (changed(categories=[{"id": 0, "name": None}]), "categories[0] (id 0): 'name' is null. Write a text."),
    ],
)
def test_json_that_is_not_coco_is_told_by_record_and_field(tmp_path, content, reason):
    assert refusal_of(tmp_path, content).endswith(reason)


def test_no_images(tmp_path):
    message = refusal_of(tmp_path, {"images": [], "annotations": [], "categories": []})
    assert "'images' is empty. Give annotations of at least one photo." in message


@pytest.mark.parametrize(("kind", "key", "twice"), [("image", "images", 11), ("category", "categories", 1)])
def test_ids_that_occur_twice(tmp_path, kind, key, twice):
    content = coco_dict()
    content[key].append(dict(content[key][1], file_name="other.jpg"))
    message = refusal_of(tmp_path, content)
    assert message.endswith(f"{kind} id {twice} occurs twice. Give every {kind} an id of its own.")


@pytest.mark.parametrize(("kind", "image", "category"), [("image", 99, 0), ("category", 10, 99)])
def test_annotations_of_unknown_things(tmp_path, kind, image, category):
    content = changed(annotations=[annotation(100, 10, 0), annotation(7, image, category)])
    message = refusal_of(tmp_path, content)
    assert message.endswith(f"annotation 7 is of unknown {kind} 99. Add that {kind} or remove the annotation.")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "batch_1/../../secret.jpg",
        "batch_1/..",
        "/etc/passwd",
        "//server/share/a.jpg",
        "..\\secret.jpg",
        "batch_1\\..\\..\\secret.jpg",
        "\\\\server\\share\\a.jpg",
        "C:\\photos\\a.jpg",
        "c:a.jpg",
        "a\0.jpg",
        "",
        "  ",
        ".",
        "./",
    ],
)
def test_names_that_leave_the_folder(tmp_path, name):
    content = coco_dict()
    content["images"][1]["file_name"] = name
    message = refusal_of(tmp_path, content)
    assert "image 11 has file_name '" in message
    assert message.endswith("leaves the dataset's folder. Use a path below it, like 'batch_1/000006.jpg'.")


@pytest.mark.parametrize("name", ["a..b.jpg", "...jpg", "batch 1/ü.jpg", "a/b/c/d.jpg", "batch_1\\a.jpg", "./a.jpg"])
def test_names_that_stay_below(tmp_path, name):
    content = coco_dict()
    content["images"][1]["file_name"] = name
    assert read_coco(write_json(tmp_path / "annotations.json", content)).images[1].file_name == name


@pytest.mark.parametrize(
    ("name", "flat"),
    [
        ("batch_1/000006.jpg", "batch_1_000006.jpg"),
        ("batch_1\\000006.jpg", "batch_1_000006.jpg"),
        ("./a//b.jpg", "a_b.jpg"),
        ("a.jpg", "a.jpg"),
    ],
)
def test_flat_name(name, flat):
    assert flat_name(name) == flat


def test_two_photos_of_one_flat_name(tmp_path):
    content = coco_dict()
    content["images"][0]["file_name"], content["images"][2]["file_name"] = "a/b_c.jpg", "a_b/c.jpg"
    message = refusal_of(tmp_path, content)
    assert message.endswith("'a/b_c.jpg' and 'a_b/c.jpg' both become 'a_b_c.jpg'. Rename one of them.")


@pytest.mark.parametrize(
    ("one", "other"), [("a/b.jpg", "a\\b.jpg"), ("a.jpg", "./a.jpg"), ("a//b.jpg", "a/b.jpg"), ("a.jpg", "a.jpg")]
)
def test_one_photo_under_two_ids_has_the_objects_of_both(tmp_path, one, other):
    content = coco_dict()
    content["images"][0]["file_name"], content["images"][2]["file_name"] = one, other
    content["annotations"].append(annotation(7, 12, 1))  # besides the can, which both have outlined
    path = write_json(tmp_path / "annotations.json", content)
    dataset = read_coco(path)
    assert [image.id for image in dataset.images] == [10, 11]
    assert [(found.id, found.image_id) for found in dataset.annotations] == [(100, 10), (101, 11), (7, 10)]
    assert dataset.notes == (
        f"{path}: 1 photo is listed under two ids, the first {one} under 10 and 12; the objects of both were put "
        "together.",
    )
    content["images"][2]["width"] = 65
    assert f"the photo {other} has two images, ids 10 and 12, of 64 x 48 and 65 x 48 pixels" in refusal_of(
        tmp_path, content
    )


def test_ids_as_text_or_with_a_point_and_names_as_numbers_are_read_as_meant(tmp_path):
    content = coco_dict()
    for kind in ("images", "annotations", "categories"):
        for place, one in enumerate(content[kind]):
            one["id"] = str(one["id"]) if place % 2 else float(one["id"])
    for one in content["annotations"]:
        one.update(image_id=f"{one['image_id']}", category_id=float(one["category_id"]), iscrowd=None)
    content["categories"][0].update(name=7, supercategory=1)
    content["images"][0].update(file_name=1234, width="64", height=48.0)
    dataset = read_coco(write_json(tmp_path / "annotations.json", content))
    assert dataset.images[0] == Image(10, "1234", 64, 48)
    assert [(one.id, one.image_id, one.category_id) for one in dataset.annotations] == [
        (100, 10, 0),
        (101, 11, 1),
        (102, 12, 0),
    ]
    assert (dataset.categories[0].name, dataset.categories[0].supercategory) == ("7", "1")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_any_encoding_of_unicode_is_read(tmp_path, encoding):
    content = coco_dict(categories=("Tüte", "Glass bottle"))
    path = tmp_path / "annotations.json"
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    assert read_coco(path).categories[0].name == "Tüte"
    assert len(image_columns(path)) == 3


@pytest.mark.parametrize("name", ["Tüte", "NaN Tüte"])
def test_another_encoding_is_told(tmp_path, name):
    path = tmp_path / "annotations.json"
    content = coco_dict(categories=(name, "Glass bottle")) | {"version": float("nan")}
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode("cp1252"))
    assert refusal(path).endswith("its text is not UTF-8. Save it as UTF-8.")
    path.write_text(path.read_text(encoding="cp1252"), encoding="utf-8")
    assert read_coco(path).categories[0].name == name


def test_damaged_utf16_is_told(tmp_path):
    path = tmp_path / "annotations.json"
    path.write_bytes(json.dumps(coco_dict()).encode("utf-16")[:-1])
    assert "its text is damaged (utf-16). Save it as UTF-8." in refusal(path)


@pytest.mark.parametrize("size", [{}, {"width": None, "height": None}, {"width": 64}])
def test_sizes_may_be_left_out(tmp_path, size):
    content = changed(images=[{"id": 10, "file_name": "a.jpg"} | size])
    content["annotations"] = []
    (image,) = read_coco(write_json(tmp_path / "annotations.json", content)).images
    assert math.isnan(image.height)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text("{")
    os.truncate(path, 30_000_000_000)  # sparse: it takes no space on the disk
    assert refusal(path).endswith("has 30.0 GB; the limit is 2 GB. Divide it into a file for each split.")
    path.write_bytes(b"")
    os.truncate(path, 30_000_000_000)  # nothing but zeros is no JSON, whatever its size
    assert "not complete JSON" in refusal(path)


def test_fields_in_fields_are_columns_too(tmp_path):
    content = coco_dict()
    content["images"][0]["extra"] = {"name": "IMG_0001.jpg", "user": {"id": 3}}
    columns = image_columns(write_json(tmp_path / "annotations.json", content))
    assert columns[0]["extra.name"] == "IMG_0001.jpg"
    assert columns[0]["extra.user.id"] == 3


# Without a limit on their time, as no test may depend on the clock: quadratic, these would run for hours.
@pytest.mark.parametrize("text", [rb'"' + rb"\"" * 2_000_000, b"NaN " * 500_000, b"[" * 2_000_000, b'{"images": ["'])
def test_long_damaged_texts_are_refused_in_linear_time(tmp_path, text):
    path = tmp_path / "annotations.json"
    path.write_bytes(b'{"a": ' + text)
    assert "not complete JSON" in refusal(path)


def test_nan_and_infinity_of_pythons_writer_are_read_and_texts_left_alone(tmp_path):
    content = coco_dict()
    content["annotations"][0]["segmentation"] = [[float("nan"), 1, float("-inf"), 2, 3, 4]]
    content["annotations"][1]["area"] = float("inf")
    content["images"][0]["file_name"] = 'a NaN , "Infinity] NaN ].jpg'
    content["images"][0]["group"] = "[NaN]"
    path = write_json(tmp_path / "annotations.json", content)
    dataset = read_coco(path)
    assert dataset.images[0].file_name == content["images"][0]["file_name"]
    assert "not a finite number" in outline(dataset.annotations[0], dataset.images[0]).problem
    columns = image_columns(path)
    assert columns[0]["group"] == "[NaN]"
    assert [row["id"] for row in columns] == [10, 11, 12]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


ODD = st.one_of(
    JSON,
    st.sampled_from(["1", "1.0", " 1 ", "", "nan", "null", 1.0, 1.5, -1, 2**31, 2**63, 2**64, 10**30, 1e308, True]),
    st.integers(1, 80).map(nested),
    st.sampled_from(["../a.jpg", "a\0.jpg", "C:\\a.jpg", "é.jpg", "\x1b[31m.jpg", "a\n.jpg", "x" * 400]),
    st.lists(st.integers(-5, 100) | st.floats() | st.none(), max_size=9),
    st.fixed_dictionaries(
        {"size": st.just([48, 64]), "counts": st.text(max_size=9) | st.lists(st.integers(), max_size=4)}
    ),
)
SAVED_AS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1")


def mutate(data, content):
    """Change, drop, add or double something of one record, or a whole section."""
    section = data.draw(st.sampled_from(sorted(content)))
    records = content[section]
    kind = data.draw(st.sampled_from(["field"] * 6 + ["drop a field", "drop a record", "double a record", "section"]))
    if kind == "section":
        content[section] = data.draw(ODD)
    if kind == "section" or not isinstance(records, list) or not records:
        return
    place = data.draw(st.integers(0, len(records) - 1))
    record = records[place]
    if kind == "drop a record":
        del records[place]
    elif kind == "double a record":
        records.append(dict(record) if isinstance(record, dict) else record)
    elif isinstance(record, dict) and record:
        key = data.draw(st.sampled_from(sorted(record)))
        if kind == "field":
            record[key] = data.draw(ODD)
        else:
            del record[key]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_changed_file_is_read_as_it_was_meant_or_refused_in_one_line(tmp_path_factory, data):
    content = coco_dict(annotations_per_image=2)
    content["annotations"][1]["segmentation"] = {"size": [48, 64], "counts": [0, 48 * 64]}
    content["annotations"][2]["segmentation"] = []
    for _ in range(data.draw(st.integers(1, 3))):
        mutate(data, content)
    raw = json.dumps(content, ensure_ascii=data.draw(st.booleans())).encode(
        data.draw(st.sampled_from(SAVED_AS)), "replace"
    )
    if data.draw(st.integers(0, 9)) == 0:
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    path = tmp_path_factory.getbasetemp() / "changed.json"
    path.write_bytes(raw)
    try:
        dataset = read_coco(path)
    except AnnotationsError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        assert "msgspec" not in message
        return
    assert len({flat_name(image.file_name) for image in dataset.images}) == len(dataset.images)
    image_columns(path)
    fitted = fit_to_photos(dataset, lambda name: path.parent / "no photo", "upright").dataset
    for image, found in annotations_by_image(fitted):
        if 1 <= image.width <= LARGEST_COORDINATE_PX and 1 <= image.height <= LARGEST_COORDINATE_PX:
            for one in found:
                drawn = outline(one, image)
                assert bool(drawn.problem) != (0 < drawn.area_share <= 1)
    usable = [flat_name(image.file_name) for image in fitted.images if 1 <= min(image.width, image.height) <= 1e6]
    kept = path.with_name("outlines.json")
    kept.write_bytes(outlines_json(fitted, usable))
    if usable:
        again = read_coco(kept)
        assert all(not outline(one, image).problem for image, of in annotations_by_image(again) for one in of)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(raw)
    with pytest.raises(AnnotationsError):
        read_coco(path)
