"""Where the logics come from: the running application, or the scene's own where there is none.

In 3D Slicer the application holds one logic a module. Outside it (slicer-core in tests and in the demo) the same
classes are made here, one set a scene. Nothing else in this package asks which of the two it runs in.
"""

from __future__ import annotations

import weakref
from typing import Any

import slicer

_own: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


class SceneError(ValueError):
    """Something in the scene cannot be used. The message is one sentence: what, where, what to do."""


def in_application(scene: Any) -> bool:
    """Whether the scene is the one of a running 3D Slicer."""
    return getattr(slicer, "app", None) is not None and getattr(slicer, "mrmlScene", None) is scene


def settle(scene: Any) -> None:
    """Lets the application lay out its views, so that slice nodes know the sizes of their windows."""
    if in_application(scene):
        slicer.app.processEvents()


def is_view_part(scene: Any, node: Any) -> bool:
    """Whether a node belongs to the application's views, which makes and keeps them for itself."""
    kinds = ("vtkMRMLAbstractViewNode", "vtkMRMLSliceCompositeNode", "vtkMRMLSliceDisplayNode", "vtkMRMLCameraNode")
    # The slice models and their transforms are not saved; everything that this package adds is.
    return in_application(scene) and (not node.GetSaveWithScene() or any(node.IsA(kind) for kind in kinds))


def sequences_logic(scene: Any) -> Any:
    """The sequences logic. Asking for it also registers the sequence node classes with the scene."""
    if in_application(scene):
        return slicer.modules.sequences.logic()
    return _made(scene, "vtkSlicerSequencesLogic")


def segmentations_logic(scene: Any) -> Any:
    """The segmentations logic. Asking for it also registers the segmentation node classes with the scene."""
    if in_application(scene):
        return slicer.modules.segmentations.logic()
    return _made(scene, "vtkSlicerSegmentationsModuleLogic")


def subject_hierarchy(scene: Any) -> Any:
    """The scene's subject hierarchy node, made if the scene has none yet."""
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


def new_node(scene: Any, class_name: str, name: str) -> Any:
    """Adds a node of a class to the scene under a name that no other node has.

    Raises:
        SceneError: The scene does not know the class.
    """
    node = scene.AddNewNodeByClass(class_name, scene.GenerateUniqueName(name))
    if node is None:
        msg = f"The scene cannot make a {class_name}: load the module that registers it and try again."
        raise SceneError(msg)
    return node


def _made(scene: Any, class_name: str) -> Any:
    """The scene's own logic of a class."""
    logics = _own.setdefault(scene, {})
    if class_name not in logics:
        logic = getattr(slicer, class_name)()
        logic.SetMRMLScene(scene)
        logics[class_name] = logic
    return logics[class_name]
