"""The way as a user takes it: ``main``, ``promote``, ``predict`` on photos of another kind, the report, the server."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.factories import COLOURS, MATERIALS, image_bytes
from tests.project.browser import browser, console, needs_browser, requested, soon
from tests.project.running import ok, wastelens
from tests.project.serving import free_port, served
from tests.project.test_browser import FAINTEST

pytestmark = [pytest.mark.slow, needs_browser]

TRASHNET = Path(__file__).parents[3] / "shared" / "data" / "trashnet"  # real photos; without them, drawn ones
TINY = (
    "prepare.image_side_px=96 models.probe.network.side_px=96 "
    "train.bootstrap_resamples=100 explain.photos=2 explain.shap.samples=2 explain.shap.background_photos=2 "
    "explain.steps=2 explain.randomised_photos=1 cluster.k=3 cluster.draws=5"
)
LEFT_OUT = " ".join(
    f"models.{name}=null" for name in ("base", "efficientnet_lite", "autoencoder", "dbn", "base_augmented")
)
SHOWN = (
    "return [...document.querySelectorAll('.card')].filter((card) => card.checkVisibility()).map((c) => c.dataset.file)"
)


def on_white_board(folder: Path) -> None:
    """Write photos like TrashNet's, a folder for each material: one object on a white board."""
    rng = np.random.default_rng(5)
    for name, colour in zip(MATERIALS, COLOURS, strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(235, 250, (48, 64, 3)).astype(np.uint8)
            left, top = rng.integers(8, 24, 2)
            pixels[top : top + 16, left : left + 20] = colour
            (folder / name / f"{name}{number}.jpg").write_bytes(image_bytes(pixels, quality=90))


def some_of_trashnet(folder: Path) -> None:
    """Copy four photos of each class of TrashNet."""
    for of_class in sorted(TRASHNET.iterdir()):
        for photo in sorted(of_class.glob("*.jpg"))[::50][:4]:
            (folder / of_class.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, folder / of_class.name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("way")
    if TRASHNET.is_dir():
        some_of_trashnet(folder / "board")
    else:
        on_white_board(folder / "board")
    return folder


@pytest.fixture(scope="module")
def predicted(place: Path) -> tuple[str, pd.DataFrame]:
    """The address of the promoted model, and its predictions."""
    said = ok(wastelens("main", "--dataset", "sample", "--set", f"{TINY} {LEFT_OUT}", cwd=place)).stdout
    (run_id,) = set(re.findall(r"-e predict .*-P model=(\w{32})", said))
    said = ok(wastelens("promote", "--run_id", run_id, "--name", "litter", cwd=place)).stdout
    address = re.findall(r"models:/litter@\w+", said)[0]
    assert address == "models:/litter@champion"
    ok(wastelens("predict", "--model", address, "--photos", "board", "--output", "answers", cwd=place))
    return address, pd.read_csv(place / "answers" / "predictions.csv", keep_default_na=False)


def test_every_photo_has_an_answer(predicted: tuple[str, pd.DataFrame], place: Path) -> None:
    _, table = predicted
    assert table["file"].tolist() == sorted(
        path.relative_to(place / "board").as_posix() for path in place.glob("board/*/*")
    )
    assert (table["problem"] == "").all()
    assert table["familiarity"].astype(float).between(0, 1, inclusive="right").all()
    assert json.loads((place / "answers" / "predictions.json").read_text())["photos"]["rows"] == len(table)


def test_the_report_can_be_read_everywhere(predicted: tuple[str, pd.DataFrame], place: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.select import Select

    _, table = predicted
    address = (place / "answers" / "report.html").as_uri()
    with browser() as driver:
        requested(driver)
        driver.get(address)
        soon(lambda: driver.find_elements("css selector", ".filters:not([hidden])"), "the filters")
        assert {one for one in requested(driver) if not one.startswith("data:")} == {address}
        assert console(driver) == []
        assert sorted(driver.execute_script(SHOWN)) == table["file"].tolist()
        for scheme in ("light", "dark"):
            media: dict[str, Any] = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            for width in (400, 1300):
                size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
                driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                root = "document.documentElement"
                assert driver.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
                contrast, text = driver.execute_script(FAINTEST)
                assert contrast >= 4.5, text
        Select(driver.find_element("css selector", "select[name=sort]")).select_by_visible_text("least familiar first")
        distances = table.set_index("file")["distance"].astype(float)
        shown = distances[driver.execute_script(SHOWN)].tolist()
        assert shown == sorted(shown, reverse=True)
        driver.find_element("css selector", "input[name=unfamiliar]").click()
        strange = table.loc[table["familiarity"].astype(float) < 0.05, "file"]
        assert sorted(driver.execute_script(SHOWN)) == sorted(strange)
        driver.find_element("css selector", "button[type=reset]").click()
        soon(lambda: len(driver.execute_script(SHOWN)) == len(table), "a reset")
        ActionChains(driver).send_keys("j").perform()
        soon(lambda: driver.switch_to.active_element.get_attribute("data-file"), "a photo with the focus")


def test_the_server_gives_the_answers_of_predict(predicted: tuple[str, pd.DataFrame], place: Path) -> None:
    address, table = predicted
    port, some = free_port(), table.iloc[::5]
    texts = [base64.b64encode((place / "board" / name).read_bytes()).decode() for name in some["file"]]
    (place / "request.json").write_text(json.dumps({"inputs": texts}))
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}"}
    with served(f"mlflow models serve --env-manager local --model-uri {address} --port {port}", port, place, store):
        command = ["curl", "--silent", "--fail", "--header", "Content-Type: application/json"]
        command += ["--data", "@request.json", f"http://127.0.0.1:{port}/invocations"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    answers = pd.DataFrame(json.loads(done.stdout)["predictions"])
    for name in MATERIALS:
        wanted = some[f"probability_{name}"].astype(float).to_numpy()
        np.testing.assert_allclose(answers[f"probability_{name}"], wanted, atol=2e-6)
        assert (answers[f"decision_{name}"] == (some[f"decision_{name}"] == "yes").to_numpy()).all()
