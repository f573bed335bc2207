"""An interrupt that Python drops is raised at the next check."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
from tests.project.running import ROOT, environment

from wastelens.system import interrupts


def test_a_dropped_interrupt_is_raised_at_the_next_check():
    with pytest.raises(KeyboardInterrupt):
        interrupts._interrupt(2, None)
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()
    interrupts.check()


IN_A_CALLBACK = """
import signal, sys, time, weakref
from wastelens.system import interrupts

class Thing: pass

interrupts.listen()
thing = Thing()
reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.{name}))
del thing
print("dropped", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("raised again")
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_that_a_callback_drops_is_raised_soon_after(name: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", IN_A_CALLBACK.format(name=name)],
        env=environment(PYTHONPATH=str(ROOT / "src")),
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert answer.stdout.split("\n")[:2] == ["dropped", "raised again"]
    assert answer.stderr == ""


def test_other_errors_that_python_drops_are_reported_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []
    monkeypatch.setattr(sys, "__unraisablehook__", reported.append)
    dropped = SimpleNamespace(exc_type=ValueError)
    interrupts._raise_dropped(dropped)
    assert reported == [dropped]
