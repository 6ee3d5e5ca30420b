"""A short job of a panel, one at a time: the button that starts it cancels it while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from SSLEngine import jobs

from . import wording
from .clicks import DOUBLE_CLICK_S
from .follower import JobFollower


class ShortTask:
    """Runs jobs that are over in seconds or minutes, and shows in a label how far they are.

    Args:
        buttons: Those that start such jobs; all but the one that was pressed wait meanwhile.
        onEnd: Called when a job has ended, in whatever way.
    """

    def __init__(self, buttons: Sequence[Any], onEnd: Callable[[], None]) -> None:
        self._buttons = list(buttons)
        self._onEnd = onEnd
        self._button: Any = None
        self._label: Any = None
        self._text = ""
        self._pressed = 0.0
        self._onFinished: Callable[[Path], None] | None = None
        self._follower = JobFollower(self._update, self._ended)

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return self._button is not None

    def press(
        self, button: Any, label: Any, doing: str, start: Callable[[], Path], onFinished: Callable[[Path], None]
    ) -> None:
        """Starts a job, or stops the one that this button has started.

        Args:
            button: The button that was pressed.
            label: Where to say how it goes.
            doing: What is being done, in words.
            start: Starts the job and returns its folder.
            onFinished: Called with the folder when it has finished well.
        """
        if self.busy:
            if time.monotonic() - self._pressed < DOUBLE_CLICK_S:
                return
            self._follower.stop()
            button.enabled = False
            return
        with slicer.util.tryWithErrorDisplay(_("The task could not be started."), waitCursor=True):
            folder = start()
            self._button, self._label, self._text, self._onFinished = button, label, button.text, onFinished
            button.text = _("Cancel")
            label.text = doing
            for other in self._buttons:
                other.enabled = other is button
            self._pressed = time.monotonic()
            self._follower.follow(folder)

    def release(self) -> None:
        """Ends following; the job goes on."""
        self._follower.release()

    def _update(self, status: jobs.Status, events: list[dict[str, Any]]) -> None:
        if status.steps and self._label is not None:
            self._label.text = wording.task(status)

    def _ended(self, status: jobs.Status) -> None:
        folder, label = self._follower.folder, self._label
        self._button.text = self._text
        self._button = None
        for button in self._buttons:
            button.enabled = True
        self._onEnd()
        if status.state == jobs.FINISHED and self._onFinished is not None:
            label.text = ""
            self._onFinished(folder)
        elif status.state == jobs.CANCELLED:
            label.text = _("Stopped.")
        else:
            label.text = wording.sentence(folder, status)
            slicer.util.errorDisplay(wording.failure(folder, status))
