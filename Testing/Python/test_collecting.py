"""Segments become a labelled exam without holding up the window; nothing that was collected before is lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panel_window import Pulse
from panel_window import Window
from slicer_standin import pythonqt
from SSLEngine import jobs
from SSLEngine.geometry import Plane
from SSLEngine.studies import Study
from SSLEngine.studies import View
from SSLEngine.studies import read_study
from toy_exams import toy_study

NAMES = {1: "LV cavity", 2: "LV myocardium", 3: "RV cavity", 4: "LA cavity"}
SHAPE = (24, 320, 300)


@pytest.fixture
def drawn(window: Window, tmp_path: Path) -> Iterator[Any]:
    """A large exam in the panel with segments on its stack, to be collected in ``tmp_path``."""
    from SSLScene import exams
    from SSLScene import segments

    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 900, SHAPE).astype(np.float32)
    slices, rows, columns = SHAPE
    x, y, z = np.eye(3)
    size = (columns, rows)
    planes = [Plane(np.array([-200.0, -190.0, 5.0 * k]), x, y, (1.3, 1.2), size, 5.0) for k in range(slices)]
    sax = View("stack", Path("stack"), planes, 1, lambda phase: pixels, role="sax")
    long = replace(sax, name="long", planes=[Plane(planes[0].origin, x, z, (1.3, 1.2), size, 6.0)], role="4ch")
    long.read_pixels = lambda phase: pixels[:1]
    exam = exams.load_study(window.scene, Study("big", Path("big"), [sax, long], subject="Anna"), "big")
    labels = rng.integers(0, 5, SHAPE).astype(np.int16)
    panel = window.segmentation
    panel.setExam(exam)
    panel.parameters.labelled = str(tmp_path / "labelled")
    panel.parameters.segmentation = segments.add_labels(window.scene, exam, exam.views[0], labels, NAMES, "drawn")[0]
    yield labels
    panel.setExam(None)
    panel.logic.removeExam(exam, withSegmentations=True)


def collected(folder: Path) -> Study:
    """The one labelled exam; nothing else is in the folder."""
    assert [p.name for p in folder.iterdir()] == ["Anna_big"]
    return read_study(folder / "Anna_big")


def all_nodes(window: Window) -> list[str]:
    return [str(window.scene.GetNthNode(k).GetID()) for k in range(window.scene.GetNumberOfNodes())]


def test_collects_without_blocking(window: Window, drawn: Any, tmp_path: Path) -> None:
    button = window.segmentation.ui.collectButton
    text, nodes = button.text, all_nodes(window)
    pulse = Pulse()
    button.click()
    assert button.text == "Cancel"
    assert window.segmentation.busy
    window.spin(lambda: not window.segmentation.busy and pulse.ticks > 20)
    pulse.stop()
    assert button.text == text
    assert window.application.messages[-1] == ("status", f"Collected in {tmp_path / 'labelled' / 'Anna_big'}")
    view = collected(tmp_path / "labelled").first("sax")
    assert view is not None
    np.testing.assert_array_equal(view.labels(0), drawn)
    assert view.label_names == NAMES
    assert all_nodes(window) == nodes


def former(folder: Path) -> dict[str, bytes]:
    """An exam collected before: its files."""
    (folder / "Anna_big").mkdir(parents=True)
    (folder / "Anna_big" / "study.json").write_text('{"labels": {"1": "LV cavity"}}')
    return files(folder / "Anna_big")


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_cancel_leaves_what_was_collected_before(
    window: Window, drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from SSLPanels.stepper import Stepper

    monkeypatch.setattr(Stepper, "SLICE_S", 0.0)
    folder, nodes = tmp_path / "labelled", all_nodes(window)
    before = former(folder)
    button = window.segmentation.ui.collectButton
    button.click()
    window.application.qapp.processEvents()
    while not list(folder.glob("*.part/*.nii")):
        window.application.qapp.processEvents()
    assert window.segmentation.correctPanel.collecting
    button.click()
    assert not pythonqt.slot_errors, pythonqt.slot_errors
    assert not window.segmentation.busy
    assert button.text.startswith("Use the corrected segments")
    assert [p.name for p in folder.iterdir()] == ["Anna_big"]
    assert files(folder / "Anna_big") == before
    assert all_nodes(window) == nodes


@pytest.mark.parametrize("where", ["writing", "moving"])
def test_a_failure_leaves_what_was_collected_before(
    window: Window, drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A full disk in the midst of the label maps; a folder that cannot be moved into its place."""
    import SimpleITK as sitk

    folder = tmp_path / "labelled"
    before = former(folder)
    write, rename = sitk.WriteImage, Path.rename

    def full(image: Any, path: str, *rest: Any, **more: Any) -> None:
        if "_seg" in path:
            raise RuntimeError("no space")
        write(image, path, *rest, **more)

    def held(self: Path, target: Path) -> Path:
        if self.name == "Anna_big.part":
            raise OSError("held by another program")
        return rename(self, target)

    if where == "writing":
        monkeypatch.setattr(sitk, "WriteImage", full)
    else:
        monkeypatch.setattr(Path, "rename", held)
    window.segmentation.ui.collectButton.click()
    window.spin(lambda: not window.segmentation.busy)
    kind, text = window.application.messages[-1]
    assert kind == "error"
    assert ("space on the disk" if where == "writing" else "held by another program") in text
    assert [p.name for p in folder.iterdir()] == ["Anna_big"]
    assert files(folder / "Anna_big") == before


def small(pixels: float, name: str, subject: str) -> Study:
    """Two views of little content, whose names and places are those of every other such exam."""
    x, y, z = np.eye(3)
    planes = [Plane(np.array([0.0, 0.0, 5.0 * k]), x, y, (1.0, 1.0), (8, 6), 5.0) for k in range(3)]
    sax = View("sax", Path("sax"), planes, 1, lambda phase: np.full((3, 6, 8), pixels, np.float32), role="sax")
    across = [Plane(np.zeros(3), x, z, (1.0, 1.0), (8, 6), 5.0)]
    long = View("long", Path("long"), across, 1, lambda phase: np.full((1, 6, 8), pixels, np.float32), role="4ch")
    return Study(name, Path(name), [sax, long], subject=subject)


def test_no_exam_takes_the_place_of_another(window: Window, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Exams of one name get numbers; the same exam, corrected, takes its own place unless that would cost labels."""
    from SSLPanels import corrections
    from SSLScene import exams
    from SSLScene import segments
    from SSLScene import undo

    def collect(study: Study, token: str, views: tuple[int, ...] = (0,), value: int = 1) -> Path:
        exam = exams.load_study(window.scene, study, token)
        request.addfinalizer(lambda: undo.remove_all(window.scene, token))
        drawn = []
        for k in views:
            labels = np.full(exam.views[k].view.shape, value, np.int16)
            drawn += segments.add_labels(window.scene, exam, exam.views[k], labels, {value: f"part {value}"}, "drawn")
        return corrections.collect(exam, drawn, tmp_path)

    assert collect(small(1, "MR", "Anna"), "a").name == "Anna_MR"
    assert collect(small(2, "MR", "Ben"), "b").name == "Ben_MR"
    assert collect(small(3, "CT", "Anna"), "c").name == "Anna_CT"
    before = files(tmp_path / "Anna_MR")
    assert collect(small(4, "MR", "Anna"), "d", (0, 1)).name == "Anna_MR-2", "another exam of the same names"
    assert files(tmp_path / "Anna_MR") == before
    assert collect(small(1, "MR", "Anna"), "e", value=2).name == "Anna_MR", "corrected"
    view = read_study(tmp_path / "Anna_MR").first("sax")
    assert view is not None
    assert set(view.label_names.values()) >= {"part 2"}
    before = files(tmp_path / "Anna_MR-2")
    assert collect(small(4, "MR", "Anna"), "f", (0,)).name == "Anna_MR-3", "the labels of one view are missing"
    assert files(tmp_path / "Anna_MR-2") == before
    assert collect(small(4, "MR", "Anna"), "g", (0, 1)).name == "Anna_MR-2"
    assert not list(tmp_path.glob("*.part"))


def test_structures_keep_apart_whatever_number_other_exams_give_them(
    window: Window, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One value a structure, though exams number them otherwise; exams that say nothing usable are passed over."""
    from SSLPanels import corrections
    from SSLPanels import corrections_folder
    from SSLScene import exams
    from SSLScene import segments
    from SSLScene import undo

    told = ['{"1": "LV cavity", "3": "thing"}', '{"1": "RV cavity", "2": "lv"}', '["LV"]', '{"one": "LV"}', '{"4": 5}']
    for k, labels in enumerate(told):
        (tmp_path / f"exam{k}").mkdir()
        (tmp_path / f"exam{k}" / "study.json").write_text(f'{{"labels": {labels}}}')
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "study.json").write_text("[]")
    assert corrections_folder.known_labels(tmp_path) == {"LV cavity": 1, "thing": 3, "RV cavity": 2}
    exam = exams.load_study(window.scene, small(1, "MR", "Anna"), "apart")
    request.addfinalizer(lambda: undo.remove_all(window.scene, "apart"))
    labels = np.zeros(exam.views[0].view.shape, np.int16)
    labels[0], labels[1], labels[2] = 1, 2, 3
    names = {1: "LV cavity", 2: "RV cavity", 3: "new"}
    drawn = segments.add_labels(window.scene, exam, exam.views[0], labels, names, "drawn")
    drawn[0].GetSegmentation().GetNthSegment(0).SetName("Left ventricle")
    view = read_study(corrections.collect(exam, drawn, tmp_path)).first("sax")
    assert view is not None
    np.testing.assert_array_equal(view.labels(0)[:, 0, 0], [1, 2, 4])
    assert view.label_names == {1: "LV cavity", 2: "RV cavity", 3: "thing", 4: "new"}


def test_exams_of_nobody_are_no_one_subject(window: Window, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Volumes that lie in no study of the subject hierarchy: their exams are kept apart by their folder."""
    import slicer

    from SSLPanels import corrections
    from SSLScene import segments

    for value, name in ((1, "scene"), (2, "scene-2")):
        node = slicer.util.addVolumeFromArray(np.full((3, 6, 8), value, np.int16))
        request.addfinalizer(lambda node=node: window.scene.RemoveNode(node))
        exam = window.segmentation.logic.useVolumes([node])
        request.addfinalizer(lambda exam=exam: window.segmentation.logic.removeExam(exam, True))
        drawn = segments.add_labels(
            window.scene, exam, exam.views[0], np.ones((3, 6, 8), np.int16), {1: "LV cavity"}, "drawn"
        )
        assert corrections.collect(exam, drawn, tmp_path).name == name
        assert read_study(tmp_path / name).subject == name


def test_volumes_of_two_exams_are_not_mixed(window: Window, request: pytest.FixtureRequest) -> None:
    """A user's own volumes, as the subject hierarchy has them; the exam keeps name, subject and owner."""
    from SSLScene import exams
    from SSLScene import undo
    from SSLScene.host import SceneError
    from SSLScene.host import subject_hierarchy

    hierarchy, logic = subject_hierarchy(window.scene), window.segmentation.logic
    loaded = {}
    for number, subject in enumerate(("Anna", "Ben")):
        exam = exams.load_study(window.scene, small(number, "MR", subject), "theirs")
        for item in exam.views:
            for name in (undo.OWNER, exams.VIEW, exams.SOURCE):
                item.volume.RemoveAttribute(name)
        hierarchy.RemoveItemAttribute(exam.item, undo.OWNER)
        hierarchy.RemoveItemAttribute(exam.item, exams.SOURCE)
        loaded[subject] = exam

    def tidy() -> None:
        for exam in loaded.values():
            undo.remove_nodes(window.scene, [item.volume for item in exam.views])
            for item in (exam.item, hierarchy.GetItemParent(exam.item)):
                hierarchy.RemoveItem(item, True, False)

    request.addfinalizer(tidy)
    logic.getParameterNode().volume = None
    with pytest.raises(SceneError, match=r"2 exams \(Anna / MR, Ben / MR\).*choose"):
        logic.useVolumes()
    tokens = set()
    for subject, exam in loaded.items():
        logic.getParameterNode().volume = exam.views[1].volume
        used = logic.useVolumes()
        assert [item.volume for item in used.views] == [item.volume for item in exam.views]
        assert (used.study.subject, used.study.name, used.item) == (subject, "MR", exam.item)
        assert logic.useVolumes([exam.views[0].volume]).token == used.token, "the same exam, whatever part of it"
        tokens.add(used.token)
    assert len(tokens) == 2


def test_the_exam_of_the_chosen_volume_is_taken_up(window: Window, request: pytest.FixtureRequest) -> None:
    """Two exams of one name in a scene, as when folders have the same name, stay two."""
    from SSLScene import exams
    from SSLScene import undo

    logic = window.segmentation.logic
    loaded = [exams.load_study(window.scene, small(k, "MR", "Anna"), undo.new_token("MR")) for k in range(2)]
    request.addfinalizer(lambda: [logic.removeExam(exam) for exam in loaded])
    for exam in loaded[::-1]:
        logic.getParameterNode().volume = exam.views[1].volume
        found = logic.examInScene()
        assert [item.volume for item in found.views] == [item.volume for item in exam.views]
        assert (found.token, found.study.subject) == (exam.token, "Anna")


def test_a_clone_of_a_view_is_no_view_and_is_not_removed(window: Window, request: pytest.FixtureRequest) -> None:
    from SSLScene import exams

    logic = window.segmentation.logic
    exam = exams.load_study(window.scene, small(1, "MR", "Anna"), "cloned")
    clone = window.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    request.addfinalizer(lambda: window.scene.RemoveNode(clone))
    clone.Copy(exam.views[0].volume)
    logic.getParameterNode().volume = clone
    assert [item.volume for item in logic.examInScene().views] == [item.volume for item in exam.views]
    logic.removeExam(exam)
    assert clone.GetScene() is window.scene
    assert logic.examInScene() is None


def test_volumes_of_the_scene_are_of_the_organ_and_side_that_they_were_loaded_with(
    window: Window, request: pytest.FixtureRequest
) -> None:
    """Which the file beside the images may have said; nothing in them need show it."""
    from SSLScene import exams

    logic = window.segmentation.logic
    study = small(1, "MR", "Anna")
    study.organ, study.side = "knee", "left"
    exam = exams.load_study(window.scene, study, "knee")
    request.addfinalizer(lambda: logic.removeExam(exam))
    used = logic.useVolumes([exam.views[0].volume])
    assert (used.study.organ, used.study.side) == ("knee", "left")


def test_one_segmentation_an_image_is_used(window: Window, drawn: Any, tmp_path: Path) -> None:
    """The chosen one, else the last, and the panel says so; a script that gives two is told to choose."""
    from SSLPanels import corrections
    from SSLScene import segments
    from SSLScene.host import SceneError

    panel = window.segmentation
    exam, first, label = panel.exam, panel.parameters.segmentation, panel.ui.usedSegmentsLabel
    assert label._real.isHidden()
    assert panel.correctPanel.segmentations() == [first]
    (second,) = segments.add_labels(window.scene, exam, exam.views[0], (drawn == 1) * 3, {3: "RV cavity"}, "other")
    (across,) = segments.add_labels(window.scene, exam, exam.views[1], drawn[:1], NAMES, "across")
    panel.update()
    assert panel.correctPanel.segmentations() == [first, across]
    said = "'{}' is used and not '{}' on the same image; choose another above to use that."
    assert label.text == said.format(first.GetName(), second.GetName())
    assert not label._real.isHidden()
    panel.parameters.segmentation = second
    assert panel.correctPanel.segmentations() == [second, across]
    assert label.text == said.format(second.GetName(), first.GetName())
    panel.parameters.segmentation = None
    assert panel.correctPanel.segmentations() == [second, across]
    with pytest.raises(SceneError, match=f"'{first.GetName()}' and '{second.GetName()}' both lie on stack"):
        corrections.collect(exam, [first, second, across], tmp_path / "labelled")
    assert not (tmp_path / "labelled").exists()
    window.scene.RemoveNode(second)
    panel.update()
    assert label._real.isHidden()


def test_overlays_are_no_views(window: Window, request: pytest.FixtureRequest) -> None:
    """A heatmap, a map of anomalies and a place in the stack lie in the exam's study, and are not taken for views."""
    from SSLScene import exams
    from SSLScene import overlays

    logic = window.segmentation.logic
    exam = exams.load_study(window.scene, small(1, "MR", "Anna"), "overlaid")
    request.addfinalizer(lambda: logic.removeExam(exam))
    item = exam.views[0]
    values = np.ones(item.view.shape, np.float32)
    overlays.show_heatmap(window.scene, exam.owning("targets"), item, values, "lines", (1.0, 0.0, 0.0))
    overlays.show_hot(window.scene, exam.owning("anomalies"), item, values, "odd")
    overlays.show_place(window.scene, exam, item, [0.0, 0.5, 1.0])
    for found in (logic.useVolumes(), logic.examInScene()):
        assert [view.volume for view in found.views] == [view.volume for view in exam.views]


def test_the_panel_takes_up_the_exam_and_keeps_the_chosen_volume(
    window: Window, request: pytest.FixtureRequest
) -> None:
    """Made anew, entered after a script has loaded an exam, or where the exam cannot be used, which it then says."""
    import slicer

    from SSLScene import exams

    panel, logic = window.segmentation, window.segmentation.logic
    panel.setExam(None)
    panel.exit()
    exam = exams.load_study(window.scene, small(1, "MR", "Anna"), "taken up")
    request.addfinalizer(lambda: logic.removeExam(exam))
    request.addfinalizer(lambda: window.segmentation.setExam(None))
    chosen = exam.views[1].volume
    logic.getParameterNode().volume = chosen
    panel.enter()
    assert [item.volume for item in panel.exam.views] == [item.volume for item in exam.views]
    assert panel.parameters.volume is chosen
    panel.cleanup()
    window.segmentation = panel = window.application.open_panel(window.segment_module)
    assert [item.volume for item in panel.exam.views] == [item.volume for item in exam.views]
    assert (panel.parameters.volume, panel.exam.token) == (chosen, exam.token)
    assert panel.ui.viewsTable.rowCount == 2
    panel.setExam(None)
    bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "bent")
    request.addfinalizer(lambda: window.scene.RemoveNode(bent))
    chosen.SetAndObserveTransformNodeID(bent.GetID())
    panel.enter()
    assert panel.exam is None
    assert "'bent'" in panel.ui.examLabel.text
    assert not pythonqt.slot_errors


def test_segmentations_are_removed_only_when_told_so(window: Window, drawn: Any) -> None:
    """Remove, loading another exam and the console ask; without segmentations nobody is asked."""
    from SSLScene import exams
    from SSLScene.host import SceneError

    panel, asked = window.segmentation, window.application.messages
    exam, node = panel.exam, panel.parameters.segmentation
    asked.clear()
    window.application.answers.append(False)
    panel.ui.removeExamButton.click()
    assert panel.exam is exam
    assert window.scene.GetNodeByID(node.GetID()) is node
    assert [kind for kind, _ in asked] == ["confirm"]
    assert f"'big' is removed with its segmentations: {node.GetName()}." in asked[0][1]
    # Another exam comes and this one is not to go: it stays in the scene, the other one is at hand.
    other = exams.load_study(window.scene, small(1, "MR", "Anna"), "another")
    window.application.answers.append(False)
    panel.examPanel._loader.exam = other
    panel.examPanel._onLoaded()
    assert panel.exam is other
    assert window.scene.GetNodeByID(node.GetID()) is node
    asked.clear()
    panel.ui.removeExamButton.click()
    assert panel.exam is None
    assert not asked
    with pytest.raises(SceneError, match=f"'{node.GetName()}'.*withSegmentations"):
        panel.logic.removeExam(exam)
    assert window.scene.GetNodeByID(node.GetID()) is node
    panel.setExam(exam)
    panel.ui.removeExamButton.click()
    assert [kind for kind, _ in asked] == ["confirm"]
    assert window.scene.GetNodeByID(node.GetID()) is None
    assert not pythonqt.slot_errors, pythonqt.slot_errors


def knee() -> Study:
    """Three stacks of 512 x 512 pixels at right angles, as of a knee."""
    axes, views = np.eye(3), []
    stacks = {"sag": (120, 0.9, [1, 2, 0]), "cor": (36, 3.5, [0, 2, 1]), "ax": (30, 4.0, [0, 1, 2])}
    for role, (count, gap, order) in stacks.items():
        x, y, along = axes[order]
        first = -80.0 * (x + y) - gap * (count - 1) / 2 * along
        planes = [Plane(first + k * gap * along, x, y, (0.3125, 0.3125), (512, 512), gap) for k in range(count)]
        pixels = np.zeros((count, 512, 512), np.float32)
        views.append(View(role, Path(role), planes, 1, lambda phase, pixels=pixels: pixels, role=role))
    return Study("knee", Path("knee"), views, subject="Knee")


def test_crossings_and_targets_of_a_knee_do_not_block(window: Window, request: pytest.FixtureRequest) -> None:
    from SSLScene import exams

    panel = window.segmentation
    exam = exams.load_study(window.scene, knee(), "knee")
    request.addfinalizer(lambda: panel.logic.removeExam(exam))
    panel.setExam(exam)
    request.addfinalizer(lambda: panel.setExam(None))
    pulse = Pulse()
    panel.ui.crossingsGroupBox.collapsed = False
    panel.ui.targetComboBox.currentIndex = 1
    assert panel.planesPanel.working
    window.spin(lambda: not panel.planesPanel.working)
    pulse.stop(0.2)
    assert panel.ui.crossingsTableView.mrmlTableNode().GetNumberOfRows() == 3
    assert window.scene.GetFirstNodeByName("Crossing lines") is not None
    # What is on its way when the exam goes does not come.
    panel.ui.targetComboBox.currentIndex = 0
    panel.ui.targetComboBox.currentIndex = 1
    panel.setExam(None)
    assert not panel.planesPanel.working
    panel.ui.crossingsGroupBox.collapsed = True


@pytest.fixture
def heart(window: Window) -> Iterator[Any]:
    """A heart in the scene, stored from apex to base, whose 3-chamber view is of another frame of reference."""
    from SSLScene import exams

    study = toy_study(1)
    study.views[0] = _reversed(study.views[0])
    study.views = [replace(view, frame_of_reference="1.2") for view in study.views]
    study.views.append(replace(study.views[1], name="later", role="3ch", frame_of_reference="1.3"))
    exam = exams.load_study(window.scene, study, "target")
    yield exam
    window.segmentation.logic.removeExam(exam, withSegmentations=True)


def _reversed(view: View) -> View:
    """The same stack in the opposite order, and with the opposite normal."""
    planes = [
        Plane(p.to_patient([0, p.size[1] - 1]), p.x_direction, -p.y_direction, p.spacing, p.size, p.thickness)
        for p in view.planes[::-1]
    ]
    return replace(view, planes=planes, read_pixels=lambda phase: view.pixels(phase)[::-1, ::-1], read_labels=None)


def test_lines_of_another_frame_of_reference_are_not_learned(heart: Any) -> None:
    from SSLPanels import targets
    from SSLScene import exams
    from SSLScene import undo

    (node,) = targets.show(heart, targets.LINES)
    near = [heart.first(role).view.planes[0] for role in ("2ch", "4ch")]
    expected = undo.at_once(targets.heating(heart.first("sax").view, near))
    np.testing.assert_array_equal(exams.array_of(node), expected)
    heart.first("2ch").view.frame_of_reference = "1.3"
    (node,) = targets.show(heart, targets.LINES)
    assert 0 < exams.array_of(node).sum() < expected.sum()


def test_the_place_in_the_stack_is_the_one_that_is_learned(heart: Any) -> None:
    """Along the anatomy, whatever way the slices are stored: the pretext's own target, as a ratio."""
    from SSLEngine.geometry import long_axis
    from SSLEngine.pretext.base import Host
    from SSLEngine.pretext.location import slice_place
    from SSLPanels import targets
    from SSLScene import exams
    from SSLScene.host import SceneError

    def shown() -> list[float]:
        (node,) = targets.show(heart, targets.PLACE)
        return exams.array_of(node)[:, 0, 0].tolist()

    def learned(axis: Any) -> list[float]:
        hosts = [Host(p, sax.role, {}, sax.planes, k, axis, {}, heart.study.side) for k, p in enumerate(sax.planes)]
        return [slice_place(host, "ratio", 0)[0] for host in hosts]

    sax, two, four = (heart.first(role).view for role in ("sax", "2ch", "4ch"))
    assert shown() == pytest.approx(learned(long_axis(two.planes[0], four.planes[0])))
    assert shown()[0] == 1, "stored from apex to base"
    two.frame_of_reference = "1.3"
    assert shown() == pytest.approx(learned(None))
    sax.role = "sag"
    for side in ("left", "right"):
        heart.study.side = side
        assert shown() == pytest.approx(learned(None))
    heart.study.side = None
    with pytest.raises(SceneError, match="learns no place in sax"):
        targets.show(heart, targets.PLACE)


def test_anomalies_that_cannot_be_read_leave_those_that_are_shown(window: Window, heart: Any, tmp_path: Path) -> None:
    from SSLPanels.segmentation_logic import ANOMALIES
    from SSLScene import overlays

    panel, item = window.segmentation, heart.first("sax")
    (shown,) = overlays.show_hot(window.scene, heart.owning(ANOMALIES), item, np.ones(item.view.shape), "odd")
    (tmp_path / "result.json").write_text("{")
    panel.segmentPanel._showAnomalies(heart, tmp_path)
    window.spin(lambda: not panel.segmentPanel.loading)
    kind, text = window.application.messages[-1]
    assert kind == "error"
    assert "result.json" in text
    assert window.scene.GetNodeByID(shown.GetID()) is shown


def test_a_job_gets_a_copy_of_a_segmentation(
    window: Window, heart: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export as DICOM SEG does not change where the segmentation is saved with the scene."""
    from SSLScene import segments

    logic, item = window.segmentation.logic, heart.first("sax")
    labels = np.ones(item.view.shape, np.int16)
    (node,) = segments.add_labels(window.scene, heart, item, labels, {1: "LV cavity"}, "drawn")
    saved = tmp_path / "saved.seg.nrrd"
    logic.exportSegmentation(node, saved)
    monkeypatch.setattr(logic.workers, "prepare", lambda kind, settings, out, *needs: jobs.create(out, kind, settings))
    monkeypatch.setattr(logic.workers, "start", lambda folder: None)
    folder = logic.exportDicom(tmp_path, node, tmp_path / "out.dcm", heart)
    given = jobs.load(folder)["settings"]["segmentation"]
    assert Path(given).read_bytes() == saved.read_bytes()
    assert node.GetStorageNode().GetFileName() == str(saved)


def test_a_knee_is_handed_to_a_worker_without_blocking(
    window: Window, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from SSLPanels.stepper import Stepper
    from SSLScene import exams

    exam = exams.load_study(window.scene, knee(), "handed")
    request.addfinalizer(lambda: window.segmentation.logic.removeExam(exam))
    exams.read_from_scene(window.scene, exam)
    stepper, pulse, turns = Stepper(), Pulse(), []
    stepper.run(exams.handing_over(exam, tmp_path), lambda done: None, pytest.fail, turns.append)
    window.spin(lambda: not stepper.active and pulse.ticks > 20)
    pulse.stop(0.2)
    assert len(turns) > 3
    assert read_study(tmp_path).views[0].shape == (120, 512, 512)
