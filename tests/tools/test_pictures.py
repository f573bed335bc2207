"""README's pictures and table come from a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from tests.mlflow_store import mlflow_store

from tools import pictures

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")


def test_the_chosen_model_is_bold_and_the_dataset_is_left_out() -> None:
    numbers = {"test_macro_ap": 0.5, "test_macro_ap_low": 0.4, "test_macro_ap_high": 0.6, "floor_macro_ap": 0.3}
    control = {"strongest_control": "colour", "strongest_control_macro_ap": 0.35}
    rows = [
        {"run": "probe @demo", "run_id": "a", "verdict": "above controls", **numbers, **control},
        {"run": "dbn @demo", "run_id": "b", "verdict": "collapsed", **numbers, **control},
    ]
    _, _, first, second = pictures._table(pd.DataFrame(rows), "a").splitlines()
    assert first == "| **probe** | 0.500 [0.400, 0.600] | 0.300 | 0.350 (colour) | above controls |"
    assert second == "| dbn | 0.500 [0.400, 0.600] | 0.300 | 0.350 (colour) | collapsed |"


def test_without_a_run_it_says_how_to_make_one(tmp_path: Path) -> None:
    with mlflow_store(tmp_path), pytest.raises(SystemExit, match="Run `make demo` first"):
        pictures.main()


def test_readme_has_the_place_for_the_table() -> None:
    text = pictures.README.read_text(encoding="utf-8")
    assert text.index(pictures.BEGIN) < text.index(pictures.END)
