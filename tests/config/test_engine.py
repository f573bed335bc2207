"""``engine=`` and ``outage_minutes=``, which several steps have."""

from __future__ import annotations

import pytest
from tests.factories import config

from wastelens.config.engine import is_elsewhere, processes_of
from wastelens.config.files import load_config
from wastelens.errors import ConfigError

STEPS = ("study", "tune")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("engine", "processes", "elsewhere"),
    [
        ("local", 0, False),
        ("processes:1", 1, False),
        ("processes:16", 16, False),
        ("tcp://a:8786", 0, True),
        ("tcp://10.0.0.7:8786", 0, True),
        ("tcp://[::1]:8786", 0, True),
        ("tls://scheduler.example.org:8786", 0, True),
    ],
)
def test_engines(step: str, engine: str, processes: int, elsewhere: bool) -> None:
    chosen = config(step, engine=engine).engine
    assert (chosen, processes_of(chosen), is_elsewhere(chosen)) == (engine, processes, elsewhere)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (
            "lokal",
            "'lokal' is no engine. Did you mean 'local'? Use local, processes:N, tcp://HOST:PORT or tls://HOST:P",
        ),
        ("process:2", "'process:2' is no engine. Did you mean 'processes'?"),
        ("processes", "'processes' is no engine. Did you mean 'processes'?"),
        ("processes:two", "'processes:two' is no engine."),
        ("processes:-2", "'processes:-2' is no engine."),
        ("processes:0", "needs at least one process, as in processes:2"),
        ("processes:1000", "'processes:1000' is no engine."),
        ("dask", "'dask' is no engine. Use local, processes:N, tcp://HOST:PORT or tls://HOST:PORT"),
        ("tcp://a", "'tcp://a' is no engine."),  # without a port
        ("tcp://a:", "'tcp://a:' is no engine."),
        ("tcp://:8786", "'tcp://:8786' is no engine."),
        ("tcp//a:8786", "'tcp//a:8786' is no engine."),
        ("http://a:8786", "'http://a:8786' is no engine."),
        ("tcp://a:8786/status", "is no engine."),
        ("a:8786", "'a:8786' is no engine."),
    ],
)
def test_engines_that_cannot_be(step: str, engine: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(step, parameters={"engine": engine})
    message = str(caught.value)
    assert message.startswith("Config key 'engine' in the command line: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("step", ["train", "pretrain", *STEPS])
def test_how_long_a_step_waits_for_the_server(step: str) -> None:
    assert config(step).outage_minutes == 10
    assert config(step, "outage_minutes=0.05").outage_minutes == 0.05
    with pytest.raises(ConfigError, match=r"'outage_minutes'.* less than or equal to 18"):
        load_config(step, settings="outage_minutes=19")


def test_a_pretraining_waits_as_long_as_the_training_that_asks_for_it() -> None:
    chosen = config("train", "outage_minutes=3", model="autoencoder", pretrained="auto")
    assert chosen.pretraining().outage_minutes == 3
