"""Under each pretext of a panel: what the network would have to find on the user's own slices, drawn by a job."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from SSLEngine import jobs

from .stepper import Stepper

WIDTH = 420
TARGETS_FILE = "targets.json"


class TargetPictures:
    """The labels of the pretexts, each under the pretext's check box.

    Args:
        ui: Has a label ``<pretext>TargetLabel`` for each pretext.
        pretexts: Their names.
    """

    def __init__(self, ui: Any, pretexts: Sequence[str]) -> None:
        self._labels = {name: getattr(ui, f"{name}TargetLabel") for name in pretexts}
        self._stepper = Stepper()
        self.clear()

    @property
    def active(self) -> bool:
        """Whether more pictures are to come."""
        return self._stepper.active

    def clear(self) -> None:
        """Shows no pictures."""
        self._stepper.cancel()
        for label in self._labels.values():
            label.clear()
            label.setVisible(False)

    def show(self, folder: Path) -> None:
        """Shows what a job of kind ``targets`` has drawn, one by one, and says where there was nothing to draw."""
        files = jobs.read_json(folder / TARGETS_FILE)
        self._stepper.run(
            self._showing(folder, files), lambda done: None, lambda error: slicer.util.errorDisplay(str(error))
        )

    def _showing(self, folder: Path, files: Mapping[str, str | None]) -> Generator[None, None, None]:
        for name, label in self._labels.items():
            file = files.get(name)
            if file is None:
                label.text = _("    The planes of this exam give it nothing to find.")
            else:
                picture = qt.QPixmap(str(folder / Path(file).name))
                width = min(WIDTH, WIDTH * picture.width() // 600)
                label.setPixmap(picture.scaledToWidth(width, qt.Qt.SmoothTransformation))
            label.setVisible(name in files)
            yield
