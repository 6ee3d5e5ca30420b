"""A stand-in for the 3D Slicer application, for tests on machines that have none. It is not Slicer.

What is real here: the MRML scene, its nodes and the module logics, from the ``slicer-core`` package.
What stands in, written by us from a census of the running application (Slicer 5.13; ``census.json``
holds the part that the modules use) and from notes of what was tried there:

* ``qt`` and ``ctk`` objects in the manner of PythonQt over PySide6: a property is read without
  parentheses, everything else is called; enumerations are plain integers;
* thin widgets with the names of ctk's and MRML's, fed by the real scene;
* ``slicer.app``, its layout manager, ``slicer.modules``, ``ScriptedLoadableModule`` and
  ``parameterNodeWrapper``, as far as the two modules use them.

It is strict: an attribute, signal, slot or keyword that the census does not have fails here too.
None of Slicer's own Python is copied. What it cannot show (how a .ui is laid out by Slicer's style,
rendering of views, drops from a file manager) is left to the self-tests in a real Slicer.
"""

from __future__ import annotations

from .application import Application
from .application import boot

__all__ = ["Application", "boot"]
