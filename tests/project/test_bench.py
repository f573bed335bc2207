"""The measurements can be taken: each module is there, and what is measured is kept."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from bench import run, serving
from bench.measure import Measurement

MODULES = sorted(file.stem for file in Path(run.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name: str) -> None:
    importlib.import_module(f"bench.{name}")


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Operation with range is deprecated")  # MLflow 3.17 on pandas 3
@pytest.mark.filterwarnings("ignore:.*type hint is inferred:UserWarning")  # of MLflow's own types
def test_a_small_model_is_measured_as_it_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_UV_AUTO_DETECT", "false")
    monkeypatch.setattr(sys, "path", [*sys.path])  # the model's own code goes there
    rows = serving.measure(model="base", side_px=16, calls=1)
    assert [row.ours.split()[1] for row in rows] == ["ms", "photos/s"]


def test_what_was_measured_before_a_failure_is_written(tmp_path: Path) -> None:
    def fails() -> list[Measurement]:
        raise ArithmeticError

    results = tmp_path / "results.md"
    results.write_text(f"before\n{run.BEGIN}\nan earlier table\n{run.END}\nafter\n", encoding="utf-8")
    row = Measurement("a quantity", "1 s", "2 s", "0.5", "< 1", reached=True)
    with pytest.raises(ArithmeticError):
        run.measure_all([lambda: [row], lambda: [row, row], fails, lambda: [row]], results)
    text = results.read_text(encoding="utf-8")
    assert text.count("| a quantity | 1 s | 2 s | 0.5 | < 1 | yes |\n") == 3
    assert text.startswith(f"before\n{run.BEGIN}\n| what |")
    assert text.endswith(f"not the seconds.\n{run.END}\nafter\n")
