"""Where the planes of a study would lie, read off the lines that a network sees on every slice.

A network pretrained on ``crossings`` draws, on each slice, the line where every other plane would cut it. A plane is
recovered from the lines of one guest on all slices (:mod:`SSLEngine.plane_fitting`).

Nothing of the acquired plane enters: a guest is predicted from slices of other roles. Those are first cut round their
own centre, and then, as large as a training patch, round the point where the planes of the first look meet: instance
norm has only ever seen patches of that size with the anatomy in their middle. A network that was trained on patches
round the middle of images looks at those, once.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from .geometry import Array
from .geometry import Plane
from .geometry import normals_angle_deg
from .geometry import slice_positions
from .geometry import towards
from .jobs import check_writable
from .jobs import write_atomically
from .models import Card
from .models import ModelError
from .models import Net
from .models import load_model
from .pictures import exam_picture
from .pictures import png
from .plane_fitting import FoundPlane
from .plane_fitting import Seen
from .plane_fitting import find_plane
from .plane_fitting import see
from .pretext.crossings import Crossing
from .settings import Crossings
from .settings import Grid
from .settings import SettingsError
from .settings import parse
from .slices import HOST_ROLES
from .slices import anatomical_axis
from .slices import comparable
from .slices import guests_of
from .slices import landmark
from .slices import network_plane
from .slices import resample
from .slices import stacks_of
from .slices import standardise
from .studies import Study
from .studies import StudyError
from .studies import View
from .studies.reading import Progress
from .training import autocast
from .training import choose_device

#: Side of the square that is looked at first, in patches: the anatomy may lie off the image's centre.
FIELD = 1.5
#: Looks at a study, by ``Grid.centre``.
LOOKS = {"crossing": 2, "image": 1}
#: Slices that are looked at together.
BATCH = 8
#: Weight of the middle of the images beside that of a certain plane, in finding the point where planes meet.
PULL = 0.05
#: An acquired plane that lies so much nearer (degrees) to another role's prediction than to its own is doubted, and so
#: is one so far (mm) from its own. On 90 unseen synthetic hearts (`crossings` of 1010, 14000 steps) the 99th percentile
#: of the errors was at most 11 mm in all roles, and 12 degrees for 2ch and 4ch, but 28 for 3ch: an angle alone says
#: nothing.
MISNAMED_DEG = 20.0
MOVED_MM = 12.0
#: A prediction below this confidence doubts nothing. A network of 6 steps gave 0.22 to 0.40, the trained one 0.65 to
#: 0.9 on unseen synthetic hearts and 0.6 on a real exam.
SURE = 0.5
#: Side of the square that stands for a whole plane in pictures.
BOUNDLESS_MM = 2000


# ---------------------------------------------------------------------------------------------
# From a study to heatmaps


@torch.no_grad()
def predict_lines(
    network: Net,
    card: Card,
    study: Study,
    device: torch.device,
    hosts: Sequence[str] = HOST_ROLES,
    centre: Array | None = None,
) -> dict[str, list[Seen]]:
    """What the network sees of each guest on every slice of other roles, on the first phase.

    Args:
        network: A network with a head for ``crossings``.
        card: Its card.
        study: The study.
        device: Where to compute.
        hosts: Roles of the slices to look at.
        centre: Point, LPS mm, in the middle of squares as large as a training patch; without it they lie round the
            middle of each image, and are :data:`FIELD` times as large unless the network was trained there.

    Raises:
        ModelError: The model has not learned ``crossings``.
    """
    settings, grid = crossings_of(card), parse(card.grid, Grid)
    network = network.to(device).eval()
    wide = FIELD if centre is None and grid.centre == "crossing" else 1.0
    side = round(grid.patch * wide) // network.factor * network.factor
    guests = [(k, role) for k, role in enumerate(Crossing(settings).guests) if role in card.roles]
    found: dict[str, list[Seen]] = {role: [] for _, role in guests}
    views = [v for v in study.views if v.role in hosts and v.role in card.roles]
    slices = [(view.role, *cut) for view in views for cut in _cuts(view, grid, side, centre)]
    if not slices:
        return found
    patches = torch.stack([patch for _, _, patch in slices]).to(device)
    with autocast(device):
        heats = torch.cat([network(part, [Crossing.name])[Crossing.name].float() for part in patches.split(BATCH)])
    for (host, plane, _), heat in zip(slices, (heats / Crossing(settings).peak).cpu().numpy(), strict=True):
        for channel, role in guests:
            if role != host:
                found[role].append(see(plane, heat[channel], settings.sigma_mm))
    return found


def _cuts(view: View, grid: Grid, side: int, centre: Array | None) -> Iterator[tuple[Plane, torch.Tensor]]:
    """The squares of a view's slices on the network's grid, with what lies there, ``(1, side, side)``."""
    images = standardise(view.pixels(0), grid.clip_percent)
    for image, acquired in zip(torch.from_numpy(images), view.planes, strict=True):
        plane = network_plane(acquired, grid.spacing_mm, side, centre, view.role)
        yield plane, resample(image[None], acquired, plane)


def crossings_of(card: Card) -> Crossings:
    """The settings that a model's heatmaps were trained with.

    Raises:
        ModelError: It has none.
    """
    if Crossing.name not in card.heads["pixel"]:
        msg = "This model does not see planes: use one that was pretrained with --pretext crossings."
        raise ModelError(msg)
    return parse(card.pretexts[Crossing.name], Crossings)


def predict_planes(
    network: Net, card: Card, study: Study, device: torch.device, hosts: Sequence[str] = HOST_ROLES
) -> list[dict[str, Any]]:
    """The planes of a study as the network would lay them.

    Args:
        network: A network with a head for ``crossings``.
        card: Its card.
        study: The study; the planes that it lacks are predicted all the same.
        device: Where to compute.
        hosts: Roles of the slices to look at.

    Views of another frame of reference than most slices have are left out.

    Returns:
        One dictionary a plane: ``role``, ``point_mm``, ``normal`` (LPS), ``confidence`` (0 to 1), ``slices`` that agree
        and were looked at, ``error_deg`` and ``error_mm`` from the acquired plane, None where there is none, and the
        ``doubt`` that this casts on the acquired plane, a sentence or None.

    Raises:
        ModelError: The model has not learned ``crossings``.
    """
    settings = crossings_of(card)
    study = comparable(study, main_view(study))
    acquired = acquired_planes(study, settings.stack_guest)
    reference = reference_point(study)
    centre: Array | None = None
    known: dict[str, FoundPlane] = {}
    for _ in range(LOOKS[parse(card.grid, Grid).centre]):
        looked = predict_lines(network, card, study, device, hosts, centre)
        found = {role: find_plane(seen, settings.sigma_mm) for role, seen in looked.items()}
        known |= {role: plane for role, plane in found.items() if plane is not None}
        if not known:
            break
        centre = meeting_point(known.values(), study)
    planes = [_described(r, p, len(looked[r]), acquired.get(r), reference) for r, p in known.items()]
    single = {role for role, stack in stacks_of(study).items() if len(stack) == 1}
    return [p | {"doubt": doubt(p, planes, acquired.get(p["role"]), p["role"] in single)} for p in planes]


def main_view(study: Study) -> View:
    """The view that the others must be comparable with: of those that say where they lie, the one with most slices."""
    return max(study.views, key=lambda view: ("position" not in view.attributes, len(view.planes)))


def meeting_point(planes: Iterable[FoundPlane], study: Study) -> Array:
    """The point nearest to all planes, LPS mm: least squares by confidence.

    Where they leave it open (two planes meet in a line), it is the point nearest to the middle of the images.
    """
    middle = np.mean([p.centre for v in study.views for p in v.planes], axis=0)
    rows, offsets = [PULL * np.eye(3)], [PULL * middle]
    for plane in planes:
        weight = np.sqrt(max(plane.confidence, 0.0))
        rows.append(weight * plane.normal[None])
        offsets.append(np.array([weight * (plane.normal @ plane.point)]))
    return np.asarray(np.linalg.lstsq(np.concatenate(rows), np.concatenate(offsets), rcond=None)[0])


def _described(
    role: str, found: FoundPlane, looked_at: int, acquired: Plane | None, centre: Array | None
) -> dict[str, Any]:
    # The sign says nothing about the plane: that of the acquired one, else towards left, back and head.
    normal = towards(found.normal, np.ones(3) if acquired is None else acquired.normal)
    errors = (None, None) if acquired is None else plane_errors(found.normal, found.point, acquired, centre)
    return {
        "role": role,
        "point_mm": [float(v) for v in found.point],
        "normal": [float(v) for v in normal],
        "confidence": found.confidence,
        "slices_agreeing": found.slices,
        "slices": looked_at,
        "error_deg": errors[0],
        "error_mm": errors[1],
    }


def acquired_planes(study: Study, stack_guest: str) -> dict[str, Plane]:
    """The planes that predictions are compared with: those that the heatmaps were drawn from."""
    planes, stacks = guests_of(study), stacks_of(study)
    axis = anatomical_axis(planes)
    if stack_guest == "basal" and "sax" in stacks and axis is not None:
        planes["sax"] = stacks["sax"][int(slice_positions(stacks["sax"], axis).argmin())]
    return planes


def reference_point(study: Study) -> Array | None:
    """Where errors in mm are measured: the heart's crossing point, or where the knee's three middle planes meet."""
    heart = landmark(study)
    if heart is not None:
        return heart
    planes = [guests_of(study).get(role) for role in ("sag", "cor", "ax")]
    known = [p for p in planes if p is not None]
    normals = np.array([p.normal for p in known])
    if len(known) < 3 or abs(np.linalg.det(normals)) < 0.2:
        return None
    return np.linalg.solve(normals, np.array([p.normal @ p.origin for p in known]))


def plane_errors(normal: Array, point: Array, acquired: Plane, centre: Array | None) -> tuple[float, float]:
    """Angle in degrees, and distance in mm of the predicted plane from a point of the acquired one.

    The point is ``centre`` moved onto the acquired plane; the middle of the acquired image without one.
    """
    where = acquired.centre if centre is None else centre - acquired.signed_distance(centre) * acquired.normal
    return normals_angle_deg(normal, acquired.normal), abs(float((where - point) @ normal))


def doubt(
    predicted: Mapping[str, Any], others: Iterable[Mapping[str, Any]], acquired: Plane | None, single: bool
) -> str | None:
    """What a prediction holds against the acquired plane: a wrong name, or that the patient moved.

    Args:
        predicted: The prediction of a role.
        others: Those of all roles; its own may be among them.
        acquired: The plane of that role.
        single: Whether that is all of its view. How far a stack was laid is a person's choice: which of its slices is
            the middle one says nothing about motion (20 mm off on a real exam with 18 mm between slices).

    Returns:
        What is odd, as it follows the plane's name; None where nothing is, no plane was acquired, or most slices
        disagree with the prediction, or it is not sure.
    """
    if acquired is None or not _trusted(predicted):
        return None
    off, moved = predicted["error_deg"], predicted["error_mm"]
    angles = {
        other["role"]: normals_angle_deg(np.array(other["normal"]), acquired.normal)
        for other in others
        if other["role"] != predicted["role"] and _trusted(other)
    }
    nearest = min(angles, key=angles.__getitem__, default=None)
    if nearest is not None and off - angles[nearest] > MISNAMED_DEG:
        return (
            f"lies as the {nearest} would ({angles[nearest]:.0f}° from it, {off:.0f}° from where the "
            f"{predicted['role']} is seen); is the view named rightly?"
        )
    if single and moved > MOVED_MM:
        return f"lies {moved:.0f} mm from where the other slices show it; the patient may have moved"
    return None


def _trusted(predicted: Mapping[str, Any]) -> bool:
    """Whether a prediction is sure, and at least half of the slices that were looked at agree on it."""
    return bool(predicted["confidence"] >= SURE and predicted["slices_agreeing"] * 2 >= predicted["slices"])


# ---------------------------------------------------------------------------------------------
# The verb


def plan(
    model: Path,
    exam: Study,
    device: str = "auto",
    hosts: Sequence[str] = (),
    picture: Path | None = None,
) -> dict[str, Any]:
    """Predicts the planes of a study from a model file; the document of ``planes --json``.

    Args:
        model: Model file that was pretrained with ``crossings``.
        exam: The study.
        device: ``auto``, ``cpu`` or ``cuda:N``.
        hosts: Roles of the slices to look at; all by default.
        picture: PNG file to draw them to, dashed, with the lines of the acquired planes.

    Raises:
        ModelError: The model cannot be used for this.
        SettingsError: A role is not known, or the picture has no PNG's name.
        StudyError: The study cannot be used.
        OSError: The picture cannot be written.
    """
    if picture is not None:
        check_writable(picture)
        if picture.suffix.lower() != ".png":
            msg = f"The picture is a PNG, and {picture} has the name of another file; choose one that ends in .png."
            raise SettingsError(msg)
    network, card = load_model(model)
    crossings_of(card)
    document = plan_study(network, card, exam, choose_device(device), hosts)
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(picture, png(planes_picture(exam, document["planes"])))
    return document


def plan_cohort(
    model: Path,
    studies: Sequence[Study],
    device: str = "auto",
    hosts: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """As :func:`plan`, of the studies of a cohort.

    Returns:
        ``{"studies": [...], "left_out": [{"study", "why"}], "roles": ...}``, with each study as ``plan`` has it; a
        study that cannot be used does not stop the others. For ``roles`` see :func:`median_errors`.

    Raises:
        ModelError: The model cannot be used for this.
        SettingsError: A role is not known.
        StudyError: No study can be used.
    """
    network, card = load_model(model)
    crossings_of(card)
    chosen = choose_device(device)
    documents, left_out = [], []
    for number, study in enumerate(studies):
        if progress:
            progress(number, len(studies), study.name)
        try:
            documents.append(plan_study(network, card, study, chosen, hosts))
        except StudyError as error:
            left_out.append({"study": study.name, "why": str(error)})
    if not documents:
        raise StudyError(left_out[0]["why"])
    return {"studies": documents, "left_out": left_out, "roles": median_errors(documents)}


def plan_study(
    network: Net, card: Card, study: Study, device: torch.device, hosts: Sequence[str] = ()
) -> dict[str, Any]:
    """The document of ``planes --json`` for one study; arguments as in :func:`predict_planes`.

    Raises:
        ModelError: The model has not learned ``crossings``.
        SettingsError: A role is not known.
        StudyError: The study has no view that the model sees planes on.
    """
    wanted = tuple(hosts) or HOST_ROLES
    for role in wanted:
        if role not in HOST_ROLES:
            msg = f"There are no slices of the role '{role}'; --hosts takes some of {', '.join(HOST_ROLES)}."
            raise SettingsError(msg)
    seen = [role for role in wanted if role in card.roles]
    if not any(v.role in seen for v in study.views):
        msg = (
            f"{study.path} has no view of a role on which this model sees planes "
            f"({', '.join(seen) or 'none of --hosts'}); see 'inspect' for what was found."
        )
        raise StudyError(msg)
    planes = predict_planes(network, card, study, device, wanted)
    roles = {p["role"] for p in planes}
    missing = [r for r in Crossing(crossings_of(card)).guests if r in card.roles and r not in roles]
    return {
        "study": str(study.path),
        "planes": planes,
        "not_found": [{"role": r, "reason": "too few slices show a line that determines it"} for r in missing],
    }


def planes_picture(study: Study, predicted: Iterable[Mapping[str, Any]]) -> Figure:
    """A middle slice of each role with the lines of the acquired planes and, dashed, of the predicted ones."""
    study = comparable(study, main_view(study))
    views = [view for view in map(study.first, HOST_ROLES) if view is not None]
    through = {item["role"]: _boundless(np.array(item["point_mm"]), np.array(item["normal"])) for item in predicted}
    figure = exam_picture(views, guests_of(study), through)
    figure.supxlabel("acquired: solid; predicted: dashed", color="white", fontsize=9)
    return figure


def _boundless(point: Array, normal: Array) -> Plane:
    """A plane larger than any image, so that its lines end at the edges of the images alone."""
    across = np.linalg.svd(normal[None])[2][1:]
    size = BOUNDLESS_MM
    return Plane(point - size / 2 * across.sum(0), across[0], across[1], (1.0, 1.0), (size, size))


def median_errors(documents: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By role, how many acquired planes there were, and the medians of how far the predicted ones lie from them."""
    errors: dict[str, list[tuple[float, float]]] = {}
    for plane in (plane for document in documents for plane in document["planes"]):
        if plane["error_deg"] is not None:
            errors.setdefault(plane["role"], []).append((plane["error_deg"], plane["error_mm"]))
    medians = {role: np.median(pairs, axis=0).tolist() for role, pairs in errors.items()}
    return {
        role: {"studies": len(errors[role]), "median_deg": deg, "median_mm": mm} for role, (deg, mm) in medians.items()
    }


def cohort_table(document: Mapping[str, Any]) -> str:
    """The document of a cohort as lines of text: medians, and what is doubted or was not found of which study."""
    rows = ["plane  studies  off by (median)"]
    for role, error in document["roles"].items():
        rows.append(f"{role:<7}{error['studies']:>7}  {error['median_deg']:.1f}° and {error['median_mm']:.1f} mm")
    for study in document["studies"]:
        rows += [f"{study['study']}: {p['role']} {p['doubt']}" for p in study["planes"] if p["doubt"] is not None]
        rows += [f"{study['study']}: {item['role']} not found: {item['reason']}" for item in study["not_found"]]
    return "\n".join(rows)


def table(document: dict[str, Any]) -> str:
    """The document as lines of text."""
    rows = ["plane  confidence  slices  off by"]
    for plane in document["planes"]:
        off = "not acquired"
        if plane["error_deg"] is not None:
            off = f"{plane['error_deg']:.1f}° and {plane['error_mm']:.1f} mm"
        agreeing = f"{plane['slices_agreeing']}/{plane['slices']}"
        rows.append(f"{plane['role']:<7}{plane['confidence']:>10.2f}{agreeing:>8}  {off}")
        if plane["doubt"] is not None:
            rows.append(f"       {plane['doubt']}")
    rows += [f"{item['role']:<7}{item['reason']}" for item in document["not_found"]]
    return "\n".join(rows)
