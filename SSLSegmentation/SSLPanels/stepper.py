"""Lengthy work on the scene, a little at a time from a timer: the window stays awake, nothing runs in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Generator
from typing import Any

import qt


class Stepper:
    """Takes the steps of one generator after another, between what the user does.

    Attributes:
        SLICE_S: So long it works before the window has its turn; a single step should take less.
    """

    SLICE_S = 0.03

    def __init__(self) -> None:
        self._steps: Generator[Any, None, Any] | None = None
        self._onStep: Callable[[Any], None] | None = None
        self._onDone: Callable[[Any], None] | None = None
        self._onError: Callable[[Exception], None] | None = None
        # Kept on self: a timer without a Python reference never ticks.
        self._timer = qt.QTimer()
        self._timer.setInterval(1)
        self._timer.connect("timeout()", self._work)

    @property
    def active(self) -> bool:
        """Whether there is work left."""
        return self._steps is not None

    def run(
        self,
        steps: Generator[Any, None, Any],
        onDone: Callable[[Any], None],
        onError: Callable[[Exception], None],
        onStep: Callable[[Any], None] | None = None,
    ) -> None:
        """Begins; what was begun before and is not done is given up.

        Args:
            steps: The work.
            onDone: Called with what it returns.
            onError: Called with the exception that ended it.
            onStep: Called with the last step of each turn.
        """
        self.cancel()
        self._steps, self._onDone, self._onError, self._onStep = steps, onDone, onError, onStep
        self._timer.start()

    def cancel(self) -> None:
        """Gives up: the generator takes back what it has done."""
        self._timer.stop()
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.close()

    def _work(self) -> None:
        steps, end = self._steps, time.monotonic() + self.SLICE_S
        if steps is None:
            return
        try:
            while True:
                step = next(steps)
                if time.monotonic() > end:
                    break
        except StopIteration as done:
            self._end()
            if self._onDone is not None:
                self._onDone(done.value)
        except Exception as error:
            self._end()
            if self._onError is not None:
                self._onError(error)
        else:
            if self._onStep is not None:
                self._onStep(step)

    def _end(self) -> None:
        self._timer.stop()
        self._steps = None
