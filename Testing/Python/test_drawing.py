"""Segments that a person draws: on which exam they lie, and that the panel sees them at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer

from panel_window import Window
from SSLEngine.studies import read_study
from toy_exams import toy_study

NAMES = {1: "LV cavity", 2: "LV myocardium"}


@pytest.fixture
def panel(window: Window, tmp_path: Path) -> Iterator[Any]:
    """The panel of SSL Segmentation without an exam; labelled exams are collected in ``tmp_path``."""
    panel = window.segmentation
    panel.parameters.labelled = str(tmp_path / "labelled")
    panel.parameters.segmentation = None
    yield panel
    panel.setExam(None)
    window.scene.Clear(0)


def loaded(window: Window, seed: int) -> Any:
    from SSLScene import exams

    study = toy_study(seed)
    return exams.load_study(window.scene, study, study.name)


def draw(window: Window, exam: Any, name: str = "drawn") -> Any:
    from SSLScene import segments

    labels = np.zeros(exam.views[0].view.shape, np.int16)
    labels[1:3, 4:9, 5:12] = 1
    return segments.add_labels(window.scene, exam, exam.views[0], labels, NAMES, name)[0]


def test_segments_of_one_exam_are_no_labels_of_another(window: Window, panel: Any) -> None:
    from SSLPanels import corrections
    from SSLScene.host import SceneError

    first, second = loaded(window, 1), loaded(window, 2)
    assert [item.view.name for item in first.views] == [item.view.name for item in second.views]
    panel.setExam(first)
    node = draw(window, first)
    panel.parameters.segmentation = node
    assert panel.ui.collectButton.enabled
    panel.setExam(second)
    assert panel.parameters.segmentation is None
    assert not panel.ui.collectButton.enabled
    with pytest.raises(SceneError, match="belongs to no view"):
        corrections.view_of(second, node)
    # What has lost its volume is of the exam that it was made for.
    node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), "")
    assert corrections.view_of(first, node) is first.views[0]
    with pytest.raises(SceneError, match="belongs to no view"):
        corrections.view_of(second, node)


def test_what_is_drawn_by_hand_becomes_a_labelled_exam(window: Window, panel: Any, tmp_path: Path) -> None:
    exam = loaded(window, 3)
    panel.setExam(exam)
    box = panel.ui.drawOnComboBox
    assert [box.itemText(k) for k in range(box.count)] == [item.view.name for item in exam.views]
    box.currentIndex = 1
    panel.ui.newSegmentationButton.click()
    node, volume = panel.parameters.segmentation, exam.views[1].volume
    assert panel.ui.segmentEditorWidget.segmentationNode() is node
    assert panel.ui.segmentEditorWidget.sourceVolumeNode() is volume
    assert not panel.ui.collectButton.enabled, "nothing is drawn yet"
    assert "Draw segments" in panel.ui.reasonLabel.text or "pretrained model" in panel.ui.reasonLabel.text
    mask = np.zeros(exam.views[1].view.shape, np.uint8)
    mask[0, 8:14, 6:18] = 1
    identifier = node.GetSegmentation().AddEmptySegment("", "LV cavity")
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, identifier, volume)
    assert panel.ui.collectButton.enabled, "nothing but the stroke told the panel"
    panel.ui.collectButton.click()
    window.spin(lambda: not panel.busy)
    (folder,) = (tmp_path / "labelled").iterdir()
    view = read_study(folder).views[1]
    assert view.label_names == {1: "LV cavity"}
    np.testing.assert_array_equal(view.labels(0), mask)
    node.GetSegmentation().RemoveAllSegments()
    assert not panel.ui.collectButton.enabled


def test_a_new_segmentation_has_the_structures_of_the_labelled_exams(window: Window, panel: Any) -> None:
    from SSLScene import segments

    exam = loaded(window, 4)
    panel.setExam(exam)
    panel.parameters.segmentation = draw(window, exam)
    panel.ui.collectButton.click()
    window.spin(lambda: not panel.busy)
    panel.ui.newSegmentationButton.click()
    node = panel.parameters.segmentation
    assert segments.segment_names(node) == list(NAMES.values())
    assert not segments.is_drawn(node)
    assert panel.correctPanel.segmentations()[0].GetName() == "drawn", "an empty one takes no one's place"


def test_the_editor_leaves_the_views_as_they_are(window: Window, panel: Any) -> None:
    from SSLScene import layouts

    exam = loaded(window, 5)
    panel.setExam(exam)
    layouts.show_views(window.scene, exam)
    nodes = [window.scene.GetNthNodeByClass(k, "vtkMRMLSliceCompositeNode") for k in range(3)]
    before = [node.GetBackgroundVolumeID() for node in nodes]
    assert len(set(before)) == 3
    panel.parameters.segmentation = draw(window, exam)
    assert panel.ui.segmentEditorWidget.sourceVolumeNode() is exam.views[0].volume
    assert [node.GetBackgroundVolumeID() for node in nodes] == before
