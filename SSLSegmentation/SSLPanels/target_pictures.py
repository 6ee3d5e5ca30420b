"""Under each pretext of a panel: what the network would have to find on the user's own slices, drawn by a job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from SSLEngine import jobs

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
        self.clear()

    def clear(self) -> None:
        """Shows no pictures."""
        for label in self._labels.values():
            label.clear()
            label.setVisible(False)

    def show(self, folder: Path) -> None:
        """Shows what a job of kind ``targets`` has drawn, and says where there was nothing to draw."""
        files = jobs.read_json(folder / TARGETS_FILE)
        for name, label in self._labels.items():
            label.setVisible(name in files)
            if files.get(name) is None:
                label.text = _("    The planes of this exam give it nothing to find.")
                continue
            picture = qt.QPixmap(str(folder / Path(files[name]).name))
            width = min(WIDTH, WIDTH * picture.width() // 600)
            label.setPixmap(picture.scaledToWidth(width, qt.Qt.SmoothTransformation))
