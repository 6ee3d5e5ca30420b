"""Shared fixtures. Real images lie beside the project and are never needed: tests that use them skip."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"real images are not here: {SHARED}")
    return SHARED
