"""The stand-in application with both panels open, and hands to use them."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed", exc_type=ImportError)
pytest.importorskip("slicer", reason="slicer-core is not installed", exc_type=ImportError)

from slicer_standin import boot
from slicer_standin import pythonqt
from SSLEngine import jobs

ROOT = Path(__file__).resolve().parents[2]


class Window:
    """The stand-in application with both panels, and hands to use them."""

    def __init__(self, application: Any, pictures: Path, home: Path) -> None:
        self.application = application
        self.pictures = pictures
        self.home = home
        application.settings.setValue("SSLSegmentation/JobsFolder", str(home / "jobs"))
        self.pretrain_module = application.load_module(ROOT / "SSLPretrain" / "SSLPretrain.py")
        self.segment_module = application.load_module(ROOT / "SSLSegmentation" / "SSLSegmentation.py")
        self.pretrain = application.open_panel(self.pretrain_module)
        self.segmentation = application.open_panel(self.segment_module)

    @property
    def scene(self) -> Any:
        return self.application.scene

    def spin(self, until: Callable[[], Any], timeout: float = 300.0) -> None:
        """Lets the event loop run until something is so."""
        end = time.monotonic() + timeout
        while not until():
            assert time.monotonic() < end, f"not so after {timeout:g} s; messages: {self.application.messages[-3:]}"
            # Many short turns of the loop between two looks, which cost more.
            for _ in range(15):
                self.application.qapp.processEvents()
                time.sleep(0.01)
        self.application.qapp.processEvents()
        assert not pythonqt.slot_errors, pythonqt.slot_errors[-1]

    def spin_to_end(self, folder: Path, timeout: float = 400.0) -> jobs.Status:
        """Lets the event loop run until a job has ended, in whatever way."""
        self.spin(lambda: jobs.status(folder).state not in (jobs.QUEUED, jobs.RUNNING), timeout)
        return jobs.status(folder)

    def picture(self, widget: Any, name: str, height: int = 1500) -> Path:
        """A screenshot of a panel as it would look in a module panel 500 px wide."""
        top = widget.parent._real
        top.resize(500, height)
        top.show()
        for _ in range(3):
            self.application.qapp.processEvents()
        path = self.pictures / f"{name}.png"
        assert top.grab().save(str(path))
        return path

    def count(self, class_name: str) -> int:
        return int(self.scene.GetNumberOfNodesByClass(class_name))


def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    """Opens both panels; closes them and takes the stand-in away at the end."""
    patch = pytest.MonkeyPatch()
    pictures = tmp_path_factory.getbasetemp() / "screenshots"
    pictures.mkdir(exist_ok=True)
    home = tmp_path_factory.mktemp("home")
    patch.setenv("HOME", str(home))
    # Small jobs gain nothing from many threads, and tests run beside each other.
    patch.setenv("OMP_NUM_THREADS", "2")
    window = Window(boot(patch), pictures, home)
    from SSLPanels import clicks

    # Tests click faster than a hand.
    patch.setattr(clicks, "DOUBLE_CLICK_S", 0.0)
    yield window
    window.pretrain.cleanup()
    window.segmentation.cleanup()
    errors, pythonqt.slot_errors[:] = list(pythonqt.slot_errors), []
    patch.undo()
    assert not errors, errors[-1]


def choose(box: Any, text: str) -> None:
    """Chooses an item of a combo box by what it shows."""
    assert box.findText(text) >= 0, [box.itemText(k) for k in range(box.count)]
    box.currentIndex = box.findText(text)


class Pulse:
    """A timer that notes how much work the event loop does between two of its ticks."""

    def __init__(self) -> None:
        from PySide6 import QtCore

        self.longest = 0.0
        self.ticks = 0
        # What hundreds of earlier tests have left would cost the garbage collector up to a second of this thread.
        gc.collect()
        gc.freeze()
        self._last = time.thread_time()
        self.timer = QtCore.QTimer()
        self.timer.timeout.connect(self._tick)
        self.timer.start(10)

    def _tick(self) -> None:
        # Time of this thread, not of the clock: other processes on a busy machine are not the window's fault.
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self.ticks += 1

    def stop(self, most: float = 0.2) -> None:
        """Ends; a window that follows a job must never have blocked its event loop for longer, in seconds."""
        self.timer.stop()
        gc.unfreeze()
        assert self.ticks > 20
        assert self.longest < most, f"the event loop was blocked for {self.longest:.3f} s"
