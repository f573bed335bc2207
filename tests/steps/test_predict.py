"""The step ``predict`` on small photos: its table, its page, interruptions, and what it refuses."""

from __future__ import annotations

import errno
import io
import json
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from tests.factories import COLOURS, MATERIALS, config, image_bytes, log_colour_model, write_dataset
from tests.memory_tracking import MemoryTracker
from tests.project.browser import soon
from tests.project.running import ROOT, ok, run, start, wastelens

from wastelens.data.photos import decode
from wastelens.data.photos.exif import Taken
from wastelens.errors import ConfigError, DatasetError, RunError
from wastelens.models.answers import Answers
from wastelens.steps import predict
from wastelens.system.decision_rule import DecisionRule, RisingMap
from wastelens.using import output, predicting
from wastelens.using.chosen_model import BATCH_SIZE
from wastelens.using.predicting import Asked

PHOTOS = 45  # more than a batch, in several blocks
OUTPUTS = ("predictions.csv", "predictions.parquet", "predictions.json", "report.html")


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory, keras: Any) -> MemoryTracker:
    """A tracker whose run 0 has a proven model, and run 1 a collapsed one."""
    tracker = MemoryTracker()
    for proven in (True, False):
        log_colour_model(tracker, tmp_path_factory.mktemp("model"), proven=proven)
    return tracker


@pytest.fixture(scope="module")
def litter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in sub-folders, one of them broken, with something that is no photo beside them."""
    folder = tmp_path_factory.mktemp("photos") / "beach"
    write_dataset(folder, batches=9, side=(48, 48))
    (folder / "annotations.json").unlink()
    (folder / "batch_2" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    (folder / "notes.md").write_text("a walk")
    return folder


def predicted(tracker: MemoryTracker, output: Path, settings: str = "", **parameters: str) -> predict.Predictions:
    chosen = {"model": "run-0", "output": str(output), **parameters}
    chosen_config = config("predict", f"block_photos=20 bootstrap_resamples=100 {settings}", **chosen)
    return predict.run(chosen_config, tracker)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def test_the_table_has_a_row_for_every_file_in_the_order_of_names(
    tracker: MemoryTracker, litter: Path, tmp_path: Path
) -> None:
    done = predicted(tracker, tmp_path / "out", photos=str(litter))
    table = pd.read_csv(tmp_path / "out" / "predictions.csv", keep_default_na=False)
    names = sorted(path.relative_to(litter).as_posix() for path in litter.rglob("*.jpg"))
    assert table["file"].tolist() == names
    assert len(names) == PHOTOS + 1
    answers = [f"{kind}_{name}" for kind in ("probability", "decision") for name in MATERIALS]
    evidence = [*predicting.FAMILIARITY, "evidence_material", *predicting.EVIDENCE]
    assert list(table) == ["file", *answers, *evidence, "problem"]
    bad = table[table["problem"] != ""]
    assert bad["file"].tolist() == ["batch_2/broken.jpg"]
    assert (bad[[*answers, *evidence]] == "").all(axis=None)
    good = table[table["problem"] == ""]
    for name in MATERIALS:
        assert set(good[f"decision_{name}"]) == {"yes", "no"}
        assert ((good[f"probability_{name}"].astype(float) >= 0.5) == (good[f"decision_{name}"] == "yes")).all()
    parquet = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert list(parquet) == list(table)
    assert parquet["probability_glass"].isna().sum() == 1
    assert (done.summary.photos, done.summary.problems) == (PHOTOS + 1, 1)
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(OUTPUTS)


@pytest.mark.parametrize(
    ("broken", "said"),
    [(1, "Warning: 1 file has no answer, 0.jpg: "), (2, "Warning: 2 files have no answer, the first 0.jpg: ")],
)
def test_files_without_an_answer_are_counted(
    tracker: MemoryTracker, tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: int, said: str
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "good.png").write_bytes(image_bytes(np.full((40, 40, 3), 90, np.uint8), "PNG"))
    for number in range(broken):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(b"x")
    predicted(tracker, tmp_path / "out", photos=str(tmp_path / "photos"))
    assert said in capsys.readouterr().out


def test_what_the_network_finds_is_where_it_says(tracker: MemoryTracker, tmp_path: Path) -> None:
    pixels = np.full((64, 64, 3), 120, np.uint8)
    pixels[32:48, 40:56] = COLOURS[3]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bottle.png").write_bytes(image_bytes(pixels, "PNG"))
    predicted(tracker, tmp_path / "out", photos=str(tmp_path / "photos"))
    (row,) = pd.read_csv(tmp_path / "out" / "predictions.csv").to_dict("records")
    assert [name for name in MATERIALS if row[f"decision_{name}"] == "yes"] == ["glass"]
    assert row["evidence_material"] == "glass"
    box = [row[side] for side in predicting.EVIDENCE]
    assert np.allclose(box, [40 / 64, 32 / 64, 56 / 64, 48 / 64], atol=0.05)


def test_a_list_a_zip_and_a_dataset_give_the_rows_of_the_folder(
    tracker: MemoryTracker, litter: Path, tmp_path: Path
) -> None:
    predicted(tracker, tmp_path / "folder", photos=str(litter))
    wanted = pd.read_csv(tmp_path / "folder" / "predictions.csv")
    names = [*wanted["file"], wanted["file"][0]]
    ways = {
        "txt": "\n".join(["# a comment", *names[::-1]]),
        "csv": "\n".join(["image,when", *(f"{n},1" for n in names)]),
    }
    for suffix, text in ways.items():
        (litter / f"list.{suffix}").write_text(text)
        predicted(tracker, tmp_path / suffix, photos=str(litter / f"list.{suffix}"))
        (litter / f"list.{suffix}").unlink()
    archive = shutil.make_archive(str(tmp_path / "beach"), "zip", litter)
    predicted(tracker, tmp_path / "zip", photos=archive)
    for way in ("txt", "csv", "zip"):
        assert pd.read_csv(tmp_path / way / "predictions.csv").equals(wanted), way


def test_a_run_that_was_killed_goes_on_and_leaves_the_same_bytes(
    tracker: MemoryTracker, litter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted(tracker, tmp_path / "whole", photos=str(litter))
    decoded: list[int] = []
    rows = predicting._rows

    def killed_in_the_second_block(batch: Any, *others: Any) -> Any:
        decoded.append(len(batch.names))
        if len(decoded) == 2:
            raise KeyboardInterrupt
        return rows(batch, *others)

    monkeypatch.setattr(predicting, "_rows", killed_in_the_second_block)
    with pytest.raises(KeyboardInterrupt):
        predicted(tracker, tmp_path / "out", photos=str(litter))
    assert not [name for name in OUTPUTS if (tmp_path / "out" / name).exists()]
    assert tracker.runs[-1].status == "KILLED"
    with pytest.raises(DatasetError, match="unfinished predictions by another model, of other photos or with other"):
        predicted(tracker, tmp_path / "out", photos=str(litter), evidence="false")
    predicted(tracker, tmp_path / "out", photos=str(litter))
    assert sum(decoded[2:]) == PHOTOS + 1 - 20, "the finished block is not computed again"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("step", ["write_tables", "write_report", "write_about"])
def test_killed_between_the_files_it_goes_on_and_leaves_the_same_bytes(
    tracker: MemoryTracker, litter: Path, tmp_path: Path, step: str
) -> None:
    predicted(tracker, tmp_path / "whole", photos=str(litter))
    owner: Any = predict if step == "write_report" else predict.output
    write = getattr(owner, step)

    def killed(*arguments: Any, **options: Any) -> None:
        if step == "write_tables":
            write(*arguments, **options)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, step, killed)
        with pytest.raises(KeyboardInterrupt):
            predicted(tracker, tmp_path / "out", photos=str(litter))
    assert (tmp_path / "out" / "predictions.csv").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predicting, "_rows", lambda *_: pytest.fail("a finished block is computed again"))
        predicted(tracker, tmp_path / "out", photos=str(litter))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    with pytest.raises(DatasetError, match="has predictions already"):
        predicted(tracker, tmp_path / "out", photos=str(litter))


def test_predictions_of_another_folder_of_that_name_are_told_apart(
    tracker: MemoryTracker, litter: Path, tmp_path: Path
) -> None:
    for place in ("here", "there"):
        shutil.copytree(litter / "batch_1", tmp_path / place / "beach")
    (tmp_path / "there" / "beach" / "000000.jpg").unlink()
    settings = f"data_folder={tmp_path / 'data'}"
    predict.run(config("predict", settings, model="run-0", photos=str(tmp_path / "here" / "beach")), tracker)
    for place, said in (("here", "predictions already"), ("there", "predictions of other photos")):
        with pytest.raises(DatasetError, match=rf"data/predictions/beach has {said} .predictions.csv.\. Replace them"):
            predict.run(config("predict", settings, model="run-0", photos=str(tmp_path / place / "beach")), tracker)


def test_a_table_of_somebody_else_is_not_replaced(tracker: MemoryTracker, litter: Path, tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("mine")
    with pytest.raises(DatasetError, match="has predictions already"):
        predicted(tracker, tmp_path, photos=str(litter))


def test_predictions_that_are_there_are_replaced_only_when_asked(
    tracker: MemoryTracker, litter: Path, tmp_path: Path
) -> None:
    predicted(tracker, tmp_path / "out", photos=str(litter))
    (tmp_path / "out" / "mine.txt").write_text("kept")
    before = contents(tmp_path / "out")
    with pytest.raises(DatasetError, match=r"has predictions already .predictions.csv.*overwrite=true"):
        predicted(tracker, tmp_path / "out", photos=str(litter))
    predicted(tracker, tmp_path / "out", photos=str(litter), overwrite="true")
    assert contents(tmp_path / "out") == before
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"


def test_an_unproven_model_has_to_be_accepted_and_says_so_everywhere(
    tracker: MemoryTracker, litter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunError, match=r"unproven: COLLAPSED: as drawn.*accept_unproven=true"):
        predicted(tracker, tmp_path / "out", photos=str(litter), model="run-1")
    assert not (tmp_path / "out").exists()
    predicted(tracker, tmp_path / "out", photos=str(litter), model="run-1", accept_unproven="true")
    assert "Warning: The model is unproven: COLLAPSED: as drawn." in capsys.readouterr().out
    first = (tmp_path / "out" / "predictions.json").read_text().splitlines()[0]
    assert first == '{"verdict": "UNPROVEN MODEL. COLLAPSED: as drawn.",'
    about = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert about["proven"] is False
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<p class="unproven" role="note">The model\'s own test: UNPROVEN MODEL. COLLAPSED: as drawn.</p>' in page
    assert tracker.runs[-1].tags["verdict"] == "UNPROVEN MODEL. COLLAPSED: as drawn."


def test_the_run_has_everything(tracker: MemoryTracker, litter: Path, tmp_path: Path) -> None:
    done = predicted(tracker, tmp_path / "out", photos=str(litter))
    run = tracker.runs[-1]
    assert (run.id, run.tags["step"], run.tags["model_run"], run.status) == (
        done.run_id,
        "predict",
        "run-0",
        "FINISHED",
    )
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == contents(tmp_path / "out")
    about = json.loads((tmp_path / "out" / "predictions.json").read_text())
    for name in MATERIALS:
        share = about["materials"][name]
        assert 0 <= share["share_low"] <= share["share"] <= share["share_high"] <= 1
        assert run.metrics[f"yes/{name}"] == share["yes"]
        assert run.metrics[f"share/{name}"] == pytest.approx(share["share"], abs=1e-6)


def test_a_model_with_bands_is_unsure_between_them(
    litter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = MemoryTracker()
    log_colour_model(tracker, tmp_path / "model", bands=dict.fromkeys(MATERIALS, (0.5, 0.9)))
    predicted(tracker, tmp_path / "out", photos=str(litter))
    rows = pd.read_csv(tmp_path / "out" / "predictions.csv")
    rows = rows[rows["problem"].isna()]
    plastic = rows["probability_plastic"]
    assert plastic.max() < 0.9 < rows["probability_glass"].max(), "plastic is calibrated"
    assert rows["decision_plastic"].tolist() == ["unsure" if one >= 0.5 else "no" for one in plastic]
    assert set(rows["decision_glass"]) == {"yes", "no"}
    about = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert (about["materials"]["plastic"]["yes"], about["calibration"]) == (0, "platt")
    assert about["materials"]["plastic"]["unsure"] == (plastic >= 0.5).sum() > 0
    assert about["materials"]["plastic"]["share"] > 0.1, "thresholds, not bands, are counted"
    assert "unsure" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<option value="unsure">unsure</option>' in page
    assert '<th scope="col">unsure</th>' in page


def test_evidence_is_named_after_the_material_whose_map_it_is() -> None:
    network = np.array([[0.8, 0.6]], dtype=np.float32)  # calibration changes which of the two is more probable
    rule = DecisionRule({"glass": 0.5, "paper": 0.5}, {"glass": RisingMap((0.0, 1.0), (-3.0, -2.0))})
    model = SimpleNamespace(materials=("glass", "paper"), rule=rule, familiarity=None)
    answers = Answers(network, maps=np.eye(4, dtype=np.float32)[None])
    predictor = type("Stub", (), {"model": model, "has_evidence": True, "__call__": lambda *_: answers})()
    decoded = predicting._Decoded(["a.jpg"], np.zeros((1, 8, 8, 3), np.uint8), [Taken()], [""])
    (row,) = predicting._rows(decoded, predictor, Asked(True, False, 100.0)).to_dict("records")
    assert row["probability_glass"] < row["probability_paper"]
    assert row["evidence_material"] == "glass"


def test_keras_gives_the_rows_of_onnx(tracker: MemoryTracker, litter: Path, tmp_path: Path) -> None:
    predicted(tracker, tmp_path / "onnx", photos=str(litter))
    with pytest.MonkeyPatch.context() as patch:  # as for a network that does not export
        patch.setattr(predicting, "EVIDENCE_MAP", "no such output")
        predicted(tracker, tmp_path / "keras", photos=str(litter))
    one, other = (pd.read_csv(tmp_path / name / "predictions.csv") for name in ("onnx", "keras"))
    pd.testing.assert_frame_equal(one, other, atol=2e-4, rtol=0)


def test_it_answers_without_tensorflow(tracker: MemoryTracker, litter: Path, tmp_path: Path) -> None:
    shutil.copytree(tracker.runs[0].folder / "model", tmp_path / "model")
    command = ["wastelens", "predict", "--model", "model", "--photos", str(litter), "--output", "out"]
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); sys.modules |= dict.fromkeys(('tensorflow', 'keras'));"
        f"sys.argv = {command}; from wastelens.__main__ import main; main()"
    )
    ok(run(sys.executable, "-c", code, cwd=tmp_path))
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert table[["distance", "evidence_left"]].notna().sum().tolist() == [PHOTOS, PHOTOS]


def test_a_model_that_remembers_nothing_says_nothing_of_familiarity(
    tracker: MemoryTracker, litter: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tracker.runs[0].folder / "model", tmp_path / "model"))
    about = yaml.safe_load((model / "MLmodel").read_text())
    del about["metadata"]["wastelens"]["files"]["familiarity.npz"]
    (model / "MLmodel").write_text(yaml.safe_dump(about))
    predicted(tracker, tmp_path / "out", photos=str(litter), model=str(model))
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert table[[*predicting.FAMILIARITY]].isna().all(axis=None)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "amiliar" not in page.partition("<body>")[2].partition("<script>")[0]
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["unlike_p"] is None


@pytest.mark.parametrize("own", [True, False])
def test_photos_that_the_model_has_learnt_from_are_said_to_be_so(
    tracker: MemoryTracker, prepared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], own: bool
) -> None:
    model = Path(shutil.copytree(tracker.runs[0].folder / "model", tmp_path / "model"))
    about = yaml.safe_load((model / "MLmodel").read_text())
    manifest = json.loads((prepared_folder / "data/prepared/litter/manifest.json").read_text())
    about["metadata"]["wastelens"]["dataset_digest"] = manifest["digest"] if own else "1" * 32
    (model / "MLmodel").write_text(yaml.safe_dump(about))
    data = {"dataset": "litter", "data_folder": str(prepared_folder / "data")}
    predicted(tracker, tmp_path / "out", model=str(model), **data)
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())["doubt"]
    said = "The model has learnt from these photos (those of litter), so it errs less on them than on its test"
    assert written.startswith(said) == own
    assert (f"Warning: {said}" in " ".join(capsys.readouterr().out.split())) == own
    assert (said in (tmp_path / "out" / "report.html").read_text()) == own


def test_photos_of_another_kind_are_said_to_be_so(
    tracker: MemoryTracker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model's test has 10 % false alarms, which 120 grey photos without any cannot come from."""
    (tmp_path / "photos").mkdir()
    for number in range(120):
        shade = np.full((16, 16, 3), 60 + number, np.uint8)
        (tmp_path / "photos" / f"{number:03}.png").write_bytes(image_bytes(shade, "PNG"))
    predicted(tracker, tmp_path / "out", photos=str(tmp_path / "photos"))
    doubt = json.loads((tmp_path / "out" / "predictions.json").read_text())["doubt"]
    assert doubt.startswith("These photos are of another kind than the model's test: for aluminium it says")
    assert "These photos do not resemble what the model learnt from (p < 0.0001)" in doubt
    assert doubt.replace("'", "&#39;").replace("<", "&lt;") in (tmp_path / "out" / "report.html").read_text()
    assert f"Warning: {doubt}" in capsys.readouterr().out


def test_shares_that_rest_on_few_groups_of_test_photos_say_so(
    litter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = MemoryTracker()
    log_colour_model(tracker, tmp_path / "model", groups=2)
    predicted(tracker, tmp_path / "out", photos=str(litter))
    note = "There are only 2 groups of photos in the model's own test, too few to stand for others: "
    assert note in " ".join(capsys.readouterr().out.split())
    (written,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["notes"]
    assert written.startswith(note)
    assert written.replace("'", "&#39;") in (tmp_path / "out" / "report.html").read_text()


def test_the_page_shows_a_bounded_number_the_least_sure_first(
    tracker: MemoryTracker, litter: Path, tmp_path: Path
) -> None:
    predicted(tracker, tmp_path / "out", photos=str(litter), gallery_photos="12")
    page = (tmp_path / "out" / "report.html").read_text()
    shown = [float(text.split('"')[1]) for text in page.split("data-margin=")[1:]]
    assert len(shown) == 12
    assert shown == sorted(shown)
    assert "Shown below: 12 of 45 photos" in page
    assert "<b>batch_2/broken.jpg</b>: " in page
    assert "http" not in page.replace("Content-Security-Policy", "").partition("<body>")[2]


def test_a_shown_photo_is_decoded_once_for_the_page(
    tracker: MemoryTracker, litter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, decoded = decode._stored, list[int]()

    def counted(content: bytes, side_px: int, *limits: Any) -> Any:
        decoded.append(side_px)
        return stored(content, side_px, *limits)

    monkeypatch.setattr(decode, "_stored", counted)
    predicted(tracker, tmp_path / "out", photos=str(litter), gallery_photos="12")
    assert sorted(decoded) == [32] * PHOTOS + [320] * 12


def test_time_and_place_are_told_only_when_asked(tracker: MemoryTracker, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[306] = "2021:05:03 12:00:01"
    exif.get_ifd(34853).update({1: "S", 2: (33.0, 30.0, 0.0), 3: "E", 4: (18.0, 15.0, 36.0)})
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), "grey").save(buffer, "JPEG", exif=exif)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(buffer.getvalue())
    (tmp_path / "photos" / "b.jpg").write_bytes(image_bytes(np.full((40, 40, 3), 90, np.uint8)))
    predicted(tracker, tmp_path / "out", photos=str(tmp_path / "photos"), exif="true")
    table = pd.read_csv(tmp_path / "out" / "predictions.csv", keep_default_na=False)
    assert table[list(predicting.EXIF)].values.tolist() == [["2021-05-03T12:00:01", "-33.5", "18.26"], ["", "", ""]]
    predicted(tracker, tmp_path / "plain", photos=str(tmp_path / "photos"))
    assert not set(predicting.EXIF) & set(pd.read_csv(tmp_path / "plain" / "predictions.csv"))


def test_an_answer_that_is_no_number_is_a_problem(
    tracker: MemoryTracker, litter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = predicting.Predictor.__call__

    def sometimes_nan(self: Any, photos: Any) -> Any:
        answers = call(self, photos)
        answers.probabilities[0, 2] = np.nan
        return answers

    monkeypatch.setattr(predicting.Predictor, "__call__", sometimes_nan)
    done = predicted(tracker, tmp_path / "out", photos=str(litter))
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    batches = 2 + 2 * (20 // BATCH_SIZE)
    assert (table["problem"] == predicting.NOT_A_NUMBER).sum() == batches + 1
    assert table.loc[table["problem"] == predicting.NOT_A_NUMBER, "probability_glass"].isna().all()
    assert done.summary.problems == batches + 2


def test_a_full_disk_leaves_no_table(
    tracker: MemoryTracker, litter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(DatasetError) as told:
        predicted(tracker, tmp_path / "out", photos=str(litter))
    out = tmp_path / "out"
    assert str(told.value) == f"No space left on device: '{out}'. Free space, or write elsewhere: output=FOLDER."
    assert not [path for path in out.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (PermissionError(errno.EACCES, "no", "out/.unfinished"), "out/.unfinished"),
        (PermissionError(errno.EACCES, "no", "."), "."),
        (PermissionError(errno.EACCES, "no", "mlruns/x"), None),
        (PermissionError(errno.EACCES, "no", "out/x", None, "mlruns/x"), None),
        (FileNotFoundError(errno.ENOENT, "no", "out/x"), None),
    ],
)
def test_only_errors_of_the_output_folder_name_its_setting(error: OSError, named: str | None) -> None:
    with pytest.raises((DatasetError, OSError)) as told, output.disk_errors(Path("out")):
        raise error
    assert (told.value is error) == (named is None)
    assert named is None or str(told.value).startswith(f"Permission denied: '{Path(named).absolute()}'. Fix the perm")


def test_bad_input_is_refused_in_one_line(tracker: MemoryTracker, litter: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.txt").write_text("no such photo.jpg\n")
    (tmp_path / "other.csv").write_text("name\nx.jpg\n")
    (tmp_path / "not.zip").write_text("x")
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("readme.md", "x")
    cases: list[tuple[dict[str, str], type[Exception], str]] = [
        ({"photos": ""}, ConfigError, "No photos are given"),
        ({"photos": "x", "dataset": "y"}, ConfigError, "Both photos= and dataset="),
        ({"photos": str(litter), "model": ""}, ConfigError, "No model is given"),
        ({"photos": str(tmp_path / "gone")}, DatasetError, "is not there"),
        ({"photos": str(tmp_path / "empty")}, DatasetError, "has no photos in it"),
        ({"photos": str(litter / "notes.md")}, DatasetError, "is no folder, no list .* and no photo"),
        ({"photos": str(tmp_path / "words.txt")}, DatasetError, "None of the 1 photos"),
        ({"photos": str(tmp_path / "other.csv")}, DatasetError, "has no column file_name"),
        ({"photos": str(tmp_path / "not.zip")}, DatasetError, "is no usable file"),
        ({"photos": str(tmp_path / "none.zip")}, DatasetError, "has no photos"),
        ({"photos": str(litter), "output": str(tmp_path / "words.txt")}, DatasetError, "is a file"),
    ]
    for parameters, error, message in cases:
        with pytest.raises(error, match=message) as refused:
            predict.run(config("predict", **{"model": "run-0", "output": str(tmp_path / "out"), **parameters}), tracker)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # processes that each start TensorFlow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_processes_share_the_blocks_and_leave_the_same_bytes(
    tracker: MemoryTracker, litter: Path, tmp_path: Path
) -> None:
    predicted(tracker, tmp_path / "here", photos=str(litter))
    predicted(tracker, tmp_path / "there", photos=str(litter), engine="processes:2")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.slow  # two real processes
def test_a_killed_process_goes_on_and_leaves_the_same_bytes(tmp_path: Path, litter: Path) -> None:
    made = MemoryTracker()
    log_colour_model(made, tmp_path / "made")
    shutil.copytree(made.runs[0].folder / "model", tmp_path / "model")
    many = tmp_path / "many"
    many.mkdir()
    for number, photo in enumerate(sorted(litter.rglob("*.jpg")) * 40):
        (many / f"{number:05}.jpg").symlink_to(photo)

    def command(name: str) -> list[str]:
        return ["predict", "--model", "model", "--photos", "many", "--output", name, "--set", "block_photos=64"]

    ok(wastelens(*command("whole"), cwd=tmp_path))
    process = start(*command("killed"), cwd=tmp_path)
    soon(lambda: len(list((tmp_path / "killed").rglob("block_*.parquet"))) >= 2, "two blocks")
    process.kill()
    process.wait()
    assert not (tmp_path / "killed" / "predictions.csv").exists()
    ok(wastelens(*command("killed"), cwd=tmp_path))
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
