"""Segmenting: label maps lie where their image lies, and Slicer's format says what they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn
from torch.nn import functional

from exam_maker import dataset
from exam_maker import save
from SSLEngine import tasks
from SSLEngine.finetuning import label_names
from SSLEngine.geometry import Plane
from SSLEngine.measure import evaluate
from SSLEngine.models import SEGMENTATION
from SSLEngine.models import Card
from SSLEngine.models import load_model
from SSLEngine.models import save_model
from SSLEngine.networks.unet import TaskUNet
from SSLEngine.segment import Segmenter
from SSLEngine.segment import cine_summary
from SSLEngine.segment import fitting_views
from SSLEngine.segment import keep_largest
from SSLEngine.segment import phase_path
from SSLEngine.segment import segment_cohort
from SSLEngine.segment import segment_study
from SSLEngine.segment import voxel_ml
from SSLEngine.segment import write_segmentation
from SSLEngine.settings import Data
from SSLEngine.settings import Finetune
from SSLEngine.settings import Grid
from SSLEngine.settings import Network
from SSLEngine.settings import parse
from SSLEngine.settings import plain
from SSLEngine.slices import SliceSet
from SSLEngine.slices import make_batch
from SSLEngine.slices import study_records
from SSLEngine.structures import structure
from SSLEngine.structures import terminology_entry
from SSLEngine.studies import Study
from SSLEngine.studies import StudyError
from SSLEngine.studies import View
from SSLEngine.studies import read_cohort
from SSLEngine.studies import read_study
from SSLEngine.studies.labels import read_label_file
from SSLEngine.studies.study import SHOWN_AS
from SSLEngine.targets import Segmentation
from SSLEngine.targets import class_weights
from toy_exams import AXIS
from toy_exams import INFERIOR
from toy_exams import LATERAL
from toy_exams import NAMES
from toy_exams import STORED
from toy_exams import laid
from toy_exams import off_centre
from toy_exams import stored
from toy_exams import toy_study
from toy_exams import write_toy_cohort

CPU = torch.device("cpu")
#: Values as a file might have them: not in order, with a hole.
VALUES = {"LV cavity": 7, "LV myocardium": 3}


class Threshold(nn.Module):
    """Stands for a network: grey values of the toy heart decide the class, so the answer is known."""

    factor = 4

    def forward(self, images: torch.Tensor, tasks: list[str]) -> dict[str, torch.Tensor]:
        assert tasks == [SEGMENTATION]
        grey = images[:, 0]
        # Every slice of the toy heart shows background (100), muscle (400) and cavity (900).
        low = grey.flatten(1).median(1).values[:, None, None]
        share = (grey - low) / (grey.amax((1, 2), keepdim=True) - low)
        levels = torch.stack([(share < 0.19).float(), (share > 0.69).float(), (share - 0.44).abs().le(0.25).float()], 1)
        return {SEGMENTATION: levels * 20}


def card() -> Card:
    labels = []
    for k, (name, value) in enumerate(VALUES.items()):
        item = structure(name)
        codes = {"colour": list(item.colour), "category": list(item.category), "type": list(item.type)}
        labels.append({"index": k + 1, "value": value, "name": name, **codes})
    grid = plain(Grid(spacing_mm=2.5, patch=64))
    return Card("segmentation", {}, {"pixel": {SEGMENTATION: 3}, "image": {}}, grid, roles=["sax"], labels=labels)


def segmenter(largest: bool = False) -> Segmenter:
    return Segmenter(Threshold(), card(), torch.device("cpu"), largest)  # type: ignore[arg-type]


def overlap(labels: np.ndarray, truth: np.ndarray, value: int, wanted: int) -> float:
    a, b = labels == value, truth == wanted
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def changed(view: View, how: str) -> View:
    """The view as another scanner might have stored it."""
    pixels, labels = view.pixels(), view.labels()
    assert labels is not None
    planes = list(view.planes)
    if how == "one slice":
        planes, pixels, labels = planes[2:3], pixels[2:3], labels[2:3]
    if how == "mirrored":
        planes = [
            Plane(p.to_patient([p.size[0] - 1, 0]), -p.x_direction, p.y_direction, p.spacing, p.size, p.thickness)
            for p in planes
        ]
        pixels, labels = pixels[:, :, ::-1].copy(), labels[:, :, ::-1].copy()
    if how == "from the apex":
        planes, pixels, labels = planes[::-1], pixels[::-1].copy(), labels[::-1].copy()
    return replace(view, planes=planes, read_pixels=lambda _: pixels, read_labels=lambda _: labels)


@pytest.mark.parametrize("how", ["as it is", "one slice", "mirrored", "from the apex"])
def test_labels_lie_on_the_structures_and_on_the_images_own_grid(tmp_path: Path, how: str) -> None:
    study = toy_study(3)
    view = changed(study.views[0], how)
    study.views[0] = view
    document = segment_study(segmenter(), study, tmp_path / "made.seg.nrrd")
    assert [o["view"] for o in document["outputs"]] == ["sax"]
    image = sitk.ReadImage(str(tmp_path / "made.seg.nrrd"))
    labels, truth = sitk.GetArrayFromImage(image), view.labels()
    assert truth is not None
    assert labels.shape == truth.shape
    assert set(np.unique(labels)) == {0, 3, 7}
    for z in range(len(view.planes)):
        for x, y in ((0, 0), (9, 4), (33, 27)):
            stored = image.TransformIndexToPhysicalPoint((x, y, z))
            # ITK's own direction of the third axis may be reversed; the place of every voxel is what counts.
            index = image.TransformPhysicalPointToIndex(view.planes[z].to_patient([x, y]).tolist())
            assert index == (x, y, z)
            assert np.allclose(stored, view.planes[z].to_patient([x, y]), atol=1e-3)
    # Pixels of 5 x 6 mm through a grid of 2.5 mm and back: only borders may differ.
    assert overlap(labels, truth, 7, 1) > 0.9
    assert overlap(labels, truth, 3, 2) > 0.75


def test_labels_that_a_person_has_drawn_are_not_written_over(tmp_path: Path) -> None:
    exam = write_toy_cohort(tmp_path / "exams", 1) / "toy-000"
    image = sitk.ReadImage(str(exam / "sax_seg.nii.gz"))
    (exam / "sax_seg.nii.gz").unlink()
    sitk.WriteImage(image, str(exam / "sax.seg.nrrd"))
    before = (exam / "sax.seg.nrrd").read_bytes()
    with pytest.raises(StudyError, match=r"sax\.seg\.nrrd is a file of the exam itself"):
        segment_study(segmenter(), read_study(exam), exam / "sax.seg.nrrd")
    assert (exam / "sax.seg.nrrd").read_bytes() == before


def test_labels_that_lie_beside_a_single_image_are_not_written_over_and_results_are(tmp_path: Path) -> None:
    exam = write_toy_cohort(tmp_path, 1) / "toy-000"
    (exam / "sax_seg.nii.gz").unlink()
    labels, out = exam / "sax_phase001.seg.nrrd", exam / "sax.seg.nrrd"
    for place in (out, labels):
        sitk.WriteImage(sitk.Image(8, 8, 4, sitk.sitkUInt8), str(place))
        drawn = place.read_bytes()
        with pytest.raises(StudyError, match=f"{place.name} is a file of the exam itself"):
            segment_study(segmenter(), read_study(exam / "sax.nii.gz"), out)
        assert place.read_bytes() == drawn
        place.unlink()
    # A folder takes the result for its labels from now on, and yet it is one.
    for source in (exam / "sax.nii.gz", exam / "sax.nii.gz", exam):
        segment_study(segmenter(), read_study(source), out)


@pytest.mark.parametrize("how", STORED)
def test_the_same_is_found_however_the_image_was_stored(how: tuple[bool, bool, bool]) -> None:
    """Of a network that knows left from right and up from down."""

    class Sided(Threshold):
        def forward(self, images: torch.Tensor, tasks: list[str]) -> dict[str, torch.Tensor]:
            levels = super().forward(images, tasks)[SEGMENTATION]
            levels[..., :40, :] -= 30 * (torch.arange(3)[:, None, None] == 1)
            levels[..., 28:] -= 30 * (torch.arange(3)[:, None, None] == 2)
            return {SEGMENTATION: levels}

    study = toy_study(3)
    view = study.views[0]
    made = Segmenter(Sided(), card(), CPU)  # type: ignore[arg-type]
    labels = made.segment(study, view, 0).labels
    assert set(np.unique(labels)) == {0, 3, 7}
    other = stored(view, *how)
    again = made.segment(replace(study, views=[other, *study.views[1:]]), other, 0).labels
    expected = stored(replace(view, read_labels=lambda _: labels), *how).labels()
    assert expected is not None
    assert again.shape == expected.shape
    # A share of exactly one half may fall to either side.
    assert (again != expected).mean() < 0.002


@pytest.mark.parametrize("centre", ["crossing", "image"])
def test_it_looks_where_training_did(centre: str) -> None:
    study, grid = off_centre(toy_study(3)), parse({"spacing_mm": 1.5, "patch": 32, "centre": centre}, Grid)
    records = [r for r in study_records(study, [], grid, []) if r.info.role == "sax"]
    shown = make_batch(SliceSet(records, 1.5, CPU), torch.arange(5), 32, None, torch.Generator()).images
    network = Threshold()
    seen: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    Segmenter(network, replace(card(), grid=plain(grid)), CPU).segment(study, study.views[0], 0)  # type: ignore[arg-type]
    # Round the middle of the image, what is found lies to one side, as in training: it is not looked at again.
    assert len(seen) == 1
    # Training keeps slices as float16.
    assert float((seen[0] - shown).abs().max()) < 0.01
    assert float(shown.std()) > 0.5


def test_slicer_finds_names_colours_and_codes(tmp_path: Path) -> None:
    study = toy_study(3)
    segment_study(segmenter(), study, tmp_path / "made.seg.nrrd")
    image = sitk.ReadImage(str(tmp_path / "made.seg.nrrd"))
    fields = {k: image.GetMetaData(k) for k in image.GetMetaDataKeys()}
    for k, (name, value) in enumerate(VALUES.items()):
        item = structure(name)
        assert fields[f"Segment{k}_Name"] == name
        assert fields[f"Segment{k}_LabelValue"] == str(value)
        colour = [float(c) for c in fields[f"Segment{k}_Color"].split()]
        assert colour == pytest.approx(item.colour, abs=1e-5)
        assert terminology_entry(item) in fields[f"Segment{k}_Tags"]
        assert item.type[1] in fields[f"Segment{k}_Tags"]
        assert fields[f"Segment{k}_Extent"] == "0 33 0 27 0 4"
    assert "Segment2_Name" not in fields
    assert len({fields[f"Segment{k}_ID"] for k in (0, 1)}) == 2
    assert "Binary labelmap" in "".join(fields.values())


def test_the_file_is_read_back_by_this_program_with_its_names(tmp_path: Path) -> None:
    from SSLEngine.studies.labels import read_label_file

    study = toy_study(3)
    segment_study(segmenter(), study, tmp_path / "made.seg.nrrd")
    found = read_label_file(tmp_path / "made.seg.nrrd")
    assert found.names == {7: "LV cavity", 3: "LV myocardium"}
    truth, back = study.views[0].labels(), found.reader(study.views[0].planes)(0)
    assert truth is not None
    assert back is not None
    assert overlap(back, truth, 7, 1) > 0.9


def test_a_cine_gives_a_file_a_phase_and_volumes_that_follow_the_truth(tmp_path: Path) -> None:
    study = toy_study(3, phases=4)
    out = tmp_path / "Zoë's heart" / "made.seg.nrrd"
    told: list[tuple[int, int]] = []
    document = segment_study(segmenter(), study, out, lambda done, total, _: told.append((done, total)))
    names = ["made.seg.nrrd", *(f"made_phase{k:03d}.seg.nrrd" for k in (1, 2, 3))]
    assert sorted(p.name for p in out.parent.iterdir()) == sorted(names)
    assert told == [(k, 4) for k in (1, 2, 3, 4)]
    (cine,) = document["cine"]
    voxel = 5.0 * 6.0 * 13.0 / 1000
    assert voxel_ml(study.views[0].planes) == pytest.approx(voxel)
    truth = [float((study.views[0].labels(k) == 1).sum()) * voxel for k in range(4)]
    assert cine["volumes_ml"] == pytest.approx(truth, rel=0.12)
    assert (cine["ed_phase"], cine["es_phase"]) == (0, 2)
    assert cine["ef_percent"] == pytest.approx(100 * (truth[0] - truth[2]) / truth[0], abs=6)
    for k, output in enumerate(document["outputs"]):
        stored = sitk.GetArrayFromImage(sitk.ReadImage(output["file"]))
        assert output["volumes_ml"]["LV cavity"] == pytest.approx((stored == 7).sum() * voxel)
        assert output["phase"] == k


def test_phases_of_an_earlier_run_do_not_stay_beside_those_of_a_later_one(tmp_path: Path) -> None:
    out = tmp_path / "made[1].seg.nrrd"
    others = [f"made[1]_phase{k}.seg.nrrd" for k in ("01", "0001", "001_slice02")]
    others += [
        "made[1]_2ch_phase001.seg.nrrd",
        "made1_phase001.seg.nrrd",
        "made[1]_phase001.nrrd",
        "pre_phase001.seg.nrrd",
    ]
    for name in others:
        (tmp_path / name).touch()
    segment_study(segmenter(), toy_study(3, phases=4), out)
    phases = [f"made[1]_phase{k:03d}.seg.nrrd" for k in (1, 2, 3)]
    assert {p.name for p in tmp_path.iterdir()} == {out.name, *phases, *others}

    class Broken(Threshold):
        def forward(self, images: torch.Tensor, tasks: list[str]) -> dict[str, torch.Tensor]:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        segment_study(Segmenter(Broken(), card(), CPU), toy_study(3), out)  # type: ignore[arg-type]
    assert {p.name for p in tmp_path.iterdir()} == {out.name, *phases, *others}
    segment_study(segmenter(), toy_study(3, phases=2), out)
    assert {p.name for p in tmp_path.iterdir()} == {out.name, phases[0], *others}
    segment_study(segmenter(), toy_study(3), out)
    assert {p.name for p in tmp_path.iterdir()} == {out.name, *others}


def test_labels_of_the_exam_are_no_phases_of_an_earlier_run(tmp_path: Path) -> None:
    exam = write_toy_cohort(tmp_path, 1) / "toy-000"
    (exam / "made_phase001.nii.gz").write_bytes((exam / "sax.nii.gz").read_bytes())
    labels = sitk.ReadImage(str(exam / "sax_seg.nii.gz"))
    sitk.WriteImage(sitk.Cast(labels, sitk.sitkUInt8), str(exam / "made_phase001.seg.nrrd"))
    drawn = (exam / "made_phase001.seg.nrrd").read_bytes()
    with pytest.raises(StudyError, match=r"made_phase001\.seg\.nrrd is a file of the exam itself"):
        segment_study(segmenter(), read_study(exam), exam / "made.seg.nrrd")
    assert (exam / "made_phase001.seg.nrrd").read_bytes() == drawn
    assert not (exam / "made.seg.nrrd").exists()


class Sure(Threshold):
    """Finds the first structure everywhere."""

    def forward(self, images: torch.Tensor, tasks: list[str]) -> dict[str, torch.Tensor]:
        share = torch.zeros(len(images), 3, *images.shape[-2:])
        share[:, 1] = 9
        return {SEGMENTATION: share}


@pytest.mark.parametrize("blank", [7.0, np.nan])
def test_nothing_is_found_on_images_that_show_nothing(blank: float) -> None:
    study, sure = toy_study(3), Segmenter(Sure(), card(), CPU)  # type: ignore[arg-type]
    assert sure.segment(study, study.views[0], 0).labels.any()
    study.views[0].read_pixels = lambda _: np.full(study.views[0].shape, blank, np.float32)
    found = sure.segment(study, study.views[0], 0)
    assert found.labels.shape == study.views[0].shape
    assert not found.labels.any()
    assert set(found.volumes_ml.values()) == {0.0}


def test_slices_that_are_no_volume_get_a_file_each(tmp_path: Path) -> None:
    study = toy_study(3)
    view = study.views[0]
    view.planes[3] = replace(view.planes[3], origin=view.planes[3].origin + 2.0 * AXIS)
    assert not view.regular
    document = segment_study(segmenter(), study, tmp_path / "made.seg.nrrd")
    assert len(document["outputs"]) == 5
    image = sitk.ReadImage(str(tmp_path / "made_slice003.seg.nrrd"))
    assert image.GetSize() == (34, 28, 1)
    assert np.allclose(image.GetOrigin(), view.planes[3].origin, atol=1e-3)


def test_the_files_of_single_slices_are_read_as_one_label_map(tmp_path: Path) -> None:
    study = toy_study(3)
    view = study.views[0]
    # A gap, and slabs that overlap.
    for k, mm in ((3, 2.0), (4, -6.0)):
        view.planes[k] = replace(view.planes[k], origin=view.planes[k].origin + mm * AXIS)
    made = tmp_path / "made.seg.nrrd"
    segment_study(segmenter(), study, made)
    expected = segmenter().segment(study, view, 0).labels
    assert all(part.any() for part in expected)
    file = read_label_file(made)
    assert file.fit(view.planes) is None
    np.testing.assert_array_equal(file.on(view.planes, 0), expected)
    whole = evaluate(made, made)
    (folder,) = {Path(f["predicted"]) for f in evaluate(tmp_path, tmp_path)["files"]}
    assert folder == made, "a slice is no result of its own"
    name = structure("LV cavity").name
    assert whole["structures"][name]["dice"] == 1
    volume = (expected == 7).sum() * np.prod(view.planes[0].spacing) / 1000
    step = abs((view.planes[1].origin - view.planes[0].origin) @ view.planes[0].normal)
    assert whole["structures"][name]["predicted_ml"] == pytest.approx(volume * step, rel=1e-3)
    # The same stack without the gap is one volume: no slice of the former result is left to be read with it.
    before = {path.name for path in tmp_path.iterdir()}
    segment_study(segmenter(), toy_study(3), made)
    assert {path.name for path in tmp_path.iterdir()} == before - {f"made_slice{k:03d}.seg.nrrd" for k in range(1, 5)}
    segment_study(segmenter(), study, made)
    # Of a slice whose file is not there nothing is known.
    (tmp_path / "made_slice002.seg.nrrd").unlink()
    found = read_label_file(made).on(view.planes, 0)
    assert (found[2] == -1).all()
    np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(expected, 2, 0))
    write_named_otherwise(tmp_path / "made_slice001.seg.nrrd")
    with pytest.raises(StudyError, match="different segments"):
        read_label_file(made).on(view.planes, 0)


def write_named_otherwise(path: Path) -> None:
    """Another name for the first segment of a segmentation."""
    image = sitk.ReadImage(str(path))
    image.SetMetaData("Segment0_Name", "Tumour")
    sitk.WriteImage(image, str(path))


def test_other_views_and_phases_are_named_beside_the_first(tmp_path: Path) -> None:
    both = Segmenter(Threshold(), replace(card(), roles=["sax", "2ch"]), CPU)  # type: ignore[arg-type]
    document = segment_study(both, toy_study(0, phases=2), tmp_path / "a.b.seg.nrrd")
    names = ["a.b.seg.nrrd", "a.b_phase001.seg.nrrd", "a.b_2ch.seg.nrrd", "a.b_2ch_phase001.seg.nrrd"]
    assert [Path(o["file"]).name for o in document["outputs"]] == names


@pytest.mark.parametrize("other", ["phase001", "2CH"])
def test_results_that_would_replace_each_other_are_refused(tmp_path: Path, other: str) -> None:
    study = toy_study(3, phases=2)
    for view, name in zip(study.views, ("sax", "2ch", other), strict=True):
        view.role, view.name = "sax", name
    with pytest.raises(StudyError, match="would be one file"):
        segment_study(segmenter(), study, tmp_path / "o.seg.nrrd")
    assert not list(tmp_path.iterdir())


def test_views_that_are_not_segmented_are_told(tmp_path: Path) -> None:
    study = toy_study(0)
    others = [view for view in study.views if view.role != "sax"]
    others[0].role, others[0].reason = "unknown", "it is seen from nowhere"
    document = segment_study(segmenter(), study, tmp_path / "out.seg.nrrd")
    assert [o["view"] for o in document["outputs"]] == ["sax"]
    first, second = tasks.left_out(document)
    assert first.startswith(f"{others[0].name} is left out: its role is not known (it is seen from nowhere)")
    assert "study.json" in first
    assert second == f"{others[1].name} is left out: it is {others[1].role}, and the model has learned sax."


def test_views_that_a_window_has_handed_over_are_told_by_the_names_that_it_shows(tmp_path: Path) -> None:
    study, said = toy_study(0), []
    for view, shown in zip(study.views, ("Kurzachse", "Zweikammer", "Vierkammer"), strict=True):
        view.attributes = {SHOWN_AS: shown}
    document = segment_study(segmenter(), study, tmp_path / "o.seg.nrrd", lambda *told: said.append(told[2]))
    assert said == ["Kurzachse, phase 1 of 1"]
    assert [sentence.split(" ")[0] for sentence in tasks.left_out(document)] == ["Zweikammer", "Vierkammer"]
    assert document["outputs"][0]["view"] == "sax", "results are named by the worker's own names"


def test_results_of_dicom_files_that_lie_together_have_a_folder_for_each_subject(tmp_path: Path) -> None:
    for number in (1, 2):
        view = toy_study(number).views[0]
        ids = {"PatientID": f"P{number}", "StudyInstanceUID": f"1.{number}", "FrameOfReferenceUID": f"1.9.{number}"}
        pixels = view.pixels()[2].astype(np.uint16)
        save(dataset(view.planes[2], pixels, SeriesDescription="SAX", **ids), tmp_path / "heap" / f"{number}.dcm")
    document = segment_cohort(segmenter(), read_cohort(tmp_path / "heap"), tmp_path / "out")
    files = [o["file"] for study in document["studies"] for o in study["outputs"]]
    assert len(files) == 2
    assert sorted(files) == sorted(map(str, (tmp_path / "out").rglob("*.seg.nrrd")))


def write_nnunet(cohort: Path, folder: Path) -> None:
    """The short axes of a cohort as an nnU-Net raw dataset."""
    for number, exam in enumerate(sorted(cohort.iterdir())):
        for name, place in (("sax", f"imagesTr/heart_{number}_0000"), ("sax_seg", f"labelsTr/heart_{number}")):
            target = folder / f"{place}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((exam / f"{name}.nii.gz").read_bytes())
    labels = {"background": 0, **{name: value for value, name in NAMES.items()}}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}), encoding="utf-8")


def test_all_exams_of_a_folder_are_segmented_where_evaluation_finds_them(tmp_path: Path) -> None:
    cohort, out = write_toy_cohort(tmp_path / "exams", 2, phases=2), tmp_path / "results"
    told: list[tuple[int, int, str]] = []
    document = segment_cohort(segmenter(), read_cohort(cohort), out, lambda *step: told.append(step))
    assert told == [(0, 2, "toy-000"), (1, 2, "toy-001")]
    assert [study["study"] for study in document["studies"]] == ["toy-000", "toy-001"]
    assert document["left_out"] == []
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {f"toy-00{k}/sax{phase}.seg.nrrd" for k in (0, 1) for phase in ("", "_phase001")}
    scores = evaluate(out, cohort)
    assert len(scores["files"]) == 4
    assert scores["mean_dice"] > 0.7
    assert not scores["unpaired"]["predicted"]

    write_nnunet(cohort, tmp_path / "raw")
    segment_cohort(segmenter(), read_cohort(tmp_path / "raw"), tmp_path / "cases")
    scores = evaluate(tmp_path / "cases", tmp_path / "raw")
    assert len(scores["files"]) == 4
    assert not any(scores.get("unpaired", {}).values())
    assert scores["mean_dice"] > 0.7


def test_an_exam_of_a_folder_that_cannot_be_segmented_does_not_stop_the_others(tmp_path: Path) -> None:
    cohort = read_cohort(write_toy_cohort(tmp_path / "exams", 3))
    for study in (cohort.studies[0], cohort.studies[2]):
        study.organ = "knee"
        for view in study.views:
            view.role = "sag"
    of_hearts = Segmenter(Threshold(), replace(card(), organ="heart"), CPU)  # type: ignore[arg-type]
    document = segment_cohort(of_hearts, cohort, tmp_path / "results")
    assert [study["study"] for study in document["studies"]] == ["toy-001"]
    assert [item["study"] for item in document["left_out"]] == ["toy-000", "toy-002"]
    assert all("shows a knee" in item["why"] for item in document["left_out"])
    cohort.studies = cohort.studies[:1]
    with pytest.raises(StudyError, match="toy-000 shows a knee"):
        segment_cohort(of_hearts, cohort, tmp_path / "results")


def test_results_of_a_folder_do_not_go_among_its_exams(tmp_path: Path) -> None:
    cohort = read_cohort(write_toy_cohort(tmp_path / "exams", 1))
    for out in (tmp_path / "exams", tmp_path / "exams" / "results", tmp_path / "exams" / "toy-000" / ".." / "new"):
        with pytest.raises(StudyError, match="outside it"):
            segment_cohort(segmenter(), cohort, out)
    with pytest.raises(StudyError, match="has the name of a file"):
        segment_cohort(segmenter(), cohort, tmp_path / "o.seg.nrrd")
    assert not list(tmp_path.rglob("*.seg.nrrd"))


def test_a_file_alone_is_segmented_too(tmp_path: Path) -> None:
    pixels = toy_study(3).views[0].pixels()
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing((5.0, 6.0, 13.0))
    sitk.WriteImage(image, str(tmp_path / "anything.nrrd"))
    document = segment_study(segmenter(), read_study(tmp_path / "anything.nrrd"), tmp_path / "o.seg.nrrd")
    assert len(document["outputs"]) == 1
    made = sitk.ReadImage(str(tmp_path / "o.seg.nrrd"))
    assert made.GetSpacing() == pytest.approx((5.0, 6.0, 13.0))
    assert (sitk.GetArrayFromImage(made) == 7).sum() > 30


def test_only_the_largest_part_is_kept() -> None:
    labels = np.zeros((3, 9, 9), np.uint8)
    labels[0:2, 1:4, 1:4] = 1
    labels[2, 7, 7] = 1
    labels[1, 4, 4] = 1  # touches by a corner only
    labels[0, 6:8, 6:8] = 2
    kept = keep_largest(labels, 2)
    assert (kept[0:2, 1:4, 1:4] == 1).all()
    assert kept[2, 7, 7] == kept[1, 4, 4] == 0
    assert (kept == 2).sum() == 4
    study = toy_study(3)
    pixels = study.views[0].pixels().copy()
    pixels[:, 1:4, 1:4] = 900
    study.views[0] = replace(study.views[0], read_pixels=lambda _: pixels)
    with_specks, without = (segmenter(largest).segment(study, study.views[0], 0).labels for largest in (False, True))
    assert (with_specks[:, 1:4, 1:4] == 7).any()
    assert not (without[:, 1:4, 1:4] == 7).any()


def test_volumes_count_the_gap_and_a_single_slice_its_thickness() -> None:
    planes = [laid(s * AXIS, LATERAL, INFERIOR, 10.0) for s in (0.0, 11.0, 22.0)]
    assert voxel_ml(planes) == pytest.approx(5 * 6 * 11 / 1000)
    assert voxel_ml(planes[::-1]) == pytest.approx(5 * 6 * 11 / 1000)
    assert voxel_ml(planes[:1]) == pytest.approx(5 * 6 * 8 / 1000)


def test_views_follow_the_roles_of_the_model() -> None:
    study = toy_study(0)
    assert [v.name for v in segmenter().views(study)] == ["sax"]
    for view in study.views:
        view.role = "unknown"
    assert len(segmenter().views(study)) == 3
    assert cine_summary([], study.views[0]) is None


def test_only_stacks_of_a_ventricle_have_an_ejection_fraction() -> None:
    sax, lax = toy_study(0).views[:2]
    outputs = [
        {"view": view.name, "phase": phase, "volumes_ml": {name: ml}}
        for view, name in ((sax, "LV cavity"), (lax, "LV cavity"))
        for phase, ml in ((0, 24.0), (1, 10.0))
    ]
    found, flat = cine_summary(outputs, sax), cine_summary(outputs, lax)
    assert len(lax.planes) == 1
    assert found is not None
    assert found["ef_percent"] == pytest.approx(100 * 14 / 24)
    assert flat == {"view": lax.name, "structure": "LV cavity", "volumes_ml": [24.0, 10.0]}
    other = [{**o, "volumes_ml": {"Femur": 3.0}} for o in outputs]
    assert cine_summary(other, sax) == {"view": sax.name, "structure": "Femur", "volumes_ml": [3.0, 3.0]}


def test_another_organ_is_refused_and_an_unknown_one_is_not() -> None:
    study = toy_study(0)
    for view in study.views:
        view.role = "ax"
    study.organ = "knee"
    assert len(fitting_views(study, card())) == 3
    heart = replace(card(), organ="heart")
    with pytest.raises(StudyError, match="shows a knee and this model knows the heart"):
        fitting_views(study, heart)
    study.organ = "unknown"
    assert len(fitting_views(study, heart)) == 3
    study.organ, study.views[0].role = "knee", "sax"
    assert [v.name for v in fitting_views(study, heart)] == ["sax"]


def test_label_values_beyond_a_byte_are_kept(tmp_path: Path) -> None:
    labels = [{**entry, "value": value} for entry, value in zip(card().labels, (300, 3), strict=True)]
    trained = TaskUNet((4, 8, 16), {SEGMENTATION: 3})
    described = replace(card(), network=plain(Network(widths=(4, 8, 16))), labels=labels)
    save_model(tmp_path / "m.safetensors", trained, described)
    made = Segmenter(Threshold(), load_model(tmp_path / "m.safetensors")[1], torch.device("cpu"))  # type: ignore[arg-type]
    segment_study(made, toy_study(0), tmp_path / "o.seg.nrrd")
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "o.seg.nrrd")))
    assert set(np.unique(found)) == {0, 3, 300}
    whole = segmenter().segment(toy_study(0), toy_study(0).views[0], 0).labels
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(found == 300, whole == 7)


def test_what_cannot_be_written_or_done_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"must end in \.seg\.nrrd"):
        segment_study(segmenter(), toy_study(0), tmp_path / "made.nii.gz")
    assert not list(tmp_path.iterdir())
    with pytest.raises(StudyError, match="only pretrained"):
        Segmenter(Threshold(), replace(card(), kind="pretrained"), torch.device("cpu"))  # type: ignore[arg-type]
    study: Study = toy_study(0)
    crooked = [study.views[0].planes[0], study.views[1].planes[0]]
    with pytest.raises(StudyError, match="one volume"):
        write_segmentation(tmp_path / "x.seg.nrrd", np.zeros((2, 28, 34), np.uint8), crooked, card().labels)
    assert not list(tmp_path.iterdir())


def test_nothing_is_computed_where_one_of_the_files_cannot_be_written(tmp_path: Path) -> None:
    seen: list[str] = []
    for folder in (tmp_path, tmp_path / "to" / "make"):
        long = folder / f"{'a' * 240}.seg.nrrd"
        with pytest.raises(OSError, match="too long") as caught:
            segment_study(segmenter(), toy_study(3, phases=2), long, lambda *_: seen.append("computed"))
        assert caught.value.filename == str(phase_path(long, 1))
    (tmp_path / "made_phase001.seg.nrrd").mkdir()
    with pytest.raises(IsADirectoryError, match="made_phase001"):
        segment_study(
            segmenter(), toy_study(3, phases=2), tmp_path / "made.seg.nrrd", lambda *_: seen.append("computed")
        )
    assert seen == []
    assert [p.name for p in tmp_path.iterdir()] == ["made_phase001.seg.nrrd"]


def test_more_structures_than_a_byte_counts_are_refused_before_training() -> None:
    study = toy_study(0)
    grains = np.arange(study.views[0].pixels().size, dtype=np.int16).reshape(study.views[0].shape)
    study.views[0].read_labels = lambda phase: grains % 300
    with pytest.raises(StudyError, match=r"hold 299 different values; 255 structures are the most"):
        label_names([study], {}, Finetune(data=Data(path="exams")))


def test_structures_of_views_that_teach_nothing_are_not_learned() -> None:
    study = toy_study(0)
    study.views[1].role = "unknown"
    drawn = study.views[1].labels(0)
    assert drawn is not None
    study.views[1].read_labels = lambda phase: np.where(drawn > 0, 3, 0).astype(np.int16)
    assert set(label_names([study], {}, Finetune(data=Data(path="exams")))) == {1, 2}


def test_a_class_that_no_pixel_belongs_to_weighs_nothing() -> None:
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    labels[:, 2:5, 2:5] = 1
    weights = class_weights(labels, 2)
    assert torch.allclose(weights[:2], class_weights(labels, 1))
    assert weights[2] == 0
    task = Segmentation(2, weights=weights)
    right = 20 * functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    assert float(task.loss(right, labels)) < 0.01
