"""What comes from files is shown as it is: Qt takes for HTML what looks like it, and names may look like anything."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from panel_window import Window

ROOT = Path(__file__).resolve().parents[2]
UI_FILES = sorted(ROOT.glob("SSL*/Resources/UI/*.ui"))
#: Shows HTML that the program writes, with all that comes from the model's file escaped (``model_card.describe``).
HTML = {"cardLabel"}
#: Shows pictures and never a text.
PICTURES = {"sampleLabel"}


def filled_from_code() -> re.Pattern[str]:
    """The names of labels that the code of the panels speaks of; of ``f"{name}TargetLabel"``, whatever the name."""
    sources = [*ROOT.glob("SSL*/SSL*.py"), *ROOT.glob("SSLSegmentation/SSLPanels/*.py")]
    names = {name for path in sources for name in re.findall(r"(?:\w|\{\w+\})*Label\b", path.read_text("utf-8"))}
    return re.compile("|".join(re.sub(r"\{\w+\}", r"\\w+", name) for name in sorted(names)))


@pytest.mark.parametrize("path", UI_FILES, ids=lambda path: path.stem)
def test_labels_show_what_comes_from_files_as_plain_text(path: Path) -> None:
    filled = filled_from_code()
    labels = {w.get("name", ""): w for w in ElementTree.parse(path).iter("widget") if w.get("class") == "QLabel"}
    chosen = {name: widget for name, widget in labels.items() if filled.fullmatch(name)}
    assert {"jobStateLabel", "forecastLabel", "reasonLabel"} <= set(chosen)
    for name in set(chosen) - HTML - PICTURES:
        formats = [p.findtext("enum") for p in chosen[name].iter("property") if p.get("name") == "textFormat"]
        assert formats == ["Qt::PlainText"], f"{path.name}: {name}"


@pytest.mark.parametrize("path", UI_FILES, ids=lambda path: path.stem)
def test_who_cannot_see_the_panel_hears_what_a_field_is_for(path: Path) -> None:
    """The label of a form's row names its field: screen readers say it, and a click on it goes there."""
    root = ElementTree.parse(path).getroot()
    names = {widget.get("name") for widget in root.iter("widget")}
    rows = [item for item in root.iter("item") if item.get("column") == "0"]
    labels = [widget for row in rows for widget in row.findall("widget[@class='QLabel']")]
    labels = [label for label in labels if (label.findtext("property/string") or "").endswith(":")]
    assert len(labels) > 10
    for label in labels:
        buddy = next((p.findtext("cstring") for p in label.iter("property") if p.get("name") == "buddy"), None)
        assert buddy in names, f"{path.name}: {label.get('name')}"


def test_every_panel_is_looked_at() -> None:
    assert [path.stem for path in UI_FILES] == ["SSLPretrain", "SSLSegmentation"]


def test_a_reason_names_a_folder_as_it_is(window: Window) -> None:
    panel = window.pretrain
    panel.parameters.cohort = "/absent/<b>exams</b>"
    assert "/absent/<b>exams</b>" in panel.ui.reasonLabel.text
    assert "/absent/&lt;b&gt;exams&lt;/b&gt;" in panel.ui.startButton.toolTip
    panel.parameters.cohort = ""
