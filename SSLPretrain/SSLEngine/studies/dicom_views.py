"""Views from the frames of one exam: series taken apart, slices put in order, phases found.

The steps, in order: what is no ordinary image is left out; a series is split where matrix, spacing, echo or direction
change; frames at one place become one slice with its phases; slices that were saved as a series each are put together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..geometry import Array
from ..geometry import GeometryError
from ..geometry import Plane
from ..geometry import towards
from .dicom import Frame
from .dicom import FramePolicy
from .dicom import safe_name
from .dicom_pixels import read_pixels
from .study import Irregularity
from .study import StudyError
from .study import View

#: Slices of one series may be tilted against each other by this much; more is another view.
SAME_VIEW_DEG = 12.0
#: Frames whose places differ by less than this, or by less than a tenth of the slice step, are one slice.
SAME_PLACE_MM = 0.5
SAME_PLACE_SHARE = 0.1
#: Slices that were saved as a series each: how parallel, and how far apart at most.
JOINED_DEG = 2.0
JOINED_STEP_MM = 30.0
JOINED_SHIFT_MM = 20.0
MIN_JOINED = 3
#: A step this many times the usual one means that a slice is missing.
GAP_RATIO = 1.5
#: Slices this much further apart than thick leave a gap worth a word, mm.
BIG_GAP_MM = 5.0
_SCOUTS = ("localizer", "localiser", "scout", "survey", "localisation")


@dataclass(eq=False)
class Slice:
    """One place with everything acquired there, in time order."""

    plane: Plane
    frames: list[Frame]


@dataclass(eq=False)
class Stack:
    """The slices of one view, before it becomes one.

    Attributes:
        slices: In order along the normal.
        problems: What was odd about it, with its consequence.
    """

    slices: list[Slice]
    problems: list[tuple[str, str]] = field(default_factory=list)

    @property
    def first(self) -> Frame:
        """The frame whose header speaks for the stack."""
        return self.slices[0].frames[0]


def views_of_exam(frames: Sequence[Frame], policy: FramePolicy = "warn") -> tuple[list[View], list[Irregularity]]:
    """Views of one exam, in the order of their series numbers, and what was left out or odd.

    Raises:
        StudyError: A series has no frame of reference and the policy is ``require``.
    """
    stacks, problems = stacks_of_exam(frames)
    names = _names(stacks)
    views = [_view(stack, name, policy) for stack, name in zip(stacks, names, strict=True)]
    for stack, view in zip(stacks, views, strict=True):
        problems += [Irregularity(view.name, what, so) for what, so in stack.problems + _shape_problems(stack, view)]
    return views, problems + _frame_problems(views, policy) + _twice_problems(stacks, views)


def stacks_of_exam(frames: Sequence[Frame]) -> tuple[list[Stack], list[Irregularity]]:
    """The slices of each view with the frame of every phase, in the order of the views, and what was left out."""
    distinct, problems = _without_copies(frames)
    kept, left_out = _ordinary(distinct)
    stacks = [Stack(slices) for group in _groups(kept) for slices in [_slices(group)] if slices]
    for stack in stacks:
        _settle_phases(stack)
    stacks = _join_single_slices(stacks)
    stacks.sort(key=lambda s: (s.first.series_number, s.first.series_uid, -len(s.slices)))
    return stacks, problems + left_out


# ---------------------------------------------------------------------------------------------
# What is no ordinary image


def _without_copies(frames: Sequence[Frame]) -> tuple[list[Frame], list[Irregularity]]:
    """Each instance once: the same SOPInstanceUID and frame number is the same image, if it lies at the same place.

    Some anonymisers give all images of a series one SOPInstanceUID.
    """
    seen: dict[tuple[object, ...], Frame] = {}
    copies: list[Frame] = []
    for frame in frames:
        key = (frame.sop_uid or str(frame.path), frame.index, frame.position, frame.trigger_time)
        if key in seen:
            copies.append(frame)
        else:
            seen[key] = frame
    if not copies:
        return list(frames), []
    what = f"{len(copies)} duplicates of images that are there already (same SOPInstanceUID)"
    return list(seen.values()), [Irregularity(str(copies[0].path), what, "left out")]


def _kind(frame: Frame) -> str:
    """Why a frame is no ordinary image; empty where it is one."""
    kind = frame.image_type
    description = frame.text.get("description", "").lower()
    if "LOCALIZER" in kind or any(word in description for word in _SCOUTS):
        return "localisers"
    if kind[:1] == ("DERIVED",):
        return "derived images (reformatted, projected or computed)"
    if len(kind) > 2 and {"P", "PHASE", "VELOCITY", "PHASE MAP", "PHASE_MAP"} & set(kind[2:]):
        return "phase images (velocity maps)"
    if kind[1:2] == ("SECONDARY",):
        return "secondary images (computed or captured)"
    return ""


def _ordinary(frames: Sequence[Frame]) -> tuple[list[Frame], list[Irregularity]]:
    """Leaves out localisers, derived and phase images, unless there is nothing else."""
    kept: list[Frame] = []
    left: dict[tuple[str, str], list[Frame]] = {}
    for frame in frames:
        kind = _kind(frame)
        (left.setdefault((kind, frame.series_uid), []) if kind else kept).append(frame)
    if not kept:
        what = "the exam holds nothing but " + ", ".join(sorted({kind for kind, _ in left}))
        return list(frames), [Irregularity(str(frames[0].path.parent), what, "they are used as they are")]
    return kept, [
        Irregularity(_where(group[0]), f"{len(group)} {kind}", "left out") for (kind, _), group in left.items()
    ]


def _where(frame: Frame) -> str:
    return safe_name(frame.text.get("description", "")) or f"series-{frame.series_number}"


# ---------------------------------------------------------------------------------------------
# Groups and slices


def _groups(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Frames of one series, matrix, spacing, echo and direction."""
    alike: dict[tuple[object, ...], list[Frame]] = {}
    for f in frames:
        spacing = tuple(round(v, 3) for v in f.spacing)
        alike.setdefault((f.series, f.rows, f.columns, spacing, round(f.echo_time, 1)), []).append(f)
    return [part for group in alike.values() for part in _by_direction(group)]


def _by_direction(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Splits frames where the image directions turn by more than :data:`SAME_VIEW_DEG` (radial series, for one)."""
    parts: list[tuple[Array, list[Frame]]] = []
    homes: dict[tuple[float, ...], list[Frame]] = {}
    limit = np.cos(np.radians(SAME_VIEW_DEG))
    for frame in frames:
        home = homes.get(frame.orientation)
        if home is None:
            axes = np.reshape(frame.orientation, (2, 3))
            axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
            near = [p for p in parts if ((p[0] * axes).sum(axis=1) > limit).all()]
            if not near:
                near = [(axes, [])]
                parts += near
            home = homes[frame.orientation] = near[0][1]
        home.append(frame)
    return [part for _, part in parts]


def _slices(frames: Sequence[Frame]) -> list[Slice]:
    """Frames at one place put together, the places in order along the normal."""
    exact: dict[tuple[object, ...], list[Frame]] = {}
    for frame in frames:
        exact.setdefault((frame.position, frame.orientation), []).append(frame)
    found = [Slice(plane, group) for group in exact.values() if (plane := _plane(group[0])) is not None]
    if not found:
        return []
    normal = np.mean([s.plane.normal for s in found], axis=0)
    found.sort(key=lambda s: float(s.plane.centre @ normal))
    return _merged(found)


def _plane(frame: Frame) -> Plane | None:
    try:
        return Plane.from_dicom(
            frame.position, frame.orientation, frame.spacing, frame.rows, frame.columns, frame.thickness
        )
    except GeometryError:
        return None


def _merged(slices: Sequence[Slice]) -> list[Slice]:
    """Places that are nearly the same become one slice (repeats differ in the last decimals)."""
    centres = np.array([s.plane.centre for s in slices])
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    real = steps[steps > SAME_PLACE_MM]
    limit = max(SAME_PLACE_MM, SAME_PLACE_SHARE * float(np.median(real)) if len(real) else 0.0)
    merged = [Slice(slices[0].plane, list(slices[0].frames))]
    for item, step in zip(slices[1:], steps, strict=True):
        if step <= limit:
            merged[-1].frames += item.frames
        else:
            merged.append(Slice(item.plane, list(item.frames)))
    return merged


# ---------------------------------------------------------------------------------------------
# Phases


def _settle_phases(stack: Stack) -> None:
    """Puts the frames of every slice into time order and gives all slices the same number of phases."""
    cine = max(len(s.frames) for s in stack.slices) > 1
    usual = _usual(len(s.frames) for s in stack.slices)
    phases = _usual(n for s in stack.slices for n in Counter(f.acquisition for f in s.frames).values())
    repeated = 0
    for item in stack.slices:
        item.frames.sort(key=_acquisition_order)
        single = _last_acquired(_newest(item.frames, phases, usual == phases)) if cine else item.frames
        repeated += len(single) < len(item.frames)
        item.frames = single
    if repeated:
        so = "the last complete acquisition of each slice is used"
        stack.problems.append((f"{repeated} of {len(stack.slices)} slices were acquired more than once", so))
    if max(len(s.frames) for s in stack.slices) > 1 and not _timed(stack.slices):
        so = "phases are taken in instance order; the first is called ED"
        stack.problems.append(("the trigger times are missing or all the same", so))
    _equal_phases(stack)


def _acquisition_order(frame: Frame) -> tuple[int, str, int, str]:
    return frame.acquisition, frame.acquired, frame.instance, str(frame.path)


def _usual(counts: Iterable[int]) -> int:
    """The most frequent number; of equally frequent ones the largest."""
    found = Counter(counts)
    return max(found, key=lambda n: (found[n], n))


def _times(frames: Sequence[Frame]) -> list[float] | None:
    """What tells the phases of one place apart: trigger times, else temporal positions; None where neither does."""
    for times in ([f.trigger_time for f in frames], [f.temporal for f in frames]):
        known = [float(t) for t in times if t is not None]
        if len(known) == len(frames) and len(set(known)) > 1:
            return known
    return None


def _timed(slices: Sequence[Slice]) -> bool:
    """Whether time tells the phases of every slice apart."""
    times = [_times(s.frames) for s in slices if len(s.frames) > 1]
    return all(t is not None and len(set(t)) == len(t) for t in times)


def _newest(frames: Sequence[Frame], phases: int, once: bool) -> Sequence[Frame]:
    """The frames of the last complete acquisition of one place where it repeats another; else all of them.

    Phases, or parts of the cycle, may count as acquisitions too. These are no repeats: they follow each other in time.

    Args:
        frames: In the order of their acquisition.
        phases: Frames of a complete acquisition.
        once: Whether most places of the stack have no more than these, so that whatever is there beside them repeats.
    """
    acquired: dict[int, list[float]] = {}
    for frame, time in zip(frames, _times(frames) or [0.0] * len(frames), strict=True):
        acquired.setdefault(frame.acquisition, []).append(time)
    newest = max((k for k, times in acquired.items() if len(times) >= phases), default=None)
    if newest is None:
        return frames
    own = acquired[newest]
    again = any(min(own) < max(t) and min(t) < max(own) for k, t in acquired.items() if k != newest)
    return [f for f in frames if f.acquisition == newest] if once or again else frames


def _last_acquired(frames: Sequence[Frame]) -> list[Frame]:
    """The frames of one place in time order, each time once: the last acquired of those with the same time.

    Without usable times, frames of differing acquisitions are repeats, and frames of one acquisition are phases.
    """
    times = _times(frames)
    if times is not None:
        last = dict(zip(times, frames, strict=True))
        return [last[t] for t in sorted(last)]
    acquisitions = Counter(f.acquisition for f in frames)
    if len(acquisitions) > 1 and len(set(acquisitions.values())) == 1:
        newest = frames[-1].acquisition
        frames = [f for f in frames if f.acquisition == newest]
    return sorted(frames, key=lambda f: (f.instance, str(f.path)))


def _equal_phases(stack: Stack) -> None:
    usual = _usual(len(s.frames) for s in stack.slices)
    odd = [s for s in stack.slices if len(s.frames) != usual]
    if not odd:
        return
    for item in odd:
        places = np.rint(np.linspace(0, len(item.frames) - 1, usual)).astype(int) if usual > 1 else [0]
        item.frames = [item.frames[k] for k in places]
    what = f"{len(odd)} of {len(stack.slices)} slices do not have {usual} phases like the others"
    stack.problems.append((what, "their phases nearest in the cycle are used"))


# ---------------------------------------------------------------------------------------------
# Slices saved as a series each


def _join_single_slices(stacks: Sequence[Stack]) -> list[Stack]:
    """Joins stacks of one slice that are parallel, alike and lie behind one another."""
    joined = [s for s in stacks if len(s.slices) > 1]
    single = [s for s in stacks if len(s.slices) == 1]
    while single:
        family = [s for s in single if _belongs(s, single[0])]
        single = [s for s in single if s not in family]
        joined += [_joined(family)] if _is_stack(family) else family
    return joined


def _belongs(one: Stack, other: Stack) -> bool:
    a, b = one.slices[0], other.slices[0]
    if (a.plane.size, len(a.frames)) != (b.plane.size, len(b.frames)) or one.first.echo_time != other.first.echo_time:
        return False
    if not np.allclose(a.plane.spacing, b.plane.spacing, rtol=1e-3):
        return False
    if a.plane.normal @ b.plane.normal < np.cos(np.radians(JOINED_DEG)):
        return False
    step = b.plane.centre - a.plane.centre
    return bool(np.linalg.norm(step - (step @ a.plane.normal) * a.plane.normal) < JOINED_SHIFT_MM)


def _is_stack(family: Sequence[Stack]) -> bool:
    """Whether single slices follow each other like a stack: at least three, at roughly even steps."""
    normal = family[0].slices[0].plane.normal
    places = np.sort([float(s.slices[0].plane.centre @ normal) for s in family])
    steps = np.diff(places)
    steps = steps[steps > SAME_PLACE_MM]
    return len(steps) + 1 >= MIN_JOINED and bool(steps.max() < min(JOINED_STEP_MM, 3.5 * np.median(steps)))


def _joined(family: Sequence[Stack]) -> Stack:
    normal = family[0].slices[0].plane.normal
    ordered = sorted(family, key=lambda s: (float(s.slices[0].plane.centre @ normal), s.first.series_number))
    slices: list[Slice] = []
    repeated = 0
    for stack in ordered:
        item = stack.slices[0]
        if slices and np.linalg.norm(item.plane.centre - slices[-1].plane.centre) < SAME_PLACE_MM:
            slices[-1] = item
            repeated += 1
        else:
            slices.append(item)
    problems = [p for s in ordered for p in s.problems]
    what = f"{len(family)} series hold one slice each of the same stack"
    problems = [(what, "they are put together into one view"), *dict.fromkeys(problems)]
    if repeated:
        problems.append((f"{repeated} slices were acquired more than once", "the last series of each is used"))
    return Stack(slices, problems)


# ---------------------------------------------------------------------------------------------
# Views


def _names(stacks: Sequence[Stack]) -> list[str]:
    """The series description, made safe; with the series number where it is not unique but for capitals.

    Results are files of these names, which capitals do not tell apart on Windows and macOS.
    """
    plain = [_where(s.first) for s in stacks]
    counts = Counter(n.casefold() for n in plain)
    return [
        n if counts[n.casefold()] == 1 else f"{n}-{s.first.series_number}" for n, s in zip(plain, stacks, strict=True)
    ]


def _view(stack: Stack, name: str, policy: FramePolicy) -> View:
    frame = stack.first
    phases = len(stack.slices[0].frames)
    if policy == "require" and not frame.frame_of_reference:
        msg = (
            f"{name} has no FrameOfReferenceUID ({frame.path}), so its position cannot be compared with the others';"
            " read with the policy 'warn' if all series come from one session."
        )
        raise StudyError(msg)
    return View(
        name=name,
        source=_common_path([f.path for s in stack.slices for f in s.frames]),
        planes=[s.plane for s in stack.slices],
        phases=phases,
        read_pixels=_reader(stack.slices),
        frame_of_reference=None if policy == "ignore" else frame.frame_of_reference,
        trigger_times=_trigger_times(stack.slices) if phases > 1 else (),
        attributes={**frame.text, "series_uid": frame.series_uid},
    )


def _common_path(paths: Sequence[Path]) -> Path:
    return paths[0] if len(set(paths)) == 1 else paths[0].parent


def _reader(slices: Sequence[Slice]) -> Callable[[int], npt.NDArray[np.float32]]:
    def read(phase: int) -> npt.NDArray[np.float32]:
        return np.stack([read_pixels(s.frames[phase]) for s in slices])

    return read


def _trigger_times(slices: Sequence[Slice]) -> tuple[float, ...]:
    """Median trigger time over the slices of each phase, ms; empty where a frame has none or all are the same."""
    times = [[f.trigger_time for f in s.frames] for s in slices]
    if any(t is None for row in times for t in row):
        return ()
    medians = np.median(np.array(times, dtype=float), axis=0)
    return tuple(medians.tolist()) if np.ptp(medians) > 0 else ()


# ---------------------------------------------------------------------------------------------
# What is odd about them


def _shape_problems(stack: Stack, view: View) -> list[tuple[str, str]]:
    if len(view.planes) < 2:
        return []
    found = []
    normal = towards(np.mean([p.normal for p in view.planes], axis=0), view.planes[0].normal)
    places = np.array([p.centre for p in view.planes]) @ (normal / np.linalg.norm(normal))
    steps = np.diff(places)
    usual = float(np.median(steps))
    if steps.max() > GAP_RATIO * usual:
        what = f"a step of {steps.max():.1f} mm between slices that are {usual:.1f} mm apart elsewhere"
        found.append((what, "a slice seems to be missing; nothing is put in its place"))
    thickness = stack.first.thickness
    if thickness and usual - thickness > BIG_GAP_MM:
        what = f"slices {thickness:.0f} mm thick lie {usual:.1f} mm apart"
        found.append((what, "what lies between them is not seen, and volumes are estimates"))
    if not view.regular and steps.max() <= GAP_RATIO * usual:
        found.append(("its slices are shifted or tilted against each other", "it is kept as a list of planes"))
    return found


def _frame_problems(views: Sequence[View], policy: FramePolicy) -> list[Irregularity]:
    if policy != "warn" or len(views) < 2:
        return []
    found = []
    blank = [v.name for v in views if v.frame_of_reference is None]
    if blank:
        what = "FrameOfReferenceUID is blank or missing in " + ", ".join(blank[:5])
        found.append(Irregularity(str(views[0].source), what, "positions are taken as comparable all the same"))
    uids = Counter(v.frame_of_reference for v in views if v.frame_of_reference)
    if len(uids) > 1:
        usual = uids.most_common(1)[0][0]
        others = [v.name for v in views if v.frame_of_reference not in (None, usual)]
        what = ", ".join(others[:5]) + " has another frame of reference than the rest"
        found.append(Irregularity(str(views[0].source), what, "its crossings with the others are not computed"))
    return found


def _twice_problems(stacks: Sequence[Stack], views: Sequence[View]) -> list[Irregularity]:
    """Whole stacks that lie on the same slices with the same matrix."""
    found = []
    for k, (stack, view) in enumerate(zip(stacks, views, strict=True)):
        for earlier, other in zip(stacks[:k], views[:k], strict=True):
            same = len(view.planes) == len(other.planes) and view.planes[0].size == other.planes[0].size
            if same and stack.first.echo_time == earlier.first.echo_time and _same_places(view, other):
                what = f"it lies on the same slices as {other.name}, so it was acquired twice"
                found.append(Irregularity(view.name, what, "both are kept; the first is used where one is needed"))
                break
    return found


def _same_places(one: View, other: View) -> bool:
    return all(
        np.linalg.norm(a.origin - b.origin) < SAME_PLACE_MM and a.normal @ b.normal > 1 - 1e-4
        for a, b in zip(one.planes, other.planes, strict=True)
    )
