"""Scores against closed forms: boxes and balls on anisotropic grids, names and values, cines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SSLEngine.__main__ import main
from SSLEngine.geometry import Plane
from SSLEngine.measure import dice
from SSLEngine.measure import ejection_fraction
from SSLEngine.measure import evaluate
from SSLEngine.measure import left_out
from SSLEngine.measure import surface_distances
from SSLEngine.measure import table
from SSLEngine.segment import write_segmentation
from SSLEngine.structures import structure
from SSLEngine.studies import StudyError

#: mm along slices, rows, columns.
SPACING = (5.0, 2.0, 0.5)


def box(
    low: tuple[int, int, int], high: tuple[int, int, int], shape: tuple[int, int, int] = (12, 30, 40)
) -> np.ndarray:
    made = np.zeros(shape, bool)
    made[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return made


def write(path: Path, labels: np.ndarray, spacing: tuple[float, float, float] = SPACING) -> Path:
    """A bare label map; a 4D array gives a cine."""
    volumes = labels if labels.ndim == 4 else labels[None]
    images = []
    for volume in volumes:
        image = sitk.GetImageFromArray(volume.astype(np.int16))
        image.SetSpacing(spacing[::-1])
        image.SetOrigin((3.0, -4.0, 9.0))
        images.append(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(images[0] if len(images) == 1 else sitk.JoinSeries(images), str(path))
    return path


def entry(value: int, name: str) -> dict:
    item = structure(name, value)
    return {
        "index": value,
        "value": value,
        "name": name,
        "colour": item.colour,
        "category": item.category,
        "type": item.type,
    }


def write_named(path: Path, labels: np.ndarray, names: dict[int, str]) -> Path:
    x, y, z = np.eye(3)
    size = (labels.shape[2], labels.shape[1])
    origin = np.array([3.0, -4.0, 9.0])
    planes = [Plane(origin + k * SPACING[0] * z, x, y, (SPACING[2], SPACING[1]), size) for k in range(len(labels))]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_segmentation(path, labels.astype(np.uint8), planes, [entry(v, n) for v, n in names.items()])
    return path


@pytest.mark.parametrize(("axis", "mm"), [(0, 5.0), (1, 2.0), (2, 0.5)])
def test_a_shifted_box_is_as_far_as_its_spacing_says(axis: int, mm: float) -> None:
    a = box((3, 8, 10), (7, 16, 26))
    shift = 2
    b = np.roll(a, shift, axis)
    far, mean = surface_distances(a, b, SPACING)
    assert far is not None
    assert mean is not None
    # The faces across the shift lie exactly so far apart, and nothing lies further.
    assert far == pytest.approx(shift * mm, abs=1e-4)
    assert 0 < mean < shift * mm
    side = (4, 8, 16)[axis]
    assert dice(a, b) == pytest.approx(1 - shift / side)


def test_two_balls_of_one_centre_are_apart_by_their_radii() -> None:
    z, y, x = np.indices((24, 60, 60))
    r = np.sqrt(((z - 12) * 3.0) ** 2 + ((y - 30) * 1.0) ** 2 + ((x - 30) * 1.25) ** 2)
    small, large = r < 20, r < 28
    far, mean = surface_distances(large, small, (3.0, 1.0, 1.25))
    assert far == pytest.approx(8, abs=1.6)
    assert mean == pytest.approx(8, abs=0.8)
    assert dice(small, large) == pytest.approx(2 * 20**3 / (20**3 + 28**3), abs=0.01)


def test_a_single_slice_is_measured_in_its_plane() -> None:
    a, b = box((0, 5, 5), (1, 15, 15), (1, 30, 40)), box((0, 5, 9), (1, 15, 19), (1, 30, 40))
    far, mean = surface_distances(a, b, (8.0, 2.0, 0.5))
    assert far == pytest.approx(4 * 0.5)
    assert mean is not None
    assert mean < 2.0


def test_what_is_empty_has_no_distance() -> None:
    empty, full = np.zeros((2, 5, 5), bool), np.ones((2, 5, 5), bool)
    assert surface_distances(empty, full, SPACING) == (None, None)
    assert dice(empty, empty) == 1.0
    assert dice(empty, full) == 0.0
    assert surface_distances(full, full, SPACING) == (0.0, 0.0)


def test_files_are_compared_by_value_with_volumes_in_ml(tmp_path: Path) -> None:
    reference = write(tmp_path / "r.nii.gz", box((3, 8, 10), (7, 16, 26)) * 1 + box((8, 2, 2), (9, 5, 5)) * 4)
    predicted = write(tmp_path / "p.nrrd", box((3, 8, 10), (7, 16, 30)) * 1)
    found = evaluate(predicted, reference)
    assert set(found["structures"]) == {"Label 1", "Label 4"}
    first, second = found["structures"]["Label 1"], found["structures"]["Label 4"]
    voxel = 5 * 2 * 0.5 / 1000
    assert first["reference_ml"] == pytest.approx(4 * 8 * 16 * voxel)
    assert first["predicted_ml"] == pytest.approx(4 * 8 * 20 * voxel)
    assert first["dice"] == pytest.approx(2 * 16 / 36)
    assert first["hd95_mm"] == pytest.approx(2.0)
    # A structure that was missed counts, and has no distance.
    assert second == {"dice": 0.0, "hd95_mm": None, "assd_mm": None, "predicted_ml": 0.0, "reference_ml": 9 * voxel}
    assert found["mean_dice"] == pytest.approx((2 * 16 / 36) / 2)
    assert "Label 4" in table(found)


def test_names_win_over_values(tmp_path: Path) -> None:
    cavity, muscle = box((3, 8, 10), (7, 16, 26)), box((3, 18, 10), (7, 22, 26))
    reference = write_named(tmp_path / "r.seg.nrrd", cavity * 1 + muscle * 2, {1: "LV cavity", 2: "LV myocardium"})
    predicted = write_named(tmp_path / "p.seg.nrrd", cavity * 2 + muscle * 1, {2: "left ventricle", 1: "myo"})
    found = evaluate(predicted, reference)["structures"]
    assert {n: s["dice"] for n, s in found.items()} == {"LV cavity": 1.0, "LV myocardium": 1.0}
    bare = write(tmp_path / "bare.nii.gz", cavity * 1 + muscle * 2)
    by_value = evaluate(bare, reference)["structures"]
    assert {n: s["dice"] for n, s in by_value.items()} == {"LV cavity": 1.0, "LV myocardium": 1.0}


def test_segments_of_one_structure_count_as_one(tmp_path: Path) -> None:
    upper, lower = box((3, 8, 10), (7, 16, 26)), box((7, 8, 10), (9, 16, 26))
    parts = {1: "LV", 2: "Left ventricle"}
    halves = write_named(tmp_path / "r.seg.nrrd", upper * 1 + lower * 2, parts)
    whole = write_named(tmp_path / "p.seg.nrrd", (upper | lower) * 5, {5: "LV cavity"})
    bare = write(tmp_path / "bare.nii.gz", upper * 1 + lower * 2)
    for a, b in ((whole, halves), (halves, whole), (halves, bare), (bare, halves)):
        (found,) = evaluate(a, b)["structures"].items()
        assert found[0] == "LV cavity"
        assert found[1]["dice"] == 1.0
        assert found[1]["predicted_ml"] == pytest.approx(6 * 8 * 16 * np.prod(SPACING) / 1000)


def test_a_bare_label_map_has_the_names_of_its_exam_or_dataset(tmp_path: Path) -> None:
    cavity, muscle = box((3, 8, 10), (7, 16, 26)), box((3, 18, 10), (7, 22, 26))
    names = {7: "LV cavity", 9: "LV myocardium"}
    predicted = write_named(tmp_path / "p.seg.nrrd", cavity * 7 + muscle * 9, names)
    exam = write(tmp_path / "exam" / "sax_seg.nii.gz", cavity * 1 + muscle * 2)
    case = write(tmp_path / "raw" / "labelsTr" / "heart.nii.gz", cavity * 1 + muscle * 2)
    told = {"1": "LV", "2": "myo"}
    (exam.parent / "study.json").write_text(json.dumps({"labels": told}), encoding="utf-8")
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "LV": 1, "myo": 2}}))
    for reference in (exam, case):
        found = evaluate(predicted, reference)["structures"]
        assert {n: s["dice"] for n, s in found.items()} == {"LV cavity": 1.0, "LV myocardium": 1.0}
    # A model that was trained on labels without names calls them by their values, which says no more than these.
    numbered = write_named(tmp_path / "n.seg.nrrd", cavity * 1 + muscle * 2, {1: "Label 1", 2: "Label 2"})
    assert evaluate(numbered, exam)["structures"]["LV cavity"]["dice"] == 1.0
    (exam.parent / "study.json").write_text("{", encoding="utf-8")
    with pytest.raises(StudyError, match=r"study\.json is not readable JSON"):
        evaluate(predicted, exam)


def test_labels_of_one_name_are_refused(tmp_path: Path) -> None:
    labels = box((3, 8, 10), (7, 16, 26))
    for side in ("pred", "ref"):
        write(tmp_path / side / "sax_seg.nii.gz", labels)
    write_named(tmp_path / "pred" / "sax.seg.nrrd", labels * 1, {1: "LV cavity"})
    with pytest.raises(StudyError, match=r"sax\.seg\.nrrd and .*sax_seg\.nii\.gz are labels of one name, 'sax'"):
        evaluate(tmp_path / "pred", tmp_path / "ref")


def test_names_that_have_nothing_in_common_and_images_are_refused(tmp_path: Path) -> None:
    labels = box((3, 8, 10), (7, 16, 26))
    predicted = write_named(tmp_path / "p.seg.nrrd", labels * 1, {1: "LV cavity"})
    with pytest.raises(StudyError, match="share no structure"):
        evaluate(predicted, write_named(tmp_path / "r.seg.nrrd", labels * 1, {1: "Ventriculus"}))
    image = write(tmp_path / "image.nii.gz", np.arange(labels.size).reshape(labels.shape) % 900)
    for pair in ((image, predicted), (predicted, image)):
        with pytest.raises(StudyError, match=r"image\.nii\.gz holds 899 different values: it is an image"):
            evaluate(*pair)


def test_labels_on_another_grid_are_brought_onto_the_references(tmp_path: Path) -> None:
    labels = box((3, 8, 10), (7, 16, 26))
    reference = write(tmp_path / "r.nii.gz", labels)
    turned = sitk.GetImageFromArray(labels[:, ::-1].astype(np.int16).copy())
    turned.SetSpacing(SPACING[::-1])
    # The same voxels, stored with the rows from the other end.
    turned.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    turned.SetOrigin((3.0, -4.0 + 29 * SPACING[1], 9.0))
    sitk.WriteImage(turned, str(tmp_path / "p.nii.gz"))
    assert evaluate(tmp_path / "p.nii.gz", reference)["structures"]["Label 1"]["dice"] == 1.0


def moved(path: Path, source: Path, millimetres: tuple[float, float, float], turn_deg: float = 0.0) -> Path:
    """A label map elsewhere in the patient, turned round the z axis through its first voxel."""
    image = sitk.ReadImage(str(source))
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    image.SetOrigin(np.add(image.GetOrigin(), millimetres).tolist())
    sitk.WriteImage(image, str(path))
    return path


def test_label_maps_of_different_places_are_not_compared(tmp_path: Path) -> None:
    # The boxes measure 20 x 60 x 60 mm: x, y, z.
    labels = box((3, 8, 10), (7, 16, 26))
    one = write(tmp_path / "ref" / "a_seg.nii.gz", labels)
    write(tmp_path / "ref" / "b_seg.nii.gz", labels)
    for millimetres in ((20.5, 0.0, 0.0), (0.0, -60.5, 0.0), (0.0, 0.0, 61.0)):
        with pytest.raises(StudyError, match=r"do not lie in the same place.*the same exam\.$"):
            evaluate(moved(tmp_path / "far.nii.gz", one, millimetres), one)
        near = moved(tmp_path / "near.nii.gz", one, tuple(0.9 * mm for mm in millimetres))
        assert evaluate(near, one)["structures"]["Label 1"]["dice"] == 0.0
    # Turned by 45 degrees, they are apart along the diagonal, though along x and y they still overlap.
    with pytest.raises(StudyError, match="do not lie in the same place"):
        evaluate(moved(tmp_path / "turned.nii.gz", one, (17.0, 66.0, 0.0), -45.0), one)
    # A segmentation in which nothing was found may have any box, and does not end the comparison of two folders.
    (tmp_path / "pred").mkdir()
    moved(tmp_path / "pred" / "a_seg.nii.gz", one, (0.0, 0.0, 0.0))
    empty = write(tmp_path / "empty.nii.gz", labels * 0)
    moved(tmp_path / "pred" / "b_seg.nii.gz", empty, (500.0, 0.0, 0.0))
    scores = evaluate(tmp_path / "pred", tmp_path / "ref")
    assert scores["mean_dice"] == 0.5


def test_a_cine_has_phases_and_an_ejection_fraction(tmp_path: Path) -> None:
    widths = (16, 12, 8, 14)
    cine = np.stack([box((3, 8, 10), (7, 16, 10 + w)) for w in widths])
    reference = write(tmp_path / "r.nii.gz", cine)
    for k, w in enumerate(widths):
        name = "p.seg.nrrd" if k == 0 else f"p_phase{k:03d}.seg.nrrd"
        wrong = 2 if k == 2 else 0
        write_named(tmp_path / name, box((3, 8, 10), (7, 16, 10 + w + wrong)), {1: "LV cavity"})
    found = evaluate(tmp_path / "p.seg.nrrd", reference)
    assert [f["phase"] for f in found["files"]] == [0, 1, 2, 3]
    cine_found = found["cine"]
    assert cine_found["structure"] == "LV cavity"
    assert cine_found["reference"]["ef_percent"] == pytest.approx(50)
    assert cine_found["predicted"]["ef_percent"] == pytest.approx(100 * 6 / 16)
    assert (cine_found["reference"]["ed_phase"], cine_found["reference"]["es_phase"]) == (0, 2)
    assert "ejection fraction 50 %" in table(found)


def test_phases_that_nobody_drew_are_not_compared(tmp_path: Path) -> None:
    cine = np.stack([box((3, 8, 10), (7, 16, 10 + w)) for w in (16, 12, 8, 14)])
    predicted = write(tmp_path / "p.nii.gz", cine)
    sparse = cine.copy()
    sparse[[0, 3]] = False
    found = evaluate(predicted, write(tmp_path / "r.nii.gz", sparse))
    assert [f["phase"] for f in found["files"]] == [1, 2]
    assert found["mean_dice"] == 1
    assert found["cine"]["reference"]["ef_percent"] == pytest.approx(100 * 4 / 12)
    assert (found["cine"]["predicted"]["ed_phase"], found["cine"]["predicted"]["es_phase"]) == (1, 2)
    # Of the prediction itself an empty phase is a finding.
    missed = cine.copy()
    missed[2] = False
    found = evaluate(write(tmp_path / "m.nii.gz", missed), tmp_path / "r.nii.gz")
    assert found["mean_dice"] == 0.5
    for k in range(4):
        name = "s.seg.nrrd" if k == 0 else f"s_phase{k:03d}.seg.nrrd"
        write_named(tmp_path / name, cine[k], {1: "LV cavity"})
    assert [f["phase"] for f in evaluate(tmp_path / "s.seg.nrrd", tmp_path / "r.nii.gz")["files"]] == [1, 2]
    with pytest.raises(StudyError, match="none of the phases"):
        evaluate(write(tmp_path / "one.nii.gz", cine[0]), tmp_path / "r.nii.gz")


def test_labelled_phases_that_were_not_predicted_are_told_of(tmp_path: Path) -> None:
    cine = np.stack([box((3, 8, 10), (7, 16, 10 + w)) for w in (16, 12, 8, 14)])
    reference = write(tmp_path / "r.nii.gz", cine)
    for k in (0, 1, 3):
        write_named(tmp_path / ("p.seg.nrrd" if k == 0 else f"p_phase{k:03d}.seg.nrrd"), cine[k] * 1, {1: "LV cavity"})
    shorter = write(tmp_path / "s.nii.gz", cine[:2])
    for predicted, absent in ((tmp_path / "p.seg.nrrd", [2]), (shorter, [2, 3])):
        found = evaluate(predicted, reference)
        assert found["missing_phases"] == [{"predicted": str(predicted), "reference": str(reference), "phases": absent}]
        assert [f["phase"] for f in found["files"]] == [k for k in range(4) if k not in absent]
        assert "cine" not in found
        (line,) = left_out(found)
        assert line.startswith(f"{predicted} lacks phases")
        assert f"({', '.join(map(str, absent))})" in line
    whole = evaluate(reference, reference)
    assert "missing_phases" not in whole
    assert left_out(whole) == []


def test_folders_are_paired_by_name(tmp_path: Path) -> None:
    labels = box((3, 8, 10), (7, 16, 26))
    for case, share in (("a", 1.0), ("b", 0.5)):
        write(tmp_path / "ref" / case / "sax_seg.nii.gz", labels)
        end = 10 + int(16 * share)
        write_named(tmp_path / "pred" / case / "sax.seg.nrrd", box((3, 8, 10), (7, 16, end)), {1: "LV cavity"})
    write(tmp_path / "ref" / "c" / "sax_seg.nii.gz", labels)
    write(tmp_path / "ref" / "a" / "sax.nii.gz", labels)
    found = evaluate(tmp_path / "pred", tmp_path / "ref")
    assert len(found["files"]) == 2
    assert found["structures"]["LV cavity"]["dice"] == pytest.approx((1 + 2 * 8 / 24) / 2)
    assert "cine" not in found


def test_names_of_files_in_capitals_are_paired_too(tmp_path: Path) -> None:
    written = write(tmp_path / "a_seg.nii.gz", box((3, 8, 10), (7, 16, 26))).read_bytes()
    for side in ("pred", "ref"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "SAX_SEG.NII.GZ").write_bytes(written)
    assert evaluate(tmp_path / "pred", tmp_path / "ref")["mean_dice"] == 1.0


@pytest.mark.parametrize("reference", ["raw", "raw/labelsTr"])
@pytest.mark.parametrize("ending", [".nii.gz", ".seg.nrrd"])
def test_an_nnunet_dataset_is_a_reference_as_it_is(tmp_path: Path, reference: str, ending: str) -> None:
    labels = box((3, 8, 10), (7, 16, 26))
    (tmp_path / "pred").mkdir()
    for case in ("heart_1", "heart_2"):
        write(tmp_path / "raw" / "imagesTr" / f"{case}_0000.nii.gz", 300 * labels)
        write(tmp_path / "raw" / "labelsTr" / f"{case}.nii.gz", labels)
        if ending == ".nii.gz":
            write(tmp_path / "pred" / f"{case}{ending}", labels)
        else:
            write_named(tmp_path / "pred" / f"{case}{ending}", labels, {1: "LV cavity"})
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "LV": 1}}))
    found = evaluate(tmp_path / "pred", tmp_path / reference)
    assert [Path(f["reference"]).name for f in found["files"]] == ["heart_1.nii.gz", "heart_2.nii.gz"]
    assert {n: s["dice"] for n, s in found["structures"].items()} == {"LV cavity": 1.0}


def test_what_is_to_be_ignored_is_compared_with_nothing(tmp_path: Path) -> None:
    cavity, open_ = box((3, 8, 10), (7, 16, 26)), box((3, 18, 10), (7, 22, 26))
    write(tmp_path / "raw" / "labelsTr" / "heart.nii.gz", cavity + 2 * open_)
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "LV": 1, "ignore": 2}}))
    write_named(tmp_path / "pred" / "heart.seg.nrrd", cavity | open_, {1: "LV cavity"})
    found = evaluate(tmp_path / "pred", tmp_path / "raw")
    assert {n: s["dice"] for n, s in found["structures"].items()} == {"LV cavity": 1.0}
    assert "not_compared" not in found


def test_a_cine_that_is_left_open_in_part_has_no_ejection_fraction(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "LV": 1, "ignore": 2}}))
    cine = np.stack([box((3, 8, 10), (7, 16, 10 + w)) for w in (16, 8)]).astype(np.int16)
    predicted = write(tmp_path / "pred" / "heart.nii.gz", cine)
    write(tmp_path / "raw" / "labelsTr" / "heart.nii.gz", cine)
    assert evaluate(predicted.parent, tmp_path / "raw")["cine"]["reference"]["ef_percent"] == pytest.approx(50)
    cine[1, 3] *= 2
    write(tmp_path / "raw" / "labelsTr" / "heart.nii.gz", cine)
    found = evaluate(predicted.parent, tmp_path / "raw")
    assert found["mean_dice"] == 1
    assert "cine" not in found


def test_what_neither_side_names_is_compared_by_value(tmp_path: Path) -> None:
    cavity, more = box((3, 8, 10), (7, 16, 26)), box((3, 18, 10), (7, 22, 26))
    predicted = write_named(tmp_path / "p.seg.nrrd", cavity + 5 * more, {1: "LV cavity", 5: "Label 5"})
    reference = write(tmp_path / "exam" / "sax_seg.nii.gz", cavity + 5 * more)
    (reference.parent / "study.json").write_text(json.dumps({"labels": {"1": "LV cavity"}}))
    found = evaluate(predicted, reference)
    assert {n: s["dice"] for n, s in found["structures"].items()} == {"LV cavity": 1.0, "Label 5": 1.0}
    assert "not_compared" not in found


def test_what_the_other_side_does_not_know_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cavity, more = box((3, 8, 10), (7, 16, 26)), box((3, 18, 10), (7, 22, 26))
    predicted = write_named(tmp_path / "p.seg.nrrd", cavity + 2 * more, {1: "LV cavity", 2: "Aorta"})
    reference = write_named(tmp_path / "r.seg.nrrd", cavity + 5 * more, {1: "LV cavity"})
    assert main(["evaluate", "--predicted", str(predicted), "--reference", str(reference), "--json"]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert list(document["structures"]) == ["LV cavity"]
    assert document["not_compared"] == {"predicted": ["Aorta"], "reference": []}
    assert told.err.strip() == "Not compared, as no reference has it: Aorta (predicted)."
    for side, name in ((predicted, "pred"), (reference, "ref")):
        (tmp_path / name).mkdir()
        side.rename(tmp_path / name / "a.seg.nrrd")
    write_named(tmp_path / "pred" / "b.seg.nrrd", cavity + 2 * more, {1: "LV cavity", 2: "Aorta"})
    write_named(tmp_path / "ref" / "b.seg.nrrd", cavity + 2 * more, {1: "LV cavity", 2: "Aorta"})
    assert "not_compared" not in evaluate(tmp_path / "pred", tmp_path / "ref"), "it is compared in another file"


def test_files_without_a_partner_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = box((3, 8, 10), (7, 16, 26))
    write(tmp_path / "pred" / "a_seg.nii.gz", labels)
    write(tmp_path / "ref" / "a_seg.nii.gz", labels)
    assert "unpaired" not in evaluate(tmp_path / "pred", tmp_path / "ref")
    lone = write(tmp_path / "pred" / "b_seg.nii.gz", labels)
    missed = [write(tmp_path / "ref" / f"c{k}_seg.nii.gz", labels) for k in range(6)]
    words = ["evaluate", "--predicted", str(tmp_path / "pred"), "--reference", str(tmp_path / "ref"), "--json"]
    assert main(words) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert document["unpaired"] == {"predicted": [str(lone)], "reference": [str(p) for p in missed]}
    assert len(document["files"]) == 1
    lines = told.err.splitlines()
    assert [line.split()[0] for line in lines] == [str(lone), *map(str, missed[:4]), "2"]
    assert lines[0].endswith("is left out: no reference has its name.")


def test_a_reference_with_nothing_to_find_is_compared(tmp_path: Path) -> None:
    labels = box((3, 8, 10), (7, 16, 26))
    full_ml = labels.sum() * np.prod(SPACING) / 1000
    found = {"infarct": labels, "clean": labels * 0, "false_alarm": labels}
    for case, drawn in found.items():
        names = {1: "Infarct", 2: "Effusion"}
        write_named(tmp_path / "named" / f"{case}.seg.nrrd", drawn * 1, names)
        write(tmp_path / "bare" / f"{case}_seg.nii.gz", drawn)
        write(tmp_path / "ref" / f"{case}_seg.nii.gz", labels * (case == "infarct"))
    for side, name in (("named", "Infarct"), ("bare", "Label 1")):
        document = evaluate(tmp_path / side, tmp_path / "ref")
        assert document["mean_dice"] == document["structures"][name]["dice"] == 0.5
        by_case = {Path(f["reference"]).name.split("_seg")[0]: f["structures"] for f in document["files"]}
        alarm = by_case["false_alarm"][name]
        assert (alarm["dice"], alarm["hd95_mm"], alarm["reference_ml"]) == (0.0, None, 0.0)
        assert alarm["predicted_ml"] == pytest.approx(full_ml)
    nothing = {"dice": None, "hd95_mm": None, "assd_mm": None, "predicted_ml": 0.0, "reference_ml": 0.0}
    clean = evaluate(tmp_path / "named" / "clean.seg.nrrd", tmp_path / "ref" / "clean_seg.nii.gz")
    assert clean["structures"] == {"Infarct": nothing, "Effusion": nothing}
    # In either direction, names are those that one of the files has.
    turned = evaluate(tmp_path / "ref" / "infarct_seg.nii.gz", tmp_path / "named" / "clean.seg.nrrd")
    assert turned["structures"]["Infarct"]["dice"] == 0.0
    empty_cine = write(tmp_path / "cine.nii.gz", np.stack([labels * 0] * 2))
    silent = evaluate(empty_cine, empty_cine)
    assert (silent["structures"], silent["mean_dice"], len(silent["files"])) == ({}, None, 2)
    assert "cine" not in silent


def test_a_file_whose_own_name_speaks_of_a_phase_is_not_forgotten(tmp_path: Path) -> None:
    labels = box((3, 8, 10), (7, 16, 26))
    for side in ("pred", "ref"):
        write(tmp_path / side / "late_phase_contrast_seg.nii.gz", labels)
    assert evaluate(tmp_path / "pred", tmp_path / "ref")["mean_dice"] == 1.0


def test_what_cannot_be_compared_is_refused_in_one_sentence(tmp_path: Path) -> None:
    one = write(tmp_path / "one.nii.gz", box((3, 8, 10), (7, 16, 26)))
    for name, value in (("below", -1.0), ("between", 0.5), ("nan", np.nan)):
        spoilt = sitk.Cast(sitk.ReadImage(str(one)), sitk.sitkFloat32)
        spoilt[0, 0, 0] = value
        sitk.WriteImage(spoilt, str(tmp_path / f"{name}.nii.gz"))
    (tmp_path / "text.nii.gz").write_text("no image")
    (tmp_path / "empty").mkdir()
    for a, b in (
        (one, tmp_path / "absent.nii.gz"),
        (one, tmp_path),
        (tmp_path / "empty", tmp_path / "empty"),
        (tmp_path / "text.nii.gz", one),
        *((tmp_path / f"{name}.nii.gz", one) for name in ("below", "between", "nan")),
        (one, tmp_path / "nan.nii.gz"),
    ):
        with pytest.raises(StudyError) as caught:
            evaluate(a, b)
        assert "\n" not in str(caught.value)


def test_the_ejection_fraction_of_a_curve() -> None:
    found = ejection_fraction([120, 90, 48, 70])
    assert found == {"ed_phase": 0, "es_phase": 2, "edv_ml": 120, "esv_ml": 48, "ef_percent": pytest.approx(60)}
    assert ejection_fraction([5]) is None
    assert ejection_fraction([0, 0]) is None
