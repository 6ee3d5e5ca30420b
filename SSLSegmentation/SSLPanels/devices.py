"""The devices that workers can compute on, by name: told by a probe in a process, as torch stays out of this one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import slicer
from slicer.i18n import tr as _

from SSLEngine import jobs

from . import wording
from .section import Section

if TYPE_CHECKING:
    from .short_task import ShortTask

KEY = "SSLSegmentation/Devices"
AUTOMATIC, PROCESSOR = "auto", "cpu"


def known() -> list[dict[str, str]]:
    """The devices that the last probe found, ``device`` and ``name`` of each; empty before the first."""
    try:
        found = json.loads(slicer.app.settings().value(KEY, "") or "[]")
        return [{"device": str(item["device"]), "name": str(item["name"])} for item in found]
    except (ValueError, TypeError, KeyError):
        return []


def remember(devices: Sequence[Mapping[str, Any]]) -> None:
    """Keeps what a probe has found, for both modules; free memory is true for the moment only and is not kept."""
    kept = [{"device": item["device"], "name": item["name"]} for item in devices]
    slicer.app.settings().setValue(KEY, json.dumps(kept))


def fill(box: Any, devices: Sequence[Mapping[str, Any]], wanted: str) -> None:
    """Lists devices in a combo box and shows the wanted one.

    Args:
        box: The combo box.
        devices: From a probe, with free memory, or from :func:`known`.
        wanted: ``auto``, ``cpu`` or ``cuda:N``.
    """
    blocked = box.blockSignals(True)
    box.clear()
    box.addItem(_("Automatic"), AUTOMATIC)
    for item in devices:
        memory = wording.size(item.get("free_bytes"))
        box.addItem(
            _("{name} ({memory} free)").format(name=item["name"], memory=memory) if memory else item["name"],
            item["device"],
        )
    if box.findData(PROCESSOR) < 0:
        box.addItem(_("Processor"), PROCESSOR)
    if box.findData(wanted) < 0:
        # A scene may come from another machine: what it asks for is shown, not silently replaced.
        box.addItem(_("{device} (not found here)").format(device=wanted), wanted)
    box.setCurrentIndex(box.findData(wanted))
    box.blockSignals(blocked)


class DeviceRow(Section):
    """The choice of a device in a panel: ``deviceComboBox``, ``probeButton``, and ``forecastLabel`` for what is found.

    What is found is known to both modules; which device is wanted is a parameter ``device`` of each.

    Args:
        owner: The module's widget.
        task: Runs the probe.
    """

    def __init__(self, owner: Any, task: ShortTask) -> None:
        super().__init__(owner)
        self._task = task
        self._found: Sequence[Mapping[str, Any]] = known()
        self._shown = ""
        self.ui.deviceComboBox.connect("activated(int)", self.onDevice)
        self.ui.probeButton.connect("clicked()", self.onProbe)

    def enter(self) -> None:
        """The other module may have found devices meanwhile, and what was free then is not free now."""
        self._found = known()
        self._shown = ""
        self.update()

    def update(self) -> None:
        """Shows the wanted device among those that there are."""
        if self.parameters is not None and self.parameters.device != self._shown:
            self._shown = self.parameters.device
            fill(self.ui.deviceComboBox, self._found, self._shown)

    def onDevice(self, index: int) -> None:
        """A device was chosen."""
        self.write("device", self.ui.deviceComboBox.itemData(index))

    def onProbe(self) -> None:
        """Asks a process for the devices."""
        doing = _("Looking at the devices ...")
        self._task.press(self.ui.probeButton, self.ui.forecastLabel, doing, self.logic.probe, self._onProbed)

    def _onProbed(self, folder: Path) -> None:
        self.ui.forecastLabel.text = self.take(folder)

    def take(self, folder: Path) -> str:
        """Takes over what a probe has found, be it with a forecast; returns it in words.

        Raises:
            JobError: The probe has left nothing.
        """
        document = jobs.read_json(folder / "probe.json")
        self._found = document["devices"]
        remember(self._found)
        self._shown = ""
        self.update()
        none = _("No GPU was found; the processor takes many times longer.")
        gpu = any(item["device"] != PROCESSOR for item in self._found)
        return str(document["summary"]) if gpu else f"{document['summary']} {none}"
