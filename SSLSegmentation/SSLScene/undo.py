"""Everything that was added is taken out again by one call.

Whatever a function of this package adds is marked with its owner's token, and whatever it changes of the views is
remembered first. :func:`remove_all` then puts the scene back as it was. The marks are attributes and references of
nodes, so they survive saving and loading.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from typing import TypeVar
from typing import cast

from .host import is_view_part
from .host import sequences_logic
from .host import subject_hierarchy

OWNER = "SSLSegmentation.Owner"
#: Reference of a marked node to itself, which the scene keeps right when it gives nodes other IDs as it is imported.
SELF = "SSLSegmentation.Self"
#: The token where the caller gives none.
DEFAULT_TOKEN = "exam"
_MEMORY = "SSLSegmentation.Memory"

Step = TypeVar("Step")
Result = TypeVar("Result")


def new_token(name: str) -> str:
    """A token that no other exam has, of this scene or of one that is opened beside it."""
    return f"exam {name} {uuid.uuid4().hex[:8]}"


def own(node: Any, token: str) -> None:
    """Marks a node with its owner's token."""
    node.SetAttribute(OWNER, token)
    node.SetNodeReferenceID(SELF, node.GetID())


def owner_of(node: Any) -> str | None:
    """The token that a node is marked with; None where it has none.

    A user's clone of a marked node has its attributes too, but refers to its original or to nothing: it is the user's.
    """
    token: str | None = node.GetAttribute(OWNER)
    origin = node.GetNodeReferenceID(SELF)
    if token is None or origin == node.GetID():
        return token
    # A browser puts a missing proxy back, with the attributes of its frame and without references.
    logic = sequences_logic(node.GetScene())
    browser = None if origin else logic.GetFirstBrowserNodeForProxyNode(node)
    return token if browser is not None and owner_of(browser) == token else None


@contextmanager
def owned(scene: Any, token: str) -> Iterator[None]:
    """Marks every node that is added to the scene inside the block, display nodes and the like included.

    Views that the application makes meanwhile are its own and stay.
    """
    subject_hierarchy(scene)  # every scene has one, but a new scene makes it at the first call
    new = additions(scene)
    try:
        yield
    finally:
        for node in new():
            if owner_of(node) is None and not is_view_part(scene, node):
                own(node, token)


def stepwise(scene: Any, token: str, steps: Generator[Step, None, Result]) -> Generator[Step, None, Result]:
    """Takes the steps of something that adds nodes to the scene, for a caller that does other things in between.

    What each step adds is marked with the token. If a step fails or the caller gives up, all that was added goes again.

    Args:
        scene: The MRML scene.
        token: Owner of what is added.
        steps: Adds nodes.
    """
    added: list[str] = []
    try:
        while True:
            new = additions(scene)
            try:
                with owned(scene, token):
                    step = next(steps)
            except StopIteration as end:
                return cast("Result", end.value)
            finally:
                added += [node.GetID() for node in new()]
            yield step
    except BaseException:
        remove_nodes(scene, [node for node in nodes(scene) if node.GetID() in added and not is_view_part(scene, node)])
        raise


def at_once(steps: Generator[Step, None, Result], tell: Callable[[Step], object] | None = None) -> Result:
    """Takes all steps one after the other; returns what they return."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return cast("Result", end.value)
        if tell is not None:
            tell(step)


def one_step(work: Callable[[], Result]) -> Generator[Any, None, Result]:
    """Short work in the form of steps, for those who take such."""
    yield from ()
    return work()


def nodes(scene: Any) -> Iterator[Any]:
    """All nodes of the scene, as a list made now."""
    return iter([scene.GetNthNode(k) for k in range(scene.GetNumberOfNodes())])


def additions(scene: Any) -> Callable[[], list[Any]]:
    """A function that gives the nodes that have been added to the scene since this call."""
    before = {node.GetID() for node in nodes(scene)}
    return lambda: [node for node in nodes(scene) if node.GetID() not in before]


def owned_nodes(scene: Any, token: str = DEFAULT_TOKEN, class_name: str = "vtkMRMLNode") -> list[Any]:
    """The nodes that carry a token and are of a class."""
    return [n for n in nodes(scene) if owner_of(n) == token and n.IsA(class_name)]


def own_item(scene: Any, item: int, token: str) -> int:
    """Marks a subject hierarchy item that has no node of its own (patient, study, folder)."""
    subject_hierarchy(scene).SetItemAttribute(item, OWNER, token)
    return item


def remember(scene: Any, token: str, key: str, state: dict[str, Any]) -> None:
    """Keeps the state of something before it is changed for the first time under a token."""
    memory = _memory(scene, token)
    if memory is None:
        memory = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", f"{token} memory")
        memory.SetHideFromEditors(True)
        own(memory, token)
        memory.SetAttribute(_MEMORY, "1")
    if not memory.GetParameter(key):
        memory.SetParameter(key, json.dumps(state))


def recall(scene: Any, token: str) -> dict[str, dict[str, Any]]:
    """What was kept under a token, by key."""
    memory = _memory(scene, token)
    if memory is None:
        return {}
    return {key: json.loads(memory.GetParameter(key)) for key in memory.GetParameterNames()}


def _memory(scene: Any, token: str) -> Any | None:
    found = (n for n in owned_nodes(scene, token, "vtkMRMLScriptedModuleNode") if n.GetAttribute(_MEMORY))
    return next(found, None)


def remove_all(scene: Any, token: str = DEFAULT_TOKEN) -> int:
    """Takes out everything that carries the token and gives the views back as they were.

    Args:
        scene: The MRML scene.
        token: The owner whose nodes, subject hierarchy items and view changes go.

    Returns:
        The number of nodes removed.
    """
    from .layouts import restore_views

    restore_views(scene, token)
    count = remove_nodes(scene, owned_nodes(scene, token))
    _remove_empty_items(scene, token)
    return count


def remove_nodes(scene: Any, chosen: Iterable[Any]) -> int:
    """Removes nodes with their display and storage nodes and their subject hierarchy items."""
    # A browser puts a missing proxy back at once, so browsers go first, and then sequences, which a browser that stays
    # would show.
    ordered = sorted(chosen, key=lambda n: (not n.IsA("vtkMRMLSequenceBrowserNode"), not n.IsA("vtkMRMLSequenceNode")))
    ids = [i for node in ordered for i in (node.GetID(), *_attendants(node))]
    hierarchy = subject_hierarchy(scene)
    count = 0
    for node in (scene.GetNodeByID(i) for i in dict.fromkeys(ids)):
        if node is None:
            continue
        # Outside the application nobody watches: an item would keep a pointer to the removed node.
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.RemoveItem(item, False, False)
        scene.RemoveNode(node)
        count += 1
    return count


def _attendants(node: Any) -> list[str]:
    """IDs of the display and storage nodes of a node, those made later on saving included."""
    if node.IsA("vtkMRMLDisplayableNode"):
        display = [node.GetNthDisplayNodeID(k) for k in range(node.GetNumberOfDisplayNodes())]
    else:
        display = []
    if node.IsA("vtkMRMLStorableNode"):
        display += [node.GetNthStorageNodeID(k) for k in range(node.GetNumberOfStorageNodes())]
    return [i for i in display if i]


def _remove_empty_items(scene: Any, token: str) -> None:
    """Removes the token's patients, studies and folders; one in which someone else put something stays."""
    import vtk

    hierarchy = subject_hierarchy(scene)
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    # Children come after their parents in the list, so the reverse order empties folders first.
    for item in reversed([items.GetId(k) for k in range(items.GetNumberOfIds())]):
        if hierarchy.GetItemAttribute(item, OWNER) == token and not hierarchy.GetNumberOfItemChildren(item):
            hierarchy.RemoveItem(item, True, False)
