"""Lays out the extension's archive as Slicer's packaging would, without a build of Slicer.

    python Resources/package.py --version 5.10 --out build
    python Resources/package.py --lists

The archive holds what the CMake files list, no more, and is the same byte for byte for the same commit:
one top folder ``<revision>-<os>-<arch>-SSLSegmentation-git<commit>-<date>`` with
``lib/Slicer-X.Y/qt-scripted-modules`` and ``share/Slicer-X.Y/SSLSegmentation.s4ext``. Needs only Python and git.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import io
import os
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTENSION = "SSLSegmentation"
MODULES = ("SSLPretrain", "SSLSegmentation")

#: Revision of the release of each version that this has been made for; another one is named by ``--revision``.
REVISIONS = {"5.10": "34045", "5.12": "34627", "5.13": "34908"}
RESOURCE_SUFFIXES = {".png", ".svg", ".ui", ".txt", ".json"}


class PackageError(Exception):
    """The package cannot be made. The message is one sentence: what, where, what to do."""


def cmake_list(text: str, name: str) -> list[str]:
    """The entries of ``set(name ...)`` in a CMake file."""
    match = re.search(rf"set\({name}\s*(.*?)\s*\)\n", text, re.DOTALL)
    if match is None:
        msg = f"no set({name} ...) in the CMake file; write it as Slicer's template does."
        raise PackageError(msg)
    return match.group(1).split()


def listed_files(module: str, root: Path = ROOT) -> list[str]:
    """Paths, relative to the module's folder, that its CMake file installs."""
    text = (root / module / "CMakeLists.txt").read_text(encoding="utf-8")
    return cmake_list(text, "MODULE_PYTHON_SCRIPTS") + cmake_list(text, "MODULE_PYTHON_RESOURCES")


def tree_files(module: str, root: Path = ROOT) -> tuple[list[str], list[str]]:
    """Scripts and resources that lie in the module's folder, relative to it."""
    folder = root / module
    scripts = [p for p in folder.rglob("*.py") if "__pycache__" not in p.parts]
    resources = [p for p in (folder / "Resources").rglob("*") if p.suffix in RESOURCE_SUFFIXES]
    return tuple(sorted(p.relative_to(folder).as_posix() for p in files) for files in (scripts, resources))  # type: ignore[return-value]


def write_lists(root: Path = ROOT) -> None:
    """Writes the file lists of both modules' CMake files anew from the tree."""
    for module in MODULES:
        path = root / module / "CMakeLists.txt"
        text = path.read_text(encoding="utf-8")
        for name, files in zip(("SCRIPTS", "RESOURCES"), tree_files(module, root), strict=True):
            block = "".join(f"  {file}\n" for file in files)
            text = re.sub(
                rf"(set\(MODULE_PYTHON_{name}\n).*?(  \)\n)", rf"\g<1>{block}\g<2>", text, count=1, flags=re.DOTALL
            )
        path.write_text(text, encoding="utf-8")


def metadata(root: Path = ROOT) -> dict[str, str]:
    """``EXTENSION_*`` values of the top CMake file, by lower-case key."""
    text = (root / "CMakeLists.txt").read_text(encoding="utf-8")
    return {key.lower(): value for key, value in re.findall(r'set\(EXTENSION_(\w+) "([^"]*)"\)', text)}


def s4ext(commit: str, root: Path = ROOT) -> str:
    """The extension's description file: one ``key value`` a line."""
    meta = metadata(root)
    catalogue = (root / "Resources" / f"{EXTENSION}.json").read_text(encoding="utf-8")
    category = re.search(r'"category": "([^"]*)"', catalogue)
    lines = {
        "scm": "git",
        "scmurl": meta["homepage"],
        "scmrevision": commit,
        "depends": meta["depends"],
        "build_subdirectory": ".",
        "homepage": meta["homepage"],
        "contributors": meta["contributors"],
        "category": category.group(1) if category else "",
        "iconurl": meta["iconurl"],
        "status": "",
        "description": meta["description"],
        "screenshoturls": meta["screenshoturls"],
        "enabled": "1",
    }
    return "".join(f"{key} {value}".rstrip() + "\n" for key, value in lines.items())


def source_state(root: Path = ROOT) -> tuple[str, int]:
    """Commit (7 digits) and its time in s; ``local`` and SOURCE_DATE_EPOCH (or 1980) outside a git checkout."""
    command = ["git", "-C", str(root), "log", "-1", "--format=%h %ct", "--abbrev=7"]
    try:
        commit, time = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    except (OSError, subprocess.CalledProcessError, ValueError):
        # A zip file cannot hold a time before 1980.
        return "local", int(os.environ.get("SOURCE_DATE_EPOCH", "315619200"))
    return commit, int(time)


def contents(version: str, revision: str, system: str, commit: str, root: Path = ROOT) -> dict[str, bytes]:
    """Path in the package (below its top folder) to bytes."""
    prefix = f"Slicer.app/Contents/Extensions-{revision}/{EXTENSION}/" if system == "macosx" else ""
    scripted = f"{prefix}lib/Slicer-{version}/qt-scripted-modules"
    files: dict[str, bytes] = {}
    for module in MODULES:
        for name in listed_files(module, root):
            path = root / module / name
            if not path.is_file():
                remedy = "run 'python Resources/package.py --lists'"
                msg = f"{module}/CMakeLists.txt lists {name}, which is not there; {remedy}."
                raise PackageError(msg)
            target = f"{scripted}/{name}"
            if target in files:
                msg = f"{name} is in both modules, but they are installed into one folder; rename one of the files."
                raise PackageError(msg)
            files[target] = path.read_bytes()
    files[f"{prefix}share/Slicer-{version}/{EXTENSION}.s4ext"] = s4ext(commit, root).encode()
    return dict(sorted(files.items()))


def make(version: str, revision: str | None, system: str, out: Path, root: Path = ROOT, arch: str = "amd64") -> Path:
    """Writes the archive and returns its path.

    Raises:
        PackageError: The version's revision is not known, or a listed file is missing.
    """
    if re.fullmatch(r"\d+\.\d+", version) is None:
        msg = f"expected a Slicer version as 5.10, found '{version}'; give major and minor number."
        raise PackageError(msg)
    revision = revision or REVISIONS.get(version)
    if revision is None:
        msg = f"the revision of Slicer {version} is not known (only of {', '.join(REVISIONS)}); name it with REVISION."
        raise PackageError(msg)
    commit, time = source_state(root)
    date = datetime.datetime.fromtimestamp(time, datetime.timezone.utc)
    top = f"{revision}-{system}-{arch}-{EXTENSION}-git{commit}-{date:%Y-%m-%d}"
    files = {f"{top}/{name}": data for name, data in contents(version, revision, system, commit, root).items()}
    out.mkdir(parents=True, exist_ok=True)
    if system == "win":
        return _write_zip(out / f"{top}.zip", files, date)
    return _write_tar(out / f"{top}.tar.gz", files, time)


def _write_tar(path: Path, files: dict[str, bytes], time: int) -> Path:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(data), time, 0o644
            archive.addfile(entry, io.BytesIO(data))
    path.write_bytes(gzip.compress(packed.getvalue(), mtime=0))
    return path


def _write_zip(path: Path, files: dict[str, bytes], date: datetime.datetime) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, (date.year, date.month, date.day, 0, 0, 0))
            entry.external_attr, entry.compress_type = 0o100644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return path


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", default="5.10", help="Slicer version, as 5.10")
    parser.add_argument("--revision", default=None, help="Slicer revision; known for " + ", ".join(REVISIONS))
    parser.add_argument("--os", default="linux", choices=("linux", "macosx", "win"), dest="system")
    parser.add_argument("--out", default=ROOT / "build", type=Path)
    parser.add_argument("--lists", action="store_true", help="write the CMake file lists from the tree, make nothing")
    options = parser.parse_args()
    if options.lists:
        write_lists()
        return 0
    try:
        print(make(options.version, options.revision or None, options.system, options.out))
    except PackageError as error:
        print(error)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
