"""The devices that workers can compute on, by name: told by a probe in a process, as torch stays out of this one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import slicer
from slicer.i18n import tr as _

from . import wording

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
