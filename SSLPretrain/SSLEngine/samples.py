"""Pictures of what a network learns: samples while it trains, and the targets of a pretext on a person's own slices.

Each task draws itself; here slices are chosen, tiles are laid out and files are written. A picture of three rows takes
about 0.1 s, so the layout is counted in pixels rather than solved.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any
from typing import Protocol
from typing import runtime_checkable

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from .geometry import Array
from .jobs import write_atomically
from .models import SEGMENTATION
from .pictures import DARK
from .pictures import answered
from .pictures import png
from .slices import HOST_ROLES
from .slices import SliceSet
from .slices import make_batch
from .targets import Task
from .training import Heads
from .training import Learning
from .training import Run
from .training import step_generator

SAMPLES_FOLDER = "samples"
#: Pictures that are kept of a run.
KEPT = 20
#: Rows of a picture of samples, over all tasks.
ROWS = 3
#: Pixels of a tile, of the title over it, and between tiles.
TILE, TITLE, GAP = 192, 18, 6
#: At this many a figure's inches are counted in pixels.
DPI = 100


@runtime_checkable
class Drawn(Task, Protocol):
    """A task that can draw its targets and outputs."""

    def draw(self, axes: Axes, image: Array, values: Any) -> None:
        """Draws a target or an output (one sample, numpy) over its image."""
        ...


@dataclass(frozen=True)
class Sample:
    """One slice as a task sees it.

    Attributes:
        title: Which slice it is.
        given: The network's input, ``(P, P)``.
        target: What is to be found.
        output: What the network finds; None without a network.
        changed: Whether the task has changed the input.
    """

    title: str
    given: Array
    target: Any
    output: Any = None
    changed: bool = False


def write_samples(run: Run, network: nn.Module, folder: Path, step: int) -> None:
    """Writes ``samples/<step>.png`` in a job folder: input, target and prediction on slices that are not learned from.

    A run without held-out slices shows some that it learns from, and says so. The draws of the training are not
    touched.

    Args:
        run: The run.
        network: The network to ask, in evaluation mode.
        folder: The job folder.
        step: Steps done.
    """
    tasks = {t.name: t for stream in run.streams for t, _ in stream.tasks if isinstance(t, Drawn)}
    learned = torch.cat([stream.indices for stream in run.streams]).unique()
    pool = run.held_out if len(run.held_out) else learned
    note = "" if len(run.held_out) else ", learned from"
    rows = []
    for task in tasks.values():
        chosen = spread(run.slices, with_target(run.slices, task, pool), max(1, ROWS // len(tasks)))
        rows += [
            (task, sample) for sample in take(task, run.slices, chosen, run.patch, run.seed, network, run.learning)
        ]
    if not rows:
        return
    figure, axes = _tiles(len(rows), 3)
    for line, (task, sample) in zip(axes, rows, strict=True):
        _name(line[0], sample.title + note).imshow(sample.given, cmap="gray")
        for item, values, what in (
            (line[1], sample.target, "target"),
            (line[2], answered(sample.output, sample.target), "predicted"),
        ):
            task.draw(_name(item, f"{task.name}: {what}"), sample.given, values)
    place = folder / SAMPLES_FOLDER
    place.mkdir(exist_ok=True)
    write_atomically(place / f"{step:07d}.png", png(figure, DPI, compress_level=1))
    for old in sorted(place.glob("*.png"))[:-KEPT]:
        old.unlink(missing_ok=True)


def write_targets(task: Drawn, slices: SliceSet, patch: int, path: Path) -> bool:
    """Writes a picture of a pretext's input and target; False where no slice has a target.

    Two slices, of different roles where there are such; the input of the second one only where the task changes it.

    Args:
        task: The pretext.
        slices: Slices of a study, with the pretext's geometry.
        patch: Side of a patch in pixels.
        path: The PNG to write.
    """
    samples = take(task, slices, spread(slices, with_target(slices, task, torch.arange(len(slices))), 2), patch)
    if not samples:
        return False
    shown = samples if samples[0].changed else samples[:1]
    figure, axes = _tiles(1, len(shown) + len(samples))
    tiles = iter(axes[0])
    for sample in samples:
        if any(sample is one for one in shown):
            _name(next(tiles), f"{sample.title}: what it sees").imshow(sample.given, cmap="gray")
        task.draw(_name(next(tiles), f"{sample.title}: what it is to find"), sample.given, sample.target)
    write_atomically(path, png(figure, DPI, compress_level=1))
    return True


def with_target(slices: SliceSet, task: Task, pool: torch.Tensor) -> torch.Tensor:
    """Those of some slices on which a task has something to find, ``(n,)`` int64."""
    carried = [
        p[task.name][pool.to(slices.device)] for p in (slices.lines, slices.points, slices.values) if task.name in p
    ]
    parts = [part.isfinite().flatten(1).any(1) for part in carried if part.shape[1]]
    if task.name == SEGMENTATION:
        rows = slices.label_row[pool.to(slices.device)]
        drawn = (slices.labels > 0).flatten(1).any(1)
        parts = [(rows >= 0) & drawn[rows.clamp(min=0)]] if len(drawn) else [rows >= 0]
    return pool[torch.stack(parts).any(0).cpu()] if parts else pool


def spread(slices: SliceSet, pool: torch.Tensor, count: int) -> torch.Tensor:
    """A few slices of a pool, the roles in turn and evenly from the first to the last place in their stacks."""
    by_role: dict[str, list[int]] = {role: [] for role in HOST_ROLES}
    for index in pool.tolist():
        by_role[slices.infos[index].role].append(index)
    found = [sorted(v, key=lambda i: (slices.infos[i].index, i)) for v in by_role.values() if v]
    chosen: list[int] = []
    for number, members in enumerate(found[:count]):
        wanted = min(len(members), len(range(number, count, len(found))))
        chosen += [members[int((k + 0.5) / wanted * len(members))] for k in range(wanted)]
    return torch.tensor(chosen, dtype=torch.int64)


def take(
    task: Task,
    slices: SliceSet,
    chosen: torch.Tensor,
    patch: int,
    seed: int = 0,
    network: nn.Module | None = None,
    learning: Learning | None = None,
) -> list[Sample]:
    """What a task sees of some slices, has to find and, with a network, finds."""
    if not len(chosen):
        return []
    batch = make_batch(slices, chosen, patch, None, step_generator(seed, 0, 0))
    own = replace(batch)
    task.distort(own, step_generator(seed, 0, 0))
    target, output = task.target(own), None
    if network is not None:
        with torch.no_grad():
            # The same seed distorts the same way: the answer belongs to the input that is shown.
            output, _ = (learning or Heads()).answers(network, batch, [task], step_generator(seed, 0, 0))[task.name]
    found = []
    for k, info in enumerate(slices.infos[i] for i in chosen.tolist()):
        answer = None if output is None else _numpy(output[k])
        found.append(
            Sample(
                title=f"{info.role.upper()} {info.index + 1}",
                given=_numpy(own.images[k, 0]),
                target=_numpy(target[k]),
                output=answer,
                changed=own.images is not batch.images,
            )
        )
    return found


def _numpy(values: torch.Tensor) -> Any:
    return values.float().cpu().numpy() if values.is_floating_point() else values.cpu().numpy()


def _tiles(rows: int, columns: int) -> tuple[Figure, Any]:
    """A dark figure with bare square axes ``(rows, columns)`` and room for a title over each."""
    width, height = columns * (TILE + GAP) + GAP, rows * (TILE + TITLE + GAP) + GAP
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=DARK)
    axes = np.empty((rows, columns), dtype=object)
    for row in range(rows):
        for column in range(columns):
            left, top = GAP + column * (TILE + GAP), TITLE + row * (TILE + TITLE + GAP)
            axes[row, column] = figure.add_axes(
                (left / width, 1 - (top + TILE) / height, TILE / width, TILE / height), frameon=False
            )
            axes[row, column].set_axis_off()
    return figure, axes


def _name(axes: Axes, title: str) -> Axes:
    # A title at a given height: matplotlib would else measure every tick to find one, which takes most of the time.
    axes.set_title(title, color="white", fontsize=8, y=1.01, pad=0)
    return axes
