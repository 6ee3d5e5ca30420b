"""The README's examples are run, so that they stay true."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Makes the commands small: few steps of a small network on a coarse grid.
SMALL = shlex.split("--steps 3 --set grid.spacing_mm=6 --set grid.patch=32 --set network.widths=[4,8,16]")


def block(language: str) -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- tested:[^>]*-->\n```{language}\n(.*?)```", text, re.DOTALL)
    assert found, f"the README has no tested {language} block"
    return found[1]


def test_python_example(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block("python"), "README.md", "exec"), {})
    assert re.search(r"over \d{2,3} mm", capsys.readouterr().out)


def test_command_line_example(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "SSLPretrain"), "OMP_NUM_THREADS": "1"}
    lines = block("sh").strip().splitlines()
    assert [shlex.split(line)[1] for line in lines] == [
        "phantom",
        "inspect",
        "pretrain",
        "finetune",
        "segment",
        "evaluate",
        "segment",
        "evaluate",
    ]
    for line in lines:
        program, verb, *options = shlex.split(line)
        assert program == "sslengine"
        if verb in ("pretrain", "finetune"):
            options += SMALL if verb == "pretrain" else SMALL[:2]
        command = [sys.executable, "-m", "SSLEngine", verb, *options]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "result.seg.nrrd").is_file()
    assert "Dice" in done.stdout
