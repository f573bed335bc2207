"""An interrupt that Python drops is raised at the next check."""

from __future__ import annotations

import pytest

from wastelens.system import interrupts


def test_a_dropped_interrupt_is_raised_at_the_next_check():
    with pytest.raises(KeyboardInterrupt):
        interrupts._interrupt(2, None)
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()
    interrupts.check()
