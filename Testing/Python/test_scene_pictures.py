"""Pictures by Slicer's own displayable managers, off-screen, measured against the closed form."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from SSLEngine.geometry import Plane
from SSLEngine.geometry import crossing_segment
from SSLEngine.studies.study import Study
from SSLEngine.studies.study import View

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("trame_slicer", reason='trame-slicer is not installed: pip install "trame-slicer[standalone]"')

from SSLScene import coordinates
from SSLScene import crossings
from SSLScene import exams
from SSLScene import layouts
from SSLScene import pictures
from SSLScene import planes
from SSLScene import segments
from SSLScene import undo

#: A picture size whose shape is not the images', so that a swapped axis or a stretched view would show.
SIZE = (760, 610)


@pytest.fixture(scope="module")
def studio() -> pictures.Studio:
    try:
        made = pictures.Studio.open()
        view = made.slice_view("Red", SIZE)
        view.render_window().SetMultiSamples(0)
        pictures.capture(view)
    except Exception as error:
        pytest.skip(f"no off-screen OpenGL here: {error}")
    return made


@pytest.fixture
def exam(studio: pictures.Studio, shared_data: Path) -> Any:
    """Short axis, 2CH and 4CH of the real exam, with one pixel thin lines."""
    from SSLEngine.studies.volumes import read_header
    from SSLEngine.studies.volumes import view_of_volume

    views = []
    for name, role in [("sax", "sax"), ("lax_2ch", "2ch"), ("lax_4ch", "4ch")]:
        view = view_of_volume(read_header(shared_data / "heart-multiview" / f"{name}_ED.nii.gz"))
        view.role = role
        views.append(view)
    loaded = exams.load_study(studio.scene, Study("real", Path("real"), views), "test")
    yield loaded
    undo.remove_all(studio.scene, "test")


def coloured(picture: np.ndarray) -> np.ndarray:
    """Pixels that are not grey, ``(n, 2)`` as x, y from the top left corner, at pixel centres."""
    values = picture.astype(int)
    rows, columns = np.nonzero(values.max(axis=2) - values.min(axis=2) > 60)
    return np.stack([columns + 0.5, rows + 0.5], axis=1)


def on_screen(plane: Plane, node: Any, point: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Where image pixels of a plane lie in a slice view that has a point in its middle, x, y from the top left."""
    mm = (positions - plane.to_pixel(point)) * plane.spacing
    pixel = node.GetFieldOfView()[0] / SIZE[0]
    return mm / pixel + np.array(SIZE) / 2


def distances(points: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Distance of points from a segment."""
    along = ends[1] - ends[0]
    t = np.clip((points - ends[0]) @ along / (along @ along), 0, 1)
    return np.linalg.norm(points - ends[0] - t[:, None] * along, axis=1)


@pytest.mark.parametrize("zoom", [1.0, 0.7])
@pytest.mark.parametrize("guest", ["2ch", "4ch"])
def test_lines_are_drawn_where_the_closed_form_puts_them(
    studio: pictures.Studio, exam: exams.SceneExam, guest: str, zoom: float
) -> None:
    models = dict(zip(["sax", "2ch", "4ch"], planes.show_planes(studio.scene, exam), strict=True))
    for role, model in models.items():
        model.GetDisplayNode().SetSliceIntersectionThickness(1)
        # The host's own plane stays on: it must not draw anything in its own slices.
        planes.show(model, role in {guest, "sax"})
    view = studio.slice_view("Red", SIZE)
    point = crossings.meeting_point(exam)
    host, other = exam.views[0], exam.first(guest)
    layouts.turn_view(studio.scene, exam.token, "Red", host, point)
    for plane in host.view.planes:
        layouts.look_at(view.get_view_node(), plane, point, zoom)
        found = coloured(pictures.capture(view))
        node = view.get_view_node()
        # The guest's quad ends the line, also beyond the host's image.
        whole = crossing_segment(_widened(plane), other.view.planes[0])
        limits = on_screen(plane, node, point, plane.to_pixel(whole.points))
        assert distances(found, limits).max() <= 1.0
        along = (limits[1] - limits[0]) / np.linalg.norm(limits[1] - limits[0])
        offsets = (found - limits[0]) @ [-along[1], along[0]]
        assert abs(offsets.mean()) < 0.05
        ends = on_screen(plane, node, point, crossing_segment(plane, other.view.planes[0]).host_pixels)
        # OpenGL does not draw the last pixel of a line, so one pixel at both ends is left out.
        samples = ends[0] + np.linspace(0, 1, 400)[:, None] * (ends[1] - ends[0])
        samples = samples[np.linalg.norm(samples - limits[0], axis=1) > 1]
        samples = samples[np.linalg.norm(samples - limits[1], axis=1) > 1]
        samples = samples[((samples > 1) & (samples < np.array(SIZE) - 1)).all(axis=1)]
        assert len(samples) > 200
        assert max(np.linalg.norm(found - s, axis=1).min() for s in samples) <= 1.0


def _widened(plane: Plane) -> Plane:
    first = plane.centre - 1000 * (plane.x_direction + plane.y_direction)
    return Plane(first, plane.x_direction, plane.y_direction, (1.0, 1.0), (2001, 2001))


@pytest.mark.parametrize("guest", ["2ch", "4ch"])
def test_planes_meet_in_3d_where_the_closed_form_puts_them(
    studio: pictures.Studio, exam: exams.SceneExam, guest: str
) -> None:
    """Opaque quads in flat colours: the edge between the two colours is the crossing line."""
    models = dict(zip(["sax", "2ch", "4ch"], planes.show_planes(studio.scene, exam), strict=True))
    for role, model in models.items():
        planes.show(model, role in {guest, "sax"})
        model.GetNthDisplayNode(1).SetVisibility(False)
        model.GetDisplayNode().SetOpacity(1.0)
    planes.show_slices(models["sax"], [3])
    plane, other = exam.views[0].view.planes[3], exam.first(guest).view.planes[0]
    view = studio.view_3d((900, 700))
    view.renderer().UseFXAAOff()
    pictures.aim(view, crossings.meeting_point(exam), [plane.normal, other.normal], 300.0)
    picture = pictures.capture(view).astype(int)
    camera = view.get_camera_node().GetCamera()
    ends = project(camera, crossing_segment(plane, other).points * [-1, -1, 1], (900, 700))
    colours = [np.array(models[r].GetDisplayNode().GetColor()) * 255 for r in ("sax", guest)]
    gaps = [edge_gap(picture, at, ends[1] - ends[0], colours) for at in inner_points(ends, (900, 700))]
    assert len(gaps) > 50
    assert sum(g is None for g in gaps) == 0
    assert max(abs(g) for g in gaps) <= 1.0


def project(camera: Any, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Parallel projection of RAS points to x, y from the top left, from the camera's own numbers."""
    position, focus = np.array(camera.GetPosition()), np.array(camera.GetFocalPoint())
    forward = (focus - position) / np.linalg.norm(focus - position)
    right = np.cross(forward, camera.GetViewUp())
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    scale = size[1] / 2 / camera.GetParallelScale()
    offset = points - focus
    return np.stack([size[0] / 2 + scale * offset @ right, size[1] / 2 - scale * offset @ up], axis=1)


def inner_points(ends: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    samples = ends[0] + np.linspace(0.1, 0.9, 120)[:, None] * (ends[1] - ends[0])
    return samples[((samples > 8) & (samples < np.array(size) - 8)).all(axis=1)]


def edge_gap(picture: np.ndarray, at: np.ndarray, along: np.ndarray, colours: list[np.ndarray]) -> float | None:
    """Distance in pixels from ``at``, across a line, to the change between two colours; None if there is none."""
    across = np.array([-along[1], along[0]]) / np.linalg.norm(along)
    steps = np.arange(-5, 5.01, 0.1)
    x, y = (at[:, None] + across[:, None] * steps).astype(int)
    first = np.abs(picture[y, x] - colours[0]).max(axis=1) < 12
    second = np.abs(picture[y, x] - colours[1]).max(axis=1) < 12
    if not (first | second).all() or first.all() or second.all():
        return None
    changes = np.nonzero(first[1:] != first[:-1])[0]
    return float(steps[changes].mean() + 0.05)


def test_the_image_shows_through_a_segment(studio: pictures.Studio, exam: exams.SceneExam) -> None:
    item = exam.views[0]
    view = studio.slice_view("Red", SIZE)
    layouts.turn_view(studio.scene, exam.token, "Red", item, crossings.meeting_point(exam))
    bare = pictures.capture(view).astype(float)
    (node,) = segments.add_labels(studio.scene, exam, item, np.ones(item.view.shape, int), {1: "LV cavity"}, "all")
    node.GetDisplayNode().SetVisibility2DOutline(False)
    share = node.GetDisplayNode().GetOpacity2DFill()
    colour = 255 * np.array(node.GetSegmentation().GetNthSegment(0).GetColor())
    filled = pictures.capture(view).astype(float)
    middle = (slice(250, 360), slice(300, 460))
    np.testing.assert_allclose(filled[middle], (1 - share) * bare[middle] + share * colour, atol=3)


# ---------------------------------------------------------------------------------------------
# The demo's entry point


def study_folder(folder: Path) -> Path:
    """A small exam on disk: a short axis and two planes across it."""
    q, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))
    axes = q * np.sign(np.linalg.det(q))
    views = []
    for role, columns, count in [("sax", [0, 1, 2], 4), ("2ch", [2, 0, 1], 1), ("4ch", [1, 2, 0], 1)]:
        a = axes[:, columns]
        first = np.array([5.0, -10, 20]) - a @ np.array([39 * 1.5, 31 * 1.5, (count - 1) * 9.0]) / 2
        at = [Plane(first + 9.0 * k * a[:, 2], a[:, 0], a[:, 1], (1.5, 1.5), (40, 32), 9.0) for k in range(count)]
        values = np.random.default_rng(1).integers(0, 255, (count, 32, 40)).astype(np.float32)
        views.append(View(role, Path(role), at, 1, lambda _, v=values: v, role=role))
    exam = exams.SceneExam(Study("small", folder, views), [exams.SceneView(v, []) for v in views])
    return undo.at_once(exams.writing_study(exam, folder))


def test_the_demo_writes_scene_and_pictures(tmp_path: Path) -> None:
    engine = pytest.importorskip("SSLEngine.segment", reason="the engine's networks are not installed")
    from SSLEngine.structures import structure
    from SSLEngine.studies import read_study

    folder, out = study_folder(tmp_path / "small"), tmp_path / "out"
    view = read_study(folder).first("sax")
    labels = np.zeros(view.shape, np.uint8)
    labels[:, 10:20, 10:25] = 1
    s = structure("LV cavity")
    entry = {"value": 1, "name": s.name, "colour": s.colour, "category": s.category, "type": s.type}
    path = tmp_path / "sax.seg.nrrd"
    engine.write_segmentation(path, labels, view.planes, [entry])
    command = [sys.executable, "-m", "SSLScene.pictures", "--study", str(folder)]
    done = subprocess.run(
        [*command, "--segmentation", str(path), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    names = ["slice_sax.png", "slice_2ch.png", "slice_4ch.png", "planes_3d.png", "scene.mrb"]
    assert [Path(line).name for line in done.stdout.split()] == names
    assert all((out / n).stat().st_size > 3000 for n in names)

    again = pictures.Studio.open()
    pictures.load_scene(again, out / "scene.mrb")
    found = Counter(n.GetClassName() for n in undo.nodes(again.scene))
    assert found["vtkMRMLScalarVolumeNode"] == 3
    assert found["vtkMRMLModelNode"] >= 3
    assert found["vtkMRMLSegmentationNode"] == 1
    node = undo.owned_nodes(again.scene, class_name="vtkMRMLSegmentationNode")[0]
    assert segments.segment_names(node) == ["LV cavity"]
    volume = next(
        n
        for n in undo.owned_nodes(again.scene, class_name="vtkMRMLScalarVolumeNode")
        if n.GetAttribute(exams.ROLE) == "sax"
    )
    back, _ = segments.labels_of(again.scene, node, volume)
    np.testing.assert_array_equal(back, labels)
    for mine, theirs in zip(exams.planes_of_node(volume), view.planes, strict=True):
        np.testing.assert_allclose(mine.corners, theirs.corners, atol=1e-3)
    composite = layouts.composite_node(again.scene, "Red")
    assert composite.GetBackgroundVolumeID() == volume.GetID()
    model = next(n for n in undo.owned_nodes(again.scene, class_name="vtkMRMLModelNode") if n.GetName() == "SAX planes")
    assert model.GetPolyData().GetNumberOfCells() == 4
    expected = np.stack([p.corners for p in view.planes]) * np.diag(coordinates.LPS_TO_RAS)[:3]
    np.testing.assert_allclose(planes.corners(model), expected, atol=2e-3)
    undo.remove_all(again.scene)
    assert not undo.owned_nodes(again.scene)
    assert again.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0


def test_the_demo_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pictures.main(["--study", str(tmp_path / "nowhere"), "--out", str(tmp_path)]) == 2
    assert "nowhere" in capsys.readouterr().err
    folder = study_folder(tmp_path / "small")
    (tmp_path / "x.seg.nrrd").write_text(json.dumps({}))
    given = ["--study", str(folder), "--segmentation", str(tmp_path / "x.seg.nrrd"), "--out", str(tmp_path / "o")]
    assert pictures.main(given) == 2
    assert "x.seg.nrrd" in capsys.readouterr().err
