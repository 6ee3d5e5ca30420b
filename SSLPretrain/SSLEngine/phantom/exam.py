"""Makes whole exams: draws a subject, lays the planes, images them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..geometry import Plane
from ..studies.study import Study
from ..studies.study import StudyError
from .heart import AORTA
from .heart import GROUPS as HEART_GROUPS
from .heart import LEFT_ATRIUM
from .heart import LV
from .heart import MYOCARDIUM
from .heart import RIGHT_ATRIUM
from .heart import RV
from .heart import draw_body
from .heart_views import lay_heart_planes
from .knee import CRUCIATES
from .knee import EFFUSION
from .knee import FEMORAL_CARTILAGE
from .knee import FEMUR
from .knee import GROUPS as KNEE_GROUPS
from .knee import MENISCI
from .knee import PATELLA
from .knee import PATELLAR_CARTILAGE
from .knee import TIBIA
from .knee import TIBIAL_CARTILAGE
from .knee_body import draw_knee_body
from .knee_views import lay_knee_planes
from .lesions import SyntheticView
from .lesions import check_lesion
from .lesions import heart_metal
from .lesions import knee_metal
from .lesions import parted
from .lesions import with_lesion
from .metal import Metal
from .rendering import Floats
from .rendering import Imaging
from .rendering import Labels
from .rendering import draw_imaging
from .rendering import render
from .shapes import LESION
from .writing import write_study

#: Label values of each organ's exams.
LABELS: Mapping[str, dict[int, str]] = {
    "heart": {
        LV: "LV cavity",
        MYOCARDIUM: "LV myocardium",
        RV: "RV cavity",
        LEFT_ATRIUM: "Left atrium",
        RIGHT_ATRIUM: "Right atrium",
        AORTA: "Aorta",
    },
    "knee": {
        FEMUR: "Femur",
        TIBIA: "Tibia",
        PATELLA: "Patella",
        FEMORAL_CARTILAGE: "Femoral cartilage",
        TIBIAL_CARTILAGE: "Tibial cartilage",
        PATELLAR_CARTILAGE: "Patellar cartilage",
        MENISCI: "Menisci",
        CRUCIATES: "Cruciate ligaments",
        EFFUSION: "Effusion",
    },
}
#: Groups that each organ's population consists of.
GROUPS: Mapping[str, tuple[str, ...]] = {"heart": HEART_GROUPS, "knee": KNEE_GROUPS}
#: Middle of the elements of a chest coil, LPS mm.
CHEST_COIL = np.array(
    [
        (x, y, z)
        for y, xs in ((-150.0, (-70.0, 30.0, 110.0)), (135.0, (-80.0, 80.0)))
        for x in xs
        for z in (-60.0, 60.0)
    ],
    dtype=np.float32,
)
#: Distance of the elements of a knee coil from the middle of the knee, mm.
KNEE_COIL_MM = 105.0
#: Share of the cardiac cycle at which the heart is smallest.
END_SYSTOLE = 0.36


def contractions(phases: int) -> list[float]:
    """Contraction (0 to 1) at each phase: ED and ES for two, else the whole cycle evenly sampled."""
    if phases <= 2:
        return [0.0, 1.0][:phases]
    time = np.arange(phases) / phases
    rising = 0.5 - 0.5 * np.cos(np.pi * time / END_SYSTOLE)
    falling = 0.5 + 0.5 * np.cos(np.pi * (time - END_SYSTOLE) / (1 - END_SYSTOLE))
    return [float(v) for v in np.where(time < END_SYSTOLE, rising, falling)]


def make_study(organ: str, seed: int, phases: int = 2, lesion: str | None = None, group: str | None = None) -> Study:
    """Makes one synthetic exam; the same arguments give the same study, bit by bit.

    Args:
        organ: A key of :data:`LABELS`.
        seed: Not negative. A lesion changes nothing else about the subject that it stands for.
        phases: Cine phases of a heart: 1 is end-diastole, 2 adds end-systole, more sample the cycle. A knee rests.
        lesion: One of :data:`~.lesions.LESIONS`; its views then know where it is. None for an ordinary exam.
        group: One of :data:`GROUPS`, for a subject of that group; drawn from the population where it is None.

    Raises:
        StudyError: Organ, lesion or group is unknown or does not go together, or a number is out of range.
    """
    if organ not in LABELS:
        msg = f"Expected one of {', '.join(LABELS)} as organ of a synthetic study, found {organ!r}."
        raise StudyError(msg)
    if seed < 0 or phases < 1:
        msg = f"Expected a seed of at least 0 and at least one phase, found {seed} and {phases}."
        raise StudyError(msg)
    check_lesion(organ, lesion)
    if group is not None and group not in GROUPS[organ]:
        msg = f"Expected one of {', '.join(GROUPS[organ])} as group of a synthetic {organ}, found {group!r}."
        raise StudyError(msg)
    if organ == "heart":
        return _make_heart(seed, phases, lesion, group)
    if lesion == "effusion":
        if group not in (None, "effusion"):
            msg = f"A knee with an effusion is of the group effusion, and {group!r} was asked for; leave one out."
            raise StudyError(msg)
        group = "effusion"
    return _make_knee(seed, lesion, group)


def _make_heart(seed: int, phases: int, lesion: str | None, group: str | None) -> Study:
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    chance = np.random.default_rng(np.random.SeedSequence([seed, 1, 1]))
    body = with_lesion(draw_body(rng, group), lesion, chance)
    imaging = draw_imaging(rng, CHEST_COIL, body.middle)
    states = contractions(phases)
    metal = heart_metal(body, states, chance) if lesion == "metal" else None
    beat = float(rng.uniform(700, 1100))
    times = (0.0, END_SYSTOLE * beat) if phases == 2 else tuple(beat * k / phases for k in range(phases))
    name = f"heart-{seed:04d}"
    # Breath holds differ most from feet to head.
    breath = rng.uniform(0.3, 1.5) * np.array([0.6, 1.0, 2.0])
    views = []
    for role, planes in lay_heart_planes(body.shape, rng).items():
        shifts = rng.normal(0, 1, (len(planes), 3)) * breath
        pixels, labels = render(body, planes, states, imaging, rng, shifts, _read_out(metal, chance))
        view = _view(role, Path(name), planes, pixels, labels, LABELS["heart"], lesion)
        view.trigger_times = times if phases > 1 else ()
        views.append(view)
    return Study(name, Path(name), [*views], subject=name, organ="heart", group=body.shape.group)


def _make_knee(seed: int, lesion: str | None, group: str | None) -> Study:
    rng = np.random.default_rng(np.random.SeedSequence([seed, 2]))
    chance = np.random.default_rng(np.random.SeedSequence([seed, 2, 1]))
    body = draw_knee_body(rng, group=group)
    imaging = _knee_imaging(rng, body.middle)
    metal = knee_metal(body.shape, body.tissues.contrast, chance) if lesion == "metal" else None
    name = f"knee-{seed:04d}"
    views = []
    for role, planes in lay_knee_planes(body.shape, rng).items():
        pixels, labels = render(body, planes, [0.0], imaging, rng, metal=_read_out(metal, chance))
        if lesion == "effusion":
            labels[labels == EFFUSION] |= LESION
        view = _view(role, Path(name), planes, pixels, labels, LABELS["knee"], lesion)
        view.attributes = {"contrast": body.tissues.contrast, "laterality": body.shape.side[0].upper()}
        views.append(view)
    group, side = body.shape.group, body.shape.side
    return Study(name, Path(name), [*views], subject=name, organ="knee", group=group, side=side)


def _read_out(metal: Metal | None, rng: np.random.Generator) -> Metal | None:
    """Metal as one view sees it: the technologist chooses the readout direction of each."""
    return None if metal is None else replace(metal, along_columns=bool(rng.random() < 0.5))


def _knee_imaging(rng: np.random.Generator, middle: Floats) -> Imaging:
    """A scanner with a ring of coil elements round the knee, and finer pixels than those of a beating heart."""
    angles = np.arange(8) * np.pi / 4
    ring = KNEE_COIL_MM * np.stack([np.cos(angles), np.sin(angles), 0.5 * (-1.0) ** np.arange(8)], axis=1)
    imaging = draw_imaging(rng, (ring + middle).astype(np.float32), middle)
    return replace(
        imaging,
        shading=float(rng.uniform(0.2, 0.9)),
        sharpness=float(rng.uniform(0.30, 0.50)),
        noise=float(np.exp(rng.uniform(np.log(0.01), np.log(0.03)))),
        round_field=False,
    )


def _view(
    role: str,
    folder: Path,
    planes: list[Plane],
    pixels: Floats,
    painted: Labels,
    names: dict[int, str],
    lesion: str | None,
) -> SyntheticView:
    """A view that holds its pixels in memory as whole numbers."""
    stored = pixels.astype(np.int16)
    labels, where = parted(painted)

    def read_pixels(phase: int) -> npt.NDArray[np.float32]:
        return stored[phase].astype(np.float32)

    def read_labels(phase: int) -> npt.NDArray[np.int16]:
        return labels[phase].astype(np.int16)

    return SyntheticView(
        name=role,
        source=folder / f"{role}.nii.gz",
        planes=planes,
        phases=len(stored),
        read_pixels=read_pixels,
        read_labels=read_labels,
        role=role,
        reason="a synthetic exam knows its planes",
        label_names=names,
        lesion=where if lesion is not None else None,
    )


def study_seed(seed: int, number: int) -> int:
    """Seed of a cohort's study ``number``: cohorts of neighbouring seeds share no study."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def write_cohort(
    organ: str,
    studies: int,
    seed: int,
    out: Path,
    fmt: str = "nifti",
    progress: Callable[[int, int], None] | None = None,
    lesion: str | None = None,
    group: str | None = None,
) -> list[Path]:
    """Writes a cohort of synthetic studies, ``<organ>-0001`` and on, each whole or not at all.

    Args:
        organ: A key of :data:`LABELS`.
        studies: How many.
        seed: Seed of the cohort.
        out: The cohort's folder; made where it is missing.
        fmt: ``nifti`` or ``dicom``.
        progress: Called with (studies written, studies in all).
        lesion: As for :func:`make_study`; ``<view>_lesion.nii.gz`` then says where it is.
        group: As for :func:`make_study`.

    Returns:
        The studies' folders.

    Raises:
        StudyError: Organ, format, lesion or group is unknown, or one of the folders exists.
    """
    folders = []
    for number in range(1, studies + 1):
        name = f"{organ}-{number:04d}"
        made = make_study(organ, study_seed(seed, number), lesion=lesion, group=group)
        study = replace(made, name=name, subject=name)
        folders.append(write_study(study, Path(out) / name, fmt))
        if progress is not None:
            progress(number, studies)
    return folders
