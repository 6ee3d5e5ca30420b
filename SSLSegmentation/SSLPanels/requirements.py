"""What the worker needs, installed on demand, with consent, touching nothing that Slicer ships.

torch comes with the PyTorch extension and is never imported into the application: only a worker does that.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import slicer
from slicer.i18n import tr as _

# Here, and not where it is used: the click that starts a job must not wait for it.
try:
    from packaging.requirements import Requirement
except ImportError:
    # Where Slicer does not bring it by itself, pip does.
    from pip._vendor.packaging.requirements import Requirement

#: Slicer brings these; whatever pip thinks of their versions, they stay as they are.
SHIPPED = ["numpy", "scipy", "SimpleITK", "pydicom", "requests", "torch", "torchvision"]
TORCH = ">=2.8"
#: Requirements files: of every worker, and of one that writes DICOM SEG.
WORKER, DICOM_SEG = "requirements.txt", "requirements-dicomseg.txt"


class RequirementsMissing(RuntimeError):
    """Something that the worker needs is not installed. The message says what and how to get it."""


def resources() -> Path:
    """The folder of SSLPretrain's resources, among them the requirements files.

    Installed, it lies beside the packages, as those of all modules do; in a source tree with the module.
    """
    here = Path(__file__).resolve().parents[1]
    beside = here / "Resources"
    return beside if (beside / WORKER).is_file() else here.parent / "SSLPretrain" / "Resources"


def wanted(path: Path) -> list[str]:
    """The requirement lines of a file."""
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line]


def installed(name: str) -> str | None:
    """Version of an installed package, found without importing it; None where there is none."""
    importlib.invalidate_caches()
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def satisfied(line: str, extra: str = "") -> bool:
    """Whether what is installed meets a requirement, as pip understands it.

    A local version such as ``2.13.0+cpu`` meets ``==2.13.0``, a pre-release counts by its place in the order, an
    environment marker that does not apply asks for nothing, and an extra asks for what the package names under it.

    Args:
        line: A requirement, for instance ``monai[nibabel]>=1.4; python_version >= "3.10"``.
        extra: The extra under which it is named.

    Raises:
        ValueError: It is no requirement.
    """
    requirement = Requirement(line)
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
        return True
    version = installed(requirement.name)
    if version is None:
        return False
    try:
        if not requirement.specifier.contains(version, prereleases=True):
            return False
    except ValueError:
        # The package says of itself no version that can be compared.
        return False
    needs = importlib.metadata.requires(requirement.name) or () if requirement.extras else ()
    # What it needs in any case came with it.
    optional = [need for need in needs if re.search(r"\bextra\b", need.partition(";")[2])]
    return all(satisfied(need, name) for name in requirement.extras for need in optional)


def missing(path: Path) -> list[str]:
    """The requirements, torch among them, that what is installed does not meet."""
    return [line for line in ("torch" + TORCH, *wanted(path)) if not satisfied(line)]


def ensure(path: Path, requester: str) -> None:
    """Installs what is missing, after asking.

    Args:
        path: Requirements file.
        requester: Who asks, for the dialogs.

    Raises:
        RequirementsMissing: The user declined, or an installation did not succeed.
    """
    lacking = missing(path)
    if not lacking:
        return
    packages = [line for line in lacking if line != "torch" + TORCH]
    if len(packages) < len(lacking):
        _install_torch()
    if packages:
        _install(packages, requester)
    still = missing(path)
    if still and not slicer.app.testingEnabled():
        msg = _("Still missing after the installation: {names}. See the error log.").format(names=", ".join(still))
        raise RequirementsMissing(msg)


def _install_torch() -> None:
    try:
        import PyTorchUtils
    except ImportError:
        _offer_extension()
        return
    reason = ""
    try:
        with _torch_barred():
            PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=TORCH)
    except Exception as error:
        # With torch barred, the extension cannot import what it has installed, and says so.
        reason = str(error)
    if satisfied("torch" + TORCH):
        return
    version = installed("torch")
    if version is not None:
        msg = _("PyTorch {version} is installed, but {wanted} is needed; remove it in the module 'PyTorch', try again.")
        raise RequirementsMissing(msg.format(version=version, wanted=TORCH))
    if reason:
        raise RequirementsMissing(_("PyTorch could not be installed: {error}").format(error=reason))
    raise RequirementsMissing(_("PyTorch is needed to train and to segment, and was not installed."))


@contextlib.contextmanager
def _torch_barred() -> Iterator[None]:
    """Keeps torch out of the application's process (its crashes would take the scene with them)."""
    present = "torch" in sys.modules
    if not present:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if not present:
            sys.modules.pop("torch", None)


def _offer_extension() -> None:
    way = _(
        "Open the Extensions Manager, install 'PyTorch', restart Slicer; or name another Python that has torch "
        "under 'Advanced'."
    )
    question = _("Training and segmenting need PyTorch, which comes with the extension 'PyTorch'. Install it now?")
    if slicer.util.confirmOkCancelDisplay(question) and slicer.app.extensionsManagerModel():
        slicer.app.extensionsManagerModel().installExtensionFromServer("PyTorch")
    raise RequirementsMissing(_("The extension 'PyTorch' is missing. ") + way)


def _install(packages: list[str], requester: str) -> None:
    try:
        from slicer.packaging import pip_ensure
    except ImportError:
        _install_the_old_way(packages)
        return
    try:
        pip_ensure(packages, skip_packages=SHIPPED, prompt_restart=False, requester=requester)
    except RuntimeError as error:
        raise RequirementsMissing(str(error)) from None


def _install_the_old_way(packages: list[str]) -> None:
    """Slicer 5.10 has no slicer.packaging. Nothing listed needs more than Slicer and torch bring: no dependencies."""
    question = _("These Python packages will be installed: {names}. Continue?").format(names=", ".join(packages))
    if not slicer.util.confirmOkCancelDisplay(question):
        raise RequirementsMissing(_("The Python packages were not installed: ") + ", ".join(packages))
    slicer.util.pip_install(["--no-deps", "--only-binary=:all:", *packages])
