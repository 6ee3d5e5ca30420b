"""What a person chooses from in the panels' lists, in words: Slicer shows each member's ``label()`` in a combo box."""

from __future__ import annotations

import enum
from collections.abc import Collection

from slicer.i18n import tr as _


class Preset(enum.Enum):
    """Organs for which there are sensible settings."""

    Heart = "heart"
    Knee = "knee"

    def label(self) -> str:
        """What the list shows."""
        return {Preset.Heart: _("Heart"), Preset.Knee: _("Knee")}[self]


class Network(enum.Enum):
    """Kinds of networks."""

    UNet = "unet"
    MaskRcnn = "mask-rcnn"

    def label(self) -> str:
        """What the list shows."""
        return {Network.UNet: _("U-Net: looks at every pixel"), Network.MaskRcnn: _("Mask R-CNN: looks for regions")}[
            self
        ]

    def why_not(self, pretexts: Collection[str]) -> str:
        """Why it cannot learn these pretexts, in one sentence; empty where it can."""
        if self is Network.UNet or set(pretexts) == {"distortions"}:
            return ""
        return _("A Mask R-CNN learns to find distortions and nothing else; tick only those, or choose the U-Net.")


class Target(enum.Enum):
    """What fine-tuning teaches."""

    Segmentation = "segmentation"
    Classification = "classification"

    def label(self) -> str:
        """What the list shows."""
        return {Target.Segmentation: _("Segments"), Target.Classification: _("Classes of exams")}[self]


class LabelsFrom(enum.Enum):
    """Where fine-tuning takes its labels from."""

    Scene = "scene"
    Folder = "folder"

    def label(self) -> str:
        """What the list shows."""
        return {LabelsFrom.Scene: _("Segments of this scene"), LabelsFrom.Folder: _("Labelled exams of a folder")}[self]


class Transfer(enum.Enum):
    """What is done with the pretrained model."""

    All = "all"
    Decoder = "decoder"
    Multitask = "multitask"
    Scratch = "scratch"

    def label(self) -> str:
        """What the list shows."""
        return {
            Transfer.All: _("Train all of the model"),
            Transfer.Decoder: _("Keep its encoder as it is"),
            Transfer.Multitask: _("Train what it learned before along"),
            Transfer.Scratch: _("From scratch, without the model"),
        }[self]


class Scope(enum.Enum):
    """What is segmented."""

    View = "view"
    Exam = "exam"
    Folder = "folder"

    def label(self) -> str:
        """What the list shows."""
        return {Scope.View: _("One view"), Scope.Exam: _("The whole exam"), Scope.Folder: _("All exams of a folder")}[
            self
        ]
