"""The pages that people look at, in a real browser: the table of runs, a study's report, and the page of explanations.

Both pages are opened in MLflow's artifact tab, and as files of their own.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.project.browser import browser, console, mlflow_ui, needs_browser, requested, sent, soon
from tests.project.running import ROOT

from wastelens.figures.style import label_text

pytestmark = [pytest.mark.slow, needs_browser]

Pair = tuple[str, str]  # file name and heading, as a card shows them
MISPLACED = "misplaced"
METHODS = {"gradcam": "Grad-CAM", "shap": "SHAP (expected gradients)"}
# MLflow asks who is logged in; a server without accounts answers 404. Its menus resize more than a frame allows.
MLFLOW_S_OWN = re.compile(
    r"http://127\.0\.0\.1:\d+/(ajax-api/2\.0/mlflow/users/current - Failed to load resource: .*404"
    r"|static-files/.*ResizeObserver loop completed with undelivered notifications)"
)

FRAME = "iframe[sandbox]"
SHOWN = """
return [...document.querySelectorAll(".card")].filter((card) => card.checkVisibility())
  .map((card) => [card.querySelector(".file").title, card.querySelector("h3").textContent]);
"""
# Every picture of the page, decoded: its width in pixels, 0 where that fails.
DECODED = """
const done = arguments[0];
const images = [...document.querySelectorAll("img")];
const backgrounds = [...document.querySelectorAll(".frame, .bar i")].map((element) => {
  const image = new Image();
  image.src = getComputedStyle(element).backgroundImage.slice(5, -2);
  return image;
});
Promise.all([...images, ...backgrounds].map((image) => image.decode().then(() => image.naturalWidth, () => 0)))
  .then((widths) => done({images: widths.slice(0, images.length), backgrounds: widths.slice(images.length)}));
"""
# The lowest contrast of text with what lies behind it (WCAG 2: 4.5 is enough), and whose it is.
FAINTEST = """
const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
  .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
  .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const colour = parts(getComputedStyle(element).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
};
const written = [...document.querySelectorAll("body *")].filter((element) => element.checkVisibility()
  && [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
return written.map((element) => {
  const [one, other] = [light(parts(getComputedStyle(element).color)), light(behind(element))];
  return [(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), element.outerHTML.slice(0, 120)];
}).reduce((faintest, next) => next[0] < faintest[0] ? next : faintest);
"""


@dataclass(frozen=True)
class Explained:
    """Return the artifacts of ``explain`` in the model's run."""

    folder: Path

    @property
    def run_id(self) -> str:
        return self.folder.parents[1].name

    @property
    def page(self) -> str:
        return (self.folder / "index.html").as_uri()

    def scores(self, method: str = "gradcam") -> pd.DataFrame:
        """A row a card, in the order of the page."""
        scores = pd.read_csv(self.folder / "scores.csv")
        return scores[scores["method"] == method].reset_index(drop=True)


@dataclass(frozen=True)
class Gallery:
    """The page in the browser, as a user handles it."""

    driver: Any

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def choose(self, name: str, text: str) -> None:
        from selenium.webdriver.support.select import Select

        Select(self.find(f"select[name={name}]")).select_by_visible_text(text)

    def options(self, name: str) -> list[str]:
        return [option.text for option in self.find(f"select[name={name}]").find_elements("css selector", "option")]

    def tick(self, name: str) -> None:
        self.find(f"input[name={name}]").click()

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def shown(self) -> list[Pair]:
        """The cards that are to be seen; the page counts them too."""
        cards = [(name, heading) for name, heading in self.driver.execute_script(SHOWN)]
        total = len(self.driver.find_elements("css selector", ".card"))
        assert self.find("output").text == f"{len(cards)} of {total} shown"
        return cards

    def reset(self) -> None:
        """As when it was opened."""
        self.driver.execute_script("document.querySelector('dialog').close(); document.activeElement.blur();")
        self.find("button[type=reset]").click()
        soon(lambda: not self.driver.execute_script("return document.querySelector('.card[hidden]')"), "a reset")
        self.driver.execute_script("document.activeElement.blur(); scrollTo(0, 0);")


def pairs(scores: pd.DataFrame) -> list[Pair]:
    """The cards of these rows."""
    headings = [f"{label_text(row.material)}, {label_text(row.outcome)}" for row in scores.itertuples()]
    return list(zip(scores["file_name"], headings, strict=True))


def open_tab(driver: Any, address: str, explained: Explained) -> Gallery:
    """MLflow's artifact tab on the page of explanations, and into its frame."""
    driver.get(f"{address}/#/experiments/0/runs/{explained.run_id}/artifacts/explanations/index.html")
    (frame,) = soon(lambda: driver.find_elements("css selector", FRAME), "the frame of the artifact tab")
    driver.switch_to.frame(frame)
    soon(lambda: driver.find_elements("css selector", ".filters:not([hidden])"), "the gallery's filters")
    return Gallery(driver)


@pytest.fixture(scope="module")
def explained(filled_store: Path) -> Explained:
    (page,) = filled_store.glob("mlruns/0/*/artifacts/explanations/index.html")
    return Explained(page.parent)


@pytest.fixture(scope="module")
def store(filled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of this file's own, in which some of the models are above the controls; the artifacts are shared."""
    own = Path(shutil.copy(filled_store / "mlflow.db", tmp_path_factory.mktemp("store")))
    for run in found(own, "tags.step = 'train'")[::2]:
        client(own).set_tag(run.info.run_id, "above_controls", "true")
    return own


def client(store: Path) -> Any:
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{store}")


def found(store: Path, filter_string: str) -> list[Any]:
    """The runs that MLflow finds, the best first."""
    return list(client(store).search_runs(["0"], filter_string, order_by=["metrics.`test/macro_ap` DESC"]))


@pytest.fixture(scope="module")
def address(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_ui(store, tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="module")
def tab(address: str, explained: Explained) -> Iterator[Gallery]:
    with browser() as driver:
        yield open_tab(driver, address, explained)


@pytest.fixture
def gallery(tab: Gallery) -> Gallery:
    """The gallery in MLflow's artifact tab."""
    tab.reset()
    return tab


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    with browser() as driver:
        yield driver


@pytest.fixture
def page(opened: Any, explained: Explained) -> Iterator[Gallery]:
    """The gallery as a file of its own."""
    open_file(opened, explained.page)
    yield Gallery(opened)
    as_before(opened)


def open_file(driver: Any, address: str) -> None:
    """Forget earlier complaints and requests."""
    driver.get("about:blank")
    console(driver)
    requested(driver)
    driver.get(address)


def as_before(driver: Any) -> None:
    """The screen, its colours and scripts as they are without emulation."""
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def narrow(driver: Any) -> None:
    """A screen 400 pixels wide."""
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert driver.execute_script("return innerWidth") == 400


def assert_readable(driver: Any, scheme: str) -> None:
    """In light or dark colours, the page's own ones, with enough contrast everywhere."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    colour = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    brightness = [int(part) for part in re.findall(r"\d+", colour)]
    assert len(brightness) == 3
    assert max(brightness) < 50 if scheme == "dark" else min(brightness) > 200
    contrast, element = driver.execute_script(FAINTEST)
    assert contrast >= 4.5, element


def assert_fits(driver: Any) -> int:
    """The page scrolls down only; its width in pixels."""
    wide = "const root = document.scrollingElement; return [root.scrollWidth, root.clientWidth]"
    needed, given = driver.execute_script(wide)
    assert needed <= given
    return int(given)


def test_the_artifact_tab_shows_the_gallery(gallery: Gallery, explained: Explained) -> None:
    driver = gallery.driver
    assert gallery.find("h1").text == "base seed 3 @litter"
    assert gallery.shown() == pairs(explained.scores())
    driver.switch_to.default_content()
    frame = driver.find_element("css selector", FRAME)
    assert frame.is_displayed()
    assert frame.size["width"] > 300
    assert frame.size["height"] > 300
    assert {"index.html", "scores.csv", "settings.json"} <= set(driver.find_element("tag name", "body").text.split())
    driver.switch_to.frame(frame)


def test_the_material_filters(gallery: Gallery, explained: Explained) -> None:
    scores = explained.scores()
    found = {}
    for option in gallery.options("material")[1:]:
        gallery.choose("material", option)
        found[option] = gallery.shown()
    counts = scores["material"].value_counts()
    assert len(counts) > 1
    assert found == {
        f"{label_text(name)} ({count})": pairs(scores[scores["material"] == name]) for name, count in counts.items()
    }
    gallery.choose("material", "all")
    assert gallery.shown() == pairs(scores)


def test_the_outcome_filters(gallery: Gallery, explained: Explained) -> None:
    scores = explained.scores()
    found = {}
    for option in gallery.options("outcome")[1:]:
        gallery.choose("outcome", option)
        found[option] = gallery.shown()
    counts = scores["outcome"].value_counts()
    assert set(counts.index) == {"right", "missed", "false_alarm"}
    assert found == {
        f"{label_text(name)} ({count})": pairs(scores[scores["outcome"] == name]) for name, count in counts.items()
    }


def test_right_label_wrong_place(gallery: Gallery, explained: Explained) -> None:
    gallery.tick(MISPLACED)
    found = {}
    for method, title in METHODS.items():
        scores = explained.scores(method)
        right = scores[scores["outcome"] == "right"]
        found[method] = pairs(right[right["energy"] < 1])
        gallery.choose("method", title)
        assert gallery.shown() == found[method]
    assert 0 < len(found["gradcam"]) < len(right)
    assert found["gradcam"] != found["shap"]
    gallery.tick(MISPLACED)
    assert gallery.shown() == pairs(scores)


def test_filters_meet(gallery: Gallery, explained: Explained) -> None:
    scores = explained.scores()
    materials, outcomes = gallery.options("material")[1:], gallery.options("outcome")[1:]
    for material in materials:
        gallery.choose("material", material)
        for outcome in outcomes:
            gallery.choose("outcome", outcome)
            heading = ", ".join(text.rpartition(" (")[0] for text in (material, outcome))
            expected = [pair for pair in pairs(scores) if pair[1] == heading]
            assert gallery.shown() == expected
            assert gallery.find(".nothing").is_displayed() == (not expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("order", "score", "sign"),
    [
        ("probability, highest first", "probability", -1),
        ("energy, lowest first", "energy", 1),
        ("energy, highest first", "energy", -1),
    ],
)
def test_sorting(gallery: Gallery, explained: Explained, method: str, order: str, score: str, sign: int) -> None:
    scores = explained.scores(method)
    values = dict(zip(pairs(scores), sign * scores[score], strict=True))
    gallery.choose("method", METHODS[method])
    gallery.choose("sort", order)
    shown = gallery.shown()
    assert sorted(shown) == sorted(values)
    assert shown != list(values)
    assert_rising([values[pair] for pair in shown])
    gallery.choose("outcome", f"right ({(scores['outcome'] == 'right').sum()})")
    assert gallery.shown() == [pair for pair in shown if pair[1].endswith(", right")]
    gallery.choose("outcome", "all")
    gallery.choose("sort", "file order")
    assert gallery.shown() == list(values)


def assert_rising(values: Sequence[float]) -> None:
    """Unknown values stand last; the page rounds to four decimals."""
    unknown = [math.isnan(value) for value in values]
    assert unknown == sorted(unknown)
    assert all(one <= other + 1e-4 for one, other in itertools.pairwise(values) if not math.isnan(other))


def test_the_overlays_fade(gallery: Gallery) -> None:
    from selenium.webdriver.common.keys import Keys

    gallery.find("input[name=opacity]").send_keys(Keys.HOME)
    opacities = "return [...document.querySelectorAll('.frame img')].map((image) => getComputedStyle(image).opacity)"
    assert set(gallery.driver.execute_script(opacities)) == {"0"}


def test_the_keyboard(gallery: Gallery, explained: Explained) -> None:
    from selenium.webdriver.common.keys import Keys

    def here() -> Pair:
        return tuple(gallery.driver.execute_script(SHOWN.replace('.card")', '.card:focus")'))[0])

    def enlarged() -> str:
        dialog = gallery.find("dialog")
        return dialog.find_element("css selector", "h2").text if dialog.is_displayed() else ""

    cards = pairs(explained.scores())
    gallery.press("j")
    assert here() == cards[0]
    gallery.press("j", "j")
    assert here() == cards[2]
    gallery.press("k")
    assert here() == cards[1]
    gallery.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert here() == cards[2]
    outlines = gallery.find(".card:focus svg.outlines")
    assert outlines.is_displayed()
    gallery.press("o")
    assert not outlines.is_displayed()
    gallery.press("o")
    assert outlines.is_displayed()

    name, heading = cards[2]
    gallery.press(Keys.TAB, Keys.ENTER)
    assert enlarged() == f"Photo {name} with the outlines of its litter"
    gallery.press(Keys.ARROW_RIGHT)
    assert enlarged() == f"Grad-CAM evidence for {heading.partition(',')[0]} in {name}"
    gallery.press(Keys.ESCAPE)
    assert not enlarged()
    gallery.press(Keys.ENTER)
    assert enlarged().startswith("Grad-CAM evidence")
    gallery.press(Keys.ESCAPE)
    assert not enlarged()


def test_a_click_enlarges(gallery: Gallery) -> None:
    gallery.find("figure[data-method=shap] .frame").click()
    assert gallery.find("dialog h2").text.startswith("SHAP (expected gradients) evidence for ")
    (large,) = gallery.driver.find_elements("css selector", "dialog .frame")
    assert large.size["width"] > 2 * gallery.find("figure[data-method=shap] .frame").size["width"]
    gallery.find("dialog [data-close]").click()
    assert not gallery.find("dialog").is_displayed()


def test_nothing_leaves_the_machine_and_nothing_goes_wrong(address: str, explained: Explained, tmp_path: Path) -> None:
    with browser(net_log=tmp_path / "net.json") as driver:
        gallery = open_tab(driver, address, explained)
        gallery.tick(MISPLACED)
        gallery.press("j", "\ue004", "\ue007")
        assert gallery.find("dialog").is_displayed()
        complaints, addresses = console(driver), requested(driver)
        # What both logs are to find, they find: in the frame, and in a worker of MLflow's own page.
        driver.execute_script("console.error('planted'); new Image().src = 'http://planted.invalid/frame'")
        soon(lambda: "http://planted.invalid/frame" in requested(driver), "a request from the frame")
        soon(lambda: any("planted" in message for message in console(driver)), "an error from the frame")
        driver.switch_to.default_content()
        script = "const code = new Blob([`fetch('http://planted.invalid/worker').catch(() => postMessage(0))`]);"
        script += "new Worker(URL.createObjectURL(code)).onmessage = () => arguments[0]()"
        driver.execute_async_script(script)
    local = (f"{address}/", f"blob:{address}/", "data:", "blob:null/")
    assert [message for message in complaints if not MLFLOW_S_OWN.match(message)] == []
    assert any("/get-artifact?path=explanations%2Findex.html" in one for one in addresses)
    assert {one for one in addresses if not one.startswith(local)} == set()
    assert {one for one in sent(tmp_path / "net.json") if not one.startswith(local)} == {
        "http://planted.invalid/worker"
    }


def test_the_file_alone_asks_for_nothing(page: Gallery, explained: Explained) -> None:
    assert page.shown() == pairs(explained.scores())
    assert console(page.driver) == []
    asked = requested(page.driver)
    assert explained.page in asked
    assert {one for one in asked if not one.startswith("data:")} == {explained.page}


def test_every_picture_is_one(page: Gallery, explained: Explained) -> None:
    widths = page.driver.execute_async_script(DECODED)
    assert len(widths["images"]) == 2 * len(explained.scores())
    assert len(widths["backgrounds"]) == (3 + 2) * len(explained.scores())
    assert min(widths["images"] + widths["backgrounds"]) > 0


def test_a_narrow_screen_scrolls_down_only(page: Gallery) -> None:
    driver = page.driver
    narrow(driver)
    # All of it at once: cards out of sight are not laid out otherwise, and what is too wide in a card would be cut off.
    driver.execute_script("for (const element of document.querySelectorAll('details')) element.open = true;")
    driver.execute_script(
        "for (const card of document.querySelectorAll('.card')) card.style.contentVisibility = 'visible'"
    )
    given = assert_fits(driver)
    too_wide = (
        "return [...document.querySelectorAll('.card, .filters, .top')].filter((e) => e.scrollWidth > e.clientWidth)"
    )
    assert driver.execute_script(f"{too_wide}.length") == 0
    page.find(".card .frame").click()
    left, right = driver.execute_script(
        "const box = document.querySelector('dialog').getBoundingClientRect(); return [box.left, box.right]"
    )
    assert 0 <= left < right <= given


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(page: Gallery, scheme: str) -> None:
    assert_readable(page.driver, scheme)


def test_without_scripts_everything_is_there(page: Gallery, explained: Explained) -> None:
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    page.driver.refresh()
    cards = page.driver.find_elements("css selector", ".card")
    assert len(cards) == len(explained.scores())
    assert all(card.is_displayed() for card in cards)
    assert not page.find(".filters").is_displayed()


ABOVE_CONTROLS = 'tags.step = "train" and tags.above_controls = "true"'
METRICS = ("test/macro_ap", "test/macro_ap_low", "test/macro_ap_high", "floor/macro_ap", "gain_over_controls_low")
TAGS = ("collapsed", "above_controls", "verdict")
FOUND = """
return [...document.querySelectorAll(arguments[0])]
  .filter((element) => !arguments[1] || element.innerText?.trim() === arguments[1]);
"""
# The rows to be seen, from top to bottom: their top, id, and where the run's name begins, in pixels.
ROWS = """
const rows = [...document.querySelectorAll(".ag-pinned-left-cols-container [role=row][row-id]")];
return rows.map((row) => [row.getBoundingClientRect().top, row.getAttribute("row-id"),
  row.querySelector("a[href*='/runs/']")?.getBoundingClientRect().left ?? 0]).sort((one, other) => one[0] - other[0]);
"""
# What stands in the cells of a run, by column.
CELLS = """
const cells = [...document.querySelectorAll(`.ag-center-cols-container [row-id="${arguments[0]}"] [col-id]`)];
return Object.fromEntries(cells.map((cell) => [cell.getAttribute("col-id"), cell.textContent]));
"""


@dataclass(frozen=True)
class MlflowPage:
    """A page of MLflow, above all the table of runs, as a user handles it."""

    driver: Any

    def all(self, selector: str, text: str = "") -> list[Any]:
        """The elements of this selector, with this text if one is given."""
        return list(self.driver.execute_script(FOUND, selector, text))

    def one(self, selector: str, text: str = "") -> Any:
        """The first of them, as soon as there is one."""
        return soon(lambda: self.all(selector, text), f"{selector} {text}")[0]

    def click(self, selector: str, text: str = "") -> None:
        """Click the first of them, as soon as it can be: MLflow draws its page again and again."""
        from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException

        def clicked() -> bool:
            with contextlib.suppress(ElementClickInterceptedException, StaleElementReferenceException):
                self.one(selector, text).click()
                return True
            return False

        soon(clicked, f"a click on {selector} {text}")

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def filter(self, text: str) -> None:
        self.one("[data-testid=search-box]").send_keys(text, "\ue007")

    def sort_by(self, metric: str) -> None:
        self.click("[data-testid=sort-select-dropdown]")
        self.click(f"[data-testid='sort-select-{metric}']")

    def show(self, columns: Sequence[str]) -> None:
        self.click("button", "Columns")
        search = self.one("input[placeholder='Search columns']")
        for column in columns:
            search.send_keys("\ue009a\ue000", column)
            name = "[data-testid=column-selector-tree] {} .du-bois-light-tree-node-content-wrapper"
            self.one(name.format(""), column)
            if not self.all(name.format("[class*=treenode-checkbox-checked]"), column):
                self.click(name.format(""), column)
        self.press("\ue00c")

    def group_by(self, tag: str) -> None:
        self.click("[data-testid=column-selection-dropdown][aria-haspopup=menu]")
        self.one("[role=menu] input").send_keys(tag)
        self.click("[role=menuitemcheckbox]", tag)  # tags come before parameters
        self.press("\ue00c")

    def rows(self) -> list[tuple[str, float]]:
        """Id and place of the names, from top to bottom."""
        return [(run_id, left) for _, run_id, left in self.driver.execute_script(ROWS)]

    def shown(self, count: int) -> list[str]:
        """Return the ids of the rows, as soon as there are this many."""
        soon(lambda: len(self.rows()) == count, f"{count} rows")
        return [run_id for run_id, _ in self.rows()]

    def cells(self, run_id: str) -> dict[str, str]:
        return dict(self.driver.execute_script(CELLS, run_id))


@pytest.fixture(scope="module")
def wide() -> Iterator[Any]:
    with browser() as driver:
        driver.set_window_rect(width=3000, height=1000)  # columns out of sight have no cells
        yield driver


@pytest.fixture
def table(wide: Any, address: str) -> MlflowPage:
    """As it is on the first visit: what it remembers is forgotten."""
    wide.get("about:blank")
    wide.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": address, "storageTypes": "all"})
    console(wide)
    wide.get(f"{address}/#/experiments/0/runs")
    table = MlflowPage(wide)
    table.one("[role=row][row-id]")
    return table


@pytest.fixture(scope="module")
def study(store: Path) -> Any:
    """The study's run."""
    (run,) = found(store, "tags.step = 'study'")
    return run


def test_the_best_runs_as_the_documentation_says(table: MlflowPage, store: Path) -> None:
    page = (ROOT / "docs" / "how-do-i.md").read_text(encoding="utf-8")
    assert [name for name in (ABOVE_CONTROLS, *METRICS, *TAGS) if f"`{name}`" not in page] == []
    runs = found(store, ABOVE_CONTROLS)
    assert 1 < len(runs) < len(found(store, "tags.step = 'train'"))
    table.filter(ABOVE_CONTROLS)
    table.sort_by("test/macro_ap")
    assert table.shown(len(runs)) == [run.info.run_id for run in runs]
    table.show([*METRICS, *TAGS])
    for run in runs:
        cells = soon(lambda run=run: table.cells(run.info.run_id), "a row")  # type: ignore[misc]
        for name in METRICS:
            assert float(cells[f"metrics.`{name}`"]) == pytest.approx(run.data.metrics[name])
        assert {name: cells[f"tags.`{name}`"] for name in TAGS} == {name: run.data.tags[name] for name in TAGS}
    assert errors(table.driver) == []


# As `finished_hint` and `make ui` print it.
PRINTED = "/#/experiments/0/runs?workflowType=machine_learning&viewStateShareKey=wastelens"
SECTION = re.compile(r"^(.+)\n\((\d+)\)\nAdd chart$", re.MULTILINE)


def test_the_printed_link_shows_the_figures_that_decide(table: MlflowPage, address: str, store: Path) -> None:
    """Also on a first visit, without a click."""
    best = found(store, "tags.step = 'train'")[0]
    table.driver.get("about:blank")
    table.driver.get(f"{address}{PRINTED}")
    cells = soon(lambda: "metrics.`test/macro_ap`" in (cells := table.cells(best.info.run_id)) and cells, "its metrics")
    for name in ("test/macro_ap", "gain_over_controls_low"):
        assert float(cells[f"metrics.`{name}`"]) == pytest.approx(best.data.metrics[name])
    assert cells["tags.`above_controls`"] == best.data.tags["above_controls"]
    models = {run.info.run_id for run in found(store, "tags.step = 'train'")}
    assert {row[0] for row in table.rows()} <= models
    assert table.rows()[0][0] == best.info.run_id
    assert errors(table.driver) == []


def test_the_charts_of_runs_open_on_test(table: MlflowPage, address: str) -> None:
    table.driver.get("about:blank")
    table.driver.get(f"{address}{PRINTED}&compareRunsMode=CHART")
    first = soon(lambda: SECTION.search(table.one("body").text), "a section of charts")
    assert first[1] == "test"
    assert int(first[2]) > 3
    soon(lambda: is_drawn(table), "the charts")


def test_the_note_of_a_run_begins_with_the_verdict(table: MlflowPage, address: str, store: Path) -> None:
    """With the figures as pictures below it; no system metrics stand above the model's."""
    run = found(store, "tags.step = 'train'")[0]
    table.driver.get(f"{address}/#/experiments/0/runs/{run.info.run_id}?workflowType=machine_learning")
    table.click("button, a", "Show more")
    drawn = "return [...document.querySelectorAll('img[src*=get-artifact]')].map((image) => image.naturalWidth)"
    soon(lambda: (widths := table.driver.execute_script(drawn)) and min(widths) > 300, "the pictures")
    shown = " ".join(table.one("body").text.split())
    assert shown.index(run.data.tags["verdict"]) < shown.index("mlflow run . -e explain") < shown.index("Metrics (")
    assert "system/" not in shown


def errors(driver: Any) -> list[str]:
    """The errors in the console, but for MLflow's own one."""
    return [message for message in console(driver, ("SEVERE",)) if not MLFLOW_S_OWN.match(message)]


def test_the_runs_of_a_study_lie_below_it(table: MlflowPage, store: Path, study: Any) -> None:
    runs = [run.info.run_id for run in found(store, f"tags.study = '{study.info.run_id}'")]
    table.filter(f'tags.study = "{study.info.run_id}"')
    assert table.shown(1) == [study.info.run_id]
    table.click(f".ag-pinned-left-cols-container [row-id='{study.info.run_id}'] button")
    first, *below = table.shown(1 + len(runs))
    assert first == study.info.run_id
    assert sorted(below) == sorted(runs)
    (_, left), *others = table.rows()
    assert min(place for _, place in others) > left


def test_the_runs_of_a_study_in_groups(table: MlflowPage, store: Path, study: Any) -> None:
    """By model and arm, each with its mean; sorted by a metric the runs lie below nothing."""
    runs = found(store, f"tags.study = '{study.info.run_id}'")
    groups: dict[str, list[Any]] = {}
    for run in runs:
        groups.setdefault("tag.model.{model},tag.augment.{augment}".format(**run.data.tags), []).append(run)
    assert len(groups) == 4
    table.filter(f'tags.study = "{study.info.run_id}"')
    table.sort_by("test/macro_ap")
    assert table.shown(len(runs)) == [run.info.run_id for run in runs]
    table.show(["test/macro_ap"])
    table.group_by("model")
    table.group_by("augment")
    members = {f"{group}.{run.info.run_id}" for group, of_group in groups.items() for run in of_group}
    assert set(table.shown(len(groups) + len(runs))) == {*groups, *members}
    for group, of_group in groups.items():
        mean, kind = table.cells(group)["metrics.`test/macro_ap`"].split()
        assert kind == "(average)"
        assert float(mean) == pytest.approx(np.mean([run.data.metrics["test/macro_ap"] for run in of_group]))
    assert errors(table.driver) == []


def test_two_runs_side_by_side(table: MlflowPage, store: Path, study: Any) -> None:
    """Select two, Compare: charts of both, drawn."""
    table.filter(f'tags.study = "{study.info.run_id}"')
    table.sort_by("test/macro_ap")
    chosen = table.shown(8)[:2]
    for run_id in chosen:
        table.click(f".ag-pinned-left-cols-container [row-id='{run_id}'] input.ag-checkbox-input")
    table.click("[data-testid=runs-compare-button]")
    assert table.one("h1, h2", "Comparing 2 Runs from 1 Experiment")
    assert all(run_id in table.driver.current_url for run_id in chosen)
    for tab in ("Parallel Coordinates Plot", "Scatter Plot"):
        table.click("[role=tab]", tab)
        soon(lambda: is_drawn(table), f"a chart: {tab}")
    assert "system/" not in table.one("body").text
    assert errors(table.driver) == []


def is_drawn(page: MlflowPage) -> bool:
    """Whether a chart that can be seen has more than its axes."""
    from selenium.common.exceptions import StaleElementReferenceException

    with contextlib.suppress(StaleElementReferenceException):
        charts = [one for one in page.all(".js-plotly-plot") if one.is_displayed()]
        return bool(charts) and all(coloured_pixels(one) > 50 for one in charts)
    return False


def coloured_pixels(element: Any) -> int:
    """How many pixels of an element are neither black, grey nor white: what a chart is drawn with, axes left out."""
    pixels = np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")).astype(int)
    return int((np.ptp(pixels, axis=2) > 40).sum())


# The texts of a forest plot are its ticks, the names of both sides, then each line's name and numbers.
FOREST = """
return [...document.querySelectorAll(".forest")].flatMap((figure) => {
  const zero = figure.querySelector("[id$=-zero]").getBoundingClientRect();
  const texts = [...figure.querySelectorAll("text")].map((text) => text.textContent);
  const lines = texts.slice(texts.findIndex((text) => text.endsWith("→")) + 1);
  return [...figure.querySelectorAll("[id*=-mark-]")].map((group, row) => {
    const mark = group.querySelector("use").getBoundingClientRect();
    const place = (mark.left + mark.right) / 2 - (zero.left + zero.right) / 2;
    return [lines[2 * row], lines[2 * row + 1], place, mark.width];
  });
});
"""


def test_the_artifact_tab_shows_the_report(address: str, study: Any, tmp_path: Path) -> None:
    """The verdict, and the differences drawn where their numbers say; nothing leaves the machine for it."""
    with browser(net_log=tmp_path / "net.json") as driver:
        page = MlflowPage(driver)
        driver.get(f"{address}/#/experiments/0/runs/{study.info.run_id}?workflowType=machine_learning")
        page.click("[role=tab]", "Artifacts")
        page.click("li", "report.html")
        driver.switch_to.frame(page.one(FRAME))
        verdict = page.one("p.verdict").text
        forest = driver.execute_script(FOREST)
        complaints, addresses = console(driver), requested(driver)
    comparisons = pd.read_csv(Path(study.info.artifact_uri) / "comparisons.csv")
    assert study.data.tags["verdict"].startswith(verdict)
    shown = {f"{name} {numbers.partition(' ')[0]}": (place, width) for name, numbers, place, width in forest}
    wanted = comparisons[comparisons["metric"].isin(["macro_ap", "macro_f1"])]
    assert len(wanted) == len(forest) == 6
    for row in wanted.itertuples():
        place, width = shown[f"{row.model} {row.difference:+z.3f}"]
        assert width > 5
        assert (place > 0) == (row.difference > 0)
    local = (f"{address}/", f"blob:{address}/", "data:", "blob:null/")
    own = (f"{address}/static-files/",)  # MLflow's scripts complain of each other
    assert [one for one in complaints if not MLFLOW_S_OWN.match(one) and not one.startswith(own)] == []
    assert any("/get-artifact?path=report.html" in one for one in addresses)
    assert {one for one in {*addresses, *sent(tmp_path / "net.json")} if not one.startswith(local)} == set()


@pytest.fixture
def report(opened: Any, study: Any) -> Iterator[Any]:
    """The report as a file of its own."""
    open_file(opened, (Path(study.info.artifact_uri) / "report.html").as_uri())
    yield opened
    as_before(opened)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_in_light_and_dark(report: Any, scheme: str) -> None:
    report.execute_script("for (const element of document.querySelectorAll('details')) element.open = true;")
    assert_readable(report, scheme)


def test_the_report_on_a_narrow_screen(report: Any) -> None:
    """It scrolls down only, and the differences are still drawn; as a file it asks for nothing."""
    narrow(report)
    report.execute_script("for (const element of document.querySelectorAll('details')) element.open = true;")
    assert_fits(report)
    assert min(width for *_, width in report.execute_script(FOREST)) > 5
    assert console(report) == []
    assert {one for one in requested(report) if not one.startswith("data:")} == {report.current_url}
