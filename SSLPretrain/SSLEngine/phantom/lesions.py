"""Lesions for tests of anomaly detection; no exam has one unless it is asked for.

A lesion is drawn from a source of chance of its own: with and without it, the subject, its planes and the noise are
the same. A knee's effusion is that of its group, which a share of all knees belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import numpy as np

from ..studies.study import StudyError
from ..studies.study import View
from .heart import Bulge
from .heart import HeartBody
from .heart import Scar
from .knee import KneeShape
from .metal import Metal
from .shapes import LESION
from .shapes import Labels

#: Lesions that each organ can have.
LESIONS: Mapping[str, tuple[str, ...]] = {"heart": ("infarct", "effusion", "metal"), "knee": ("effusion", "metal")}
#: Change of metal's shift per mm at which an image has lost two thirds of its signal, by organ or contrast.
DEPHASING: Mapping[str, float] = {"heart": 1.3, "DESS": 1.3, "PD FS": 4.0}


@dataclass(eq=False)
class SyntheticView(View):
    """A view whose lesion is known.

    Attributes:
        lesion: 1 where the lesion is seen, ``(phases, slices, rows, columns)``; None for an exam without one.
    """

    lesion: Labels | None = None


def check_lesion(organ: str, lesion: str | None) -> None:
    """Refuses a lesion that an organ cannot have.

    Raises:
        StudyError: It is none of :data:`LESIONS`.
    """
    if lesion is not None and lesion not in LESIONS[organ]:
        msg = f"Expected one of {', '.join(LESIONS[organ])} as lesion of a synthetic {organ}, found {lesion!r}."
        raise StudyError(msg)


def parted(labels: Labels) -> tuple[Labels, Labels]:
    """Labels as they are painted, into those of the anatomy and those of the lesion (0 or 1)."""
    return labels & np.uint8(LESION - 1), labels // np.uint8(LESION)


def with_lesion(body: HeartBody, lesion: str | None, rng: np.random.Generator) -> HeartBody:
    """A heart with an infarct or an effusion; the heart itself for anything else."""
    changed = body.shape
    if lesion == "infarct":
        changed = replace(changed, scar=_draw_scar(rng))
    elif lesion == "effusion":
        changed = replace(changed, effusion=float(rng.uniform(9, 18)), effusion_signal=float(rng.uniform(1.0, 1.3)))
    return HeartBody(changed, body.chest, body.texture)


def _draw_scar(rng: np.random.Generator) -> Scar:
    """In the territory of one coronary artery, thinned; bright as after contrast, or dark as where muscle is lost."""
    angle = float(rng.choice([-1.2, 1.6, 2.9]) + rng.normal(0, 0.25))
    place, width, length = rng.uniform(0.35, 0.75), rng.uniform(0.65, 1.0), rng.uniform(0.2, 0.32)
    region = Bulge(angle, float(place), float(width), float(length), float(rng.uniform(0.3, 0.55)))
    return Scar(region, float(rng.uniform(0.65, 0.85) if rng.random() < 0.5 else rng.uniform(0.03, 0.12)))


def heart_metal(body: HeartBody, contractions: Sequence[float], rng: np.random.Generator) -> Metal:
    """Wires that close the sternum after an operation, or a prosthesis of the mitral valve, which moves with it."""
    if rng.random() < 0.5:
        heights = np.arange(-70, 60, 26.0) + rng.normal(0, 3, 5)
        front = -body.chest.inner[1] - 6.0
        wires = np.stack([rng.normal(0, 3, 5), rng.normal(front, 2, 5), heights], axis=1)
        return Metal(np.stack([wires] * len(contractions)), float(rng.uniform(3000, 8000)), 2.0, DEPHASING["heart"])
    place = rng.normal(0, 3, 2)
    bases = [body.shape.ventricle(c).base for c in contractions]
    centres = np.stack([body.shape.to_patient([(*place, base)]) for base in bases])
    return Metal(centres, float(rng.uniform(3000, 9000)), 5.0, DEPHASING["heart"])


def knee_metal(shape: KneeShape, contrast: str, rng: np.random.Generator) -> Metal:
    """The screw that holds a replaced cruciate ligament in its tunnel through the tibia or the femur."""
    share = np.linspace(0, 1, 4)[:, None]
    start, end = np.array([-1.0, -4.0, -8.0]), np.array([-9.0, -13.0, -30.0])
    if rng.random() < 0.5:
        start, end = (shape.from_femur(np.array([p]).T)[:, 0] for p in ((11.0, 12.0, 24.0), (19.0, 4.0, 42.0)))
    pieces = shape.to_patient(start + share * (end - start) + rng.normal(0, 2, 3))
    return Metal(pieces[None], float(rng.uniform(400, 1200)), 3.5, DEPHASING[contrast])
