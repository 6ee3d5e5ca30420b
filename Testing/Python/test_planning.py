"""Planes read off heatmaps: against known planes, with noise, bad slices and too few lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from SSLEngine import planning
from SSLEngine import tasks
from SSLEngine.__main__ import main
from SSLEngine.geometry import Array
from SSLEngine.geometry import Plane
from SSLEngine.geometry import crossing_line
from SSLEngine.jobs import Reporter
from SSLEngine.models import Card
from SSLEngine.models import ModelError
from SSLEngine.models import save_model
from SSLEngine.networks.unet import TaskUNet
from SSLEngine.phantom.heart import draw_body
from SSLEngine.phantom.heart_views import lay_heart_planes
from SSLEngine.plane_fitting import Band
from SSLEngine.plane_fitting import _refined
from SSLEngine.planning import FoundPlane
from SSLEngine.planning import acquired_planes
from SSLEngine.planning import find_plane
from SSLEngine.planning import median_errors
from SSLEngine.planning import meeting_point
from SSLEngine.planning import plan
from SSLEngine.planning import plan_study
from SSLEngine.planning import plane_errors
from SSLEngine.planning import predict_planes
from SSLEngine.planning import reference_point
from SSLEngine.planning import see
from SSLEngine.settings import Crossings
from SSLEngine.settings import Grid
from SSLEngine.settings import Network
from SSLEngine.settings import SettingsError
from SSLEngine.settings import plain
from SSLEngine.slices import guests_of
from SSLEngine.slices import landmark
from SSLEngine.slices import network_plane
from SSLEngine.studies import Study
from SSLEngine.studies import read_study
from toy_exams import off_centre
from toy_exams import toy_study
from toy_exams import write_toy_cohort

SIGMA = 7.5
GRID = Grid(patch=96, spacing_mm=2.5, phases=1)
SIDE = 144


def heat_of(host: Plane, guest: Plane, sigma: float = SIGMA) -> Array:
    """The exact heatmap of a guest; black where there is none."""
    line = crossing_line(host, guest)
    y, x = np.mgrid[: host.size[1], : host.size[0]]
    if line is None:
        return np.zeros(x.shape)
    return np.exp(-0.5 * (line.distance(np.stack([x, y], -1)) / sigma) ** 2)


def wrong_heat(side: int, rng: np.random.Generator) -> Array:
    """A line that has nothing to do with the guest, as bright as a right one."""
    angle, offset = rng.uniform(0, np.pi), rng.uniform(-20, 20)
    y, x = np.mgrid[:side, :side] - side / 2
    return np.exp(-0.5 * (((x * np.cos(angle) + y * np.sin(angle) - offset) * GRID.spacing_mm) / SIGMA) ** 2)


# ---------------------------------------------------------------------------------------------
# From heatmaps to planes


@given(st.integers(0, 2**32 - 1), st.sampled_from(["sax", "2ch", "3ch", "4ch"]))
@hypothesis_settings(max_examples=25, deadline=None)
def test_a_known_plane_is_found_despite_noise_and_bad_slices(seed: int, role: str) -> None:
    """Planes as technologists lay them; a sixth of the slices show a wrong line, all are noisy."""
    rng = np.random.default_rng(seed)
    laid = lay_heart_planes(draw_body(rng).shape, rng)
    guest = laid[role][len(laid[role]) // 2]
    hosts = [network_plane(p, GRID.spacing_mm, SIDE, None) for r, planes in laid.items() if r != role for p in planes]
    bad = rng.choice(len(hosts), len(hosts) // 6, replace=False)
    heats = [wrong_heat(SIDE, rng) if k in bad else heat_of(h, guest) for k, h in enumerate(hosts)]
    heats = [rng.uniform(0.5, 1) * h + 0.1 * rng.standard_normal(h.shape) for h in heats]
    found = find_plane([see(h, m, SIGMA) for h, m in zip(hosts, heats, strict=True)], SIGMA)
    assert found is not None
    degrees, mm = plane_errors(found.normal, found.point, guest, laid["sax"][len(laid["sax"]) // 2].centre)
    assert degrees < 0.5
    assert mm < 0.5
    assert found.slices >= len(hosts) - len(bad)
    assert abs(np.linalg.norm(found.normal) - 1) < 1e-9


def test_confidence_falls_with_bad_slices_and_noise() -> None:
    rng = np.random.default_rng(0)
    laid = lay_heart_planes(draw_body(rng).shape, rng)
    hosts = [network_plane(p, GRID.spacing_mm, SIDE, None) for p in laid["sax"]]
    right = [heat_of(h, laid["4ch"][0]) for h in hosts]

    def confidence(heats: list[Array]) -> float:
        found = find_plane([see(h, m, SIGMA) for h, m in zip(hosts, heats, strict=True)], SIGMA)
        return 0.0 if found is None else found.confidence

    perfect = confidence(right)
    some_bad = confidence([wrong_heat(SIDE, rng) if k % 3 == 0 else h for k, h in enumerate(right)])
    all_bad = confidence([wrong_heat(SIDE, rng) for _ in right])
    faint = confidence([0.3 * h for h in right])
    noise = confidence([0.1 * rng.standard_normal(h.shape) for h in right])
    assert perfect > 0.99
    assert perfect > some_bad > all_bad
    assert faint == pytest.approx(0.3, abs=0.02)
    assert noise < 0.1


def test_lines_that_do_not_determine_a_plane_give_none() -> None:
    study = toy_study(0)
    host = network_plane(study.views[0].planes[0], GRID.spacing_mm, SIDE, None)
    seen = see(host, heat_of(host, study.views[2].planes[0]), SIGMA)
    assert find_plane([], SIGMA) is None
    assert find_plane([seen], SIGMA) is None
    assert find_plane([seen, seen, seen], SIGMA) is None, "one line three times leaves the plane free to turn"
    black = see(host, np.zeros((SIDE, SIDE)), SIGMA)
    assert find_plane([black, black], SIGMA) is None


def test_errors_are_degrees_between_planes_and_mm_at_the_crossing_point() -> None:
    study = toy_study(3)
    plane = guests_of(study)["4ch"]
    centre = landmark(study)
    assert centre is not None
    assert np.allclose(reference_point(study), centre)
    turn = np.radians(5)
    normal = np.cos(turn) * plane.normal + np.sin(turn) * plane.x_direction
    degrees, mm = plane_errors(-normal, centre + 3 * normal, plane, centre)
    assert degrees == pytest.approx(5)
    assert mm == pytest.approx(3)
    # A point off the acquired plane is moved onto it first.
    assert plane_errors(plane.normal, plane.origin, plane, centre + 9 * plane.normal) == pytest.approx((0, 0), abs=1e-6)


# ---------------------------------------------------------------------------------------------
# From a study to planes


class Oracle(torch.nn.Module):
    """A network that knows the answer: the true planes' heatmaps on whatever slice it is shown."""

    factor = 16

    def __init__(self, truth: dict[str, Plane], settings: Crossings) -> None:
        super().__init__()
        self.truth, self.settings = truth, settings
        self.hosts: list[Plane] = []

    def forward(self, images: torch.Tensor, tasks: list[str]) -> dict[str, torch.Tensor]:
        now, self.hosts = self.hosts[: len(images)], self.hosts[len(images) :]
        assert now[0].size == (images.shape[3], images.shape[2])
        return {tasks[0]: torch.from_numpy(np.stack([self.heats(host) for host in now])).float()}

    def heats(self, host: Plane) -> Array:
        """Heatmaps ``(guests, P, P)``; garbage in the channels of guests that it does not know."""
        sigma = self.settings.sigma_mm
        peak = 1.0 if self.settings.peak == "one" else 10 / (sigma * np.sqrt(2 * np.pi))
        blank = np.ones((host.size[1], host.size[0]))
        known = self.truth
        return np.stack([peak * heat_of(host, known[g], sigma) if g in known else blank for g in self.settings.guests])


MakeOracle = Callable[[dict[str, Plane], Crossings], Oracle]


@pytest.fixture
def make_oracle(monkeypatch: pytest.MonkeyPatch) -> MakeOracle:
    """An oracle that is told which planes are cut for it."""

    def make(truth: dict[str, Plane], settings: Crossings) -> Oracle:
        oracle = Oracle(truth, settings)

        def cut(*arguments: Any) -> Plane:
            oracle.hosts.append(network_plane(*arguments))
            return oracle.hosts[-1]

        monkeypatch.setattr(planning, "network_plane", cut)
        return oracle

    return make


def card_of(settings: Crossings, roles: list[str]) -> Card:
    heads = {"pixel": {"crossings": len(settings.guests)}, "image": {}}
    network = plain(Network(widths=(4, 8, 8)))
    return Card("pretrained", network, heads, plain(GRID), "heart", roles, {"crossings": plain(settings)})


@pytest.mark.parametrize("settings", [Crossings(), Crossings(peak="area", sigma_mm=5.0, stack_guest="basal")])
def test_planes_of_a_study_are_found_and_compared(settings: Crossings, make_oracle: MakeOracle) -> None:
    study = toy_study(5, slices=7)
    truth = acquired_planes(study, settings.stack_guest)
    oracle = make_oracle(truth, settings)
    planes = predict_planes(oracle, card_of(settings, ["2ch", "4ch", "sax"]), study, torch.device("cpu"))  # type: ignore[arg-type]
    assert {p["role"] for p in planes} == {"sax", "2ch", "4ch"}
    for plane in planes:
        assert plane["error_deg"] < 0.2
        assert plane["error_mm"] < 0.2
        assert plane["confidence"] > 0.9
        acquired = truth[plane["role"]]
        assert abs(acquired.signed_distance(plane["point_mm"])) < 0.2
        assert np.array(plane["normal"]) @ acquired.normal > 0.99
    basal = min(study.views[0].planes, key=lambda p: float(p.centre @ np.array([0.7, -0.5, -0.5])))
    assert (truth["sax"] is basal) == (settings.stack_guest == "basal")


def test_a_network_of_squares_round_the_middle_of_images_looks_there(make_oracle: MakeOracle) -> None:
    study = off_centre(toy_study(5, slices=7))
    oracle = make_oracle(guests_of(study), Crossings())
    card = card_of(Crossings(), ["2ch", "4ch", "sax"])
    seen: list[Plane] = []
    oracle.register_forward_pre_hook(lambda _, arguments: seen.extend(oracle.hosts[: len(arguments[0])]))
    for centre in ("crossing", "image"):
        seen.clear()
        made = replace(card, grid={**card.grid, "spacing_mm": 1.5, "patch": 64, "centre": centre})
        planes = predict_planes(oracle, made, study, torch.device("cpu"))  # type: ignore[arg-type]
        assert max(p["error_mm"] for p in planes) < 0.5
        assert [plane.size[0] for plane in seen] == ([96] * 9 + [64] * 9 if centre == "crossing" else [64] * 9)
        # The middles of the short-axis images lie 31 mm from the crossing.
        away = [np.linalg.norm(a.centre - b.centre) for a, b in zip(seen[-9:-2], study.views[0].planes, strict=True)]
        assert np.allclose(away, np.hypot(25, 18) if centre == "crossing" else 0, atol=0.5)


def test_a_plane_that_was_not_acquired_is_proposed_and_has_no_error(make_oracle: MakeOracle) -> None:
    study = toy_study(6, slices=7)
    truth = guests_of(study)
    alone = Study("alone", Path("alone"), list(study.with_role("sax")), organ="heart")
    oracle = make_oracle(truth, Crossings())
    planes = predict_planes(oracle, card_of(Crossings(), ["2ch", "4ch", "sax"]), alone, torch.device("cpu"))  # type: ignore[arg-type]
    assert {p["role"] for p in planes} == {"2ch", "4ch"}
    for plane in planes:
        assert plane["error_deg"] is None
        assert plane["error_mm"] is None
        assert plane_errors(np.array(plane["normal"]), np.array(plane["point_mm"]), truth[plane["role"]], None)[0] < 0.2


def test_planes_meet_in_a_point_or_nearest_to_the_images() -> None:
    study, where = toy_study(7, slices=7), np.array([12.0, -30.0, 55.0])
    oblique = [np.array(n) / np.linalg.norm(n) for n in ([1.0, 0.2, 0.1], [0.1, 1.0, -0.4], [0.3, -0.2, 1.0])]
    planes = [FoundPlane(n, where + np.cross(n, [40.0, 3.0, 9.0]), 0.9, 7) for n in oblique]
    assert np.allclose(meeting_point(planes, study), where, atol=0.5)
    middle = np.mean([p.centre for v in study.views for p in v.planes], axis=0)
    alone = meeting_point(planes[:1], study)
    assert abs((alone - where) @ oblique[0]) < 0.5
    assert np.allclose(np.cross(alone - middle, oblique[0]), 0, atol=1e-6)


def test_hosts_can_be_limited_and_errors_collected(make_oracle: MakeOracle) -> None:
    study = toy_study(7, slices=7)
    oracle = make_oracle(guests_of(study), Crossings())
    card = card_of(Crossings(), ["2ch", "4ch", "sax"])
    errors = median_errors([plan_study(oracle, card, study, torch.device("cpu"), ("sax",))])  # type: ignore[arg-type]
    assert set(errors) == {"2ch", "4ch"}
    assert errors["2ch"]["studies"] == 1
    assert errors["2ch"]["median_deg"] < 0.2


def test_a_patient_who_moved_shows_as_an_error(make_oracle: MakeOracle) -> None:
    """The network sees the true plane; the header of the acquired one says something else."""
    study = toy_study(8, slices=7)
    truth = guests_of(study)
    four = next(study.with_role("4ch"))
    moved = four.planes[0]
    four.planes[0] = Plane(
        moved.origin + 8 * moved.normal, moved.x_direction, moved.y_direction, moved.spacing, moved.size
    )
    oracle = make_oracle(truth, Crossings())
    planes = predict_planes(oracle, card_of(Crossings(), ["2ch", "4ch", "sax"]), study, torch.device("cpu"), ("sax",))  # type: ignore[arg-type]
    errors = {p["role"]: p["error_mm"] for p in planes}
    assert errors["4ch"] == pytest.approx(8, abs=0.3)
    assert errors["2ch"] < 0.3


def test_a_view_of_another_frame_of_reference_is_left_out(make_oracle: MakeOracle) -> None:
    study = toy_study(8, slices=7)
    truth = guests_of(study)
    four = next(study.with_role("4ch"))
    far = four.planes[0]
    four.planes[0] = replace(far, origin=far.origin + np.array([300.0, 40.0, -90.0]))
    four.frame_of_reference = "1.2.3"
    for view in study.views:
        view.frame_of_reference = view.frame_of_reference or "1.2.4"
    oracle = make_oracle(truth, Crossings())
    planes = predict_planes(oracle, card_of(Crossings(), ["2ch", "4ch", "sax"]), study, torch.device("cpu"))  # type: ignore[arg-type]
    found = {p["role"]: p for p in planes}
    assert found["4ch"]["error_deg"] is None
    # Of its two hosts one is left, and one line does not determine a plane.
    assert "sax" not in found
    assert found["2ch"]["slices"] == 7
    assert found["2ch"]["error_deg"] < 0.2
    where = np.array(found["4ch"]["point_mm"])
    assert plane_errors(np.array(found["4ch"]["normal"]), where, truth["4ch"], None)[0] < 0.2


# ---------------------------------------------------------------------------------------------
# Doubts about the acquired planes


def doubts_of(oracle: Oracle, study: Study) -> dict[str, str | None]:
    card = card_of(Crossings(), ["2ch", "4ch", "sax"])
    planes = predict_planes(oracle, card, study, torch.device("cpu"))  # type: ignore[arg-type]
    assert {p["role"] for p in planes} == {"2ch", "4ch", "sax"}
    return {p["role"]: p["doubt"] for p in planes}


def move(study: Study, role: str, mm: float) -> None:
    """The headers of a view say that it was acquired so far along its normal."""
    view = next(study.with_role(role))
    view.planes[:] = [replace(p, origin=p.origin + mm * p.normal) for p in view.planes]


def test_a_right_study_raises_no_doubt(make_oracle: MakeOracle) -> None:
    study = toy_study(9, slices=7)
    oracle = make_oracle(guests_of(study), Crossings())
    move(study, "4ch", 9.0)
    assert set(doubts_of(oracle, study).values()) == {None}, "9 mm are within what hearts vary by"


def test_swapped_names_are_both_doubted(make_oracle: MakeOracle) -> None:
    study = toy_study(9, slices=7)
    oracle = make_oracle(guests_of(study), Crossings())
    two, four = next(study.with_role("2ch")), next(study.with_role("4ch"))
    two.role, four.role = "4ch", "2ch"
    assert doubts_of(oracle, study) == {
        "sax": None,
        "2ch": "lies as the 4ch would (0° from it, 90° from where the 2ch is seen); is the view named rightly?",
        "4ch": "lies as the 2ch would (0° from it, 90° from where the 4ch is seen); is the view named rightly?",
    }


def test_a_plane_that_is_turned_towards_no_other_raises_no_doubt() -> None:
    """An angle alone says nothing: the 3-chamber plane is often predicted far off."""
    acquired = guests_of(toy_study(9))["4ch"]

    def predicted(role: str, degrees: float, confidence: float) -> dict[str, Any]:
        turn = np.radians(degrees)
        normal = np.cos(turn) * acquired.normal - np.sin(turn) * acquired.x_direction
        agreed = {"slices_agreeing": 5, "slices": 9, "error_deg": degrees, "error_mm": 1.0}
        return {"role": role, "normal": normal.tolist(), "confidence": confidence, **agreed}

    def doubt(own: float, other: float, confidence: float = 0.8) -> str | None:
        planes = [predicted("4ch", own, confidence), predicted("2ch", other, confidence)]
        return planning.doubt(planes[0], planes, acquired, single=True)

    assert doubt(28, 60) is None
    assert doubt(28, 9) is None
    assert "2ch" in str(doubt(28, 7))
    assert "2ch" in str(doubt(40, 179)), "a plane has no front: 179° are 1°"
    assert doubt(40, 1, confidence=0.4) is None, "a network that is not sure accuses nobody"


@pytest.mark.parametrize("mm", [15.0, -15.0])
def test_a_moved_plane_is_doubted(make_oracle: MakeOracle, mm: float) -> None:
    study = toy_study(9, slices=7)
    oracle = make_oracle(guests_of(study), Crossings())
    move(study, "4ch", mm)
    moved = "lies 15 mm from where the other slices show it; the patient may have moved"
    assert doubts_of(oracle, study) == {"sax": None, "2ch": None, "4ch": moved}


def test_a_stack_that_was_laid_elsewhere_raises_no_doubt(make_oracle: MakeOracle) -> None:
    study = toy_study(9, slices=7)
    oracle = make_oracle(guests_of(study), Crossings())
    move(study, "sax", 20.0)
    assert set(doubts_of(oracle, study).values()) == {None}


def test_a_prediction_that_few_slices_agree_on_raises_no_doubt(make_oracle: MakeOracle) -> None:
    study = toy_study(9, slices=7)
    oracle = make_oracle(guests_of(study), Crossings())
    move(study, "4ch", 15.0)
    lit = next(study.with_role("sax")).planes[2:5]
    bright = oracle.heats

    def dim(host: Plane) -> Array:
        """The network sees something on three slices of the stack alone."""
        same = [abs(host.normal @ p.normal) > 0.99 and abs(host.signed_distance(p.centre)) < 1 for p in lit]
        return bright(host) * any(same)

    oracle.heats = dim  # type: ignore[method-assign]
    card = card_of(Crossings(), ["2ch", "4ch", "sax"])
    planes = predict_planes(oracle, card, study, torch.device("cpu"))  # type: ignore[arg-type]
    [four] = [p for p in planes if p["role"] == "4ch"]
    assert four["slices_agreeing"] == 3
    assert four["error_mm"] == pytest.approx(15, abs=0.5)
    assert four["doubt"] is None


def test_the_table_says_doubts_below_their_planes() -> None:
    plane = {"confidence": 0.9, "slices_agreeing": 5, "slices": 9, "error_deg": 3.0, "error_mm": 15.0}
    planes = [{"role": "2ch", "doubt": None, **plane}, {"role": "4ch", "doubt": "lies oddly", **plane}]
    rows = planning.table({"planes": planes, "not_found": []}).splitlines()
    assert [row.split()[0] for row in rows[1:]] == ["2ch", "4ch", "lies"]


# ---------------------------------------------------------------------------------------------
# The verb


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An untrained model with a head for crossings: its planes mean nothing, its document must be right."""
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    save_model(path, TaskUNet((4, 8, 8), {"crossings": 7}, {}), card_of(Crossings(), ["2ch", "4ch", "sax"]))
    return path


def test_the_verb_writes_the_documented_shape(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exam = write_toy_cohort(tmp_path / "cohort", 1) / "toy-000"
    assert main(["planes", "--model", str(model), str(exam), "--device", "cpu", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    for plane in document["planes"]:
        assert {"role", "point_mm", "normal", "confidence", "error_deg", "error_mm", "doubt"} <= set(plane)
        assert len(plane["point_mm"]) == len(plane["normal"]) == 3
        assert 0 <= plane["confidence"] <= 1
    roles = [p["role"] for p in document["planes"]] + [p["role"] for p in document["not_found"]]
    assert sorted(roles) == ["2ch", "4ch", "sax"]
    picture = tmp_path / "new" / "planes.png"
    narrowed = ["--device", "cpu", "--hosts", "sax", "--picture", str(picture)]
    assert main(["planes", "--model", str(model), str(exam), *narrowed]) == 0
    assert "confidence" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    (image,) = exam.glob("sax.*")
    before = image.read_bytes()
    assert main(["planes", "--model", str(model), str(exam), *narrowed[:-1], str(image)]) == 2
    assert "ends in .png" in capsys.readouterr().err
    assert image.read_bytes() == before, "an image of the exam is not lost for it"
    assert main(["planes", "--model", str(model), "--cohort", str(exam.parent), "--device", "cpu", "--json"]) == 0
    of_all = json.loads(capsys.readouterr().out)
    assert of_all["studies"] == [document]
    assert of_all["left_out"] == []
    errors = {p["role"]: p["error_deg"] for p in document["planes"] if p["error_deg"] is not None}
    assert {role: (e["studies"], e["median_deg"]) for role, e in of_all["roles"].items()} == {
        role: (1, error) for role, error in errors.items()
    }
    assert main(["planes", "--model", str(model), "--cohort", str(exam.parent), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert all(f"{role:<7}      1  {error:.1f}°" in told for role, error in errors.items())
    assert main(["planes", "--model", str(model), "--cohort", str(exam.parent), "--picture", str(picture)]) == 2
    assert main(["planes", "--model", str(model)]) == 2
    # A window asks for the same in a job's folder.
    tasks.run("planes", {"model": str(model), "input": str(exam), "device": "cpu"}, Reporter(tmp_path))
    assert json.loads((tmp_path / tasks.RESULT_FILE).read_text(encoding="utf-8")) == document


def test_a_rightly_predicted_plane_is_drawn_along_the_acquired_one(tmp_path: Path) -> None:
    exam = read_study(write_toy_cohort(tmp_path, 1) / "toy-000")
    right = [
        {"role": role, "point_mm": p.centre.tolist(), "normal": p.normal.tolist()}
        for role, p in acquired_planes(exam, "middle").items()
    ]
    figure = planning.planes_picture(exam, right)
    pairs = 0
    for axes in figure.axes:
        by_style = {
            style: {line.get_color(): line.get_xydata() for line in axes.lines if line.get_linestyle() == style}
            for style in ("-", "--")
        }
        assert set(by_style["-"]) == set(by_style["--"])
        for colour, ends in by_style["-"].items():
            start, stop = by_style["--"][colour]
            along = (stop - start) / np.linalg.norm(stop - start)
            off = (ends - start) @ np.array([-along[1], along[0]])
            np.testing.assert_allclose(off, 0, atol=1e-6)
            pairs += 1
    assert pairs > 3


def test_a_model_or_a_study_that_cannot_be_used_is_refused(model: Path, tmp_path: Path) -> None:
    exam = write_toy_cohort(tmp_path / "cohort", 1) / "toy-000"
    other = tmp_path / "other.safetensors"
    card = Card("pretrained", plain(Network(widths=(4, 8, 8))), {"pixel": {"positions": 10}, "image": {}}, plain(GRID))
    save_model(other, TaskUNet((4, 8, 8), {"positions": 10}, {}), card)
    with pytest.raises(ModelError, match="--pretext crossings"):
        plan(other, read_study(exam))
    assert main(["planes", "--model", str(other), str(exam)]) == 2
    assert main(["planes", "--model", str(model), str(exam), "--hosts", "cor"]) == 2


@pytest.mark.parametrize("seed", range(3))
def test_slopes_of_the_refinement_are_those_of_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, host = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    pixels = rng.uniform(-60, 60, (400, 2)) @ np.stack([x, y])
    band = Band(pixels, rng.random(400), host, 1.0)
    normal, point = rng.normal(size=3), rng.uniform(-5, 5, 3)
    normal /= np.linalg.norm(normal)
    axes = np.linalg.svd(normal[None])[2][1:] / 100

    def cost(unknown: Array) -> float:
        turned = normal + unknown[:2] @ axes
        return band.compare(turned / np.linalg.norm(turned), point + unknown[2] * normal, axes, 1.0, SIGMA)[0]

    slopes = band.compare(normal, point, axes, 1.0, SIGMA)[1]
    steps = 1e-3 * np.eye(3)
    assert slopes == pytest.approx([(cost(step) - cost(-step)) / 2e-3 for step in steps], rel=1e-4, abs=1e-4)
    assert np.abs(slopes).min() > 1e-3


def test_a_refined_plane_is_better_than_any_beside_it() -> None:
    study = toy_study(3)
    [guest] = next(v for v in study.views if v.role == "4ch").planes
    hosts = [p for v in study.views if v.role != "4ch" for p in v.planes]
    rng = np.random.default_rng(0)
    planes = [network_plane(p, 4.0, 48, None) for p in hosts]
    # Noise as strong as the ridges: least squares then converge slowly, and must not stop half-way.
    seen = [see(p, heat_of(p, guest) + rng.normal(0, 0.5, (48, 48)), SIGMA) for p in planes]
    weights = np.ones(len(seen))
    start = guest.normal + 0.05 * guest.x_direction
    normal, point = _refined(seen, weights, start / np.linalg.norm(start), guest.centre + 3 * guest.normal, SIGMA)
    again, moved = _refined(seen, weights, normal, point, SIGMA)
    assert np.degrees(np.linalg.norm(np.cross(normal, again))) < 0.02
    assert abs((moved - point) @ normal) < 0.02
    assert plane_errors(normal, point, guest, None)[0] < 3


def test_what_could_not_be_read_of_an_exam_is_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exam = write_toy_cohort(tmp_path / "cohort", 1) / "toy-000"
    (exam / "2ch.nii.gz").write_bytes((exam / "2ch.nii.gz").read_bytes()[:200])
    assert main(["planes", "--model", str(model), str(exam), "--device", "cpu"]) == 0
    assert "2ch.nii.gz" in capsys.readouterr().err


def test_planes_that_were_not_found_are_named_in_the_table_of_a_cohort() -> None:
    study = {"study": "heart-1", "planes": [], "not_found": [{"role": "2ch", "reason": "too few slices"}]}
    assert "heart-1: 2ch not found: too few slices" in planning.cohort_table({"studies": [study], "roles": {}})


def test_a_role_that_is_none_is_refused_by_its_name(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'banana'"):
        plan(model, read_study(write_toy_cohort(tmp_path / "cohort", 1) / "toy-000"), "cpu", ["sax", "banana"])
