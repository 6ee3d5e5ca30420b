"""What the sections of the SSLSegmentation panel have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING:
    from SSLScene.exams import SceneExam


class Section:
    """One section of the panel.

    Args:
        owner: The module's widget, which has ``ui``, ``logic``, ``parameters`` and ``exam``.
    """

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.ui = owner.ui
        self.logic = owner.logic

    @property
    def parameters(self) -> Any:
        """The parameter node while the panel is tied to one, else None."""
        return self.owner.parameters

    @property
    def exam(self) -> SceneExam | None:
        """The exam at hand."""
        return self.owner.exam

    def tiePath(self, edit: Any, name: str) -> None:
        """Writes a path edit into the parameter of a name; :meth:`showPaths` goes the other way."""
        edit.connect("currentPathChanged(QString)", lambda path: self._write(name, path))

    def _write(self, name: str, path: str) -> None:
        if self.parameters is not None and getattr(self.parameters, name) != path:
            setattr(self.parameters, name, path)

    def showPaths(self, pairs: Sequence[tuple[Any, str]]) -> None:
        """Shows parameters in their path edits."""
        for edit, name in pairs:
            if self.parameters is not None and edit.currentPath != getattr(self.parameters, name):
                edit.currentPath = getattr(self.parameters, name)

    def setExam(self, exam: SceneExam | None) -> None:
        """Another exam, or none."""

    def update(self) -> None:
        """The parameters have changed."""

    def release(self) -> None:
        """The panel goes."""
