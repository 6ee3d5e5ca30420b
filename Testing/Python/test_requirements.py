"""What is installed meets a requirement or not, as pip understands it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

from panel_window import ROOT
from panel_window import Window


def package(folder: Path, name: str, version: str, *needs: str) -> None:
    """Makes a package's metadata, as pip leaves them."""
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    lines = [f"Requires-Dist: {need}" for need in needs]
    text = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines])
    (place / "METADATA").write_text(text + "\n", encoding="utf-8")


@pytest.fixture
def site(window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that the interpreter looks into."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("where", ["packaging", "pip"])
@pytest.mark.parametrize(
    ("version", "line", "meets"),
    [
        ("2.13.0+cpu", "aa==2.13.0", True),
        ("2.13.0+cpu", "aa==2.13.0+cu130", False),
        ("2.13.0", "aa>=2.8", True),
        ("2.9.1", "aa>=2.10", False),
        ("2.10", "aa>=2.9,<3,!=2.10.0", False),
        ("2.7.1", "AA >= 2.8", False),
        ("2.9.0.dev20250801+cpu", "aa>=2.8", True),
        ("2.8.0rc1", "aa>=2.8", False),
        ("1.4.5", "aa~=1.4.2", True),
        ("1.5", "aa~=1.4.2", False),
        ("1.0", "aa", True),
        ("1.0", "absent-package", False),
        ("1.0", 'absent-package; python_version < "3"', True),
        ("1.0", 'aa>=2; python_version >= "3"', False),
        ("unknown", "aa>=1", False),
    ],
)
def test_versions(
    site: Path, monkeypatch: pytest.MonkeyPatch, where: str, version: str, line: str, meets: bool
) -> None:
    from SSLPanels import requirements

    if where == "pip":
        # As where the one that stands by itself is missing when the module is loaded.
        pytest.importorskip("pip._vendor.packaging")
        path = requirements.__file__
        assert path is not None
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "packaging.requirements", None)
            satisfied = runpy.run_path(path)["satisfied"]
        assert satisfied.__globals__["Requirement"].__module__.startswith("pip.")
    else:
        satisfied = requirements.satisfied
    package(site, "aa", version)
    assert satisfied(line) is meets


def test_extras_ask_for_what_the_package_names_under_them(site: Path) -> None:
    from SSLPanels import requirements

    package(
        site,
        "aa",
        "1.0",
        "never-asked-for",
        'bb>=2; extra == "fast"',
        'cc; extra == "pictures" and python_version >= "3"',
        'dd; extra == "pictures" and python_version < "3"',
    )
    package(site, "bb", "1.9")
    assert requirements.satisfied("aa>=1")
    assert not requirements.satisfied("aa[fast]>=1"), "bb is too old"
    assert not requirements.satisfied("aa[pictures]"), "cc is not there"
    package(site, "cc", "1")
    assert requirements.satisfied("aa[pictures]")
    assert not requirements.satisfied("aa[fast,pictures]")


def test_a_version_that_is_too_old_is_missing(site: Path, tmp_path: Path) -> None:
    from SSLPanels import requirements

    package(site, "aa", "1.3")
    package(site, "torch", "2.13.0+cpu")
    file = tmp_path / "requirements.txt"
    file.write_text("# why\n\naa>=1.4  # the first with this\nabsent-package\naa>=1\n", encoding="utf-8")
    assert requirements.missing(file) == ["aa>=1.4", "absent-package"]


def test_the_files_of_the_extension_can_be_read(window: Window) -> None:
    from SSLPanels import requirements

    for name in (requirements.WORKER, requirements.DICOM_SEG):
        path = ROOT / "SSLPretrain" / "Resources" / name
        assert requirements.wanted(path)
        assert set(requirements.missing(path)) <= {"torch" + requirements.TORCH, *requirements.wanted(path)}


def test_a_torch_that_is_too_old_is_told(window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extension for PyTorch leaves one that is there, whatever its version."""
    from SSLPanels import requirements

    class PyTorchUtilsLogic:
        def installTorch(self, **options: object) -> None:
            raise ValueError("not compatible")

    utils = ModuleType("PyTorchUtils")
    utils.PyTorchUtilsLogic = PyTorchUtilsLogic  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "PyTorchUtils", utils)
    monkeypatch.setattr(requirements, "installed", lambda name: "2.7.1+cpu" if name == "torch" else "99")
    file = tmp_path / "requirements.txt"
    file.write_text("torchio\n", encoding="utf-8")
    with pytest.raises(requirements.RequirementsMissing, match=r"PyTorch 2\.7\.1\+cpu is installed, but >=2\.8"):
        requirements.ensure(file, "a test")
