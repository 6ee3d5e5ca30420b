"""What the self-tests of both modules have in common."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import unittest
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

from . import requirements
from .workers import FOLDER_KEY
from .workers import PYTHON_KEY


class SelfTest(ScriptedLoadableModuleTest):
    """For the real application, with or without a main window, in under three minutes.

    What needs packages that this Slicer does not have is skipped, and says so.
    """

    def runTest(self) -> None:
        """Runs all tests, as the button "Reload and Test" does."""
        for name in [name for name in dir(self) if name.startswith("test_")]:
            self.setUp()
            try:
                getattr(self, name)()
            except unittest.SkipTest as why:
                print(f"{name} skipped: {why}")

    def panel(self) -> Any:
        """The module's panel, shown."""
        name = type(self).__name__.removesuffix("Test")
        slicer.util.selectModule(name)
        slicer.app.processEvents()
        # Without a main window no module can be selected, but its panel can be made.
        panel = slicer.util.getModuleWidget(name)
        if panel.parameters is None:
            panel.enter()
        return panel

    def checkWidgets(self, panel: Any, expected: Mapping[str, str]) -> None:
        """Widgets of a panel came out of the .ui file as what they should be: class by name."""
        for name, kind in expected.items():
            self.assertEqual(getattr(panel.ui, name).className(), kind, name)

    def needs(self, *packages: str) -> None:
        """Skips the test where a package is not there; nothing is imported to find out."""
        self._need([name for name in packages if importlib.util.find_spec(name) is None])

    def needsTraining(self) -> None:
        """Skips the test where something that a worker needs to train is not there."""
        self._need(requirements.missing(requirements.resources() / requirements.WORKER))

    def _need(self, lacking: list[str]) -> None:
        if lacking:
            self.skipTest("not installed: " + ", ".join(lacking))

    @contextlib.contextmanager
    def ownJobs(self) -> Iterator[Path]:
        """A folder for what a test makes; its jobs lie there, apart from the user's, and run in Slicer's own Python."""
        folder = Path(slicer.util.tempDirectory(type(self).__name__))
        settings = slicer.app.settings()
        kept = {key: settings.value(key, "") for key in (FOLDER_KEY, PYTHON_KEY)}
        settings.setValue(FOLDER_KEY, str(folder / "jobs"))
        settings.setValue(PYTHON_KEY, "")
        try:
            yield folder
        finally:
            for key, value in kept.items():
                settings.setValue(key, value)
            shutil.rmtree(folder, ignore_errors=True)
