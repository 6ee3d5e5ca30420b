"""Volumes, labels, study.json, cohorts, splits, inspect."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from exam_maker import heart_layout
from exam_maker import plane
from exam_maker import write_series
from SSLEngine.geometry import Plane
from SSLEngine.geometry import planes_of_affine
from SSLEngine.settings import Grid
from SSLEngine.slices import study_records
from SSLEngine.studies import Study
from SSLEngine.studies import StudyError
from SSLEngine.studies import View
from SSLEngine.studies import crossing_of_views
from SSLEngine.studies import ed_es_phases
from SSLEngine.studies import inspect
from SSLEngine.studies import inspect_html
from SSLEngine.studies import inspect_text
from SSLEngine.studies import read_cohort
from SSLEngine.studies import read_study
from SSLEngine.studies import subject_order
from SSLEngine.studies.claims import quaternion_affine
from SSLEngine.studies.reading import unique_names
from SSLEngine.studies.study import unread
from SSLEngine.studies.volumes import itk_image

ROOT = Path(__file__).resolve().parents[2]
#: Across a usual heart.
_ACROSS = plane((0.62, -0.65, -0.44), (0, 0, 0), down=(0.4, 0.6, 0.2))
DIRECTION = np.column_stack([_ACROSS.x_direction, _ACROSS.y_direction, _ACROSS.normal])


def image(array: Any, spacing: Any = (1.5, 1.2, 8.0), origin: Any = (10.0, -20.0, 30.0)) -> sitk.Image:
    """An oblique image; the array is ``(slices, rows, columns)``."""
    made = sitk.GetImageFromArray(np.asarray(array))
    made.SetSpacing(spacing)
    made.SetOrigin(origin)
    made.SetDirection(DIRECTION.ravel().tolist())
    return made


def write(array: Any, path: Path, **geometry: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image(array, **geometry), str(path))
    return path


def random_pixels(shape: tuple[int, ...] = (4, 10, 12)) -> Any:
    return np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)


# ---------------------------------------------------------------------------------------------
# Volumes


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_volume_formats(tmp_path: Path, name: str) -> None:
    pixels = random_pixels()
    write(pixels, tmp_path / name)
    study = read_study(tmp_path, organ="heart")
    (view,) = study.views
    assert (view.name, view.shape, view.phases, view.frame_of_reference) == ("a", (4, 10, 12), 1, None)
    np.testing.assert_array_equal(view.pixels(), pixels)
    assert view.pixels().dtype == np.float32
    # The third voxel of the second row of the fourth slice, by ITK itself.
    where = image(pixels).TransformIndexToPhysicalPoint((2, 1, 3))
    np.testing.assert_allclose(view.planes[3].to_patient([2, 1]), where, atol=1e-3)
    assert not study.irregularities
    assert read_study(tmp_path / name).views[0].shape == (4, 10, 12)


def test_nifti_axes_agree_with_its_affine(tmp_path: Path) -> None:
    """Read the header's own sform, RAS, and compare the planes: an axis or sign error shows at once."""
    path = write(random_pixels(), tmp_path / "a.nii")
    rows = np.frombuffer(path.read_bytes()[280:328], "<f4").reshape(3, 4)
    expected = planes_of_affine(np.vstack([rows, [0, 0, 0, 1]]), (12, 10, 4))
    for found, wanted in zip(read_study(path).views[0].planes, expected, strict=True):
        np.testing.assert_allclose(found.corners, wanted.corners, atol=1e-3)


@given(seed=st.integers(0, 2**32 - 1), mirrored=st.booleans())
def test_quaternion_affine_is_a_rotation(seed: int, mirrored: bool) -> None:
    rng = np.random.default_rng(seed)
    q = rng.normal(size=4)
    q /= np.linalg.norm(q) * np.sign(q[0])
    affine = quaternion_affine((-1 if mirrored else 1, 2, 3, 4), (*q[1:], 5, 6, 7))
    np.testing.assert_allclose(affine[:, :3].T @ affine[:, :3], np.diag([4, 9, 16]), atol=1e-9)
    assert np.sign(np.linalg.det(affine[:, :3])) == (-1 if mirrored else 1)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha"])
def test_four_dimensions_are_phases(tmp_path: Path, name: str) -> None:
    pixels = random_pixels((3, 4, 10, 12))
    series = sitk.JoinSeries([image(p) for p in pixels], 0.0, 0.04)
    sitk.WriteImage(series, str(tmp_path / name))
    (view,) = read_study(tmp_path).views
    assert (view.phases, view.shape) == (3, (4, 10, 12))
    np.testing.assert_allclose(view.trigger_times, [0, 40, 80], atol=0.01)
    for k in range(3):
        np.testing.assert_array_equal(view.pixels(k), pixels[k])
    with pytest.raises(StudyError, match="3 phases"):
        view.pixels(3)


@pytest.mark.parametrize("first", [True, False])
def test_slicer_sequence(tmp_path: Path, first: bool) -> None:
    """Slicer writes frames as the fastest axis; older versions as the slowest."""
    pixels = random_pixels((3, 4, 10, 12))
    columns = [f"({','.join(map(repr, v))})" for v in (DIRECTION * [1.5, 1.2, 8.0]).T.tolist()]
    sizes, kinds, directions = ["12", "10", "4"], ["domain"] * 3, columns
    place = 0 if first else 3
    for parts, extra in ((sizes, "3"), (kinds, "list"), (directions, "none")):
        parts.insert(place, extra)
    head = (
        f"NRRD0005\ntype: short\ndimension: 4\nspace: left-posterior-superior\nsizes: {' '.join(sizes)}\n"
        f"space directions: {' '.join(directions)}\nkinds: {' '.join(kinds)}\nendian: little\nencoding: raw\n"
        "space origin: (10,-20,30)\n\n"
    )
    stored = np.moveaxis(pixels, 0, -1) if first else pixels
    (tmp_path / "cine.seq.nrrd").write_bytes(head.encode() + stored.astype("<i2").tobytes())
    (view,) = read_study(tmp_path).views
    assert (view.name, view.phases, view.shape) == ("cine", 3, (4, 10, 12))
    for k in range(3):
        np.testing.assert_array_equal(view.pixels(k), pixels[k])
    np.testing.assert_allclose(
        view.planes[3].to_patient([2, 1]), image(pixels[0]).TransformIndexToPhysicalPoint((2, 1, 3))
    )


def turned(made: sitk.Image, slices: int, kept_position: bool = True) -> sitk.Image:
    """The same image (of three or four dimensions) in a file whose axis number ``slices`` is that of the slices."""
    order = {0: [2, 1, 0], 1: [0, 2, 1]}[slices]
    found = sitk.PermuteAxes(made, [*order, 3][: made.GetDimension()])
    if not kept_position:
        found.SetOrigin([0.0] * 3)
        found.SetDirection(np.eye(3).ravel().tolist())
        found.SetSpacing([1.0] * 3)
    return found


@pytest.mark.parametrize("slices", [0, 1])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
def test_slices_along_another_axis_of_the_file(tmp_path: Path, name: str, slices: int) -> None:
    """As in files that a program has turned to RAS or LPS."""
    pixels, labels = random_pixels(), (random_pixels() % 5).astype(np.uint8)
    square = (1.2, 1.2, 8.0)
    sitk.WriteImage(turned(image(pixels, square), slices), str(tmp_path / name))
    sitk.WriteImage(turned(image(labels, square), slices), str(tmp_path / "a_seg.nrrd"))
    study = read_study(tmp_path, organ="heart")
    (view,) = study.views
    assert [("first", "second")[slices] in i.what for i in study.irregularities] == [True]
    assert sorted(view.shape) == [4, 10, 12]
    assert len(view.planes) == 4
    # Every pixel lies where ITK has it, and so does what is written on the view's planes.
    original, written = image(pixels, square), itk_image(view.pixels(), view.planes)
    own_labels = view.labels()
    assert own_labels is not None
    for k, row, column in ((0, 0, 0), (3, 2, 9), (1, 8, 4)):
        point = view.planes[k].to_patient([column, row]).tolist()
        index = original.TransformPhysicalPointToIndex(point)
        np.testing.assert_allclose(original.TransformIndexToPhysicalPoint(index), point, atol=1e-3)
        assert view.pixels()[k, row, column] == original[index] == written[written.TransformPhysicalPointToIndex(point)]
        assert own_labels[k, row, column] == labels[index[::-1]]
    # What is written on them is read back as it is.
    sitk.WriteImage(written, str(tmp_path / "b.nrrd"))
    np.testing.assert_array_equal(read_study(tmp_path / "b.nrrd").views[0].pixels(), view.pixels())


def test_phases_of_a_cine_along_another_axis(tmp_path: Path) -> None:
    pixels = random_pixels((3, 4, 10, 12))
    sitk.WriteImage(
        sitk.JoinSeries([turned(image(p, (1.2, 1.2, 8.0)), 1) for p in pixels], 0.0, 0.04), str(tmp_path / "a.nii.gz")
    )
    (view,) = read_study(tmp_path).views
    assert (view.phases, view.shape) == (3, (4, 10, 12))
    for k in range(3):
        np.testing.assert_array_equal(view.pixels(k), pixels[k])


def test_labels_without_a_position_follow_the_axes_of_their_image(tmp_path: Path) -> None:
    labels = (random_pixels() % 5).astype(np.uint8)
    square = (1.2, 1.2, 8.0)
    sitk.WriteImage(turned(image(random_pixels(), square), 1), str(tmp_path / "a.nii.gz"))
    sitk.WriteImage(turned(image(labels, square), 1, kept_position=False), str(tmp_path / "a_seg.nii.gz"))
    study = read_study(tmp_path)
    assert any("voxel by voxel" in i.consequence for i in study.irregularities)
    np.testing.assert_array_equal(study.views[0].labels(), labels)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((40, 40, 30), (1.0, 1.0, 1.0)),
        ((30, 40, 20), (1.9, 1.0, 1.0)),
        ((30, 40, 20), (3.0, 0.6, 1.2)),
        ((1, 40, 20), (3.0, 1.0, 1.0)),
        ((30, 40, 60), (3.0, 1.0, 1.0)),
    ],
)
def test_the_third_axis_is_that_of_the_slices_unless_another_one_clearly_is(
    tmp_path: Path, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    write(random_pixels(shape), tmp_path / "a.nii.gz", spacing=spacing)
    study = read_study(tmp_path)
    assert study.views[0].shape == shape
    assert not any("axis" in i.what for i in study.irregularities)


def test_a_sagittal_knee_in_a_file_turned_to_lps_is_sagittal(tmp_path: Path) -> None:
    made = sitk.GetImageFromArray(random_pixels((40, 40, 24)))
    made.SetSpacing((3.6, 0.66, 0.66))
    made.SetOrigin((-40.0, 10.0, -20.0))
    sitk.WriteImage(made, str(tmp_path / "a.nii.gz"))
    (view,) = read_study(tmp_path, organ="knee").views
    assert (view.role, view.shape, view.doubt) == ("sag", (24, 40, 40), "")
    np.testing.assert_allclose(view.planes[23].origin, (-40 + 23 * 3.6, 10, -20), atol=1e-3)


def test_not_a_number_becomes_zero(tmp_path: Path) -> None:
    pixels = random_pixels().astype(np.float32)
    pixels[0, 0, 0], pixels[1, 1, 1] = np.nan, np.inf
    write(pixels, tmp_path / "a.nii.gz")
    found = read_study(tmp_path).views[0].pixels()
    assert found[0, 0, 0] == found[1, 1, 1] == 0
    assert np.isfinite(found).all()


# ---------------------------------------------------------------------------------------------
# Labels


def test_labels_beside_the_image(tmp_path: Path) -> None:
    labels = (random_pixels() % 3).astype(np.uint8)
    write(random_pixels(), tmp_path / "cine_sax.nii.gz")
    write(labels, tmp_path / "cine_sax_seg.nrrd")
    (tmp_path / "study.json").write_text(json.dumps({"labels": {"1": "LV cavity", "2": "LV myocardium"}}))
    study = read_study(tmp_path)
    (view,) = study.views
    assert view.labelled
    assert view.label_names == {1: "LV cavity", 2: "LV myocardium"}
    found = view.labels()
    assert found is not None
    np.testing.assert_array_equal(found, labels)
    assert found.dtype == np.int16
    assert not study.irregularities


def test_labels_with_the_name_of_the_image_come_before_others_on_its_grid(tmp_path: Path) -> None:
    write(random_pixels(), tmp_path / "sax.nii.gz")
    write(np.ones((4, 10, 12), np.uint8), tmp_path / "Segmentation.seg.nrrd")
    assert read_study(tmp_path).views[0].labels_source == tmp_path / "Segmentation.seg.nrrd"
    write(np.full((4, 10, 12), 2, np.uint8), tmp_path / "sax_seg.nii.gz")
    (view,) = read_study(tmp_path).views
    assert view.labels_source == tmp_path / "sax_seg.nii.gz"
    assert (view.labels() == 2).all()


def test_label_files_that_are_not_used_are_told_to_a_training(tmp_path: Path) -> None:
    write(random_pixels(), tmp_path / "sax.nii.gz")
    for name in ("sax.seg.nrrd", "sax_seg.nii.gz", "stray_seg.nii.gz"):
        write(np.ones((4, 10, 12), np.uint8), tmp_path / name)
    told = {Path(i.where).name: i for i in read_study(tmp_path).irregularities}
    assert {name: i.costs_labels for name, i in told.items()} == {"sax_seg.nii.gz": True, "stray_seg.nii.gz": True}
    assert "has labels already" in told["sax_seg.nii.gz"].what


def test_labels_suffix(tmp_path: Path) -> None:
    write(random_pixels(), tmp_path / "a.nii.gz")
    write((random_pixels() % 3).astype(np.uint8), tmp_path / "a_gt.nii.gz")
    assert read_study(tmp_path, labels_suffix="_gt").views[0].labelled
    study = read_study(tmp_path)
    assert [v.name for v in study.views] == ["a"]
    assert "looks like a label map of a.nii.gz" in study.irregularities[0].what


def test_a_label_map_is_told_from_its_own_image_and_no_path_twice(tmp_path: Path) -> None:
    for name in ("a_ED", "a_ES"):
        write(random_pixels(), tmp_path / f"{name}.nii.gz")
        write((random_pixels() % 3).astype(np.uint8), tmp_path / f"{name}_gt.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(b"")
    told = [i.told for i in read_study(tmp_path).irregularities]
    assert any(t.startswith(str(tmp_path / "a_ES_gt.nii.gz")) and "label map of a_ES.nii.gz" in t for t in told)
    assert all(t.count(str(tmp_path)) <= 1 for t in told)
    assert inspect_text(inspect(tmp_path)).count("b.nii.gz") == 1


def test_labels_of_single_phases(tmp_path: Path) -> None:
    pixels = random_pixels((3, 4, 10, 12))
    sitk.WriteImage(sitk.JoinSeries([image(p) for p in pixels]), str(tmp_path / "a.nii.gz"))
    write((pixels[0] % 2).astype(np.uint8), tmp_path / "a_seg.nii.gz")
    view = read_study(tmp_path).views[0]
    assert view.labels(0) is not None
    assert view.labels(1) is None
    sitk.WriteImage(sitk.JoinSeries([image(p % 2) for p in pixels]), str(tmp_path / "a_seg.nii.gz"))
    view = read_study(tmp_path).views[0]
    np.testing.assert_array_equal(view.labels(2), pixels[2] % 2)
    assert view.labelled_phases == [0, 1, 2]
    # Of a cine of which only some phases were drawn, the others are unknown and not background.
    drawn = [pixels[0] % 2, pixels[1] * 0, pixels[2] % 2]
    sitk.WriteImage(sitk.JoinSeries([image(p) for p in drawn]), str(tmp_path / "a_seg.nii.gz"))
    view = read_study(tmp_path).views[0]
    assert view.labelled_phases == [0, 2]
    np.testing.assert_array_equal(view.labels(2), pixels[2] % 2)
    # Where nothing at all was drawn, all is background, as of a still image.
    sitk.WriteImage(sitk.JoinSeries([image(p * 0) for p in pixels]), str(tmp_path / "a_seg.nii.gz"))
    assert read_study(tmp_path).views[0].labelled_phases == [0, 1, 2]


@pytest.mark.parametrize(
    ("drawn", "labelled", "left_out"), [([2], [], True), ([0], [0], False), ([1], [1], False), ([0, 2], [0], True)]
)
def test_labels_of_phases_that_the_image_lacks(
    tmp_path: Path, drawn: list[int], labelled: list[int], left_out: bool
) -> None:
    sitk.WriteImage(sitk.JoinSeries([image(random_pixels())] * 2), str(tmp_path / "a.nii.gz"))
    labels = [image(np.full((4, 10, 12), k in drawn, np.uint8)) for k in range(3)]
    sitk.WriteImage(sitk.JoinSeries(labels), str(tmp_path / "a_seg.nii.gz"))
    study = read_study(tmp_path)
    assert study.views[0].labelled == bool(labelled)
    assert study.views[0].labelled_phases == labelled
    assert [i.costs_labels for i in study.irregularities if i.where.endswith("a_seg.nii.gz")] == [left_out]
    # The image was read whole: a result lacks nothing.
    assert not unread(study.irregularities)


def _seg_nrrd(path: Path, layers: Any, segments: list[dict[str, Any]], origin: Any = (10.0, -20.0, 30.0)) -> None:
    """A segmentation as Slicer writes it: layers first, segments in the header."""
    columns = [f"({','.join(map(repr, v))})" for v in (DIRECTION * [1.5, 1.2, 8.0]).T.tolist()]
    n, z, y, x = layers.shape
    head = [
        "NRRD0004",
        "type: unsigned char",
        "dimension: 4",
        "space: left-posterior-superior",
        f"sizes: {n} {x} {y} {z}",
        "space directions: none " + " ".join(columns),
        "kinds: list domain domain domain",
        "encoding: raw",
        f"space origin: ({','.join(map(str, origin))})",
    ]
    for k, segment in enumerate(segments):
        head += [f"Segment{k}_{key}:={value}" for key, value in segment.items()]
    path.write_bytes(("\n".join(head) + "\n\n").encode() + np.moveaxis(layers, 0, -1).astype(np.uint8).tobytes())


def test_slicer_segmentation(tmp_path: Path) -> None:
    write(random_pixels(), tmp_path / "sax.nii.gz")
    layers = np.zeros((2, 4, 10, 12))
    layers[0, :, 2:6], layers[0, :, 6:8], layers[1, :, 5:7] = 1, 2, 1
    segments = [
        {"ID": "Segment_1", "Name": "LV cavity", "LabelValue": 1, "Layer": 0},
        {"ID": "Segment_2", "Name": "LV myocardium", "LabelValue": 2, "Layer": 0},
        {"ID": "Segment_3", "Name": "Scar", "LabelValue": 1, "Layer": 1},
    ]
    _seg_nrrd(tmp_path / "sax.seg.nrrd", layers, segments)
    view = read_study(tmp_path).views[0]
    assert view.label_names == {1: "LV cavity", 2: "LV myocardium", 3: "Scar"}
    found = view.labels()
    assert found is not None
    assert found[2, :, 3].tolist() == [0, 0, 1, 1, 1, 3, 3, 2, 0, 0]


@pytest.mark.parametrize("inner", [0, 1])
def test_a_segment_within_another_one_is_kept_in_whichever_layer_it_lies(tmp_path: Path, inner: int) -> None:
    write(random_pixels(), tmp_path / "sax.nii.gz")
    layers = np.zeros((2, 4, 10, 12))
    layers[inner, :, 4:6, 4:6] = layers[1 - inner, :, 2:8, 2:8] = 1
    segments = [{"ID": f"S{k}", "Name": f"Layer {k}", "LabelValue": 1, "Layer": k} for k in (0, 1)]
    _seg_nrrd(tmp_path / "sax.seg.nrrd", layers, segments)
    study = read_study(tmp_path)
    found = study.views[0].labels()
    assert found is not None
    np.testing.assert_array_equal(found == 1 + inner, layers[inner])
    np.testing.assert_array_equal(found > 0, layers[1 - inner])
    assert [i.what for i in study.irregularities] == ["its segments overlap"]
    layers[1 - inner, :, 4:6, 4:6] = 0
    _seg_nrrd(tmp_path / "sax.seg.nrrd", layers, segments)
    assert not read_study(tmp_path).irregularities


def test_cropped_slicer_segmentation(tmp_path: Path) -> None:
    """Slicer writes the box round the segments only; here it starts at voxel (3, 2, 1)."""
    write(random_pixels(), tmp_path / "sax.nii.gz")
    layer = np.ones((1, 2, 4, 5))
    origin = image(random_pixels()).TransformIndexToPhysicalPoint((3, 2, 1))
    _seg_nrrd(tmp_path / "sax.seg.nrrd", layer, [{"ID": "a", "Name": "LV", "LabelValue": 1}], origin)
    study = read_study(tmp_path)
    expected = np.zeros((4, 10, 12), int)
    expected[1:3, 2:6, 3:8] = 1
    np.testing.assert_array_equal(study.views[0].labels(), expected)
    assert not study.irregularities


def test_labels_on_a_finer_grid_are_resampled(tmp_path: Path) -> None:
    write(np.zeros((4, 10, 12), np.int16), tmp_path / "a.nii.gz")
    fine = np.zeros((4, 20, 24), np.uint8)
    fine[:, 8:12, 10:16] = 1
    half = image(random_pixels()).TransformContinuousIndexToPhysicalPoint((-0.25, -0.25, 0))
    write(fine, tmp_path / "a_seg.nii.gz", spacing=(0.75, 0.6, 8.0), origin=half)
    study = read_study(tmp_path)
    labels = study.views[0].labels()
    assert labels is not None
    expected = np.zeros((10, 12), int)
    expected[4:6, 5:8] = 1
    np.testing.assert_array_equal(labels[2], expected)
    assert "another grid" in study.irregularities[0].what


def unplaced(array: Any) -> sitk.Image:
    made = sitk.GetImageFromArray(array)
    made.SetSpacing((1.5, 1.2, 8.0))
    return made


@pytest.mark.parametrize("without", ["image", "labels"])
def test_where_one_has_no_position_labels_of_the_images_size_are_laid_over_it(tmp_path: Path, without: str) -> None:
    labels = (random_pixels() % 3).astype(np.uint8)
    made = {"image": image(random_pixels()), "labels": image(labels)}
    made[without] = unplaced(sitk.GetArrayFromImage(made[without]))
    sitk.WriteImage(made["image"], str(tmp_path / "sax.nii.gz"))
    sitk.WriteImage(made["labels"], str(tmp_path / "sax_seg.nii.gz"))
    study = read_study(tmp_path)
    np.testing.assert_array_equal(study.views[0].labels(), labels)
    assert any("voxel by voxel" in i.consequence for i in study.irregularities)
    # Of another size nobody knows where they lie.
    sitk.WriteImage(made["labels"][:-1], str(tmp_path / "sax_seg.nii.gz"))
    study = read_study(tmp_path)
    assert not study.views[0].labelled
    assert [i.costs_labels for i in study.irregularities if "not of the size of its image" in i.what] == [True]


def test_labels_cropped_on_the_grid_of_an_image_without_a_position(tmp_path: Path) -> None:
    labels = np.zeros((4, 10, 12), np.uint8)
    labels[1:3, 2:6, 3:8] = 1
    sitk.WriteImage(unplaced(random_pixels()), str(tmp_path / "sax.nii.gz"))
    sitk.WriteImage(unplaced(labels)[3:8, 2:6, 1:3], str(tmp_path / "sax_seg.nii.gz"))
    np.testing.assert_array_equal(read_study(tmp_path).views[0].labels(), labels)


def test_labels_that_all_lie_beside_the_image_are_none(tmp_path: Path) -> None:
    write(random_pixels(), tmp_path / "sax.nii.gz")
    for drawn in (True, False):
        labels = np.full((4, 10, 12), drawn, np.uint8)
        write(labels, tmp_path / "sax_seg.nii.gz", origin=(500.0, 500.0, 500.0))
        study = read_study(tmp_path)
        # An empty label map says that nothing was found, wherever it lies.
        assert study.views[0].labelled is not drawn
        assert [i.costs_labels for i in study.irregularities if "where its image is not" in i.what] == [True] * drawn


# ---------------------------------------------------------------------------------------------
# study.json


def test_overrides_stand_above_everything(tmp_path: Path) -> None:
    layout = heart_layout(np.random.default_rng(3))
    write_series(tmp_path, layout["sax"], SeriesDescription="cine a")
    write_series(tmp_path, layout["4ch"], SeriesDescription="cine b")
    facts = {"roles": {"cine b": "2ch"}, "organ": "heart", "group": "HYP", "subject": "S7", "side": "left"}
    (tmp_path / "study.json").write_text(json.dumps(facts))
    study = read_study(tmp_path)
    assert {v.name: v.role for v in study.views} == {"cine a": "sax", "cine b": "2ch"}
    assert (study.group, study.subject, study.side, study.organ) == ("HYP", "S7", "left", "heart")
    assert {v.name for v in study.views if v.reason == "study.json says so"} == {"cine b"}


# ---------------------------------------------------------------------------------------------
# Cohorts and splits


def test_cohort_of_study_folders(shared_data: Path) -> None:
    cohort = read_cohort(shared_data / "heart-stacks")
    assert len(cohort.studies) == 30
    assert all(v.labelled and v.role == "sax" for s in cohort.studies for v in s.views)
    assert len({s.subject for s in cohort.studies}) == 30


def test_single_study_is_a_cohort_of_one(tmp_path: Path) -> None:
    write(random_pixels(), tmp_path / "exam" / "a.nii.gz")
    assert [s.name for s in read_cohort(tmp_path / "exam").studies] == ["exam"]
    assert [s.name for s in read_cohort(tmp_path).studies] == ["exam"]
    assert [s.name for s in read_cohort(tmp_path / "exam" / "a.nii.gz").studies] == ["a"]


@pytest.mark.parametrize(
    ("names", "unique"),
    [
        ("sax sax sax", "sax sax-2 sax-3"),
        ("sax sax sax-2", "sax sax-3 sax-2"),
        ("sax-2 sax sax sax-2", "sax-2 sax sax-3 sax-2-2"),
    ],
)
def test_names_are_unique(tmp_path: Path, names: str, unique: str) -> None:
    assert unique_names(names.split()) == unique.split()


def test_views_and_studies_have_names_of_their_own(tmp_path: Path) -> None:
    for name in ("sax.nii.gz", "sax.mha", "sax-2.nii.gz"):
        write(random_pixels(), tmp_path / "one" / name)
    assert sorted(v.name for v in read_study(tmp_path / "one").views) == ["sax", "sax-2", "sax-3"]
    # Folders a_b and a/b have the same name.
    for folder in ("a_b", "a/b", "a_b-2"):
        write(random_pixels(), tmp_path / "all" / folder / "sax.nii.gz")
    assert [s.name for s in read_cohort(tmp_path / "all").studies] == ["a_b", "a_b-2", "a_b-3"]


def test_flat_folder_of_numbered_subjects(shared_data: Path) -> None:
    cohort = read_cohort(shared_data / "heart-sax", labels_suffix="_gt")
    assert [(s.name, s.subject, len(s.views)) for s in cohort.studies] == [
        ("SCD0000101", "SCD0000101", 3),
        ("SCD0000201", "SCD0000201", 2),
        ("SCD0000301", "SCD0000301", 2),
    ]
    assert all(v.role == "sax" and (v.labelled or v.phases > 1) for s in cohort.studies for v in s.views)
    assert "3 subjects" in read_study(shared_data / "heart-sax", labels_suffix="_gt").irregularities[0].what


def test_roles_for_a_flat_folder_of_several_subjects_stand_in_one_file(tmp_path: Path) -> None:
    for name in ("patient001_a", "patient001_b", "patient002_a"):
        write(random_pixels(), tmp_path / f"{name}.nii.gz")
    roles = {"patient001_a": "sag", "patient001_b": "ax", "patient002_a": "cor", "patient003_a": "cor"}
    (tmp_path / "study.json").write_text(json.dumps({"organ": "knee", "roles": roles}))
    studies = read_cohort(tmp_path).studies
    assert [[v.role for v in s.views] for s in studies] == [["sag", "ax"], ["cor"]]
    for study in studies:
        told = [i.what for i in study.irregularities if i.where.endswith("study.json")]
        assert told == ["it names a view that is not there: patient003_a"]


def test_nnunet_raw_dataset(tmp_path: Path) -> None:
    for case in ("case_1", "case_2"):
        write(random_pixels(), tmp_path / "imagesTr" / f"{case}_0000.nii.gz")
    write((random_pixels() % 3).astype(np.uint8), tmp_path / "labelsTr" / "case_1.nii.gz")
    labels = {"background": 0, "LV cavity": 1, "LV myocardium": 2}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    cohort = read_cohort(tmp_path)
    assert [(s.name, s.subject, s.views[0].labelled) for s in cohort.studies] == [
        ("case_1", "case_1", True),
        ("case_2", "case_2", False),
    ]
    assert cohort.label_names == {1: "LV cavity", 2: "LV myocardium"}
    assert cohort.studies[0].views[0].label_names == cohort.label_names


@pytest.mark.parametrize(
    ("images", "labels", "names"), [("imagesTs", "labelsTs", True), ("imagesTr", "labelsTr", True), ("new", "", False)]
)
def test_a_folder_of_nnunet_images_is_one_exam_a_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: str, labels: str, names: bool
) -> None:
    for case in ("MM_001", "MM_002", "MM_003"):
        write(random_pixels(), tmp_path / images / f"{case}_0000.nii.gz")
        if labels:
            write((random_pixels() % 3).astype(np.uint8), tmp_path / labels / f"{case}.nii.gz")
            # Of something else, and not the images' own.
            write((random_pixels() % 3).astype(np.uint8), tmp_path / "others" / f"{case}.nii.gz")
    if names:
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "LV cavity": 1, "RV": 2}}))
    cohort = read_cohort(tmp_path / images)
    assert [(s.name, s.subject) for s in cohort.studies] == [(n, n) for n in ("MM_001", "MM_002", "MM_003")]
    assert all(s.views[0].labelled == bool(labels) for s in cohort.studies)
    assert cohort.label_names == ({1: "LV cavity", 2: "RV"} if names else {})
    # The same from within, where the folder has no name of its own.
    monkeypatch.chdir(tmp_path / images)
    if names:
        inside = read_cohort(Path())
        assert [(s.name, s.views[0].labels_source) for s in inside.studies] == [
            (s.name, s.views[0].labels_source) for s in cohort.studies
        ]
    # Read as one exam all the same, that is told.
    told = [i.what for i in read_study(tmp_path / images).irregularities]
    assert "the names look like those of 3 subjects (MM_001, MM_002, MM_003)" in told


@pytest.mark.parametrize("names", [("2ch_0000", "4ch_0000", "sax_0000"), ("2ch_0001", "4ch_0001"), ("sax", "sax_0001")])
def test_views_that_end_in_a_number_are_one_exam(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write(random_pixels(), tmp_path / f"{name}.nii.gz")
    (study,) = read_cohort(tmp_path).studies
    assert sorted(v.name for v in study.views) == sorted(names)
    assert not any("look like" in i.what for i in study.irregularities)


@pytest.mark.parametrize("place", ["imagesTr/{}_0000.nii.gz", "{}/sax.nii.gz"])
def test_frames_of_one_patient_are_one_subject(tmp_path: Path, place: str) -> None:
    def subjects(*names: str) -> tuple[list[str], list[str]]:
        folder = tmp_path / names[-1]
        for name in names:
            write(random_pixels(), folder / place.format(name))
        cohort = read_cohort(folder)
        assert [s.name for s in cohort.studies] == list(names)
        return [s.subject for s in cohort.studies], [i.what for i in cohort.irregularities if "look like" in i.what]

    acdc = ("patient001_frame01", "patient001_frame12", "patient002_frame01")
    told = "the names of 3 studies look like those of 2 subjects (patient001, patient002)"
    assert subjects(*acdc) == (["patient001", "patient001", "patient002"], [told])
    assert subjects("P001_a", "P001_b", "other")[0] == ["P001", "P001", "other"]
    assert subjects("patient7000", "patient7000_later", "x")[0] == ["patient7000", "patient7000", "x"]
    assert subjects("sub-1_ses-1", "sub-1_ses-2", "sub-2_ses-1")[0] == ["sub-1", "sub-1", "sub-2"]
    # Nothing says that these belong together: a number of its own, one name of all, years, few digits.
    for apart in (
        ("heart-0001", "heart-0002"),
        ("heart_0001", "heart_0002"),
        ("P001_a", "P002_b"),
        ("2019_001", "2019_002"),
        ("2019_a", "2019_b", "2020_a"),
        ("P1_2020", "P1_2021", "P2_2021"),
    ):
        assert subjects(*apart) == (list(apart), []), apart


def test_study_json_parts_studies_that_share_a_number(tmp_path: Path) -> None:
    names = ("P001_a", "P001_b", "P002_a")
    for name in names:
        write(random_pixels(), tmp_path / name / "sax.nii.gz")
    (tmp_path / "P001_b" / "study.json").write_text(json.dumps({"subject": "P001_b"}))
    assert [s.subject for s in read_cohort(tmp_path).studies] == list(names)


def test_the_regions_of_an_nnunet_dataset_are_told(tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    write(random_pixels(), tmp_path / "imagesTr" / "case_0000.nii.gz")
    labels = {"background": 0, "LV cavity": 1, "whole heart": [1, 2]}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    cohort = read_cohort(tmp_path)
    assert cohort.label_names == {1: "LV cavity"}
    assert ["whole heart" in i.what for i in cohort.irregularities] == [True]


def test_slices_with_nnunets_ignore_label_are_not_labelled(tmp_path: Path) -> None:
    values = (random_pixels() % 3).astype(np.uint8)
    values[1, 0, 0] = 3
    write(random_pixels(), tmp_path / "imagesTr" / "case_0000.nii.gz")
    write(values, tmp_path / "labelsTr" / "case.nii.gz")
    write(random_pixels(), tmp_path / "imagesTr" / "open_0000.nii.gz")
    write(np.full_like(values, 3), tmp_path / "labelsTr" / "open.nii.gz")
    labels = {"background": 0, "LV cavity": 1, "LV myocardium": 2, "ignore": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    cohort = read_cohort(tmp_path)
    assert cohort.label_names == {1: "LV cavity", 2: "LV myocardium"}
    assert ["ignored" in i.what for i in cohort.irregularities] == [True]
    study, other = cohort.studies
    assert not other.views[0].labelled
    study.views[0].role = "sax"
    records = list(study_records(study, [], Grid(spacing_mm=2.0, patch=32), [1, 2]))
    assert [r.info.labelled for r in records] == [k != 1 for k in range(len(values))]
    assert all(r.labels is None or r.labels.max() <= 2 for r in records)


def test_a_misspelt_key_of_study_json_is_told(tmp_path: Path) -> None:
    write(random_pixels(), tmp_path / "a.nii.gz")
    (tmp_path / "study.json").write_text(json.dumps({"role": {"a": "sax"}, "scanner": "X", "organ": "heart"}))
    told = [i for i in read_study(tmp_path).irregularities if "study.json" in i.where]
    assert [(i.what, i.consequence) for i in told] == [("it has a key 'role', like 'roles'", "the entry has no effect")]


def numbered(folder: Path, names: dict[int, str], values: Any) -> None:
    """An exam whose two views are labelled with these values."""
    for view in ("a", "b"):
        write(random_pixels(), folder / f"{view}.nii.gz")
        write(values.astype(np.uint8), folder / f"{view}_seg.nii.gz")
    (folder / "study.json").write_text(json.dumps({"labels": names}))


def test_labels_are_told_apart_by_their_names(tmp_path: Path) -> None:
    values = random_pixels() % 3
    exams: dict[str, dict[int, str]] = {
        "first": {1: "LV cavity", 2: "RV cavity"},
        "second": {1: "rv", 2: "left ventricle"},
        "third": {1: "Femur", 2: "Tibia"},
        "unnamed": {},
    }
    for exam, names in exams.items():
        numbered(tmp_path / exam, names, values)
    cohort = read_cohort(tmp_path)
    assert cohort.label_names == {1: "LV cavity", 2: "RV cavity", 3: "Femur", 4: "Tibia"}
    wanted = {"first": [0, 1, 2], "second": [0, 2, 1], "third": [0, 3, 4], "unnamed": [0, 1, 2]}
    for study in cohort.studies:
        for view in study.views:
            found = view.labels()
            assert found is not None
            np.testing.assert_array_equal(found, np.array(wanted[study.name])[values])
    second = cohort.studies[1].views[0]
    assert second.label_names == {2: "rv", 1: "left ventricle"}
    # Said once for each exam that numbers otherwise, not for each of its views.
    told = [i for i in cohort.irregularities if "numbered otherwise" in i.what]
    assert [Path(i.where).parent.name for i in told] == ["second", "third"]
    assert "(rv 1 instead of 2, left ventricle 2 instead of 1)" in told[0].what


def test_what_has_no_name_stays_apart_from_what_has_one(tmp_path: Path) -> None:
    values = random_pixels() % 4
    exams: dict[str, tuple[dict[int, str], int, list[int]]] = {
        "a": ({1: "LV cavity", 2: "LV myocardium"}, 3, [0, 1, 2]),
        # Its unnamed 2 is no myocardium, which it has another number for.
        "b": ({1: "LV myocardium"}, 3, [0, 2, 4]),
        # The unnamed 3 of this one is no scar.
        "c": ({}, 4, [0, 1, 2, 3]),
        "d": ({1: "Scar"}, 4, [0, 5, 2, 3]),
    }
    for exam, (names, count, _) in exams.items():
        numbered(tmp_path / exam, names, values % count)
    cohort = read_cohort(tmp_path)
    for study in cohort.studies:
        _, count, wanted = exams[study.name]
        for view in study.views:
            np.testing.assert_array_equal(view.labels(), np.array(wanted)[values % count])
    assert cohort.label_names == {1: "LV cavity", 2: "LV myocardium", 5: "Scar"}
    told = [i.what for i in cohort.irregularities if "numbered otherwise" in i.what]
    assert "(LV myocardium 1 instead of 2, unnamed 2 instead of 4)" in told[0]


def _studies(subjects: list[str]) -> list[Study]:
    return [Study(f"study{k}", Path(str(k)), [], subject=s) for k, s in enumerate(subjects)]


@given(seed=st.integers(0, 1000), order=st.randoms(use_true_random=False))
def test_the_order_of_subjects_is_reproducible(seed: int, order: Any) -> None:
    studies = _studies([f"s{k // 2}" for k in range(20)])
    shuffled = list(studies)
    order.shuffle(shuffled)
    found = subject_order(studies, seed)
    assert found == subject_order(shuffled, seed)
    assert sorted(found) == [f"s{k}" for k in range(10)]
    assert any(subject_order(studies, other) != found for other in (seed + 1, seed + 2))


# ---------------------------------------------------------------------------------------------
# inspect


def test_inspect_real_exam(shared_data: Path) -> None:
    report = inspect(shared_data / "heart-multiview", labels_suffix="_pseudolabel")
    (study,) = json.loads(json.dumps(report))["studies"]
    assert {"path", "organ", "views", "pairs", "irregularities"} <= set(study)
    views = {v["name"]: v for v in study["views"]}
    assert {"file", "role", "reason", "doubt", "shape", "spacing_mm", "phases"} <= set(views["sax_cine"])
    assert views["sax_cine"]["shape"] == [6, 208, 256]
    np.testing.assert_allclose(views["sax_cine"]["spacing_mm"], [17.7, 1.406, 1.406], atol=0.01)
    assert views["sax_cine"]["phases"] == 25
    pairs = {(p["host"], p["guest"]): p for p in study["pairs"]}
    assert len(pairs) == 9 * 8
    for guest in ("lax_2ch_ED", "lax_3ch_named4CH_ED", "lax_4ch_ED", "lax_rv2ch_named2CH_ED", "rvot_ED"):
        pair = pairs["sax_ED", guest]
        assert pair["slices"] == 6
        assert 69 <= round(pair["angle_deg"]) <= 88
        assert 250 < pair["length_mm"] < 400
    assert "parallel" in pairs["sax_ED", "sax_cine"]["why_not"]
    assert pairs["sax_ED", "sax_cine"]["length_mm"] is None
    text = inspect_text(report)
    assert "in doubt: the name says 4ch" in text


def test_inspect_page(shared_data: Path, tmp_path: Path) -> None:
    page = inspect_html(
        shared_data / "heart-multiview", tmp_path / "page.html", labels_suffix="_pseudolabel"
    ).read_text()
    assert page.count("<img") == page.count("data:image/png;base64") == 9
    assert "http" not in page
    assert "src='data:" in page
    with pytest.raises(StudyError, match="could not be written"):
        inspect_html(shared_data / "heart-stacks" / "SC-N-02", tmp_path / "no" / "page.html")


def test_crossing_of_views_counts_slices_really_crossed() -> None:
    """A small guest that reaches only two of five slices."""

    def view(name: str, planes: list[Plane]) -> View:
        return View(name, Path(name), planes, 1, lambda _: np.zeros((1, 1, 1), np.float32))

    x, y, z = np.eye(3)
    host = view("host", [Plane(np.array([0, 0, 10.0 * k]), x, y, (1, 1), (40, 40)) for k in range(5)])
    guest = view("guest", [Plane(np.array([20.0, 0, -4.5]), y, z, (1, 1), (30, 18))])
    found = crossing_of_views(host, guest)
    assert (found.slices, found.angle_deg, found.why_not) == (2, 90.0, "")
    assert found.length_mm == pytest.approx(30, abs=1e-9)
    assert [s is not None for s in found.segments] == [True, True, False, False, False]
    away = view("away", [Plane(np.array([90.0, 0, 0]), y, z, (1, 1), (30, 18))])
    assert crossing_of_views(host, away).why_not == "the planes cross outside the images"


def test_ed_and_es_by_rule() -> None:
    view = View("a", Path("a"), [], 20, lambda _: np.zeros((1, 1, 1), np.float32))
    assert ed_es_phases(view) == (0, 7)
    view.trigger_times = tuple(50.0 * k for k in range(20))
    assert ed_es_phases(view) == (0, 7)
    view.phases = 2
    assert ed_es_phases(view) == (0, 1)
    view.phases = 1
    assert ed_es_phases(view) == (0, 0)


def test_studies_import_nothing_heavy() -> None:
    code = "import sys, SSLEngine.studies; print(sorted({'torch', 'matplotlib', 'monai', 'scipy'} & set(sys.modules)))"
    path = str(ROOT / "SSLPretrain")
    done = subprocess.run([sys.executable, "-c", code], cwd=path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
