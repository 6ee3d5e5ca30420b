"""Pictures by Slicer's own slice and 3D views without a window or a display, and ``scene.mrb``.

For tests and the demo only; it needs trame-slicer (``pip install "trame-slicer[standalone]"``). As a program it
turns a study and its segmentations into a scene and pictures::

    python -m SSLScene.pictures --study DIR --segmentation FILE.seg.nrrd --out DIR
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from ctypes.util import find_library
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

#: Slicer's own background of the 3D view would be light; pictures are dark throughout, like the slice views.
BACKGROUND_3D = ([24, 26, 32], [52, 58, 70])

#: Lines of one stack in a picture, at most.
MOST_LINES = 12


@dataclass
class Studio:
    """A Slicer without windows: a scene, its logics, and off-screen views.

    Attributes:
        app: trame-slicer's application object.
        slice_views: Slice views made so far, by name.
        space_view: The 3D view, made on demand.
    """

    app: Any
    slice_views: dict[str, Any] = field(default_factory=dict)
    space_view: Any = None

    @classmethod
    def open(cls) -> Studio:
        """Starts an empty scene.

        Raises:
            ImportError: trame-slicer is not installed.
        """
        _choose_offscreen_window()
        from trame_slicer.core import SlicerApp

        app = SlicerApp()
        _add_layouts(app.scene)
        return cls(app)

    @property
    def scene(self) -> Any:
        """The MRML scene."""
        return self.app.scene

    def slice_view(self, name: str, size: tuple[int, int] = (800, 800)) -> Any:
        """A slice view of a name and a size in pixels, connected to the scene's slice node of that name."""
        from trame_slicer.views import SliceView

        if name not in self.slice_views:
            self.slice_views[name] = SliceView(self.scene, self.app.app_logic, name, **_on_demand())
        view = self.slice_views[name]
        view.render_window().SetSize(*size)
        view.get_view_node().SetDimensions(*size, 1)
        return view

    def view_3d(self, size: tuple[int, int] = (1100, 900)) -> Any:
        """The 3D view."""
        from trame_slicer.views import ThreeDView

        if self.space_view is None:
            self.space_view = ThreeDView(self.scene, self.app.app_logic, "1", **_on_demand())
            self.space_view.set_background_gradient_color(*BACKGROUND_3D)
            self.space_view.renderer().GradientBackgroundOn()
            self.space_view.set_box_visible(False)
            # Depth peeling, which translucent quads need, draws nothing into a multi-sampled off-screen window.
            self.space_view.render_window().SetMultiSamples(0)
            self.space_view.renderer().UseFXAAOn()
        self.space_view.render_window().SetSize(*size)
        return self.space_view


def _add_layouts(scene: Any) -> None:
    """Gives the scene the descriptions of Slicer's own layouts, which the layout manager would bring.

    They come from a logic on a scene of its own, because in this one it would also make all the view nodes.
    """
    import slicer

    logic = slicer.vtkMRMLLayoutLogic()
    elsewhere = slicer.vtkMRMLScene()
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(elsewhere)
    logic.SetMRMLScene(elsewhere)
    known = logic.GetLayoutNode()
    node = scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    for number in known.GetLayoutIndices():
        node.AddLayoutDescription(number, known.GetLayoutDescription(number))


def _on_demand() -> dict[str, Any]:
    """Views are drawn when a picture is taken, not at every change of the scene."""
    from trame_slicer.views.render_scheduler import NoScheduleRendering

    return {"scheduled_render_strategy": NoScheduleRendering()}


def _choose_offscreen_window() -> None:
    """Without a display VTK finds its off-screen window by itself but warns; naming it first keeps it quiet."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY") and find_library("EGL"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")


def capture(view: Any) -> Picture:
    """Renders a view and reads it back, ``(rows, columns, 3)``, first row at the top."""
    import vtk
    from vtkmodules.util.numpy_support import vtk_to_numpy

    _image_first(view.first_renderer())
    view.render()
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(view.render_window())
    grabber.SetInputBufferTypeToRGB()
    grabber.ReadFrontBufferOff()
    grabber.Update()
    image = grabber.GetOutput()
    columns, rows, _ = image.GetDimensions()
    values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, 3)
    return np.ascontiguousarray(values[::-1])


def _image_first(renderer: Any) -> None:
    """Draws a slice view's image before everything that lies on it, as the application does.

    trame-slicer adds the image when its volume is first set. After that, translucent fills would be blended with the
    background instead of with the image, because the image, drawn last, fails the depth test beneath them.
    """
    props = renderer.GetViewProps()
    found = [props.GetItemAsObject(k) for k in range(props.GetNumberOfItems())]
    behind = [p for p in found if p.IsA("vtkActor2D") and not p.GetProperty().GetDisplayLocation()]
    if behind and found[: len(behind)] != behind:
        for prop in found:
            renderer.RemoveViewProp(prop)
        for prop in (*behind, *(p for p in found if p not in behind)):
            renderer.AddViewProp(prop)


def write_png(picture: Picture, path: Path) -> None:
    """Writes a picture ``(rows, columns, 3)``.

    Raises:
        OSError: The file cannot be written.
    """
    import vtk

    from .exams import image_data

    image = image_data(picture[::-1, :, 0][None])
    channels = np.ascontiguousarray(picture[::-1]).reshape(-1, 3)
    from vtkmodules.util.numpy_support import numpy_to_vtk

    image.GetPointData().SetScalars(numpy_to_vtk(channels, deep=True))
    writer = vtk.vtkPNGWriter()
    writer.SetInputData(image)
    writer.SetFileName(str(path))
    writer.Write()
    if writer.GetErrorCode():
        msg = f"{path} could not be written: check the folder and the space on the disk."
        raise OSError(msg)


@dataclass(frozen=True)
class Entry:
    """One line of a legend."""

    text: str
    colour: tuple[float, float, float]


@contextmanager
def annotated(view: Any, title: str, entries: Sequence[Entry]) -> Iterator[None]:
    """Writes a title and a legend over a view, on a layer of their own, as long as the block lasts."""
    import vtk

    window = view.render_window()
    layers = window.GetNumberOfLayers()
    caption = vtk.vtkRenderer()
    caption.SetLayer(layers)
    caption.InteractiveOff()
    window.SetNumberOfLayers(layers + 1)
    window.AddRenderer(caption)
    _, height = window.GetSize()
    size = max(14, height // 42)
    caption.AddViewProp(_text(title, (0.95, 0.95, 0.95), (12, height - 12), size + 4, top=True))
    for k, entry in enumerate(reversed(entries)):
        caption.AddViewProp(_text(entry.text, entry.colour, (12, 12 + k * round(1.5 * size)), size, top=False))
    try:
        yield
    finally:
        window.RemoveRenderer(caption)
        window.SetNumberOfLayers(layers)


def _text(text: str, colour: Sequence[float], at: tuple[int, int], size: int, *, top: bool) -> Any:
    import vtk

    actor = vtk.vtkTextActor()
    actor.SetInput(text)
    actor.SetPosition(*at)
    style = actor.GetTextProperty()
    style.SetFontSize(size)
    style.SetColor(*colour)
    style.SetBold(True)
    style.SetBackgroundColor(0.0, 0.0, 0.0)
    style.SetBackgroundOpacity(0.45)
    style.SetVerticalJustificationToTop() if top else style.SetVerticalJustificationToBottom()
    return actor


# ---------------------------------------------------------------------------------------------
# Scene file


def save_scene(scene: Any, path: Path) -> None:
    """Saves a scene with all its data as ``.mrb``, which 3D Slicer opens.

    Raises:
        OSError: It cannot be written.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    scene.SetRootDirectory(str(path.parent))
    if not scene.WriteToMRB(str(path)) or not path.is_file():
        msg = f"The scene could not be saved as {path}: check the folder and the space on the disk."
        raise OSError(msg)


def load_scene(studio: Studio, path: Path) -> None:
    """Loads a ``.mrb`` or ``.mrml`` file into the studio's scene.

    Raises:
        OSError: It cannot be read.
    """
    if not studio.app.io_manager.load_scene(path):
        msg = f"{path} is not a scene that Slicer can read."
        raise OSError(msg)


# ---------------------------------------------------------------------------------------------
# The demo's pictures


def make(study_path: Path, segmentations: Sequence[Path], out: Path) -> list[Path]:
    """Shows a study and its segmentations as a user of Slicer would see them, and saves scene and pictures.

    Args:
        study_path: A study that the engine reads.
        segmentations: ``.seg.nrrd`` files of its views.
        out: Folder for ``scene.mrb``, ``slice_<role>.png`` and ``planes_3d.png``.

    Returns:
        The files written.

    Raises:
        StudyError: The study cannot be read.
        SceneError: A segmentation cannot be read or belongs to no view.
        OSError: A file cannot be written.
    """
    from SSLEngine.studies import read_study

    from . import crossings
    from . import exams
    from . import layouts
    from . import planes
    from . import segments

    studio = Studio.open()
    _be_quiet()
    exam = exams.load_study(studio.scene, read_study(study_path))
    models = planes.show_planes(studio.scene, exam)
    for model in models:
        # The lines of a stack of many slices would cover the picture; the scene gets all of them back below.
        count = planes.number_of_slices(model)
        planes.show_slices(model, range(0, count, -(-count // MOST_LINES)))
    crossings.show_table(studio.scene, exam)
    found = [segments.load_for_exam(studio.scene, exam, path) for path in segmentations]
    stacks = {item.view.name for item in exam.views if len(item.view.planes) > 1}
    for node in found:
        # A label map of one slice would be a slab in 3D.
        if node.GetAttribute(exams.VIEW) in stacks:
            segments.add_surface(node)
    out.mkdir(parents=True, exist_ok=True)
    for name in layouts.slice_view_names(layouts.main_views(exam)):
        studio.slice_view(name)
    placed = layouts.show_views(studio.scene, exam, layout=layouts.FOUR_UP)
    written = [_slice_picture(studio, exam, name, item, models, found, out) for name, item in placed.items()]
    written.append(_space_picture(studio, exam, placed, models, found, out / "planes_3d.png"))
    save_scene(studio.scene, out / "scene.mrb")
    return [*written, out / "scene.mrb"]


def _be_quiet() -> None:
    """Saving tells every file that it packs. What goes wrong here is raised, so VTK need print nothing."""
    import vtk

    vtk.vtkOutputWindow.GetInstance().SetDisplayModeToNever()
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)


def _slice_picture(
    studio: Studio, exam: Any, name: str, item: Any, models: Sequence[Any], found: Sequence[Any], out: Path
) -> Path:
    from . import crossings
    from . import layouts
    from . import roles
    from .exams import VIEW

    point = crossings.meeting_point(exam)
    index = crossings.nearest_slice(item.view, point)
    view = studio.slice_view(name, picture_size(item.view.planes[index]))
    layouts.look_at(view.get_view_node(), item.view.planes[index], point, zoom=1.5)
    title = roles.label(item.view.role)
    if len(item.view.planes) > 1:
        title += f"   slice {index + 1} of {len(item.view.planes)}"
    own = exam.views.index(item)
    lines = [_entry(m) for k, m in enumerate(models) if k != own and m.GetDisplayNode().GetVisibility()]
    path = out / f"slice_{item.view.role}.png"
    for node in found:
        # Label maps of other views would be slabs across this one.
        node.GetDisplayNode().SetVisibility2D(node.GetAttribute(VIEW) == item.view.name)
    with annotated(view, title, [*lines, *_segment_entries(item, found)]):
        write_png(capture(view), path)
    for node in found:
        node.GetDisplayNode().SetVisibility2D(True)
    return path


def picture_size(plane: Any, longest: int = 900) -> tuple[int, int]:
    """Size in pixels of a picture with the shape of an image."""
    width, height = plane.extent
    scale = longest / max(width, height)
    return round(scale * width), round(scale * height)


def _entry(model: Any) -> Entry:
    return Entry(model.GetName().removesuffix(" planes"), model.GetDisplayNode().GetColor())


def _segment_entries(item: Any, found: Sequence[Any]) -> list[Entry]:
    from .exams import VIEW

    entries = {}
    for node in found:
        if node.GetAttribute(VIEW) != item.view.name:
            continue
        segmentation = node.GetSegmentation()
        for k in range(segmentation.GetNumberOfSegments()):
            segment = segmentation.GetNthSegment(k)
            entries[segment.GetName()] = Entry(segment.GetName(), segment.GetColor())
    return list(entries.values())


def _space_picture(
    studio: Studio, exam: Any, placed: dict[str, Any], models: Sequence[Any], found: Sequence[Any], path: Path
) -> Path:
    """The images of the three main views in 3D, framed in their colours, with the segmented structures."""
    from SSLEngine.geometry import middle_plane

    from . import crossings
    from . import layouts
    from . import planes

    point = crossings.meeting_point(exam)
    main = list(placed.items())[:3]
    for model, item in zip(models, exam.views, strict=True):
        framed = any(item is shown for _, shown in main)
        model.GetDisplayNode().SetVisibility3D(False)
        model.GetNthDisplayNode(1).SetVisibility3D(framed)
        planes.show_slices(model, [crossings.nearest_slice(item.view, point)])
    for name, item in main:
        view = studio.slice_views[name]
        plane = item.view.planes[crossings.nearest_slice(item.view, point)]
        layouts.look_at(view.get_view_node(), plane)
        view.get_view_node().SetSliceVisible(True)
    space = studio.view_3d()
    widest = max(max(middle_plane(item.view.planes).extent) for _, item in main)
    aim(space, point, [middle_plane(item.view.planes).normal for _, item in main], 1.15 * widest)
    entries = [_entry(models[exam.views.index(item)]) for _, item in main]
    structures = {e.text: e for _, item in main for e in _segment_entries(item, found)}
    with annotated(space, exam.study.name, [*entries, *structures.values()]):
        write_png(capture(space), path)
    for model in models:
        planes.show_slices(model, range(planes.number_of_slices(model)))
    return path


def aim(view: Any, point: npt.ArrayLike, normals: Sequence[npt.ArrayLike], width_mm: float = 330.0) -> None:
    """Turns the 3D view so that it looks at no plane edge-on, from the front and above, at an LPS point.

    Of 2,000 directions from the anterior side it takes the one with the largest smallest cosine to all normals.
    """
    from .coordinates import to_ras

    candidates = np.random.default_rng(0).normal(size=(2000, 3))
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    # RAS: anterior is +y, superior is +z.
    candidates = candidates[(candidates[:, 1] > 0.35) & (candidates[:, 2] > 0.0)]
    facing = np.abs(candidates @ np.stack([to_ras(n) for n in normals]).T).min(axis=1)
    direction = candidates[int(np.argmax(facing))]
    focus = to_ras(point)
    camera = view.get_camera_node().GetCamera()
    camera.SetFocalPoint(*focus)
    camera.SetPosition(*(focus + 900.0 * direction))
    camera.SetViewUp(0.0, 0.0, 1.0)
    camera.SetParallelProjection(True)
    camera.SetParallelScale(width_mm / 2)
    view.first_renderer().ResetCameraClippingRange()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m SSLScene.pictures", description=__doc__.split("\n\n")[0])
    parser.add_argument("--study", type=Path, required=True, help="study folder or image file")
    parser.add_argument("--segmentation", type=Path, action="append", default=[], help=".seg.nrrd; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="folder for scene.mrb and the pictures")
    given = parser.parse_args(arguments)
    try:
        for path in make(given.study, given.segmentation, given.out):
            print(path)
    except ImportError as error:
        print(f'{error}: install it with pip install "trame-slicer[standalone]".', file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
