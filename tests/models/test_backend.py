"""Loading the backend: what the user has set for other programs changes no network, no figure and no number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.project.running import ROOT, environment

REPORT = """
from wastelens.cli import prepare_environment
prepare_environment()
from wastelens.models.backend import load_backend
load_backend()
import json, keras, matplotlib, tensorflow
from keras import layers
model = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization()])
print(json.dumps({
    "backend": keras.config.backend(),
    "keras": tensorflow.keras.__version__,
    "limits": [keras.config.max_epochs(), keras.config.max_steps_per_epoch()],
    "epsilon": keras.config.epsilon(),
    "shapes": [list(weight.shape) for weight in model.weights],
    "dtypes": [weight.dtype for weight in model.weights],
    "output": list(model.output_shape),
    "figures": {name: str(value) for name, value in matplotlib.rcParams.items()},
}))
"""


def report(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a process with this home folder and these variables; it prints what it builds and draws with."""
    env = environment(HOME=str(home), PYTHONPATH=str(ROOT / "src"), **variables)
    return subprocess.run(
        [sys.executable, "-c", REPORT], cwd=home, env=env, capture_output=True, text=True, check=False
    )


def keras_settings(home: Path, **settings: object) -> None:
    (home / ".keras").mkdir(parents=True)
    (home / ".keras" / "keras.json").write_text(json.dumps(settings))


def test_global_settings_of_the_user_change_nothing(tmp_path: Path) -> None:
    plain, own = tmp_path / "plain", tmp_path / "own"
    plain.mkdir()
    keras_settings(own, floatx="float16", epsilon=0.1, backend="jax", image_data_format="channels_first")
    for place in (own / ".config" / "matplotlib", own):
        place.mkdir(parents=True, exist_ok=True)
        (place / "matplotlibrc").write_text("font.size: 30\ntext.usetex: True\naxes.grid: True\n")
    answers = [
        report(plain),
        report(
            own,
            KERAS_BACKEND="torch",
            TF_USE_LEGACY_KERAS="1",
            KERAS_MAX_EPOCHS="1",
            KERAS_MAX_STEPS_PER_EPOCH="1",
            MPLBACKEND="module://there.is.no.such.backend",
        ),
    ]
    assert [answer.returncode for answer in answers] == [0, 0], answers[1].stderr
    expected, found = (json.loads(answer.stdout) for answer in answers)
    assert found == expected
    assert found["backend"] == "tensorflow"
    assert found["output"] == [None, 6, 6, 4]


def test_settings_that_keras_refuses_are_named_in_one_line(tmp_path: Path) -> None:
    keras_settings(tmp_path, floatx="bfloat16")
    answer = report(tmp_path)
    last = answer.stderr.splitlines()[-1]
    assert "ConfigError: Keras cannot read its settings (Invalid `floatx` configuration." in last
    assert "remove ~/.keras/keras.json" in last
    (tmp_path / ".keras" / "keras.json").unlink()
    assert report(tmp_path).returncode == 0
