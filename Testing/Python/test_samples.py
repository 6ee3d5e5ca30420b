"""Pictures while training: the right slices, input, target and answer that belong together, and nothing disturbed."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from SSLEngine import samples
from SSLEngine import tasks
from SSLEngine.jobs import Reporter
from SSLEngine.networks.unet import TaskUNet
from SSLEngine.phantom import write_study
from SSLEngine.pretext.base import Batch
from SSLEngine.pretext.base import Geometry
from SSLEngine.settings import Augmentation
from SSLEngine.settings import Schedule
from SSLEngine.slices import Record
from SSLEngine.slices import SliceInfo
from SSLEngine.slices import SliceSet
from SSLEngine.studies import StudyError
from SSLEngine.targets import Segmentation
from SSLEngine.training import Run
from SSLEngine.training import Stream
from SSLEngine.training import make_deterministic
from SSLEngine.training import train
from toy_exams import toy_study

SIDE, PATCH = 48, 32


class Halves:
    """Halves a random half of the pixels; the target is the clean image. Notes what it is asked to draw."""

    name = "halves"
    pixel_outputs = 1
    image_outputs = 0

    def __init__(self) -> None:
        self.drawn: list[tuple[Any, Any]] = []

    def distort(self, batch: Batch, generator: torch.Generator) -> None:
        batch.images = batch.images * (0.5 + 0.5 * (torch.rand(batch.images.shape, generator=generator) < 0.5))

    def target(self, batch: Batch) -> torch.Tensor:
        return batch.clean

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).square().mean()

    def score(self, output: torch.Tensor, target: torch.Tensor, spacing_mm: float) -> dict[str, float]:
        return {"error": float((output - target).abs().mean())}

    def draw(self, axes: Any, image: Any, values: Any) -> None:
        self.drawn.append((image, values))
        axes.imshow(np.asarray(values)[0])


class Echo(torch.nn.Module):
    """Answers with its input."""

    def forward(self, images: torch.Tensor, tasks: list[str]) -> dict[str, torch.Tensor]:
        return dict.fromkeys(tasks, images)


def slice_set(roles: list[tuple[str, int]], known: list[bool] | None = None) -> SliceSet:
    generator = torch.Generator().manual_seed(1)
    records = []
    for k, (role, index) in enumerate(roles):
        image = torch.randn(SIDE, SIDE, generator=generator) + k
        values = np.array([1.0 if known is None or known[k] else np.nan])
        info = SliceInfo("s", f"subject {k}", role, role, index, 0, True)
        edges = np.array([-0.5, -0.5, SIDE - 0.5, SIDE - 0.5])
        truth = np.full((SIDE, SIDE), k % 2, np.uint8)
        records.append(Record(info, image.numpy().astype("float16"), truth, edges, {"halves": Geometry(values=values)}))
    return SliceSet(records, 2.0, torch.device("cpu"))


def make_run(task: Any, held_out: list[int]) -> Run:
    make_deterministic(0)
    return Run(
        network=TaskUNet((4, 8, 16), {task.name: task.pixel_outputs}),
        slices=slice_set([("sax", k) for k in range(5)]),
        streams=[Stream(torch.arange(4), [(task, 1.0)])],
        schedule=Schedule(steps=4, batch=2, validate_every=2),
        augmentation=Augmentation(),
        patch=PATCH,
        seed=0,
        held_out=torch.tensor(held_out, dtype=torch.int64),
    )


def test_input_target_and_answer_are_of_one_slice(tmp_path: Path) -> None:
    """The network answers with its input, so the answer must be the very distorted image that is shown."""
    task = Halves()
    run = make_run(task, [4])
    samples.write_samples(run, Echo(), tmp_path, 7)
    (seen, target), (seen_too, answer) = task.drawn
    middle = run.slices.images[4, 8:40, 8:40].float().numpy()
    assert np.allclose(target[0], middle, atol=2e-3), "the target is the middle of the held-out slice"
    halved = np.isclose(seen, 0.5 * target[0], atol=1e-4) & ~np.isclose(seen, target[0], atol=1e-3)
    assert 0.4 < halved.mean() < 0.6
    assert np.array_equal(seen, seen_too)
    assert np.array_equal(seen, answer[0])
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["0000007.png"]


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return struct.unpack(">II", data[16:24])


def test_a_training_leaves_pictures_and_goes_its_way(tmp_path: Path) -> None:
    weights = []
    for folder in (tmp_path, None):
        run = make_run(Segmentation(1), [3])
        weights.append(train(run, Reporter(folder)).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))
    written = sorted((tmp_path / "samples").iterdir())
    assert [p.name for p in written] == ["0000002.png", "0000004.png"]
    assert png_size(written[0])[0] == 600


@pytest.mark.parametrize(("held_out", "title"), [([3], "SAX 4"), ([], "SAX 1, learned from")])
def test_slices_that_are_learned_from_are_called_so(
    held_out: list[int], title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    name = samples._name
    monkeypatch.setattr(samples, "_name", lambda axes, text: titles.append(text) or name(axes, text))
    samples.write_samples(make_run(Halves(), held_out), Echo(), tmp_path, 1)
    assert titles[0] == title
    assert titles[1:3] == ["halves: target", "halves: predicted"]


def test_only_the_newest_pictures_are_kept(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for step in range(samples.KEPT + 3):
        (tmp_path / "samples" / f"{step:07d}.png").write_bytes(b"")
    samples.write_samples(make_run(Halves(), [4]), Echo(), tmp_path, 100)
    names = sorted(p.name for p in (tmp_path / "samples").iterdir())
    assert len(names) == samples.KEPT
    assert (names[0], names[-1]) == ("0000004.png", "0000100.png")


def test_slices_are_taken_role_by_role_and_through_the_stack() -> None:
    slices = slice_set([*(("sax", k) for k in range(9)), ("4ch", 0), ("2ch", 0)])
    everything = torch.arange(len(slices))
    assert samples.spread(slices, everything, 1).tolist() == [4]
    assert samples.spread(slices, everything, 3).tolist() == [4, 10, 9]
    assert samples.spread(slices, everything, 5).tolist() == [2, 6, 10, 9]
    assert samples.spread(slices, everything[:9], 3).tolist() == [1, 4, 7]
    assert samples.spread(slices, everything[:0], 3).tolist() == []


def test_slices_without_a_target_are_passed_over() -> None:
    slices = slice_set([("sax", k) for k in range(4)], [True, False, True, False])
    assert samples.with_target(slices, Halves(), torch.tensor([1, 2, 3])).tolist() == [2]
    # The even slices have labels, but no structure in them.
    assert samples.with_target(slices, Segmentation(1), torch.arange(4)).tolist() == [1, 3]


def test_a_preview_leaves_out_what_training_does(tmp_path: Path) -> None:
    study = toy_study(0)
    study.views = study.views[:1]
    write_study(study, tmp_path / "exam")
    (tmp_path / "exam" / "study.json").write_text(json.dumps({"roles": {"sax": "sax"}}), encoding="utf-8")
    grid = {"spacing_mm": 6, "patch": 32}
    chosen = {"data": {"path": str(tmp_path)}, "grid": grid, "left_out": {"basal": 3, "apical": 2}}
    (tmp_path / "job").mkdir()
    with pytest.raises(StudyError, match="leave out fewer slices"):
        tasks.targets(Reporter(tmp_path / "job"), str(tmp_path / "exam"), chosen)
    tasks.targets(Reporter(tmp_path / "job"), str(tmp_path / "exam"), {**chosen, "left_out": {"basal": 4}})
    drawn = json.loads((tmp_path / "job" / tasks.TARGETS_FILE).read_text(encoding="utf-8"))
    assert (drawn["crossings"], drawn["restoration"]) == (None, "restoration.png")


def test_a_target_picture_is_written_only_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Halves()
    slices = slice_set([("sax", k) for k in range(4)], [False] * 4)
    assert not samples.write_targets(task, slices, PATCH, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
    assert samples.write_targets(task, slice_set([("sax", 0), ("sax", 1)]), PATCH, tmp_path / "a.png")
    # A task that changes its input: input and target of two slices.
    assert png_size(tmp_path / "a.png")[0] == 798
    assert len(task.drawn) == 2
    monkeypatch.setattr(task, "distort", lambda batch, generator: None)
    assert samples.write_targets(task, slice_set([("sax", 0), ("sax", 1)]), PATCH, tmp_path / "a.png")
    assert png_size(tmp_path / "a.png")[0] == 600
    assert len(task.drawn) == 4
