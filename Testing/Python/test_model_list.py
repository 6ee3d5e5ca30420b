"""The models of jobs that SSL Segmentation offers: damaged jobs do not take the others with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from panel_window import Window
from panel_window import choose
from SSLEngine import jobs


def finished(window: Window, name: str) -> Path:
    folder = jobs.create(window.home / "jobs" / name, "pretrain", {})
    (folder / jobs.MODEL_FILE).write_bytes(b"model")
    return folder


@pytest.fixture
def panel(window: Window) -> Iterator[Any]:
    window.application.messages.clear()
    yield window.segmentation
    window.segmentation.parameters.model = ""


def listed(panel: Any) -> list[str]:
    return [panel.ui.jobComboBox.itemText(k) for k in range(panel.ui.jobComboBox.count)]


DAMAGES = {
    "truncated": b'{"kind": "pretrain", "sett',
    "empty": b"",
    "no JSON": b"<html>",
    "no text": b"\xff\xfe\x00",
    "no object": b"[1]",
    "kind of a wrong type": b'{"kind": ["pretrain"], "settings": {}}',
    "settings of a wrong type": b'{"kind": "pretrain", "settings": 3}',
    "far too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_job_is_passed_over_with_a_sentence(window: Window, panel: Any, damage: str) -> None:
    good, bad = finished(window, f"good {damage}"), finished(window, f"bad {damage}")
    (bad / jobs.JOB_FILE).write_bytes(DAMAGES[damage])
    panel.exit()
    panel.enter()
    assert f"{good.name} (Pretraining)" in listed(panel)
    assert not any(bad.name in text for text in listed(panel))
    said = [text for kind, text in window.application.messages if kind == "status" and str(bad) in text]
    assert len(said) == 1
    assert "create the job again" in said[0]
    (bad / jobs.JOB_FILE).unlink()


def test_a_job_that_has_finished_meanwhile_is_offered_when_the_panel_is_entered(window: Window, panel: Any) -> None:
    first = finished(window, "first")
    panel.exit()
    panel.enter()
    choose(panel.ui.jobComboBox, "first (Pretraining)")
    panel.ui.jobComboBox.activated(panel.ui.jobComboBox.currentIndex)
    assert panel.parameters.model == str(first / jobs.MODEL_FILE)
    panel.exit()
    second = finished(window, "second")
    panel.enter()
    assert "second (Pretraining)" in listed(panel)
    assert panel.ui.jobComboBox.currentText == "first (Pretraining)", "the list shows whose model is chosen"
    panel.parameters.model = str(second / jobs.MODEL_FILE)
    assert panel.ui.jobComboBox.currentText == "second (Pretraining)"
    panel.parameters.model = "/elsewhere/model.safetensors"
    assert panel.ui.jobComboBox.currentText == "choose ..."
    assert not window.application.messages
