"""Tiny exams whose every number is known: an ellipsoid heart on oblique, anisotropic planes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from SSLEngine.geometry import Array
from SSLEngine.geometry import Plane
from SSLEngine.phantom import write_study
from SSLEngine.studies import Study
from SSLEngine.studies import View

#: Base to apex, then the lateral and the inferior direction across it, LPS.
AXIS = np.array([0.7, -0.5, -0.5]) / np.linalg.norm([0.7, -0.5, -0.5])
LATERAL = np.array([1.0, 0, 0]) - AXIS[0] * AXIS
LATERAL /= np.linalg.norm(LATERAL)
INFERIOR = np.cross(AXIS, LATERAL)
INFERIOR *= -np.sign(INFERIOR[2])
NAMES = {1: "LV cavity", 2: "LV myocardium"}
SPACING = (5.0, 6.0)
SIZE = (34, 28)


def laid(point: Array, x: Array, y: Array, turn_deg: float = 0.0, spacing: tuple[float, float] = SPACING) -> Plane:
    """A plane with its middle at a point, its directions turned within it."""
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    right, down = c * x + s * y, c * y - s * x
    origin = point - (SIZE[0] - 1) / 2 * spacing[0] * right - (SIZE[1] - 1) / 2 * spacing[1] * down
    return Plane(origin, right, down, spacing, SIZE, thickness=8.0)


def radius(points: Array, centre: Array, contraction: float) -> Array:
    """1 on the cavity's surface, below inside; half axes 40 mm along the long axis, 22 mm across."""
    offset = points - centre
    along = offset @ AXIS
    across = np.sqrt(np.maximum((offset**2).sum(-1) - along**2, 0))
    return np.sqrt((along / 40) ** 2 + (across / (22 * contraction)) ** 2)


def on_planes(planes: Sequence[Plane], centre: Array, contraction: float, wall: float) -> npt.NDArray[np.int16]:
    """Labels on every pixel, ``(slices, rows, columns)``."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    found = []
    for plane in planes:
        r = radius(plane.to_patient(np.stack([x, y], -1)), centre, contraction)
        found.append(np.where(r < 1, 1, np.where(r < wall, 2, 0)))
    return np.array(found, np.int16)


def toy_study(seed: int, phases: int = 1, slices: int = 5, wall: float = 1.4) -> Study:
    """A study of three views: ``sax``, ``2ch``, ``4ch``; its heart's middle is a random point.

    ``wall`` is the outer surface's size as a multiple of the cavity's.
    """
    rng = np.random.default_rng(seed)
    centre = np.array([10.0, -20, 5]) + rng.uniform(-8, 8, 3)
    turn = float(rng.uniform(-60, 60))
    steps = (np.arange(slices) - (slices - 1) / 2) * 13.0
    stacks = {
        "sax": [laid(centre + s * AXIS, LATERAL, INFERIOR, turn) for s in steps],
        "2ch": [laid(centre, INFERIOR, AXIS, float(rng.uniform(-20, 20)))],
        "4ch": [laid(centre, LATERAL, AXIS, float(rng.uniform(-20, 20)))],
    }
    views = [_view(name, planes, centre, phases, wall, rng) for name, planes in stacks.items()]
    name = f"toy-{seed:03d}"
    return Study(name, Path(name), views, subject=name, organ="heart")


def _view(name: str, planes: list[Plane], centre: Array, phases: int, wall: float, rng: np.random.Generator) -> View:
    states = [1 - 0.35 * np.sin(np.pi * k / max(1, phases)) for k in range(phases)]
    labels = [on_planes(planes, centre, state, wall) for state in states]
    grey = np.array([100.0, 900.0, 400.0])
    pixels = [(grey[m] + rng.normal(0, 25, m.shape)).astype(np.int16).astype(np.float32) for m in labels]
    return View(
        name=name,
        source=Path(f"{name}.nii.gz"),
        planes=planes,
        phases=phases,
        read_pixels=lambda k: pixels[k],
        read_labels=lambda k: labels[k],
        role=name,
        label_names=NAMES,
    )


def off_centre(study: Study) -> Study:
    """The study with short-axis images that show its crossing 5 columns left and 3 rows down of their middle."""
    sax, (dx, dy) = study.views[0], SPACING
    planes = [replace(p, origin=p.origin + 5 * dx * p.x_direction - 3 * dy * p.y_direction) for p in sax.planes]
    pixels = np.roll(sax.pixels(0), (3, -5), axis=(1, 2))
    shown = replace(sax, planes=planes, phases=1, read_pixels=lambda _: pixels, read_labels=None)
    return replace(study, views=[shown, *study.views[1:]])


#: The ways to store an image: rows and columns in turn, columns from the right, rows from below.
STORED = list(itertools.product((False, True), repeat=3))


def stored(view: View, swapped: bool, from_right: bool, from_below: bool) -> View:
    """The view, a still image, as another program would have stored it."""

    def turn(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        array = array[:, :, ::-1] if from_right else array
        array = array[:, ::-1] if from_below else array
        return np.ascontiguousarray(array.swapaxes(1, 2) if swapped else array)

    planes = []
    for p in view.planes:
        origin = p.to_patient([(p.size[0] - 1) * from_right, (p.size[1] - 1) * from_below])
        x, y = p.x_direction * (-1 if from_right else 1), p.y_direction * (-1 if from_below else 1)
        ways = (x, y), p.spacing, p.size
        (x, y), (dx, dy), (w, h) = (way[::-1] for way in ways) if swapped else ways
        planes.append(Plane(origin, x, y, (dx, dy), (w, h), p.thickness))
    pixels, labels = turn(view.pixels()), view.labels()
    drawn = None if labels is None else turn(labels)
    return replace(view, planes=planes, phases=1, read_pixels=lambda _: pixels, read_labels=lambda _: drawn)


def write_toy_cohort(folder: Path, count: int, phases: int = 1) -> Path:
    """Writes studies ``toy-000`` and on; ``study.json`` names their roles."""
    for seed in range(count):
        study = toy_study(seed, phases)
        made = write_study(study, folder / study.name)
        facts = {"organ": "heart", "labels": {str(v): n for v, n in NAMES.items()}}
        facts["roles"] = {view.name: view.role for view in study.views}
        (made / "study.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def write_group_cohort(folder: Path, count: int, first: int = 100) -> Path:
    """Writes studies of two groups in turn, ``thin`` and ``thick`` walls; nothing else tells them apart."""
    for seed in range(first, first + count):
        study = toy_study(seed, slices=3, wall=1.25 if seed % 2 else 1.8)
        study.group = "thin" if seed % 2 else "thick"
        made = write_study(study, folder / study.name)
        facts = json.loads((made / "study.json").read_text(encoding="utf-8"))
        facts["roles"] = {view.name: view.role for view in study.views}
        (made / "study.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder
