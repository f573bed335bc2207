"""The report of ``predict`` in a real browser: light, dark, narrow, filters, keys, and no request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.factories import MATERIALS, config, log_colour_model, write_dataset
from tests.memory_tracking import MemoryTracker
from tests.project.browser import browser, console, needs_browser, requested, soon
from tests.project.test_browser import FAINTEST

from wastelens.figures.style import label_text
from wastelens.steps import predict

pytestmark = [pytest.mark.slow, needs_browser]

SHOWN = """
return [...document.querySelectorAll(".card")].filter((card) => card.checkVisibility())
  .map((card) => card.dataset.file);
"""
DECODED = """
const done = arguments[0];
const images = [...document.querySelectorAll("img")];
Promise.all(images.map((image) => image.decode().then(() => image.naturalWidth, () => 0))).then(done);
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an unproven model on 25 photos of one long name and one broken file."""
    root, tracker = tmp_path_factory.mktemp("report"), MemoryTracker()
    model = log_colour_model(tracker, root / "made", proven=False)
    write_dataset(root / "litter", batches=5, side=(96, 64))
    (root / "litter" / "annotations.json").unlink()
    (root / "litter" / "batch_1" / f"<script>alert(1)</script>{'long' * 20}.jpg".replace("/", "_")).write_bytes(b"x")
    chosen = {"model": model, "photos": str(root / "litter"), "output": str(root / "out"), "accept_unproven": "true"}
    predict.run(config("predict", "bootstrap_resamples=100", **chosen), tracker)
    return root / "out"


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "predictions.csv", keep_default_na=False)
    return table[table["problem"] == ""].reset_index(drop=True)


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    with browser() as driver:
        yield driver


@pytest.fixture
def page(opened: Any, folder: Path) -> Any:
    opened.get("about:blank")
    console(opened)
    requested(opened)
    opened.get((folder / "report.html").as_uri())
    soon(lambda: opened.find_elements("css selector", ".filters:not([hidden])"), "the filters")
    return opened


def choose(page: Any, name: str, text: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(page.find_element("css selector", f"select[name={name}]")).select_by_visible_text(text)


def press(page: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page).send_keys(*keys).perform()


def test_it_asks_for_nothing_and_says_what_the_model_is(page: Any, folder: Path) -> None:
    asked = {one for one in requested(page) if not one.startswith("data:")}
    assert asked == {(folder / "report.html").as_uri()}
    assert console(page) == []
    assert "UNPROVEN MODEL. COLLAPSED: as drawn." in page.find_element("css selector", ".unproven").text
    assert "<script>alert(1)<_script>" in page.find_element("css selector", ".problems").text
    assert min(page.execute_async_script(DECODED)) > 0


def test_the_least_sure_come_first_and_filters_meet(page: Any, rows: pd.DataFrame) -> None:
    margins = page.execute_script("return [...document.querySelectorAll('.card')].map((c) => Number(c.dataset.margin))")
    assert margins == sorted(margins)
    assert len(page.execute_script(SHOWN)) == len(rows)
    for material in MATERIALS[:2]:
        choose(page, "material", label_text(material))
        for decision in ("yes", "no"):
            choose(page, "decision", decision)
            wanted = rows.loc[rows[f"decision_{material}"] == decision, "file"]
            assert sorted(page.execute_script(SHOWN)) == sorted(wanted)
            assert page.find_element("css selector", "output").text == f"{len(wanted)} of {len(rows)} shown"
    choose(page, "decision", "yes or no")
    choose(page, "sort", "most probable first")
    order = rows.sort_values(f"probability_{MATERIALS[1]}", ascending=False, kind="stable")
    shown = page.execute_script(SHOWN)
    values = rows.set_index("file")[f"probability_{MATERIALS[1]}"]
    assert [values[name] for name in shown] == order[f"probability_{MATERIALS[1]}"].tolist()
    choose(page, "sort", "name")
    page.find_element("css selector", "input[name=file]").send_keys("BATCH_3")
    assert page.execute_script(SHOWN) == [name for name in rows["file"] if name.startswith("batch_3")]
    page.find_element("css selector", "input[name=file]").send_keys("nothing")
    assert page.find_element("css selector", ".nothing").is_displayed()
    page.find_element("css selector", "button[type=reset]").click()
    soon(lambda: len(page.execute_script(SHOWN)) == len(rows), "a reset")


def test_the_keyboard_does_it_all(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    names = page.execute_script(SHOWN)
    press(page, "j", "j", "k", "j")
    assert page.switch_to.active_element.get_attribute("data-file") == names[1]
    assert page.find_element("css selector", ".heat").is_displayed()
    press(page, "e")
    assert not page.find_element("css selector", ".heat").is_displayed()
    assert not page.find_element("css selector", "input[name=evidence]").is_selected()
    press(page, "e", Keys.TAB, Keys.ENTER)
    assert page.find_element("css selector", "dialog h2").text == names[1]
    press(page, Keys.RIGHT)
    assert page.find_element("css selector", "dialog h2").text == names[2]
    press(page, Keys.ESCAPE)
    assert not page.find_element("css selector", "dialog").is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_on_narrow_and_wide_screens(page: Any, scheme: str) -> None:
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    page.execute_script("for (const element of document.querySelectorAll('details')) element.open = true;")
    for width in (400, 1300):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wide = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        needed, given = page.execute_script(wide)
        assert needed <= given
        contrast, text = page.execute_script(FAINTEST)
        assert contrast >= 4.5, text
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_scripts_everything_is_there(page: Any, rows: pd.DataFrame) -> None:
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    page.refresh()
    cards = page.find_elements("css selector", ".card")
    assert len(cards) == len(rows)
    assert all(card.is_displayed() for card in cards)
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
