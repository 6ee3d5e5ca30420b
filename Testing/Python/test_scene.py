"""Exams, planes, segments and charts in the MRML scene, on slicer-core. No picture is rendered here."""

from __future__ import annotations

import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from SSLEngine.geometry import Plane
from SSLEngine.geometry import crossing_segment
from SSLEngine.geometry import middle_plane
from SSLEngine.studies import read_study
from SSLEngine.studies import write_view
from SSLEngine.studies.study import Study
from SSLEngine.studies.study import View

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
vtk = pytest.importorskip("vtk", reason="vtk is not installed")
if not hasattr(slicer, "vtkMRMLScene"):
    pytest.skip("this slicer package has no MRML classes", allow_module_level=True)

from vtkmodules.util.numpy_support import vtk_to_numpy  # noqa: E402

from SSLScene import anomalies  # noqa: E402
from SSLScene import charts  # noqa: E402
from SSLScene import cines  # noqa: E402
from SSLScene import classes  # noqa: E402
from SSLScene import coordinates  # noqa: E402
from SSLScene import crossings  # noqa: E402
from SSLScene import exams  # noqa: E402
from SSLScene import layouts  # noqa: E402
from SSLScene import overlays  # noqa: E402
from SSLScene import planes  # noqa: E402
from SSLScene import predicted  # noqa: E402
from SSLScene import segments  # noqa: E402
from SSLScene import undo  # noqa: E402
from SSLScene.host import SceneError  # noqa: E402
from SSLScene.host import subject_hierarchy  # noqa: E402


@pytest.fixture
def scene() -> Any:
    made = slicer.vtkMRMLScene()
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetMRMLScene(made)
    logic.GetColorLogic().SetMRMLScene(made)
    logic.GetColorLogic().AddDefaultColorNodes()
    subject_hierarchy(made)
    yield made
    made.Clear(True)


def rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def stack(axes: np.ndarray, count: int, gap: float, size: tuple[int, int], spacing: tuple[float, float]) -> list[Plane]:
    """Parallel planes round the patient point (10, -20, 30), LPS."""
    extent = np.array([(size[0] - 1) * spacing[0], (size[1] - 1) * spacing[1], (count - 1) * gap])
    first = np.array([10.0, -20.0, 30.0]) - axes @ (extent / 2)
    return [Plane(first + k * gap * axes[:, 2], axes[:, 0], axes[:, 1], spacing, size, 6.0) for k in range(count)]


def view(name: str, role: str, at: list[Plane], phases: int = 1, seed: int = 0) -> View:
    columns, rows = at[0].size
    values = np.random.default_rng(seed).integers(0, 900, (phases, len(at), rows, columns)).astype(np.float32)
    times = tuple(40.0 * k for k in range(phases)) if phases > 1 else ()
    return View(name, Path(name), at, phases, lambda phase: values[phase], role=role, trigger_times=times)


def heart(phases: int = 1, shifted: bool = False) -> Study:
    axes = rotation(1)
    sax = stack(axes, 5, 9.0, (40, 30), (1.7, 2.1))
    if shifted:
        moved = sax[2].origin + 3.0 * sax[2].x_direction
        sax[2] = Plane(moved, sax[2].x_direction, sax[2].y_direction, sax[2].spacing, sax[2].size, 6.0)
    two = stack(axes[:, [2, 0, 1]], 1, 1.0, (48, 36), (1.6, 1.6))
    four = stack(axes[:, [2, 1, 0]] * [1, 1, -1], 1, 1.0, (44, 40), (1.5, 1.9))
    made = [view("shortaxis", "sax", sax, phases), view("a2", "2ch", two, phases, 1), view("a4", "4ch", four, seed=2)]
    return Study("exam 7", Path("exam 7"), made, subject="Anna")


def census(scene: Any) -> Counter[str]:
    return Counter(node.GetClassName() for node in undo.nodes(scene))


def ras(node: Any, ijk: tuple[float, float, float]) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return np.array(matrix.MultiplyPoint((*ijk, 1.0))[:3])


# ---------------------------------------------------------------------------------------------


def test_volumes_lie_where_the_planes_lie(scene: Any) -> None:
    study = heart()
    exam = exams.load_study(scene, study)
    for item in exam.views:
        assert len(item.volumes) == 1
        for k, plane in enumerate(item.view.planes):
            for x, y in [(0, 0), (plane.size[0] - 1, 3), (5, plane.size[1] - 1)]:
                expected = plane.to_patient([x, y]) * [-1, -1, 1]
                np.testing.assert_allclose(ras(item.volume, (x, y, k)), expected, atol=1e-9)
        np.testing.assert_array_equal(exams.array_of(item.volume), item.view.pixels(0))
        assert exams.array_of(item.volume).dtype == np.int16


def test_fractions_stay_fractions(scene: Any) -> None:
    image = exams.image_data(np.array([[[0.5, 1.0]]], np.float32))
    assert image.GetScalarTypeAsString() == "float"


def test_subject_hierarchy(scene: Any) -> None:
    exam = exams.load_study(scene, heart())
    hierarchy = subject_hierarchy(scene)
    assert hierarchy.GetItemName(exam.item) == "exam 7"
    assert hierarchy.GetItemName(hierarchy.GetItemParent(exam.item)) == "Anna"
    for item in exam.views:
        assert hierarchy.GetItemParent(item.item) == exam.item
        assert hierarchy.GetItemDataNode(item.item) is item.volume
        assert item.volume.GetAttribute(exams.ROLE) == item.view.role


def test_views_stand_in_order_of_display(scene: Any) -> None:
    study = heart()
    study.views.reverse()
    assert [v.view.role for v in exams.load_study(scene, study).views] == ["sax", "2ch", "4ch"]


def test_shifted_slices_become_one_volume_each(scene: Any) -> None:
    exam = exams.load_study(scene, heart(phases=3, shifted=True))
    item = exam.views[0]
    assert len(item.volumes) == 5
    for k, plane in enumerate(item.view.planes):
        np.testing.assert_allclose(ras(item.volumes[k], (3, 4, 0)), plane.to_patient([3, 4]) * [-1, -1, 1], atol=1e-9)
    item.browser.SetSelectedItemNumber(2)
    for k, volume in enumerate(item.volumes):
        np.testing.assert_array_equal(exams.array_of(volume)[0], item.view.pixels(2)[k])


def test_cine_plays(scene: Any) -> None:
    exam = exams.load_study(scene, heart(phases=4))
    item = exam.views[0]
    assert exam.views[2].browser is None
    for phase in (0, 3, 1):
        item.browser.SetSelectedItemNumber(phase)
        np.testing.assert_array_equal(exams.array_of(item.volume), item.view.pixels(phase))
    sequence = cines.sequence_of(scene, item.volume)
    assert [sequence.GetNthIndexValue(k) for k in range(4)] == ["0", "40", "80", "120"]
    assert census(scene)["vtkMRMLScalarVolumeNode"] == 3


def test_a_role_is_changed_for_all_frames(scene: Any) -> None:
    exam = exams.load_study(scene, heart(phases=3))
    item = exam.views[1]
    exams.set_role(scene, item, "3ch")
    item.browser.SetSelectedItemNumber(2)
    assert exams.view_of_node(scene, item.volume).role == "3ch"
    with pytest.raises(ValueError, match="5ch"):
        exams.set_role(scene, item, "5ch")


# ---------------------------------------------------------------------------------------------
# Back from the scene


@pytest.mark.parametrize("phases", [1, 3])
def test_a_view_comes_back_as_it_went(scene: Any, phases: int) -> None:
    exam = exams.load_study(scene, heart(phases))
    for item in exam.views:
        back = exams.view_of_node(scene, item.volume)
        assert (back.role, back.phases, back.trigger_times) == (
            item.view.role,
            item.view.phases,
            item.view.trigger_times,
        )
        for mine, theirs in zip(back.planes, item.view.planes, strict=True):
            np.testing.assert_allclose(mine.corners, theirs.corners, atol=1e-6)
        for phase in range(back.phases):
            np.testing.assert_array_equal(back.pixels(phase), item.view.pixels(phase))


def add_transform(scene: Any, volume: Any) -> np.ndarray:
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", "moved")
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(5), [7.0, -3.0, 11.0]
    node.SetMatrixTransformToParent(coordinates.vtk_matrix(matrix))
    volume.SetAndObserveTransformNodeID(node.GetID())
    return matrix


def test_linear_transforms_are_honoured(scene: Any) -> None:
    exam = exams.load_study(scene, heart())
    item = exam.views[0]
    matrix = add_transform(scene, item.volume)
    for back, plane in zip(exams.planes_of_node(item.volume), item.view.planes, strict=True):
        moved = (plane.corners * [-1, -1, 1]) @ matrix[:3, :3].T + matrix[:3, 3]
        np.testing.assert_allclose(back.corners, moved * [-1, -1, 1], atol=1e-6)


def test_bending_transforms_are_refused_with_the_way_out(scene: Any) -> None:
    exam = exams.load_study(scene, heart())
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", "regularisation")
    grid = vtk.vtkThinPlateSplineTransform()
    points = [vtk.vtkPoints(), vtk.vtkPoints()]
    for k, p in enumerate([(0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50), (30, 30, 30)]):
        points[0].InsertNextPoint(p)
        points[1].InsertNextPoint(p[0] + 5.0 * (k == 4), p[1], p[2])
    grid.SetSourceLandmarks(points[0])
    grid.SetTargetLandmarks(points[1])
    grid.SetBasisToR()
    node.SetAndObserveTransformToParent(grid)
    exam.views[0].volume.SetAndObserveTransformNodeID(node.GetID())
    with pytest.raises(SceneError, match=r"'regularisation'.*[Hh]arden"):
        exams.planes_of_node(exam.views[0].volume)


def test_an_exam_of_volumes_in_the_scene_adds_nothing(scene: Any) -> None:
    loaded = exams.load_study(scene, heart())
    before = census(scene)
    chosen = {item.volume.GetID(): item.view.role for item in reversed(loaded.views)}
    exam = exams.exam_of_scene(scene, chosen, token="mine")
    assert [v.view.role for v in exam.views] == ["sax", "2ch", "4ch"]
    assert census(scene) == before
    with pytest.raises(SceneError, match="vtkMRMLScalarVolumeNode99"):
        exams.exam_of_scene(scene, {"vtkMRMLScalarVolumeNode99": "sax"})


@pytest.mark.parametrize("shifted", [False, True])
def test_an_exam_goes_out_as_a_study_folder(scene: Any, tmp_path: Path, shifted: bool) -> None:
    studies = pytest.importorskip("SSLEngine.studies")
    exam = exams.load_study(scene, heart(phases=2, shifted=shifted))
    if not shifted:
        add_transform(scene, exam.views[0].volume)
        exam = exams.exam_of_scene(scene, [v.volume for v in exam.views])
    back = studies.read_study(undo.at_once(exams.writing_study(exam, tmp_path / "out")))
    assert Counter(v.role for v in back.views) == {"sax": 5 if shifted else 1, "2ch": 1, "4ch": 1}
    written = [p for v in back.views if v.role == "sax" for p in v.planes]
    for mine, theirs in zip(written, exam.views[0].view.planes, strict=True):
        np.testing.assert_allclose(mine.corners, theirs.corners, atol=1e-3)
    assert back.first("2ch").phases == 2
    np.testing.assert_array_equal(back.first("2ch").pixels(1), exam.first("2ch").view.pixels(1))


def test_a_saved_scene_gives_the_same_exam(scene: Any, tmp_path: Path) -> None:
    """Names, subject, folder, roles, what headers say, and slices that are one view; after it was written and read."""
    study = heart(phases=3, shifted=True)
    study.organ, study.side = "heart", "left"
    study.views[0].frame_of_reference = "1.2.3"
    study.views[0].attributes = {"series_uid": "1.2.4", "description": 'sax | \'A:"1; 2" <ü>'}
    study.views[2].attributes = {"position": "not in the header"}
    loaded = exams.load_study(scene, study, undo.new_token("exam 7"))
    loaded.views[0].browser.SetSelectedItemNumber(2)
    exams.set_role(scene, loaded.views[1], "3ch")
    again = saved_and_loaded(scene, tmp_path)
    volumes = [node for node in undo.nodes(again) if node.GetAttribute(exams.VIEW)]
    exam = exams.exam_of_scene(again, volumes[::-1], token=loaded.token)
    assert (exam.study.name, exam.study.subject, exam.study.path) == ("exam 7", "Anna", Path("exam 7"))
    assert (exam.study.organ, exam.study.side) == ("heart", "left")
    assert subject_hierarchy(again).GetItemName(exam.item) == "exam 7"
    assert [(v.view.name, v.view.role, len(v.volumes)) for v in exam.views] == [
        ("shortaxis", "sax", 5), ("a4", "4ch", 1), ("a2", "3ch", 1),
    ]  # fmt: skip
    for item in exam.views:
        former = next(v for v in loaded.views if v.view.name == item.view.name)
        assert item.view.source == former.view.source
        assert item.view.frame_of_reference == former.view.frame_of_reference
        assert item.view.attributes == former.view.attributes
        assert subject_hierarchy(again).GetItemName(item.item) == subject_hierarchy(scene).GetItemName(former.item)
        for mine, theirs in zip(item.view.planes, former.view.planes, strict=True):
            np.testing.assert_allclose(mine.corners, theirs.corners, atol=1e-3)
        for phase in range(former.view.phases):
            np.testing.assert_array_equal(item.view.pixels(phase), former.view.pixels(phase))


def saved_and_loaded(scene: Any, folder: Path) -> Any:
    """Another scene, read from the file that a scene was saved in."""
    assert scene.WriteToMRB(str(folder / "saved.mrb"))
    with zipfile.ZipFile(folder / "saved.mrb") as packed:
        packed.extractall(folder)
    other = slicer.vtkMRMLScene()
    exams.sequences_logic(other)
    segments.segmentations_logic(other)
    other.SetURL(str(next(folder.glob("*/*.mrml"))))
    assert other.Import()
    return other


# ---------------------------------------------------------------------------------------------
# Planes


def test_quads_have_the_true_corners(scene: Any) -> None:
    exam = exams.load_study(scene, heart())
    for model, item in zip(planes.show_planes(scene, exam), exam.views, strict=True):
        found = planes.corners(model)
        expected = np.stack([p.corners for p in item.view.planes]) * [-1, -1, 1]
        np.testing.assert_allclose(found, expected, atol=1.1 * planes.LIFT_MM)
        edges = np.linalg.norm(found[0, 1] - found[0, 0]), np.linalg.norm(found[0, 2] - found[0, 1])
        np.testing.assert_allclose(edges, item.view.planes[0].extent, atol=1e-9)


@pytest.mark.parametrize("host", [0, 1, 2])
def test_cutting_a_quad_gives_the_closed_form(scene: Any, host: int) -> None:
    """The filter that Slicer's slice views use, on the plane of every host slice."""
    exam = exams.load_study(scene, heart())
    models = planes.show_planes(scene, exam)
    for guest, model in enumerate(models):
        for plane in exam.views[host].view.planes:
            cut = cut_with(model.GetPolyData(), plane)
            if guest == host:
                assert cut.GetNumberOfCells() == 0
                continue
            expected = [crossing_segment(g, widened(plane)).points for g in exam.views[guest].view.planes]
            drawn = [line_of(cut, k) for k in range(cut.GetNumberOfCells())]
            assert len(drawn) == len(expected)
            for ends in expected:
                gaps = [min(np.abs(d - ends).max(), np.abs(d - ends[::-1]).max()) for d in drawn]
                assert min(gaps) < 3 * planes.LIFT_MM


def line_of(cut: Any, index: int) -> np.ndarray:
    points = cut.GetCell(index).GetPoints()
    return np.array([points.GetPoint(k) for k in range(2)]) * [-1, -1, 1]


def widened(plane: Plane) -> Plane:
    """The same plane as an image so large that only the other image's edges end the line."""
    first = plane.centre - 1000 * (plane.x_direction + plane.y_direction)
    return Plane(first, plane.x_direction, plane.y_direction, (1.0, 1.0), (2001, 2001))


def cut_with(surface: Any, plane: Plane) -> Any:
    where = vtk.vtkPlane()
    where.SetOrigin(*(plane.origin * [-1, -1, 1]))
    where.SetNormal(*(plane.normal * [-1, -1, 1]))
    cutter = vtk.vtkCutter()
    cutter.SetCutFunction(where)
    cutter.SetInputData(surface)
    cutter.Update()
    return cutter.GetOutput()


def shown_slices(model: Any) -> list[int]:
    """The slices whose quads are drawn."""
    polygons = model.GetPolyData().GetPolys()
    return [int(k) // 4 for k in vtk_to_numpy(polygons.GetConnectivityArray())[::4]]


def test_slices_are_switched_one_by_one(scene: Any) -> None:
    exam = exams.load_study(scene, heart())
    model = planes.show_planes(scene, exam)[0]
    assert shown_slices(model) == [0, 1, 2, 3, 4]
    kept = planes.corners(model)
    planes.show_slices(model, [3, 1])
    assert shown_slices(model) == [1, 3]
    assert model.GetPolyData().GetNumberOfCells() == 2
    np.testing.assert_array_equal(planes.corners(model), kept)
    planes.show_slices(model, [])
    assert shown_slices(model) == []
    with pytest.raises(IndexError, match="5 slices"):
        planes.show_slices(model, [5])


def test_planes_are_switched_and_coloured(scene: Any) -> None:
    exam = exams.load_study(scene, heart())
    model = planes.show_planes(scene, exam)[1]
    display = model.GetDisplayNode()
    assert display.GetVisibility()
    assert display.GetVisibility2D()
    assert display.GetSliceDisplayMode() == display.SliceDisplayIntersection
    planes.show(model, True, in_slices=False)
    assert model.GetDisplayVisibility()
    assert not display.GetVisibility2D()
    planes.show(model, False)
    assert not any(model.GetNthDisplayNode(k).GetVisibility() for k in range(model.GetNumberOfDisplayNodes()))
    planes.recolour(model, (0.1, 0.2, 0.3))
    assert model.GetNthDisplayNode(1).GetColor() == (0.1, 0.2, 0.3)


def test_table_of_crossings(scene: Any) -> None:
    exam = exams.load_study(scene, heart())
    table = crossings.show_table(scene, exam).GetTable()
    assert [table.GetColumnName(c) for c in range(table.GetNumberOfColumns())] == [
        "View", "Crosses", "Angle (deg)", "Slices", "Length (mm)", "Note",
    ]  # fmt: skip
    rows = [[table.GetValue(r, c).ToString() for c in range(4)] for r in range(table.GetNumberOfRows())]
    assert rows[0] == ["SAX", "2CH", "90", "5 of 5"]
    lengths = [crossing_segment(p, exam.views[1].view.planes[0]).length_mm for p in exam.views[0].view.planes]
    assert table.GetValue(0, 4).ToDouble() == pytest.approx(np.median(lengths), abs=0.051)


def test_views_that_do_not_meet_say_why(scene: Any) -> None:
    axes = rotation(2)
    near = view("a", "sax", stack(axes, 2, 5.0, (20, 20), (1.0, 1.0)))
    across = stack(axes[:, [1, 2, 0]], 1, 1.0, (20, 20), (1.0, 1.0))[0]
    far = Plane(across.origin + 500 * axes[:, 1], across.x_direction, across.y_direction, (1.0, 1.0), (20, 20))
    others = [view("b", "2ch", [far]), view("c", "ax", stack(axes, 1, 5.0, (20, 20), (1.0, 1.0)))]
    exam = exams.load_study(scene, Study("x", Path("x"), [near, *others]))
    table = crossings.show_table(scene, exam).GetTable()
    assert "outside" in table.GetValue(0, 5).ToString()
    assert "parallel" in table.GetValue(1, 5).ToString()
    assert np.isnan(table.GetValue(0, 4).ToDouble())


def test_the_meeting_point_lies_on_all_planes(scene: Any) -> None:
    exam = exams.load_study(scene, heart())
    point = crossings.meeting_point(exam)
    for item in exam.views:
        assert abs(middle_plane(item.view.planes).signed_distance(point)) < 1e-9
    np.testing.assert_allclose(point, [10, -20, 30], atol=1e-9)
    parallel = [p.planes[0] for p in [view("x", "sax", stack(rotation(3), 1, 1.0, (20, 20), (1.0, 1.0)))] * 3]
    np.testing.assert_allclose(crossings.nearest_point(parallel), parallel[0].centre, atol=1e-9)


def test_views_of_another_frame_do_not_move_the_meeting_point(scene: Any) -> None:
    """Nor does one that does not say where it lies, though it has most slices."""
    views = [replace(v, frame_of_reference="1.2") for v in heart().views]
    moved = [replace(p, origin=p.origin + 40 * p.normal) for p in views[1].planes]
    elsewhere = replace(views[1], name="later", planes=moved, frame_of_reference="1.3")
    many = [replace(moved[0], origin=moved[0].origin + k * moved[0].normal) for k in range(6)]
    nowhere = replace(views[0], name="bare", planes=many, attributes={"position": "none"})
    nowhere.read_pixels = lambda phase: np.zeros(nowhere.shape, np.float32)
    exam = exams.load_study(scene, replace(heart(), views=[elsewhere, nowhere, *views]))
    np.testing.assert_allclose(crossings.meeting_point(exam), [10, -20, 30], atol=1e-9)


# ---------------------------------------------------------------------------------------------
# Views


@pytest.mark.parametrize("with_3d", [False, True])
def test_views_are_turned_to_their_planes(scene: Any, with_3d: bool) -> None:
    exam = exams.load_study(scene, heart())
    placed = layouts.show_views(scene, exam, with_3d=with_3d)
    assert {name: item.view.role for name, item in placed.items()} == {"Red": "sax", "Green": "2ch", "Yellow": "4ch"}
    point = crossings.meeting_point(exam)
    for name, item in placed.items():
        plane = item.view.planes[crossings.nearest_slice(item.view, point)]
        node = layouts.slice_node(scene, name)
        matrix = coordinates.array_of(node.GetSliceToRAS())
        np.testing.assert_allclose(matrix[:3, 0], plane.x_direction * [-1, -1, 1], atol=1e-12)
        np.testing.assert_allclose(matrix[:3, 1], -plane.y_direction * [-1, -1, 1], atol=1e-12)
        np.testing.assert_allclose(matrix[:3, 3], point * [-1, -1, 1], atol=1e-9)
        assert np.linalg.det(matrix) == pytest.approx(1)
        assert layouts.composite_node(scene, name).GetBackgroundVolumeID() == item.volume.GetID()
        field = node.GetFieldOfView()
        assert field[0] >= plane.extent[0] - 1e-9
        assert field[1] >= plane.extent[1] - 1e-9
    node = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    assert node.GetViewArrangement() == layouts.LAYOUT_ID
    root = node.GetLayoutRootElement()
    assert root.GetNumberOfNestedElements() == 3 + with_3d


@pytest.mark.parametrize("shifted", [False, True])
def test_planes_and_views_lie_where_a_transform_has_moved_the_volumes(scene: Any, shifted: bool) -> None:
    """All of them together: they cross as before, at another place."""
    exam = exams.load_study(scene, heart(shifted=shifted))
    point, former = crossings.meeting_point(exam) * [-1, -1, 1], planes.show_planes(scene, exam)
    lengths = [crossings.show_table(scene, exam).GetTable().GetColumn(4).GetValue(0)]
    for item in exam.views:
        for volume in item.volumes:
            matrix = add_transform(scene, volume)
    point = matrix[:3, :3] @ point + matrix[:3, 3]
    np.testing.assert_allclose(crossings.meeting_point(exam) * [-1, -1, 1], point, atol=1e-6)
    for before, after in zip(former, planes.show_planes(scene, exam), strict=True):
        moved = planes.corners(before) @ matrix[:3, :3].T + matrix[:3, 3]
        np.testing.assert_allclose(planes.corners(after), moved, atol=1e-3)
    for name, item in layouts.show_views(scene, exam).items():
        seen = coordinates.array_of(layouts.slice_node(scene, name).GetSliceToRAS())
        np.testing.assert_allclose(seen[:3, 3], point, atol=1e-6)
        turned = matrix[:3, :3] @ (item.view.planes[0].x_direction * [-1, -1, 1])
        np.testing.assert_allclose(seen[:3, 0], turned, atol=1e-9)
    lengths.append(crossings.show_table(scene, exam).GetTable().GetColumn(4).GetValue(0))
    assert lengths[0] == pytest.approx(lengths[1])


def test_the_layout_of_a_saved_scene_is_restored(scene: Any, tmp_path: Path) -> None:
    """In a session that has never seen it; a layout that the scene does not describe becomes Slicer's four views."""
    logics = [slicer.vtkMRMLLayoutLogic() for _ in range(3)]
    logics[0].SetMRMLScene(scene)
    layouts.show_views(scene, exams.load_study(scene, heart()), with_3d=True)
    again = saved_and_loaded(scene, tmp_path)
    logics[1].SetMRMLScene(again)
    node = again.GetFirstNodeByClass("vtkMRMLLayoutNode")
    assert node.GetViewArrangement() == layouts.LAYOUT_ID
    assert not node.IsLayoutDescription(layouts.LAYOUT_ID), "Slicer does not save it"
    layouts.restore_layout(again)
    assert node.GetViewArrangement() == layouts.LAYOUT_ID
    assert node.GetLayoutRootElement().GetNumberOfNestedElements() == 4
    bare = slicer.vtkMRMLScene()
    logics[2].SetMRMLScene(bare)
    node = bare.GetFirstNodeByClass("vtkMRMLLayoutNode")
    node.SetViewArrangement(2)
    layouts.restore_layout(bare)
    assert node.GetViewArrangement() == 2
    node.SetViewArrangement(layouts.LAYOUT_ID)
    layouts.restore_layout(bare)
    assert node.GetViewArrangement() == layouts.FOUR_UP


def test_layout_of_all_heart_views_and_of_knees() -> None:
    def names(*wanted: str) -> list[str]:
        return layouts.slice_view_names(
            [exams.SceneView(view(r, r, stack(np.eye(3), 1, 1.0, (4, 4), (1.0, 1.0))), []) for r in wanted]
        )

    assert names("sag", "cor", "ax") == ["Yellow", "Green", "Red"]
    assert names("sax", "2ch", "4ch", "3ch", "sax") == ["Red", "Green", "Yellow", "SSL4", "SSL5"]


def test_jump_keeps_the_directions(scene: Any) -> None:
    exam = exams.load_study(scene, heart())
    layouts.show_views(scene, exam)
    before = coordinates.array_of(layouts.slice_node(scene, "Green").GetSliceToRAS())
    layouts.jump_to(scene, exam.token, ["Green"], [1.0, 2.0, 3.0])
    after = coordinates.array_of(layouts.slice_node(scene, "Green").GetSliceToRAS())
    np.testing.assert_allclose(after[:3, :3], before[:3, :3], atol=1e-12)
    np.testing.assert_allclose(after[:3, 3], [-1, -2, 3], atol=1e-9)


# ---------------------------------------------------------------------------------------------
# Overlays


def test_overlays_lie_on_their_host(scene: Any) -> None:
    exam = exams.load_study(scene, heart())
    layouts.show_views(scene, exam)
    item = exam.views[0]
    values = np.random.default_rng(3).random(item.view.shape).astype(np.float32)
    (heat,) = overlays.show_heatmap(scene, exam, item, values, "2CH line", (0.4, 0.8, 0.3))
    np.testing.assert_array_equal(exams.array_of(heat), values)
    np.testing.assert_allclose(ras(heat, (3, 4, 2)), ras(item.volume, (3, 4, 2)), atol=1e-9)
    composite = layouts.composite_node(scene, "Red")
    assert composite.GetForegroundVolumeID() == heat.GetID()
    assert layouts.composite_node(scene, "Green").GetForegroundVolumeID() is None
    table = heat.GetDisplayNode().GetColorNode()
    colour = [0.0] * 4
    table.GetColor(255, colour)
    assert colour[:3] == pytest.approx([0.4, 0.8, 0.3], abs=0.01)
    assert heat.GetDisplayNode().GetWindowLevelMin() == 0
    assert heat.GetDisplayNode().GetWindowLevelMax() == 1
    (place,) = overlays.show_place(scene, exam, item, [0, 0.25, 0.5, 0.75, 1])
    assert np.unique(exams.array_of(place)[3]) == pytest.approx([0.75])
    with pytest.raises(ValueError, match="shape"):
        overlays.show_heatmap(scene, exam, item, values[:, 1:], "x", (1, 1, 1))


@pytest.mark.parametrize("taken", ["from the scene", "before it was moved"])
@pytest.mark.parametrize("shifted", [False, True])
def test_overlays_lie_on_a_host_under_a_transform(scene: Any, tmp_path: Path, shifted: bool, taken: str) -> None:
    """Still ones and those that follow a cine."""
    exam = exams.load_study(scene, heart(phases=3, shifted=shifted))
    document = anomalies_of(exam, tmp_path)
    for volume in exam.views[0].volumes:
        add_transform(scene, volume)
    if taken == "from the scene":
        exam = exams.exam_of_scene(scene, [volume for item in exam.views for volume in item.volumes])
    item = exam.views[0]
    heat = overlays.show_heatmap(scene, exam, item, np.ones(item.view.shape), "line", (1, 0, 0))
    maps = anomalies.show_anomalies(scene, exam, exam.views, document).maps[: len(item.volumes)]
    for phase in (0, 2):
        item.browser.SetSelectedItemNumber(phase)
        for shown in (heat, maps):
            for overlay, host in zip(shown, item.volumes, strict=True):
                assert overlay.GetTransformNodeID() == host.GetTransformNodeID()
                np.testing.assert_allclose(ras(overlay, (3, 4, 2)), ras(host, (3, 4, 2)), atol=1e-9)


def anomalies_of(exam: exams.SceneExam, folder: Path) -> dict[str, Any]:
    """A result of the engine's ``anomalies`` on an exam as a job gets it, with a map that tells voxels apart."""
    document: dict[str, Any] = {"views": []}
    for _ in exams.handing_over(exam, folder):
        pass
    for item, made in zip(exam.views, read_study(folder).views, strict=True):
        assert made.shown == item.view.name
        values = np.random.default_rng(len(document["views"])).random((made.phases, *made.shape)).astype(np.float32)
        parts = [slice(None)] if made.regular else [slice(k, k + 1) for k in range(made.shape[0])]
        paths = [folder / f"{made.name}_map_{k}.nii.gz" for k in range(len(parts))]
        for path, part in zip(paths, parts, strict=True):
            shown = values[:, part]
            own = replace(made, planes=made.planes[part], read_pixels=lambda phase, shown=shown: shown[phase])
            write_view(own, path)
        entries = [
            {"slice": k, "phase": phase, "score": float(values[phase, k].mean()), "z": None}
            for phase in range(made.phases)
            for k in range(made.shape[0])
        ]
        files = [str(path) for path in paths]
        document["views"].append({"view": made.name, "role": made.role, "files": files, "slices": entries})
    return document


@pytest.mark.parametrize("shifted", [False, True])
def test_anomaly_maps_lie_on_their_views_and_follow_the_cine(scene: Any, tmp_path: Path, shifted: bool) -> None:
    exam = exams.load_study(scene, heart(phases=3, shifted=shifted), "a")
    layouts.show_views(scene, exam)
    before = census(scene)
    document = anomalies_of(exam, tmp_path)
    found = anomalies.show_anomalies(scene, replace(exam, token="found"), exam.views, document)
    item = exam.views[0]
    assert len(found.maps) == sum(len(v.volumes) for v in exam.views)
    for overlay, host in zip(found.maps, item.volumes, strict=False):
        np.testing.assert_allclose(ras(overlay, (3, 4, 0)), ras(host, (3, 4, 0)), atol=1e-4)
    first = found.maps[0]
    for phase in (2, 0, 1):
        item.browser.SetSelectedItemNumber(phase)
        path = document["views"][0]["files"][0]
        expected = sitk.GetArrayFromImage(sitk.ReadImage(path))[phase]
        np.testing.assert_allclose(exams.array_of(first), expected, atol=1e-6)
    if not shifted:
        assert layouts.composite_node(scene, "Red").GetForegroundVolumeID() == first.GetID()
    assert first.GetDisplayNode().GetApplyThreshold()
    top = found.table.GetTable()
    entries = [entry for each in document["views"] for entry in each["slices"]]
    assert top.GetValue(0, 3).ToString() == f"{max(entry['score'] for entry in entries):.3f}"
    assert top.GetNumberOfRows() == len(entries)
    listed = {tuple(top.GetValue(r, c).ToString() for c in range(3)) for r in range(len(entries))}
    assert listed == {
        (host.view.name, str(k + 1), str(phase + 1))
        for host in exam.views
        for k in range(host.view.shape[0])
        for phase in range(host.view.phases)
    }
    # The cine's browser stays, and must not put its map back.
    undo.remove_all(scene, "found")
    item.browser.SetSelectedItemNumber(2)
    assert not [n for n in undo.nodes(scene) if "nomalies" in n.GetName()]
    undo.remove_all(scene, "a")
    assert census(scene)["vtkMRMLSequenceNode"] < before["vtkMRMLSequenceNode"]


def test_the_class_of_an_exam_stands_in_tables(scene: Any) -> None:
    """Views by their number, the weightiest slice first, counted from 1; all of it goes with its token."""
    exam = exams.load_study(scene, heart(phases=2, shifted=True))
    before = census(scene)
    owner = replace(exam, token="classes")
    attention = [
        {"view": "01_2ch", "slice": 0, "phase": 1, "weight": 0.3},
        {"view": "00_sax", "slice": 4, "phase": 0, "weight": 0.6},
        {"view": "00_sax", "slice": 1, "phase": 1, "weight": 0.1},
    ]
    document = {"group": "b", "probabilities": {"a": 0.2, "b": 0.8}, "attention": attention}
    found = classes.show_class(scene, owner, owner.views, document)
    assert found.group == "b"
    assert list(found.probabilities.items()) == [("b", 0.8), ("a", 0.2)]
    assert [(s.item, s.slice, s.phase) for s in found.slices] == [
        (exam.views[0], 4, 0),
        (exam.views[1], 0, 1),
        (exam.views[0], 1, 1),
    ]

    def cells(node: Any) -> list[list[str]]:
        table = node.GetTable()
        columns = range(table.GetNumberOfColumns())
        return [[table.GetValue(r, c).ToString() for c in columns] for r in range(table.GetNumberOfRows())]

    assert cells(found.table) == [["b", "0.800"], ["a", "0.200"]]
    assert cells(found.weights) == [
        ["shortaxis", "5", "1", "0.600"],
        ["a2", "1", "2", "0.300"],
        ["shortaxis", "2", "2", "0.100"],
    ]
    # A slice that has a volume of its own is shown from it, turned as it is.
    layouts.show_slice(scene, exam.token, "Red", exam.views[0], 4)
    assert layouts.composite_node(scene, "Red").GetBackgroundVolumeID() == exam.views[0].volumes[4].GetID()
    matrix = coordinates.array_of(layouts.slice_node(scene, "Red").GetSliceToRAS())
    plane = exam.views[0].view.planes[4]
    np.testing.assert_allclose(matrix[:3, 3], plane.centre * [-1, -1, 1], atol=1e-9)
    np.testing.assert_allclose(abs(matrix[:3, 2] @ (plane.normal * [-1, -1, 1])), 1, atol=1e-9)
    undo.remove_all(scene, "classes")
    assert census(scene)["vtkMRMLTableNode"] == before["vtkMRMLTableNode"]


def test_a_broken_anomaly_map_leaves_nothing(scene: Any, tmp_path: Path) -> None:
    exam = exams.load_study(scene, heart())
    document = anomalies_of(exam, tmp_path)
    before = census(scene)
    Path(document["views"][1]["files"][0]).write_bytes(b"no image")
    with pytest.raises(SceneError):
        anomalies.show_anomalies(scene, exam, exam.views, document)
    assert census(scene) == before


# ---------------------------------------------------------------------------------------------
# Segments

NAMES = {1: "LV cavity", 2: "myo", 4: "thing"}


def some_labels(shape: tuple[int, int, int]) -> np.ndarray:
    labels = np.zeros(shape, np.int16)
    labels[:, 8:20, 10:28] = 2
    labels[:, 10:16, 12:22] = 1
    labels[0, 2:5, 30:34] = 4
    return labels


def test_labels_become_named_segments_and_come_back(scene: Any) -> None:
    exam = exams.load_study(scene, heart())
    item = exam.views[0]
    labels = some_labels(item.view.shape)
    (node,) = segments.add_labels(scene, exam, item, labels, NAMES | {7: "Right ventricle"}, "result")
    assert segments.segment_names(node) == ["LV cavity", "LV myocardium", "thing", "RV cavity"]
    segment = node.GetSegmentation().GetNthSegment(1)
    assert segment.GetColor() == pytest.approx((241 / 255, 196 / 255, 15 / 255))
    assert "SCT^49848007^Left Ventricle Myocardium" in terminology(segment)
    geometry = node.GetSegmentation().GetConversionParameter("Reference image geometry")
    assert ";39;0;29;0;4;" in geometry.replace(" ", "")
    hierarchy = subject_hierarchy(scene)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == exam.item
    back, names = segments.labels_of(scene, node, item.volume, {"LV cavity": 1, "LV myocardium": 2, "thing": 4})
    np.testing.assert_array_equal(back, labels)
    assert names == {1: "LV cavity", 2: "LV myocardium", 4: "thing"}
    with pytest.raises(SceneError, match="LV cavity"):
        segments.labels_of(scene, node, item.volume, {"Spleen": 1})


def terminology(segment: Any) -> str:
    if hasattr(segment, "GetTerminology"):
        return str(segment.GetTerminology())
    text = vtk.reference("")
    segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), text)
    return str(text)


def test_labels_on_another_grid_are_refused(scene: Any) -> None:
    exam = exams.load_study(scene, heart())
    with pytest.raises(ValueError, match="shape"):
        segments.add_labels(scene, exam, exam.views[0], np.zeros((5, 30, 41), int), NAMES, "x")


def test_labels_of_shifted_slices(scene: Any) -> None:
    exam = exams.load_study(scene, heart(shifted=True))
    item = exam.views[0]
    labels = some_labels(item.view.shape)
    nodes = segments.add_labels(scene, exam, item, labels, NAMES, "result")
    assert len(nodes) == 5
    wanted = {"LV cavity": 1, "LV myocardium": 2, "thing": 4}
    for k, node in enumerate(nodes):
        back, _ = segments.labels_of(scene, node, item.volumes[k], wanted)
        np.testing.assert_array_equal(back[0], labels[k])


def entries_of(found: dict[int, Any]) -> list[dict[str, Any]]:
    """Structures by value as the engine writes them."""
    return [
        {"value": v, "name": s.name, "colour": s.colour, "category": s.category, "type": s.type}
        for v, s in found.items()
    ]


@pytest.mark.parametrize("taken", ["from the scene", "before it was moved"])
@pytest.mark.parametrize("shifted", [False, True])
def test_a_segmentation_lies_on_a_volume_under_a_transform(
    scene: Any, tmp_path: Path, shifted: bool, taken: str
) -> None:
    """Wherever the exam has its planes, and when the volume is moved once more; a mirrored single slice among them."""
    engine = pytest.importorskip("SSLEngine.segment", reason="the engine's networks are not installed")
    from SSLEngine.structures import structure

    exam = exams.load_study(scene, heart(shifted=shifted))
    volumes = [volume for item in exam.views for volume in item.volumes]
    for volume in volumes:
        add_transform(scene, volume)
    if taken == "from the scene":
        mirrored = coordinates.array_of(exams.ijk_to_ras_of(volumes[-1])) * [1, 1, -1, 1]
        volumes[-1].SetIJKToRASMatrix(coordinates.vtk_matrix(mirrored))
        exam = exams.exam_of_scene(scene, volumes)
    given = {v: structure(n, v) for v, n in NAMES.items()}
    values = {s.name: v for v, s in given.items()}
    for item in exam.views:
        labels = some_labels(item.view.shape)
        for k, volume in enumerate(item.volumes):
            part = slice(None) if len(item.volumes) == 1 else slice(k, k + 1)
            path = tmp_path / "written.seg.nrrd"
            engine.write_segmentation(path, labels[part].astype(np.uint8), item.view.planes[part], entries_of(given))
            node = segments.load_segmentation(scene, exam, item, path, k)
            volume.GetParentTransformNode().SetMatrixTransformToParent(vtk.vtkMatrix4x4())
            back, _ = segments.labels_of(scene, node, volume, values)
            np.testing.assert_array_equal(back, labels[part])
            geometry = node.GetSegmentation().GetConversionParameter("Reference image geometry").split(";")
            own = coordinates.array_of(exams.ijk_to_ras_of(volume))
            np.testing.assert_allclose(np.array(geometry[:16], float).reshape(4, 4), own, atol=1e-6)


def test_labels_lie_on_a_volume_under_a_transform(scene: Any) -> None:
    exam = exams.load_study(scene, heart())
    item = exam.first("sax")
    add_transform(scene, item.volume)
    labels = some_labels(item.view.shape)
    (node,) = segments.add_labels(scene, exam, item, labels, NAMES, "result")
    back, _ = segments.labels_of(scene, node, item.volume, {"LV cavity": 1, "LV myocardium": 2, "thing": 4})
    np.testing.assert_array_equal(back, labels)


def test_segmentation_files_of_the_engine_are_read(scene: Any, tmp_path: Path) -> None:
    engine = pytest.importorskip("SSLEngine.segment", reason="the engine's networks are not installed")
    from SSLEngine.structures import structure

    exam = exams.load_study(scene, heart())
    item = exam.first("sax")
    labels = some_labels(item.view.shape).astype(np.uint8)
    found = {v: structure(n, v) for v, n in NAMES.items()}
    path = tmp_path / "sax.seg.nrrd"
    engine.write_segmentation(path, labels, item.view.planes, entries_of(found))
    before = census(scene)
    node = segments.load_for_exam(scene, exam, path)
    assert census(scene) - before == {"vtkMRMLSegmentationNode": 1, "vtkMRMLSegmentationDisplayNode": 1}
    assert segments.segment_names(node) == ["LV cavity", "LV myocardium", "thing"]
    for k, s in enumerate(found.values()):
        segment = node.GetSegmentation().GetNthSegment(k)
        assert segment.GetColor() == pytest.approx(s.colour, abs=0.003)
        assert "^".join(s.type) in terminology(segment)
    back, _ = segments.labels_of(scene, node, item.volume, {"LV cavity": 1, "LV myocardium": 2, "thing": 4})
    np.testing.assert_array_equal(back, labels)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SceneError, match=r"sax\.seg\.nrrd"):
        segments.load_for_exam(scene, exam, path)
    with pytest.raises(SceneError, match=r"gone\.seg\.nrrd"):
        segments.load_segmentation(scene, exam, item, tmp_path / "gone.seg.nrrd")


def test_a_segmentation_of_another_exam_is_refused(scene: Any, tmp_path: Path) -> None:
    engine = pytest.importorskip("SSLEngine.segment", reason="the engine's networks are not installed")
    exam = exams.load_study(scene, heart())
    elsewhere = stack(rotation(9), 5, 9.0, (40, 30), (1.7, 2.1))
    path = tmp_path / "other.seg.nrrd"
    engine.write_segmentation(path, np.zeros((5, 30, 40), np.uint8), elsewhere, [])
    with pytest.raises(SceneError, match="none of the views"):
        segments.load_for_exam(scene, exam, path)


# ---------------------------------------------------------------------------------------------
# Charts, predicted planes, undo


def test_charts_grow(scene: Any) -> None:
    chart = charts.add_chart(scene, "Training", "step", ["loss", "score"], "value")
    chart.append([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5, "score": 0.3}])
    chart.append([{"step": 3, "score": 0.4}])
    table = chart.table.GetTable()
    assert table.GetNumberOfRows() == 3
    loss = [table.GetValueByName(r, "loss").ToDouble() for r in range(3)]
    assert loss[:2] == [2.0, 1.5]
    assert np.isnan(loss[2])
    assert chart.chart.GetNumberOfPlotSeriesNodes() == 2
    assert chart.series[1].GetYColumnName() == "score"


def test_predicted_planes_lie_where_they_were_predicted(scene: Any) -> None:
    exam = exams.load_study(scene, heart())
    acquired = exam.first("2ch").view.planes[0]
    tilt = np.array([[np.cos(0.1), -np.sin(0.1), 0], [np.sin(0.1), np.cos(0.1), 0], [0, 0, 1]])
    frame = np.stack([acquired.x_direction, acquired.normal, acquired.y_direction], axis=1)
    normal = frame @ tilt @ frame.T @ acquired.normal
    far = acquired.centre + 40 * np.cross(normal, acquired.y_direction) + 2.5 * acquired.normal
    (shown,) = predicted.show_predicted(
        scene, exam, [{"role": "2ch", "point_mm": far.tolist(), "normal": (3 * normal).tolist(), "confidence": 0.8}]
    ).planes
    quad = planes.corners(shown.model)[0] * [-1, -1, 1]
    np.testing.assert_allclose((quad - far) @ normal, 0, atol=1.1 * planes.LIFT_MM)
    assert np.linalg.norm(quad.mean(axis=0) - acquired.centre) < 10


def cells(table: Any) -> list[tuple[str, ...]]:
    """The rows of a table node."""
    found = table.GetTable()
    size = range(found.GetNumberOfRows()), range(found.GetNumberOfColumns())
    return [tuple(found.GetValue(r, c).ToString() for c in size[1]) for r in size[0]]


def test_predicted_planes_are_compared_in_a_table(scene: Any) -> None:
    exam = exams.load_study(scene, heart())
    others = census(scene)
    lies = {"point_mm": [0, 0, 0], "normal": [0, 0, 1]}
    agreed = {"confidence": 0.8, "slices_agreeing": 7, "slices": 9}
    oddly = "lies 15 mm from where the other slices show it"
    planes = [
        {"role": "2ch", **lies, **agreed, "error_deg": 3.04, "error_mm": 0.96, "doubt": None},
        {"role": "4ch", **lies, **agreed, "error_deg": 5.0, "error_mm": 15.2, "doubt": oddly},
        {"role": "3ch", **lies, **agreed, "error_deg": None, "error_mm": None, "doubt": None},
    ]
    shown = predicted.show_predicted(scene, exam, planes)
    assert shown.doubts == [f"4CH {oddly}"]
    first = shown.table
    assert cells(first) == [
        ("2CH", "3.0", "1.0", "7 of 9", ""),
        ("4CH", "5.0", "15.2", "7 of 9", oddly),
        ("3CH", "", "", "7 of 9", "no acquired plane to compare with"),
    ]
    assert subject_hierarchy(scene).GetItemParent(subject_hierarchy(scene).GetItemByDataNode(first)) == exam.item
    # A job of an earlier version; its table takes the place of the first.
    again = predicted.show_predicted(scene, exam, [{"role": "2ch", **lies, "error_deg": 3.0, "error_mm": 1.0}]).table
    assert cells(again) == [("2CH", "3.0", "1.0", "", "")]
    assert undo.owned_nodes(scene, exam.token, "vtkMRMLTableNode") == [again]
    predicted.show_predicted(scene, exam, [])
    assert census(scene)["vtkMRMLTableNode"] == others.get("vtkMRMLTableNode", 0) + 1


def everything(scene: Any, token: str) -> exams.SceneExam:
    exam = exams.load_study(scene, heart(phases=2, shifted=True), token)
    planes.show_planes(scene, exam)
    crossings.show_table(scene, exam)
    layouts.show_views(scene, exam)
    item = exam.views[1]
    overlays.show_heatmap(scene, exam, item, np.ones(item.view.shape), "line", (1, 0, 0))
    segments.add_surface(segments.add_labels(scene, exam, item, some_labels(item.view.shape), NAMES, "result")[0])
    charts.add_chart(scene, "Training", "step", ["loss"], "value", token)
    predicted.show_predicted(
        scene, exam, [{"role": "3ch", "point_mm": [0, 0, 0], "normal": [0, 0, 1], "confidence": 1}]
    )
    return exam


def hierarchy_items(scene: Any) -> int:
    items = vtk.vtkIdList()
    hierarchy = subject_hierarchy(scene)
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    return int(items.GetNumberOfIds())


def test_everything_is_undone_by_one_call(scene: Any) -> None:
    own = exams.volume_node(scene, "mine", np.zeros((2, 3, 4), np.int16), stack(np.eye(3), 2, 2.0, (4, 3), (1.0, 1.0)))
    layouts.composite_node(scene, "Red").SetBackgroundVolumeID(own.GetID())
    for name in ("Red", "Green", "Yellow"):
        layouts.slice_node(scene, name).SetSliceToRASByNTP(0, 0, 1, 1, 0, 0, 5, 6, 7, 0)
        layouts.composite_node(scene, name)
    layout = scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    layout.AddLayoutDescription(2, "<layout/>")
    layout.SetViewArrangement(2)
    before, items = census(scene), hierarchy_items(scene)
    matrix = coordinates.array_of(layouts.slice_node(scene, "Red").GetSliceToRAS())
    field = layouts.slice_node(scene, "Red").GetFieldOfView()

    everything(scene, "one")
    assert layouts.composite_node(scene, "Red").GetBackgroundVolumeID() != own.GetID()
    assert sum(census(scene).values()) > sum(before.values()) + 20
    assert undo.remove_all(scene, "one") > 20

    assert census(scene) == before
    assert hierarchy_items(scene) == items
    np.testing.assert_allclose(
        coordinates.array_of(layouts.slice_node(scene, "Red").GetSliceToRAS()), matrix, atol=1e-12
    )
    assert layouts.slice_node(scene, "Red").GetFieldOfView() == field
    assert layouts.composite_node(scene, "Red").GetBackgroundVolumeID() == own.GetID()
    assert layout.GetViewArrangement() == 2
    assert undo.remove_all(scene, "one") == 0
    assert census(scene) == before


def clone(scene: Any, node: Any, name: str, how: str) -> Any:
    """As the Data module clones a node: with a display node of its own; once with all references, now with none."""
    made = scene.AddNewNodeByClass(node.GetClassName(), name)
    display = scene.AddNewNodeByClass(node.GetDisplayNode().GetClassName())
    for copy, original in ((made, node), (display, node.GetDisplayNode())):
        getattr(copy, how)(original)
    made.SetName(name)
    made.SetAndObserveDisplayNodeID(display.GetID())
    return made


@pytest.mark.parametrize(("how", "original"), [("Copy", "there"), ("CopyContent", "there"), ("Copy", "deleted")])
def test_clones_are_the_users_own(scene: Any, tmp_path: Path, how: str, original: str) -> None:
    """At once, and in a scene that is imported beside another, where nodes get other IDs."""
    exam = exams.load_study(scene, heart(shifted=True), "one")
    drawn = segments.add_labels(scene, exam, exam.views[1], some_labels(exam.views[1].view.shape), NAMES, "result")[0]
    copies = [clone(scene, node, f"my {k}", how) for k, node in enumerate((*exam.views[0].volumes[:2], drawn))]
    assert [v.view.name for v in exams.exam_of_scene(scene, copies[:2]).views] == ["my 0", "my 1"]
    if original == "deleted":
        undo.remove_nodes(scene, [*exam.views[0].volumes[:2], drawn])
    count = len(undo.owned_nodes(scene, "one"))
    again = saved_and_loaded(scene, tmp_path)
    assert again.Import()
    assert len(undo.owned_nodes(again, "one")) == 2 * count
    for where, times in ((scene, 1), (again, 2)):
        undo.remove_all(where, "one")
        left = [node for node in undo.nodes(where) if node.GetAttribute(undo.OWNER)]
        kept = Counter(node.GetName() for node in left if not node.IsA("vtkMRMLDisplayNode"))
        assert kept == {f"my {k}": times for k in range(3)}
        assert len(left) == 6 * times, "with their display nodes"


def test_a_cine_that_its_browser_puts_back_is_the_exams(scene: Any) -> None:
    exam = exams.load_study(scene, heart(phases=3), "one")
    item = exam.views[0]
    scene.RemoveNode(item.volume)
    item.browser.SetSelectedItemNumber(1)
    (volume,) = (node for node in undo.owned_nodes(scene, "one") if exams.view_name(node) == item.view.name)
    assert exams.browser_of(scene, volume) is item.browser
    undo.remove_all(scene, "one")
    assert not scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")


def test_one_exam_is_undone_and_the_other_stays(scene: Any) -> None:
    exams.load_study(scene, heart(), "first")
    kept = census(scene)
    items = hierarchy_items(scene)
    planes.show_planes(scene, exams.load_study(scene, heart(), "second"))
    undo.remove_all(scene, "second")
    assert census(scene) == kept
    assert hierarchy_items(scene) == items


def test_a_folder_that_someone_else_uses_stays(scene: Any) -> None:
    exam = exams.load_study(scene, heart(), "one")
    own = exams.volume_node(scene, "mine", np.zeros((2, 3, 4), np.int16), stack(np.eye(3), 2, 2.0, (4, 3), (1.0, 1.0)))
    exams.put_under(scene, own, exam.item)
    undo.remove_all(scene, "one")
    hierarchy = subject_hierarchy(scene)
    assert hierarchy.GetItemName(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(own))) == "exam 7"
