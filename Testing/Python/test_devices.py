"""The row of a device is one and the same in both modules: what it offers, remembers and says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from panel_window import Window
from panel_window import choose
from SSLEngine import jobs

CPU = {"device": "cpu", "name": "Processor, 2 cores", "free_bytes": 3e9}
CARD = {"device": "cuda:0", "name": "Card", "free_bytes": 8.5e9}


@pytest.fixture(params=["pretrain", "segmentation"])
def panel(window: Window, request: pytest.FixtureRequest) -> Iterator[Any]:
    from SSLPanels import devices

    devices.remember([])
    found = getattr(window, request.param)
    found.parameters.device = "auto"
    found.enter()
    yield found
    found.parameters.device = "auto"


def listed(panel: Any) -> list[str]:
    return [panel.ui.deviceComboBox.itemText(k) for k in range(panel.ui.deviceComboBox.count)]


def press(window: Window, panel: Any, tmp_path: Path, found: list[dict[str, Any]]) -> None:
    """Presses the button; the probe has found these devices."""
    folder = jobs.create(tmp_path / "probe", "probe", {})
    jobs.write_json(folder / "probe.json", {"devices": found, "summary": "PyTorch 2.13 can use: these."})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panel.logic, "probe", lambda: folder)
        panel.ui.probeButton.click()
    assert panel.ui.probeButton.text == "Cancel"
    assert panel.ui.forecastLabel.text == "Looking at the devices ..."
    jobs.Reporter(folder).event("finished")
    window.spin(lambda: panel.ui.probeButton.text == "Check devices", 20)


def test_the_list_shows_what_the_scene_asks_for(panel: Any) -> None:
    assert listed(panel) == ["Automatic", "Processor"]
    panel.parameters.device = "cuda:7"
    assert panel.ui.deviceComboBox.currentText == "cuda:7 (not found here)"
    panel.parameters.device = "cpu"
    assert panel.ui.deviceComboBox.currentText == "Processor"
    assert listed(panel) == ["Automatic", "Processor"]
    choose(panel.ui.deviceComboBox, "Automatic")
    panel.ui.deviceComboBox.activated(0)
    assert panel.parameters.device == "auto"


def test_what_one_module_finds_the_other_knows(window: Window, panel: Any, tmp_path: Path) -> None:
    other = window.segmentation if panel is window.pretrain else window.pretrain
    press(window, panel, tmp_path, [CARD, CPU])
    assert panel.ui.forecastLabel.text == "PyTorch 2.13 can use: these."
    assert listed(panel) == ["Automatic", "Card (8.5 GB free)", "Processor, 2 cores (3.0 GB free)"]
    other.exit()
    other.enter()
    assert listed(other) == ["Automatic", "Card", "Processor, 2 cores"]
    # What was free then is not free now.
    panel.exit()
    panel.enter()
    assert listed(panel) == ["Automatic", "Card", "Processor, 2 cores"]


def test_where_there_is_no_gpu_both_say_so(window: Window, panel: Any, tmp_path: Path) -> None:
    press(window, panel, tmp_path, [CPU])
    assert panel.ui.forecastLabel.text.startswith("PyTorch 2.13 can use: these. No GPU was found")
    assert listed(panel) == ["Automatic", "Processor, 2 cores (3.0 GB free)"]


def test_the_words_are_the_same(window: Window) -> None:
    for name in ("deviceComboBox", "probeButton"):
        first, second = (getattr(panel.ui, name) for panel in (window.pretrain, window.segmentation))
        assert first.toolTip == second.toolTip
