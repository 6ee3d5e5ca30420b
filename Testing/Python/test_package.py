"""The package: CMake lists against the tree, the archive's layout, its reproducibility, its use from an odd path."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
ODD = "Prüfung mit Leer zeichen 心"

CMAKE_STAND_IN = """
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
set(BUILD_TESTING ON)
function(slicer_add_python_unittest)
  cmake_parse_arguments(T "" "SCRIPT" "" ${ARGN})
  if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${T_SCRIPT}")
    message(FATAL_ERROR "test script ${T_SCRIPT} is missing")
  endif()
endfunction()
function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(M "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  foreach(file IN LISTS M_SCRIPTS M_RESOURCES)
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "listed but missing: ${file}")
    endif()
  endforeach()
  file(GLOB_RECURSE tree RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}" "*.py" "Resources/*.*")
  foreach(file IN LISTS tree)
    if(NOT "${file}" IN_LIST M_SCRIPTS AND NOT "${file}" IN_LIST M_RESOURCES)
      message(FATAL_ERROR "unlisted: ${file}")
    endif()
  endforeach()
endfunction()
"""


@pytest.fixture(scope="module")
def package() -> ModuleType:
    spec = importlib.util.spec_from_file_location("package", ROOT / "Resources" / "package.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The parts of the repository that CMake looks at, in a path with spaces and letters beyond ASCII."""
    target = tmp_path / ODD
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("SSLPretrain", "SSLSegmentation", "Resources"):
        shutil.copytree(ROOT / name, target / name, ignore=ignore)
    shutil.copy(ROOT / "CMakeLists.txt", target)
    return target


@pytest.mark.parametrize("module", ["SSLPretrain", "SSLSegmentation"])
def test_cmake_lists_are_the_tree(package: ModuleType, module: str) -> None:
    scripts, resources = package.tree_files(module)
    text = (ROOT / module / "CMakeLists.txt").read_text()
    remedy = "run 'python Resources/package.py --lists'"
    assert package.cmake_list(text, "MODULE_PYTHON_SCRIPTS") == scripts, remedy
    assert package.cmake_list(text, "MODULE_PYTHON_RESOURCES") == resources, remedy


def configure(tree: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not installed")
    config = tmp_path / "config"
    config.mkdir(exist_ok=True)
    (config / "SlicerConfig.cmake").write_text(CMAKE_STAND_IN)
    (config / "Nothing.cmake").write_text("")
    # No compiler is needed to lay out Python files.
    top = (tree / "CMakeLists.txt").read_text().replace("project(SSLSegmentation)", "project(SSLSegmentation NONE)")
    (tree / "CMakeLists.txt").write_text(top)
    build = tmp_path / "build"
    shutil.rmtree(build, ignore_errors=True)
    command = [cmake, "-S", str(tree), "-B", str(build), f"-DSlicer_DIR={config}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_cmake_configures(copy: Path, tmp_path: Path) -> None:
    done = configure(copy, tmp_path)
    assert done.returncode == 0, done.stderr


def test_cmake_refuses_an_unlisted_file(copy: Path, tmp_path: Path) -> None:
    (copy / "SSLPretrain" / "SSLEngine" / "forgotten.py").write_text("")
    done = configure(copy, tmp_path)
    assert done.returncode != 0
    assert "unlisted: SSLEngine/forgotten.py" in done.stderr


def test_cmake_refuses_a_missing_file(copy: Path, tmp_path: Path) -> None:
    (copy / "SSLSegmentation" / "Resources" / "UI" / "SSLSegmentation.ui").unlink()
    done = configure(copy, tmp_path)
    assert done.returncode != 0
    assert "missing: Resources/UI/SSLSegmentation.ui" in done.stderr


@pytest.mark.parametrize(("version", "revision"), [("5.10", "34045"), ("5.12", "34627"), ("5.13", "34908")])
def test_archive_is_laid_out_as_slicer_does(package: ModuleType, tmp_path: Path, version: str, revision: str) -> None:
    path = package.make(version, None, "linux", tmp_path)
    with tarfile.open(path) as archive:
        names = archive.getnames()
    top = path.name.removesuffix(".tar.gz")
    assert top.startswith(f"{revision}-linux-amd64-SSLSegmentation-git")
    assert {name.split("/")[0] for name in names} == {top}
    scripted = f"{top}/lib/Slicer-{version}/qt-scripted-modules"
    expected = {f"{scripted}/{f}" for m in package.MODULES for f in package.listed_files(m)}
    assert set(names) == expected | {f"{top}/share/Slicer-{version}/SSLSegmentation.s4ext"}
    for name in ("SSLPretrain.py", "SSLSegmentation.py", "SSLEngine/__main__.py", "SSLScene/__init__.py"):
        assert f"{scripted}/{name}" in names
    assert not [name for name in names if "/Testing/" in name]


def test_archive_is_reproducible(package: ModuleType, tmp_path: Path) -> None:
    first = package.make("5.10", None, "linux", tmp_path / "a").read_bytes()
    assert package.make("5.10", None, "linux", tmp_path / "b").read_bytes() == first


def test_other_systems(package: ModuleType, tmp_path: Path) -> None:
    windows = package.make("5.12", None, "win", tmp_path)
    assert windows.suffix == ".zip"
    assert any("/lib/Slicer-5.12/qt-scripted-modules/SSLPretrain.py" in n for n in zipfile.ZipFile(windows).namelist())
    mac = package.make("5.12", "34627", "macosx", tmp_path)
    with tarfile.open(mac) as archive:
        assert all("/Slicer.app/Contents/Extensions-34627/SSLSegmentation/" in n for n in archive.getnames())


def test_unknown_version_needs_a_revision(package: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(package.PackageError, match="name it with REVISION"):
        package.make("6.0", None, "linux", tmp_path)
    assert package.make("6.0", "40000", "linux", tmp_path).name.startswith("40000-linux")


def test_description_file_and_catalogue(package: ModuleType) -> None:
    lines = dict(line.partition(" ")[::2] for line in package.s4ext("abc1234").splitlines())
    assert lines["scm"] == "git"
    assert lines["depends"] == "PyTorch"
    assert lines["category"] == "Segmentation"
    assert len(lines["description"]) > 60
    entry = json.loads((ROOT / "Resources" / "SSLSegmentation.json").read_text())
    assert entry["tier"] == 1
    assert entry["build_dependencies"] == lines["depends"].split()
    allowed = [
        "$schema",
        "build_dependencies",
        "build_subdirectory",
        "category",
        "scm_revision",
        "scm_url",
        "scm_type",
        "tier",
        "enabled",
    ]
    assert set(entry) <= set(allowed)
    assert entry["scm_url"].rsplit("/", 1)[1].startswith("Slicer")


@pytest.mark.parametrize(
    "path",
    [
        "Resources/SSLSegmentation.png",
        "SSLPretrain/Resources/Icons/SSLPretrain.png",
        "SSLSegmentation/Resources/Icons/SSLSegmentation.png",
    ],
)
def test_icons_are_128_px(path: str) -> None:
    data = (ROOT / path).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (128, 128)
    assert (ROOT / path).with_suffix(".svg").is_file()


@pytest.fixture
def unpacked(package: ModuleType, tmp_path: Path) -> Path:
    """``qt-scripted-modules`` of the archive, unpacked into a path with spaces and letters beyond ASCII."""
    target = tmp_path / ODD
    with tarfile.open(package.make("5.10", None, "linux", tmp_path)) as opened:
        # Python 3.10 and 3.11 know filters from their last bug-fix releases on only.
        opened.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        opened.extractall(target)
    return next(target.glob("*/lib/Slicer-5.10/qt-scripted-modules"))


def run_there(unpacked: Path, code: str, *paths: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (unpacked, *paths))), "PYTHONUTF8": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


def test_engine_runs_from_an_odd_path(unpacked: Path) -> None:
    code = (
        "import sys, SSLEngine, SSLEngine.jobs, SSLEngine.geometry, SSLEngine.studies, SSLEngine.structures\n"
        "assert 'torch' not in sys.modules and 'monai' not in sys.modules\n"
        "print(SSLEngine.__file__)\n"
    )
    assert run_there(unpacked, code) == [str(unpacked / "SSLEngine" / "__init__.py")]


def test_modules_open_from_an_odd_path(unpacked: Path) -> None:
    """Both panels, in the stand-in for the application, with nothing taken from the source tree."""
    pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed", exc_type=ImportError)
    pytest.importorskip("slicer", reason="slicer-core is not installed", exc_type=ImportError)
    code = (
        "import pytest, sys\n"
        "from pathlib import Path\n"
        "from slicer_standin import boot\n"
        "application = boot(pytest.MonkeyPatch())\n"
        "for name in ('SSLPretrain', 'SSLSegmentation'):\n"
        "    panel = application.open_panel(application.load_module(Path(name + '.py').resolve()))\n"
        "    panel.cleanup()\n"
        "ours = [m for n, m in sys.modules.items() if n.startswith('SSL')]\n"
        "print('FROM', {str(Path(m.__file__).resolve().relative_to(Path.cwd())).split('/')[0] for m in ours})\n"
        "print('ASKED', application.messages + application.installed)\n"
    )
    lines = run_there(unpacked, code, ROOT / "Testing" / "Python")
    found = next(line for line in lines if line.startswith("FROM"))
    assert "SSLPanels" in found
    assert "SSLEngine" in found
    assert "ASKED []" in lines
