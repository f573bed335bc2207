"""The page of doubtful labels in a real browser: keys, answers that survive, the file that it writes and reads."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.factories import MATERIALS, config, write_dataset
from tests.memory_tracking import MemoryTracker
from tests.project.browser import browser, console, needs_browser, requested, soon
from tests.project.test_browser import as_before, assert_fits, assert_readable, narrow, open_file

from wastelens.preparing.corrections import read_corrections
from wastelens.steps import labels, prepare

pytestmark = [pytest.mark.slow, needs_browser]

SHOWN = 12
CARDS = """
return [...document.querySelectorAll(".card")].filter((card) => card.checkVisibility())
  .map((card) => [card.dataset.file, card.dataset.name, card.dataset.label, card.dataset.answer ?? ""]);
"""
DECODED = """
const done = arguments[0];
const backgrounds = [...document.querySelectorAll(".card .frame")].map((element) => {
  const image = new Image();
  image.src = getComputedStyle(element).backgroundImage.slice(5, -2);
  return image;
});
Promise.all([...document.querySelectorAll("img"), ...backgrounds]
  .map((image) => image.decode().then(() => image.naturalWidth, () => 0))).then(done);
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small dataset of long names, two of whose photos are copies with different labels."""
    root = tmp_path_factory.mktemp("doubts")
    write_dataset(root / "litter", side=(96, 64))
    photos = root / "litter" / "batch_1"
    (photos / "000001.jpg").write_bytes((photos / "000000.jpg").read_bytes())
    where = f"data_folder={root / 'data'}"
    dataset = str(root / "litter")
    prepare.run(config("prepare", f"image_side_px=32 {where}", dataset=dataset), MemoryTracker())
    tracker = MemoryTracker()
    tiny = "train.network.widths=[4,8] train.fit.epochs=1 train.fit.batch_size=16"
    given = {"dataset": dataset, "model": "base", "shown": str(SHOWN)}
    labels.run(config("labels", f"{where} {tiny}", **given), tracker)
    return tracker.runs[0].folder / "labels" / "index.html"


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    with browser() as driver:
        yield driver


@pytest.fixture
def page(opened: Any, written: Path) -> Iterator[Any]:
    open_file(opened, written.as_uri())
    opened.execute_script("localStorage.clear()")
    opened.refresh()
    requested(opened)
    yield opened
    as_before(opened)


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def answers(driver: Any) -> list[str]:
    return [card[3] for card in driver.execute_script(CARDS)]


def saved(driver: Any) -> str:
    return str(driver.execute_script("return document.querySelector('textarea').value"))


def test_a_label_is_answered_by_one_key_and_the_next_one_has_the_focus(page: Any) -> None:
    press(page, "j", "r", "w", "u", "w")
    assert answers(page) == ["right", "wrong", "unsure", "wrong", *[""] * (SHOWN - 4)]
    assert page.find_element("css selector", ".saved").text == f"4 of {SHOWN} answered, 2 wrong"
    press(page, "k", "x")  # back to the fourth
    assert answers(page)[3] == ""
    press(page, "e", "o")
    assert set(page.execute_script("return document.body.className").split()) == {
        "without-outlines",
        "without-evidence",
    }


def test_buttons_say_what_they_do(page: Any) -> None:
    card = page.find_element("css selector", ".card")
    button = card.find_element("css selector", "[data-answer=wrong]")
    button.click()
    assert answers(page)[0] == "wrong"
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert answers(page)[0] == ""


def test_answers_survive_a_reload(page: Any) -> None:
    press(page, "j", "w", "r")
    page.refresh()
    assert answers(page)[:3] == ["wrong", "right", ""]
    page.execute_script("document.querySelector('.card').focus()")
    press(page, "x")
    page.refresh()
    assert answers(page)[:3] == ["", "right", ""]


def test_what_is_downloaded_is_what_prepare_reads(page: Any, tmp_path: Path) -> None:
    press(page, "j", "w", "u", "r")
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.find_element("css selector", ".download").click()
    file = tmp_path / "corrections.csv"
    soon(lambda: file.exists() and os.path.getsize(file), "the download")
    cards = page.execute_script(CARDS)[:3]
    read = read_corrections(str(file), MATERIALS)
    flipped = 1 - int(cards[0][2])
    assert read.label_of == {
        (cards[0][0], cards[0][1]): flipped,
        **{(name, material): int(label) for name, material, label, _ in cards[1:]},
    }
    with file.open(encoding="utf-8", newline="") as rows:
        assert [row["answer"] for row in csv.DictReader(rows)] == ["wrong", "unsure", "right"]
    assert saved(page) == file.read_text(encoding="utf-8")


def test_a_saved_file_is_loaded_again_with_rows_about_other_labels(page: Any, tmp_path: Path) -> None:
    press(page, "j", "w", "u", "r")
    before = saved(page)
    file = tmp_path / "corrections.csv"
    file.write_text(before + '"\'=other ""1"".jpg","glass","1","wrong"\n', encoding="utf-8")
    page.execute_script("localStorage.clear()")
    page.refresh()
    assert answers(page) == [""] * SHOWN
    page.find_element("css selector", "input[type=file]").send_keys(str(file))
    soon(lambda: answers(page)[0], "the loaded answers")
    assert answers(page)[:3] == ["wrong", "unsure", "right"]
    assert saved(page) == file.read_text(encoding="utf-8")
    assert "1 earlier rows" in page.find_element("css selector", ".saved").text
    without_answers = tmp_path / "by_hand.csv"
    name, material, label, _ = page.execute_script(CARDS)[4]
    without_answers.write_text(f"label,file_name,material\r\n{1 - int(label)},{name},{material}\r\n", encoding="utf-8")
    page.find_element("css selector", "input[type=file]").send_keys(str(without_answers))
    soon(lambda: answers(page)[4], "the row written by hand")
    assert answers(page)[:5] == ["wrong", "unsure", "right", "", "wrong"]


def test_another_file_is_refused(page: Any, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    page.find_element("css selector", "input[type=file]").send_keys(str(tmp_path / "other.csv"))
    soon(lambda: "no corrections.csv" in page.find_element("css selector", ".saved").text, "the refusal")
    assert answers(page) == [""] * SHOWN


def test_in_a_sandboxed_frame_answers_are_offered_as_text(page: Any, written: Path, tmp_path: Path) -> None:
    frame = tmp_path / "frame.html"
    frame.write_text(f'<iframe sandbox="allow-scripts" width="1200" height="900" src="{written.as_uri()}"></iframe>')
    open_file(page, frame.as_uri())
    page.switch_to.frame(page.find_element("css selector", "iframe"))
    page.find_element("css selector", ".card [data-answer=wrong]").click()
    assert answers(page)[0] == "wrong"
    page.find_element("css selector", ".download").click()
    assert "Copy the text below" in page.find_element("css selector", ".saved").text
    assert page.find_element("css selector", "textarea").is_displayed()
    assert len(saved(page).splitlines()) == 2
    page.switch_to.default_content()
    assert [message for message in console(page) if "download" not in message.lower()] == []


def test_filters(page: Any) -> None:
    from selenium.webdriver.support.select import Select

    press(page, "j", "w", "r")
    Select(page.find_element("css selector", "select[name=answer]")).select_by_visible_text("none yet")
    assert answers(page) == [""] * (SHOWN - 2)
    Select(page.find_element("css selector", "select[name=answer]")).select_by_visible_text("wrong")
    assert answers(page) == ["wrong"]


def test_it_asks_for_nothing_and_every_picture_is_one(page: Any, written: Path) -> None:
    assert {one for one in requested(page) if not one.startswith("data:")} <= {written.as_uri()}
    page.refresh()
    assert {one for one in requested(page) if not one.startswith("data:")} == {written.as_uri()}
    assert console(page) == []
    widths = page.execute_async_script(DECODED)
    assert len(widths) > 2 * SHOWN
    assert min(widths) > 0
    assert len(page.find_elements("css selector", ".pairs li")) == 1


def test_a_narrow_screen_scrolls_down_only(page: Any) -> None:
    narrow(page)
    page.execute_script("for (const element of document.querySelectorAll('details')) element.open = true;")
    page.execute_script("for (const one of document.querySelectorAll('.card')) one.style.contentVisibility = 'visible'")
    assert_fits(page)
    wide = "[...document.querySelectorAll('.card, .filters, .file-tools')].filter((e) => e.scrollWidth > e.clientWidth)"
    assert page.execute_script(f"return {wide}.length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(page: Any, scheme: str) -> None:
    press(page, "j", "w", "r", "u")
    assert_readable(page, scheme)
