"""Plain-torch ``nms`` and ``roi_align`` against their definitions, and against torchvision's own where those load."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch

from conftest import engine_environment
from SSLEngine.networks import torchvision_ops
from SSLEngine.networks.torchvision_ops import load_torchvision
from SSLEngine.networks.torchvision_ops import nms
from SSLEngine.networks.torchvision_ops import roi_align

pytest.importorskip("PIL", reason="torchvision needs Pillow")
try:
    TORCHVISION = load_torchvision()
except ModuleNotFoundError as error:
    pytest.skip(str(error), allow_module_level=True)

own_operators = pytest.mark.skipif(
    not TORCHVISION.extension._has_ops(), reason="this torchvision's own operators do not load with this torch"
)


def random_boxes(count: int, size: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    sides = torch.rand(count, 2, generator=generator) * size / 2 + 0.5
    centres = torch.rand(count, 2, generator=generator) * size
    return torch.cat((centres - sides / 2, centres + sides / 2), 1)


def random_rois(count: int, batch: int, size: float, seed: int) -> torch.Tensor:
    owners = torch.randint(batch, (count, 1), generator=torch.Generator().manual_seed(seed + 1))
    return torch.cat((owners, random_boxes(count, size, seed)), 1)


# ---------------------------------------------------------------------------------------------
# The definitions, written down with loops


def greedy(boxes: list[list[float]], scores: list[float], threshold: float) -> list[int]:
    def area(box: list[float]) -> float:
        return (box[2] - box[0]) * (box[3] - box[1])

    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        for k in kept:
            wide = min(boxes[i][2], boxes[k][2]) - max(boxes[i][0], boxes[k][0])
            high = min(boxes[i][3], boxes[k][3]) - max(boxes[i][1], boxes[k][1])
            shared = max(wide, 0) * max(high, 0)
            if shared / (area(boxes[i]) + area(boxes[k]) - shared) > threshold:
                break
        else:
            kept.append(i)
    return kept


def bilinear(image: torch.Tensor, y: float, x: float) -> torch.Tensor:
    """``image`` (C, H, W) at a point; zero beyond one pixel outside, the border's value up to there."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros(len(image), dtype=image.dtype)
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    total = torch.zeros(len(image), dtype=image.dtype)
    for row in range(height):
        for column in range(width):
            total += max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column)) * image[:, row, column]
    return total


def aligned_by_loops(
    features: torch.Tensor, rois: torch.Tensor, scale: float, rows: int, columns: int, ratio: int, aligned: bool
) -> torch.Tensor:
    result = torch.zeros(len(rois), features.shape[1], rows, columns, dtype=features.dtype)
    for k, (owner, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (value * scale - (0.5 if aligned else 0) for value in box)
        wide, high = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1), max(y2 - y1, 1))
        down = ratio if ratio > 0 else -int(-high / rows // 1)
        right = ratio if ratio > 0 else -int(-wide / columns // 1)
        for row in range(rows):
            for column in range(columns):
                for i in range(down):
                    for j in range(right):
                        y = y1 + (row + (i + 0.5) / down) * high / rows
                        x = x1 + (column + (j + 0.5) / right) * wide / columns
                        result[k, :, row, column] += bilinear(features[int(owner)], y, x) / (down * right)
    return result


# ---------------------------------------------------------------------------------------------
# Non-maximum suppression


@pytest.mark.parametrize(("count", "size"), [(0, 10), (1, 10), (40, 10), (300, 40)])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_nms_is_the_greedy_rule(count: int, size: float, threshold: float) -> None:
    boxes = random_boxes(count, size, count).double()
    scores = torch.rand(count, generator=torch.Generator().manual_seed(count)).double()
    assert nms(boxes, scores, threshold).tolist() == greedy(boxes.tolist(), scores.tolist(), threshold)


def test_nms_takes_the_earlier_of_equal_scores_and_of_equal_boxes() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [10, 10, 12, 12], [0, 0, 4, 4]])
    scores = torch.tensor([0.5, 0.5, 0.5, 0.9])
    assert nms(boxes, scores, 0.5).tolist() == [3, 2]
    assert nms(boxes[:3], scores[:3], 0.5).tolist() == [0, 2]


def test_nms_keeps_at_exactly_the_threshold() -> None:
    # They share 1 of 2 units of area each: intersection over union 1/3.
    boxes = torch.tensor([[0.0, 0, 2, 1], [1, 0, 3, 1]], dtype=torch.float64)
    scores = torch.tensor([1.0, 0.5], dtype=torch.float64)
    assert len(nms(boxes, scores, 1 / 3)) == 2
    assert len(nms(boxes, scores, 1 / 3 - 1e-9)) == 1


def test_nms_of_a_chain_that_settles_slowly() -> None:
    # Each box beats the next one alone: every other box stays.
    starts = torch.arange(200.0)
    boxes = torch.stack((starts, 0 * starts, starts + 1.9, 0 * starts + 1), 1)
    assert nms(boxes, -starts, 0.3).tolist() == list(range(0, 200, 2))


def test_nms_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores = random_boxes(500, 40, 5), torch.rand(500, generator=torch.Generator().manual_seed(5))
    whole = nms(boxes, scores, 0.4)
    monkeypatch.setattr(torchvision_ops, "NMS_BLOCK", 37)
    assert torch.equal(nms(boxes, scores, 0.4), whole)


# ---------------------------------------------------------------------------------------------
# RoIAlign

CASES = [
    # scale, rows, columns, samples, aligned
    (1.0, 3, 3, 2, False),
    (0.5, 2, 4, 1, True),
    (0.25, 3, 2, 3, False),
    (1.0, 2, 3, 0, False),
    (0.7, 3, 2, -1, True),
]


@pytest.mark.parametrize("case", CASES)
def test_roi_align_is_its_definition(case: tuple[float, int, int, int, bool]) -> None:
    features = torch.randn(2, 3, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    # Regions that lie inside, reach over the border, and lie outside altogether.
    rois = torch.cat((random_rois(9, 2, 9 / case[0], 2), torch.tensor([[1, -60.0, -60, -50, -50]]))).double()
    torch.testing.assert_close(roi_align(features, rois, *case), aligned_by_loops(features, rois, *case))


def test_roi_align_of_a_ramp_is_the_place_of_the_bin() -> None:
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")
    box = torch.tensor([[0, 10.0, 4.0, 22.0, 12.0]])
    found = roi_align(torch.stack((columns, rows))[None], box, 1.0, 4, 6, 2, True)[0]
    # Bins are 2 px wide; with aligned pixels, x = 10 is 9.5 in indices of pixel centres.
    torch.testing.assert_close(found[0, 0], torch.arange(6) * 2 + 10.5)
    torch.testing.assert_close(found[1, :, 0], torch.arange(4) * 2 + 4.5)


@pytest.mark.parametrize("case", CASES)
def test_roi_align_gradient(case: tuple[float, int, int, int, bool]) -> None:
    features = torch.randn(2, 2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    rois = random_rois(4, 2, 6 / case[0], 4).double()
    assert torch.autograd.gradcheck(lambda x: roi_align(x, rois, *case), features.requires_grad_(True))


def test_roi_align_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    features, rois = torch.randn(3, 4, 16, 16), random_rois(20, 3, 16, 6)
    whole = roi_align(features, rois, 1.0, 5, 5, 0, False)
    monkeypatch.setattr(torchvision_ops, "ALIGN_ENTRIES", 500)
    torch.testing.assert_close(roi_align(features, rois, 1.0, 5, 5, 0, False), whole)


def test_no_regions_give_no_bins_and_a_zero_gradient() -> None:
    features = torch.randn(2, 3, 8, 8, requires_grad=True)
    bins = roi_align(features, torch.zeros(0, 5), 1.0, 4, 4, 2, False)
    assert bins.shape == (0, 3, 4, 4)
    bins.sum().backward()
    assert features.grad is not None
    assert not features.grad.any()


def test_autocast_computes_in_full_precision_and_gives_the_type_of_the_features() -> None:
    features, rois = torch.randn(1, 3, 8, 8).bfloat16(), random_rois(5, 1, 8, 7)
    with torch.autocast("cpu", torch.bfloat16):
        found = TORCHVISION.ops.roi_align(features, rois, (3, 3), sampling_ratio=2)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, roi_align(features.float(), rois, 1.0, 3, 3, 2, False).bfloat16())


# ---------------------------------------------------------------------------------------------
# Inside torchvision


def test_torchvision_calls_them() -> None:
    ops = TORCHVISION.ops
    features, rois = torch.randn(2, 3, 16, 16), random_rois(8, 2, 60, 8)
    torch.testing.assert_close(
        ops.roi_align(features, rois, (3, 3), 0.25, 2), roi_align(features, rois, 0.25, 3, 3, 2, False)
    )
    boxes, scores = random_boxes(60, 20, 9), torch.rand(60)
    assert torch.equal(ops.nms(boxes, scores, 0.4), nms(boxes, scores, 0.4))
    assert load_torchvision() is TORCHVISION


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        check=False,
        capture_output=True,
        text=True,
        env=engine_environment(),
    )


def test_torchvision_loads_after_somebody_elses_import_has_failed() -> None:
    done = run_python("""
        import contextlib, torch
        with contextlib.suppress(RuntimeError):
            import torchvision
        from SSLEngine.networks.torchvision_ops import load_torchvision
        import sys
        load_torchvision()
        from torchvision.ops import nms
        print(nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1.0]), 0.5).tolist())
    """)
    assert done.stdout.strip() == "[0]", done.stderr


def test_without_torchvision_one_sentence_says_what_to_install() -> None:
    done = run_python("""
        import sys
        sys.modules["torchvision"] = None
        from SSLEngine.networks.torchvision_ops import load_torchvision
        try:
            load_torchvision()
        except ModuleNotFoundError as error:
            print(error)
    """)
    assert "pip install" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1


def test_importing_the_engine_does_not_import_torchvision() -> None:
    done = run_python(
        "import sys, SSLEngine.networks.mask_rcnn; print([n for n in sys.modules if n.startswith('torchvision')])"
    )
    assert done.stdout.strip() == "[]", done.stderr


# ---------------------------------------------------------------------------------------------
# torchvision's own operators, where they load


@own_operators
@pytest.mark.parametrize("seed", range(20))
def test_nms_has_the_indices_of_the_own_operator(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(400, 60, seed).round(decimals=seed % 3)
    scores = torch.rand(400, generator=generator).round(decimals=1 + seed % 3)
    for threshold in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert torch.equal(nms(boxes, scores, threshold), torch.ops.torchvision.nms(boxes, scores, threshold))


@own_operators
@pytest.mark.parametrize("case", [*CASES, (0.25, 7, 7, 2, False), (0.25, 14, 14, 2, False), (1.0, 28, 28, -1, False)])
def test_roi_align_has_the_values_of_the_own_operator(case: tuple[float, int, int, int, bool]) -> None:
    features = torch.randn(3, 4, 40, 36, generator=torch.Generator().manual_seed(11))
    rois = random_rois(60, 3, 40 / case[0], 12)
    found, gradients = [], []
    for operator in (roi_align, torch.ops.torchvision.roi_align):
        own = features.clone().requires_grad_(True)
        found.append(operator(own, rois, *case))
        found[-1].square().sum().backward()
        gradients.append(own.grad)
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-5)
