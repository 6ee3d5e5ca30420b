"""Roles: on real exams, and on synthetic DICOM studies that are shuffled, misnamed and mixed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from exam_maker import heart_layout
from exam_maker import knee_layout
from exam_maker import plane
from exam_maker import tilted
from exam_maker import write_series
from SSLEngine.geometry import Plane
from SSLEngine.studies import StudyError
from SSLEngine.studies import View
from SSLEngine.studies import mirrored
from SSLEngine.studies import read_study
from SSLEngine.studies.heart_roles import Candidate
from SSLEngine.studies.heart_roles import assign_heart_roles
from SSLEngine.studies.knee_roles import find_side
from SSLEngine.studies.roles import roles_in_name
from SSLEngine.studies.study import Study

LEFT = ("2ch", "3ch", "4ch")
RIGHT = ("rv2ch", "rvot")
TRUE_ROLES = {
    "lax_2ch_ED": "2ch",
    "lax_2ch_cine": "2ch",
    "lax_3ch_named4CH_ED": "3ch",
    "lax_4ch_ED": "4ch",
    "lax_4ch_cine": "4ch",
    "lax_rv2ch_named2CH_ED": "rv2ch",
    "rvot_ED": "rvot",
    "sax_ED": "sax",
    "sax_cine": "sax",
}


def test_named_real_exam_has_right_roles_and_two_doubts(shared_data: Path) -> None:
    study = read_study(shared_data / "heart-multiview", labels_suffix="_pseudolabel")
    assert {v.name: v.role for v in study.views} == TRUE_ROLES
    doubtful = {v.name for v in study.views if v.doubt}
    assert doubtful == {"lax_3ch_named4CH_ED", "lax_rv2ch_named2CH_ED"}
    assert {i.where for i in study.irregularities} == doubtful
    assert all(v.reason for v in study.views)


def test_nameless_real_exam_has_right_roles(shared_data: Path, tmp_path: Path) -> None:
    names = sorted(n for n in TRUE_ROLES if n.endswith("_ED"))
    for letter, name in zip("dbfaec", names, strict=True):
        shutil.copy(shared_data / "heart-multiview" / f"{name}.nii.gz", tmp_path / f"{letter}.nii.gz")
    study = read_study(tmp_path)
    truth = dict(zip("dbfaec", (TRUE_ROLES[n] for n in names), strict=True))
    assert {v.name: v.role for v in study.views} == truth
    assert study.organ == "heart"
    assert not [v.name for v in study.views if v.doubt]


def test_unplaced_stack_gets_its_role_from_its_name(shared_data: Path) -> None:
    study = read_study(shared_data / "heart-stacks" / "SC-N-02")
    assert {v.role for v in study.views} == {"sax"}
    assert "name" in study.views[0].reason
    assert "position" in study.views[0].attributes


# ---------------------------------------------------------------------------------------------
# Acceptance: 200 synthetic DICOM studies


def _write_mixed_exam(folder: Path, seed: int) -> dict[str, str]:
    """Series in one folder, under names that are right, wrong or nothing; returns series UID to true role."""
    rng = np.random.default_rng(seed)
    layout = heart_layout(rng, right_ventricle=bool(rng.random() < 0.6))
    roles = list(layout)
    names = rng.permutation(roles).tolist() if rng.random() < 0.7 else [""] * len(roles)
    truth = {}
    for number, (role, name) in enumerate(zip(roles, names, strict=True)):
        uid = f"1.2.3.{seed + 1}.{number + 1}"
        truth[uid] = role
        phases = 2 if role != "sax" and rng.random() < 0.3 else 1
        common = {"SeriesDescription": f"cine {name}".strip(), "SeriesNumber": int(rng.integers(1, 99))}
        write_series(folder, layout[role], phases=phases, shuffle=rng, SeriesInstanceUID=uid, **common)
    return truth


def test_synthetic_dicom_studies_have_right_roles(tmp_path: Path) -> None:
    """SAX and 4CH are found, and the LV's long-axis views told from the RV's, in 200 shuffled, misnamed exams."""
    wrong = []
    for seed in range(200):
        folder = tmp_path / str(seed)
        truth = _write_mixed_exam(folder, seed)
        study = read_study(folder)
        assert len(study.views) == len(truth)
        for view in study.views:
            role = truth[view.attributes["series_uid"]]
            strict = role in ("sax", "4ch") or view.role in ("sax", "4ch")
            if (
                (strict and view.role != role)
                or (role in LEFT and view.role not in LEFT)
                or (role in RIGHT and view.role in LEFT)
            ):
                wrong.append((seed, role, view.role, view.doubt))
        shutil.rmtree(folder)
    assert not wrong, wrong


def test_misnamed_series_are_doubtful(tmp_path: Path) -> None:
    layout = heart_layout(np.random.default_rng(5))
    for role, name in {"sax": "cine sax", "2ch": "cine 4ch", "4ch": "cine 2ch", "3ch": "cine 3ch"}.items():
        write_series(tmp_path, layout[role], SeriesDescription=name)
    study = read_study(tmp_path)
    assert {v.name: v.role for v in study.views} == {
        "cine sax": "sax",
        "cine 4ch": "2ch",
        "cine 2ch": "4ch",
        "cine 3ch": "3ch",
    }
    assert {v.name for v in study.views if v.doubt} == {"cine 4ch", "cine 2ch"}
    assert "the geometry was believed" in next(v.doubt for v in study.views if v.name == "cine 4ch")


@pytest.mark.parametrize("part", [("2ch", "3ch", "4ch"), ("2ch", "4ch"), ("3ch", "4ch"), ("2ch", "3ch")])
def test_subsets_of_left_views(part: tuple[str, ...]) -> None:
    """With short-axis slices and two or three LV views, hardly any role is wrong without being in doubt.

    Not none: a heart turned by 50 degrees shows 2CH and 3CH where others have 4CH and 2CH.
    """
    wrong = 0
    for seed in range(150):
        layout = heart_layout(np.random.default_rng([178, seed]), right_ventricle=False)
        candidates = {role: Candidate(layout[role]) for role in ("sax", *part)}
        assign_heart_roles(list(candidates.values()))
        wrong += any(c.role != role and c.margin >= 1.0 for role, c in candidates.items())
    assert wrong <= 3


def test_order_and_handedness_do_not_matter() -> None:
    layout = heart_layout(np.random.default_rng(11))
    turned = {
        role: [Plane(p.origin, p.y_direction, p.x_direction, p.spacing, p.size) for p in planes][::-1]
        for role, planes in layout.items()
    }
    for planes in (layout, dict(reversed(layout.items())), turned):
        candidates = {role: Candidate(stack) for role, stack in planes.items()}
        assign_heart_roles(list(candidates.values()))
        assert {role: c.role for role, c in candidates.items()} == {role: role for role in layout}


def test_scout_planes_are_no_views() -> None:
    layout = heart_layout(np.random.default_rng(2))
    scouts = [plane(axis, (20, -10, 0)) for axis in ((1, 0, 0), (0, 1e-9, 1), (0, 1, 0))]
    candidates = [Candidate(stack) for stack in layout.values()] + [Candidate([s]) for s in scouts]
    assign_heart_roles(candidates)
    assert [c.role for c in candidates[-3:]] == ["unknown"] * 3
    assert "scout" in candidates[-1].reason


def test_stack_with_lost_orientation_gets_its_role_from_its_name(tmp_path: Path) -> None:
    write_series(
        tmp_path, [plane((0, 0, 1), (5, 5, 8.0 * k), down=(0, 1, 0)) for k in range(6)], SeriesDescription="sax"
    )
    view = read_study(tmp_path).views[0]
    assert view.role == "sax"
    assert "orientation seems to be lost" in view.doubt


# ---------------------------------------------------------------------------------------------
# Knee


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), side=st.sampled_from(["left", "right"]))
def test_oblique_knee(seed: int, side: str) -> None:
    layout = knee_layout(np.random.default_rng(seed), side)
    study = _knee_study(layout)
    assert {v.name: v.role for v in study.views} == {"a": "sag", "b": "cor", "c": "ax"}
    assert study.organ == "knee"
    assert study.side == side


def _knee_study(layout: dict[str, list[Plane]], **attributes: str) -> Study:
    from SSLEngine.studies.roles import assign_roles

    views = [
        View(name, Path(name), planes, 1, lambda _: np.zeros((1, 1, 1), np.float32), attributes=attributes)
        for name, planes in zip("abc", layout.values(), strict=True)
    ]
    study = Study("knee", Path("knee"), views)
    assign_roles(study)
    return study


def test_laterality_tag_beats_position() -> None:
    study = _knee_study(knee_layout(np.random.default_rng(0), "left"), laterality="R")
    assert study.side == "right"


@pytest.mark.parametrize(
    ("name", "side"),
    [("PD sag L", "left"), ("knee_RT", "right"), ("r2 map", None), ("left and right", None), ("dess", None)],
)
def test_side_from_names(name: str, side: str | None) -> None:
    middle = [plane((1, 0, 0), (0, 0, 0))]
    views = [View(name, Path(name), middle, 1, lambda _: np.zeros((1, 1, 1), np.float32))]
    assert find_side(views)[0] == side


def test_side_from_where_placed_views_alone_lie() -> None:
    def view(x: float, **attributes: str) -> View:
        planes = [plane((1, 0, 0), (x, 0, 0))]
        return View("a", Path("a"), planes, 1, lambda _: np.zeros((1, 1, 1), np.float32), attributes=attributes)

    # The numbers of a header that says nothing mean nothing.
    nowhere = view(80.0, position="not in the header")
    assert find_side([nowhere]) == (None, "no laterality in the header, and no image says where it lies")
    assert find_side([nowhere, nowhere, view(-80.0)])[0] == "right"


def test_mirrored_knee_changes_side_and_keeps_pixels() -> None:
    study = _knee_study(knee_layout(np.random.default_rng(3), "left"))
    other = mirrored(study)
    assert other.side == "right"
    assert {v.role for v in other.views} == {"sag", "cor", "ax"}
    for a, b in zip(study.views, other.views, strict=True):
        np.testing.assert_allclose(b.planes[0].corners, a.planes[0].corners * [-1, 1, 1], atol=1e-9)
        assert a.read_pixels is b.read_pixels
    again = mirrored(other)
    np.testing.assert_allclose(again.views[0].planes[3].origin, study.views[0].planes[3].origin)


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("cine_lax_4ch", ["4ch"]),
        ("lax_3ch_named4CH_ED", ["4ch", "3ch"]),
        ("RV_2ch", ["rv2ch"]),
        ("LVOT", ["3ch"]),
        ("RVOT", ["rvot"]),
        ("Cine SA", ["sax"]),
        ("short axis stack", ["sax"]),
        ("4 chamber", ["4ch"]),
        ("PD sag fs", ["sag"]),
        ("t2_tra", ["ax"]),
        ("lax", []),
        ("sagittarius", []),
        ("24ch", []),
        ("max", []),
    ],
)
def test_names(name: str, roles: list[str]) -> None:
    assert roles_in_name(name) == roles


def test_unknown_organ_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, heart_layout(np.random.default_rng(1))["sax"])
    with pytest.raises(StudyError, match="heart or knee"):
        read_study(tmp_path, organ="liver")


def test_name_decides_only_where_geometry_hardly_does() -> None:
    rng = np.random.default_rng(4)
    layout = heart_layout(rng, right_ventricle=False)
    wrongly = [Candidate(p, frozenset({"2ch"} if r == "4ch" else {r})) for r, p in layout.items()]
    assign_heart_roles(wrongly)
    assert [c.role for c in wrongly] == list(layout)
    assert tilted((0, 0, 1), 1, rng).shape == (3,)
