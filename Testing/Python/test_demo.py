"""The demo with everything small: what it leaves behind, and that it refuses to delete what is not its own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import SimpleITK as sitk

from SSLEngine.demo import Plan
from SSLEngine.demo import run_demo
from SSLEngine.jobs import JobError

TINY = Plan(6, 1, 2, ("positions",), 6, 6, {"spacing_mm": 5.0, "patch": 64})


def test_refuses_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(JobError, match="not made by the demo"):
        run_demo("heart", tmp_path, 0, TINY)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_leaves_report_metrics_and_segmentation(tmp_path: Path) -> None:
    report = run_demo("heart", tmp_path / "demo", 0, TINY)
    page = report.read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 6
    assert not re.search(r"https?://|<script", page), "the page must need no network and run nothing"
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert set(metrics["mean_dice"]) == {"pretrained", "scratch"}
    assert metrics["gain"] == pytest.approx(metrics["mean_dice"]["pretrained"] - metrics["mean_dice"]["scratch"])
    segmentation = sitk.ReadImage(str(tmp_path / "demo" / "segmentation.seg.nrrd"))
    image = sitk.ReadImage(str(tmp_path / "demo" / "unseen" / "heart-0001" / "sax.nii.gz"))
    assert segmentation.GetSize() == image.GetSize()[:3]
    assert segmentation.GetOrigin() == pytest.approx(image.GetOrigin()[:3], abs=1e-3)
    assert segmentation.GetMetaData("Segment0_Name") == "LV cavity"
    assert "87878005" in segmentation.GetMetaData("Segment0_Tags")
