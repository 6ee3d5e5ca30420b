"""Settings: what is wrong is named, and nothing unknown slips through."""

from __future__ import annotations

import re
from typing import Any

import pytest

from SSLEngine.geometry import MIN_LINE_ANGLE_DEG
from SSLEngine.geometry import MIN_PLANE_ANGLE_DEG
from SSLEngine.settings import KINDS
from SSLEngine.settings import Finetune
from SSLEngine.settings import LabelStudy
from SSLEngine.settings import Pretrain
from SSLEngine.settings import SettingsError
from SSLEngine.settings import parse
from SSLEngine.settings import plain

DATA = {"data": {"path": "exams"}}


def test_settings_survive_the_way_through_json() -> None:
    made = parse({**DATA, "pretext": ["positions"], "network": {"widths": [8, 16, 32]}, "seed": 4}, Pretrain)
    assert made.network.widths == (8, 16, 32)
    assert made.schedule.batch == 8
    assert parse(plain(made), Pretrain) == made
    study = parse({"finetune": DATA, "counts": [1, 2], "seeds": 2}, LabelStudy)
    assert parse(plain(study), LabelStudy) == study
    assert set(KINDS) == {"pretrain", "finetune", "study-labels"}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"data": {}}, "path"),
        ({"data": {"path": 5}}, "data.path"),
        ({"schedule": {"rate": 0}}, "schedule.rate"),
        ({"schedule": {"rate": "fast"}}, "schedule.rate"),
        ({"schedule": {"rate": float("nan")}}, "schedule.rate"),
        ({"schedule": {"batch": 0}}, "schedule.batch"),
        ({"schedule": {"average": 1}}, "schedule.average"),
        ({"schedule": {"step": 5}}, "step"),
        ({"grid": {"patch": 40}}, "grid.patch"),
        ({"grid": {"patch": 16}}, "grid.patch"),
        ({"grid": {"spacing_mm": -1}}, "grid.spacing_mm"),
        ({"grid": {"clip_percent": [1, 2, 3]}}, "grid.clip_percent"),
        ({"grid": {"clip_percent": [1, 101]}}, "grid.clip_percent"),
        ({"grid": {"clip_percent": [99, 1]}}, "clip_percent"),
        ({"network": {"widths": [4, 8]}}, "network.widths"),
        ({"network": {"widths": [4, 8, 0]}}, "network.widths"),
        ({"network": {"kind": "transformer"}}, "network.kind"),
        ({"pretext": []}, "pretext"),
        ({"pretext": ["No Name"]}, "pretext"),
        ({"grid": {"phases": -1}}, "grid.phases"),
        ({"grid": {"phases": 1.5}}, "grid.phases"),
        ({"grid": {"phases": "es"}}, "grid.phases"),
        ({"grid": {"centre": "heart"}}, "grid.centre"),
        ({"left_out": {"basal": -1}}, "left_out.basal"),
        ({"left_out": {"middle": 1}}, "middle"),
        ({"positions": {"layout": "ring"}}, "positions.layout"),
        ({"positions": {"min_angle_deg": 0}}, "positions.min_angle_deg"),
        ({"positions": {"min_line_angle_deg": 90}}, "positions.min_line_angle_deg"),
        ({"augmentation": {"scale": 0.5}}, "augmentation.scale"),
        ({"augmentations": {}}, "augmentations"),
    ],
)
def test_a_wrong_field_is_named_in_one_sentence(change: dict[str, Any], word: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse({**DATA, **change}, Pretrain)
    sentence = str(caught.value)
    assert word in sentence
    assert sentence.startswith("Settings for pretrain cannot be used: ")
    assert sentence.count("(") == sentence.count(")")
    assert sentence.count("`") % 2 == 0
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network": {"kind": "vit"}}, "'vit'; choose from: mask-rcnn, unet (field `network.kind`)"),
        ({"distortions": {"types": ["blur", "wave"]}}, "noise, shuffling, swap (field `distortions.types[1]`)"),
        ({"grid": {"phases": "es"}}, "'es'; choose from: ed-es (field `grid.phases`)"),
    ],
)
def test_what_a_field_takes_is_said(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        parse({**DATA, **change}, Pretrain)


def test_a_job_that_does_not_know_the_newer_settings_runs_as_it_did() -> None:
    old = {"spacing_mm": 1.75, "patch": 144, "clip_percent": [1.0, 99.0], "phases": 2}
    positions = {"layout": "cross", "step_mm": 30.0, "half_size_mm": 8.0, "background_weight": 0.1, "dice": 1.0}
    made = parse({**DATA, "grid": old, "positions": positions}, Pretrain)
    assert made == parse(DATA, Pretrain)
    assert (made.grid.centre, made.left_out.basal, made.left_out.apical) == ("crossing", 0, 0)
    assert made.positions.min_angle_deg == made.crossings.min_angle_deg == MIN_PLANE_ANGLE_DEG
    assert made.positions.min_line_angle_deg == MIN_LINE_ANGLE_DEG
    assert parse({**DATA, "grid": {"phases": "ed-es"}}, Pretrain).grid.phases == "ed-es"


@pytest.mark.parametrize(
    "change",
    [{"transfer": "half"}, {"labelled": -1}, {"init": 3}, {"label_names": {"1": 2}}, {"label_names": {"LV": "LV"}}],
)
def test_fine_tuning_is_as_strict(change: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(change))):
        parse({**DATA, **change}, Finetune)
