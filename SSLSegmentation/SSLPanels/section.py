"""What the sections of the panels have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING:
    from SSLScene.exams import SceneExam


class Section:
    """One section of a panel.

    Args:
        owner: The module's widget; see :class:`SSLPanels.module_widget.ModuleWidget`.
    """

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.ui = owner.ui
        self.logic = owner.logic

    @property
    def parameters(self) -> Any:
        """The parameter node while the panel is tied to one, else None."""
        return self.owner.parameters

    def tiePath(self, edit: Any, name: str) -> None:
        """Writes a path edit into the parameter of a name; :meth:`showPaths` goes the other way."""
        edit.connect("currentPathChanged(QString)", lambda path: self.write(name, path))

    def write(self, name: str, text: str) -> None:
        """Writes a parameter, if the panel is tied to one and it says something else."""
        if self.parameters is not None and getattr(self.parameters, name) != text:
            setattr(self.parameters, name, text)

    def showPaths(self, pairs: Sequence[tuple[Any, str]]) -> None:
        """Shows parameters in their path edits."""
        for edit, name in pairs:
            if self.parameters is not None and edit.currentPath != getattr(self.parameters, name):
                edit.currentPath = getattr(self.parameters, name)

    def enter(self) -> None:
        """The panel is shown."""

    def exit(self) -> None:
        """Another module is shown."""

    def update(self) -> None:
        """The parameters have changed."""

    def release(self) -> None:
        """The panel goes."""


class ExamSection(Section):
    """One section of the SSLSegmentation panel, whose widget has an ``exam``."""

    @property
    def exam(self) -> SceneExam | None:
        """The exam at hand."""
        return self.owner.exam

    def setExam(self, exam: SceneExam | None) -> None:
        """Another exam, or none."""
