"""Requests to a served model: every form of a photo, one row's problem for a bad one, limits."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.factories import blocks, image_bytes

from wastelens.data.photos.decode import decode
from wastelens.models.requests import Limits, Request, RequestError, answer_frame, rows_of
from wastelens.models.server_requests import frame_of
from wastelens.system.decision_rule import DecisionRule

SIDE = 16
PIXELS = blocks(np.random.default_rng(0), (64, 48))
FILE = image_bytes(PIXELS, "PNG")
TEXT = base64.b64encode(FILE).decode()
SQUARE = decode(FILE, SIDE).pixels_0_255
RULE = DecisionRule({"glass": 0.4, "paper": 0.6})


def asked(request: Any, limits: Limits | None = None, allow_paths: bool = False) -> Any:
    return Request(rows_of(request), SIDE, limits, allow_paths).photos()


@pytest.mark.parametrize(
    "one",
    [
        FILE, bytearray(FILE), TEXT, f"data:image/png;base64,{TEXT}", "\n".join([TEXT[:76], TEXT[76:]]), {"b64": TEXT},
        {"image": FILE}, {"image": TEXT}, {"image": {"b64": TEXT}}, {"image": FILE, "path": None},
        {"image": float("nan"), "path": "", "b64": TEXT} | {"image": FILE}, PIXELS, Image.fromarray(PIXELS),
        Image.open(io.BytesIO(FILE)),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else type(value).__name__,
)  # fmt: skip
def test_every_form_of_a_photo_gives_the_same_pixels(one: Any) -> None:
    for request in (one, [one], [one, one], pd.Series([one])):
        photos, problems = asked(request)
        assert set(problems) == {""}
        for photo in photos:
            np.testing.assert_array_equal(photo, SQUARE)


@pytest.mark.parametrize(
    "request_",
    [
        pd.DataFrame({"image": [FILE, TEXT]}),
        pd.DataFrame({"0": [FILE, TEXT]}),
        pd.DataFrame({"image": [FILE, {"b64": TEXT}], "other": [1, 2]}, index=[7, 7]),
        {"image": [FILE, TEXT]},
        {"image": np.array([TEXT, TEXT])},
        np.array([TEXT, TEXT]),
        np.array([{"b64": TEXT}, {"b64": TEXT}]),
        [{"image": np.array(TEXT)}, {"image": np.array({"b64": TEXT})}],
        np.stack([PIXELS, PIXELS]),
        (FILE, FILE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_form_of_a_request_gives_its_rows(request_: Any) -> None:
    photos, problems = asked(request_)
    assert problems == ["", ""]
    np.testing.assert_array_equal(photos, np.stack([SQUARE, SQUARE]))


@pytest.mark.parametrize("side_px", [16, 64])
def test_a_jpeg_is_decoded_at_a_reduced_scale_and_its_image_is_not(side_px: int) -> None:
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    file = image_bytes(coarse.resize((640, 480), Image.Resampling.BICUBIC), "JPEG", quality=90)
    image = Image.open(io.BytesIO(file))
    (by_file, by_image, by_array), problems = Request(rows_of([file, image, np.asarray(image)]), side_px).photos()
    assert set(problems) == {""}
    np.testing.assert_array_equal(by_file, decode(file, side_px).pixels_0_255)
    np.testing.assert_array_equal(by_image, by_array)
    apart = np.abs(by_file.astype(float) - by_image)
    assert 0 < apart.mean() < 2  # 0.8 grey levels, measured
    assert apart.max() < 12  # 5, measured


def test_pillow_images_are_turned_upright_and_whitened_as_files_are() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.open(io.BytesIO(image_bytes(PIXELS, "PNG", exif=exif)))
    clear = Image.fromarray(np.dstack([PIXELS, np.zeros(PIXELS.shape[:2], np.uint8)]))
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    photos, problems = asked([turned, clear, deep, PIXELS[..., 0]])
    assert set(problems) == {""}
    upright = decode(image_bytes(np.rot90(PIXELS, 3), "PNG"), SIDE).pixels_0_255
    np.testing.assert_allclose(photos[0], upright, atol=1)
    assert (photos[1] == 255).all()
    np.testing.assert_array_equal(photos[2], decode(image_bytes(deep, "PNG"), SIDE).pixels_0_255)
    np.testing.assert_array_equal(photos[3], decode(image_bytes(PIXELS[..., 0], "PNG"), SIDE).pixels_0_255)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        *((nothing, "no photo") for nothing in (b"", "", None, 3, [1, 2], {}, {"b64": 3}, {"image": [1]}, {"path": 3})),
        (b"junk", "not an image"), ("junk!", "not base64"), ("anVuaw==", "not an image"), ("data:,", "empty file"),
        (FILE[:200], "damaged"), ({"path": "/etc/passwd"}, "may not open"), (PIXELS.astype(float), "array of float64"),
        (np.zeros((5, 40, 3), np.uint8), "too small"), (np.zeros((0, 0, 3), np.uint8), "too small"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else type(value).__name__,
)  # fmt: skip
def test_a_bad_row_costs_itself(bad: Any, reason: str) -> None:
    photos, problems = asked([FILE, bad, FILE])
    assert (problems[0], problems[2]) == ("", "")
    assert reason in problems[1]
    np.testing.assert_array_equal(photos, np.stack([SQUARE, SQUARE]))


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    bomb = image_bytes(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 100_000
    (problem,) = asked([bomb])[1]
    assert problem == "absurdly large: the limit is 100 megapixels"
    small = Limits(max_photo_megapixels=0.001)
    for photo in (FILE, PIXELS, Image.fromarray(PIXELS)):
        assert "absurdly large" in asked([photo], small)[1][0]


def test_a_request_has_limits_on_rows_bytes_and_pixels() -> None:
    with pytest.raises(RequestError, match="300 rows: send at most 256"):
        asked([FILE] * 300)
    many = Limits(max_request_megabytes=2.5 * len(FILE) / 1e6)
    for photo in (FILE, TEXT):
        photos, problems = asked([photo] * 4, many)
        assert len(photos) == 2
        assert [bool(problem) for problem in problems] == [False, False, True, True]
        assert "send fewer at a time" in problems[3]
    _, problems = asked([FILE, PIXELS, FILE], Limits(max_request_megapixels=0.004))
    assert [bool(problem) for problem in problems] == [False, False, True]


def test_limits_are_positive_numbers() -> None:
    assert Limits.of({"max_rows": 3, "allow_paths": False}) == Limits(max_rows=3)
    for wrong in ("3", True, 0, -1, None, float("nan")):
        with pytest.raises(ValueError, match="is no positive number"):
            Limits.of({"max_rows": wrong})


def test_paths_are_opened_only_where_they_are_allowed(tmp_path: Any) -> None:
    (tmp_path / "a.png").write_bytes(FILE)
    rows = pd.DataFrame({"path": [str(tmp_path / name) for name in ("a.png", "b.png", "\0")]})
    photos, problems = asked(rows, allow_paths=True)
    np.testing.assert_array_equal(photos[0], SQUARE)
    assert problems[:2] == ["", "missing"]
    assert "no path" in problems[2]
    assert all("allow_paths" in problem for problem in asked(rows)[1])


def test_paths_of_pathlib_are_photos_where_they_are_allowed(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(FILE)
    named = [{"path": file}, {"image": file}]
    for request in (file, [file, file], (file,), pd.Series([file]), pd.DataFrame({"image": [file]}), *named, named):
        photos, problems = asked(request, allow_paths=True)
        assert set(problems) == {""}
        np.testing.assert_array_equal(photos[-1], SQUARE)
        assert all("may not open" in problem for problem in asked(request)[1])


def test_only_who_may_open_files_is_told_that_a_text_names_one(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(FILE)
    texts = [str(file), str(tmp_path / "b.png"), "\0!", "!" * 100_000, TEXT]
    plain = "a text that is not base64"
    assert asked(texts)[1] == [*[plain] * 4, ""]
    hint = f"{plain}, but names a file: give it as 'path', or as a pathlib.Path"
    assert asked(texts, allow_paths=True)[1] == [hint, *[plain] * 3, ""]


@pytest.mark.parametrize("request_", [[], pd.DataFrame({"image": []}), np.zeros((0, 9, 9, 3), np.uint8)])
def test_a_request_without_rows_is_refused(request_: Any) -> None:
    with pytest.raises(RequestError, match="has no photo: give one row per photo"):
        asked(request_)


def test_a_frame_without_the_column_is_refused() -> None:
    with pytest.raises(RequestError, match="no column 'image'"):
        asked(pd.DataFrame({"a": [1], "b": [2]}))
    with pytest.raises(RequestError, match="differ in length"):
        asked({"image": [FILE], "path": ["a", "b"]})


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["other", "image"], "data": [[1, TEXT], [2, {"b64": TEXT}]]}},
        {"dataframe_split": {"columns": ["image"], "data": [[TEXT], TEXT], "index": [3, 4]}},
        {"dataframe_records": [{"image": TEXT}, {"image": {"b64": TEXT}, "path": None}]},
        {"inputs": [TEXT, {"b64": TEXT}]},
        {"inputs": {"image": [TEXT, {"b64": TEXT}]}},
        {"inputs": [{"image": TEXT}, {"image": {"b64": TEXT}}]},
        {"instances": [TEXT, TEXT]},
        {"instances": [{"b64": TEXT}, {"image": TEXT}]},
    ],
    ids=lambda body: next(iter(body)),
)
def test_the_servers_forms_give_a_frame(body: Any) -> None:
    frame = frame_of(json.dumps(body).encode(), Limits())
    assert frame.columns[0] == "image"
    photos, problems = asked(frame)
    assert problems == ["", ""]
    np.testing.assert_array_equal(photos, np.stack([SQUARE, SQUARE]))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "not JSON"), (b"\xff", "not JSON"), (b"[" * 100_000, "not JSON"), (b"[]", "must be a JSON object"),
        (b"{}", "must be a JSON object"), (b'{"inputs": [], "instances": []}', "must be a JSON object"),
        (b'{"dataframe_split": 3}', "must be an object with lists"),
        (b'{"inputs": "' + b"A" * 1_100_000 + b'"}', "longer"),
        (b'{"inputs": [' + b'"",' * 256 + b'""]}', "257 rows"),
        (b'{"inputs": {"image": [' + b"1," * 256 + b"1]}}", "257"),
        (b'{"dataframe_split": {"columns": ["photo"], "data": [["a"]]}}', "has no column 'image'"),
    ],
)  # fmt: skip
def test_other_bodies_are_refused_in_one_line(body: bytes, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as caught:
        frame_of(body, Limits(max_request_megabytes=0.001 if reason == "longer" else 1))
    assert "\n" not in str(caught.value)


def test_decisions_start_at_the_threshold() -> None:
    answer = answer_frame(np.array([[0.4, 0.59]], np.float64), RULE)
    assert answer["decision_glass"].tolist() == [True]
    assert answer["decision_paper"].tolist() == [False]
    assert answer["problem"].tolist() == [""]


def test_the_answer_of_a_bad_row_is_none_in_its_place() -> None:
    answer = answer_frame(np.array([[0.5, 0.5], [0.1, 0.9]]), RULE, ["", "not an image", ""])
    assert json.loads(json.dumps(answer.to_dict(orient="records"), allow_nan=False)) == [
        dict(zip(answer.columns, row, strict=True))
        for row in ([0.5, True, 0.5, False, ""], [None] * 4 + ["not an image"], [0.1, False, 0.9, True, ""])
    ]
    features = answer_frame(np.array([[1.0, 2.0]]), None, ["empty", ""])
    assert features.to_dict(orient="records") == [
        {"features": None, "problem": "empty"},
        {"features": [1.0, 2.0], "problem": ""},
    ]
