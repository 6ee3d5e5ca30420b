"""Cines: volumes whose phases a sequence browser plays, and what is shown in step with them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from . import undo
from .host import new_node
from .host import sequences_logic


def browser_of(scene: Any, node: Any) -> Any:
    """The sequence browser whose proxy a node is, or None."""
    return sequences_logic(scene).GetFirstBrowserNodeForProxyNode(node)


def sequence_of(scene: Any, node: Any) -> Any:
    """The sequence whose proxy a node is, or None."""
    browser = browser_of(scene, node)
    return None if browser is None else browser.GetSequenceNode(node)


def move_together(browsers: Sequence[Any]) -> Callable[[], None]:
    """Lets cines of one exam show the same part of the heart's cycle, however many phases each has.

    Returns:
        Ends it.
    """
    moving = False

    def moved(caller: Any, event: Any) -> None:
        nonlocal moving
        if moving or not caller.GetNumberOfItems():
            return
        moving = True
        try:
            share = caller.GetSelectedItemNumber() / caller.GetNumberOfItems()
            for browser in browsers:
                count = browser.GetNumberOfItems()
                wanted = min(count - 1, round(share * count))
                if browser is not caller and count and browser.GetSelectedItemNumber() != wanted:
                    browser.SetSelectedItemNumber(wanted)
        finally:
            moving = False

    tags = [(browser, browser.AddObserver("ModifiedEvent", moved)) for browser in browsers]

    def end() -> None:
        for browser, tag in tags:
            browser.RemoveObserver(tag)

    return end


def playing(
    scene: Any, volume: Any, nodes: Sequence[Any], frames: Iterable[tuple[int, Sequence[Any]]], corrected: bool = False
) -> Iterator[None]:
    """Lets nodes follow the phase of a cine that is shown, one phase at each step.

    Args:
        scene: The MRML scene.
        volume: The cine's volume.
        nodes: What is shown, which become proxies.
        frames: Phases, each with what it shows in the nodes' order: the nodes themselves, or others, which go.
        corrected: Whether changes of the proxies belong to the phase, and are kept when another one is shown.
    """
    images, browser = sequence_of(scene, volume), browser_of(scene, volume)
    sequences = [new_node(scene, "vtkMRMLSequenceNode", f"{node.GetName()} frames") for node in nodes]
    for sequence in sequences:
        sequence.SetIndexName(images.GetIndexName())
        sequence.SetIndexUnit(images.GetIndexUnit())
    for phase, made in frames:
        for node, sequence, frame in zip(nodes, sequences, made, strict=True):
            sequence.SetDataNodeAtValue(frame, images.GetNthIndexValue(phase))
            if frame is not node:
                undo.remove_nodes(scene, [frame])
        yield
    for node, sequence in zip(nodes, sequences, strict=True):
        browser.AddProxyNode(node, sequence, False)
        browser.SetSaveChanges(sequence, corrected)
