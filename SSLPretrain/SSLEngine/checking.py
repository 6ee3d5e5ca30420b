"""What is refused of a training's settings before it has a folder: all that no look at the exams is needed for."""

from __future__ import annotations

from .class_training import check_settings
from .pretext import check_names
from .pretext import make_pretexts
from .runs import heads_for
from .settings import Finetune
from .settings import LabelStudy
from .settings import Pretrain
from .starting import Start
from .starting import agreed_grid
from .starting import agreed_network
from .starting import check_transfer
from .starting import going_on


def check(settings: Pretrain | Finetune | LabelStudy) -> None:
    """Refuses settings that do not go together, or not with the model to start from.

    Raises:
        SettingsError: They do not.
        ModelError: The model cannot be used.
    """
    if isinstance(settings, LabelStudy):
        # Without a model of its own, a trial starts from the one that is yet to be pretrained.
        for part in (settings.pretrain, settings.finetune if settings.finetune.init else None):
            if part is not None:
                check(part)
        return
    start = Start.read(settings.init)
    if isinstance(settings, Pretrain):
        check_names(settings.weights)
        agreed = going_on(settings, start)
        heads_for(agreed.network.kind, make_pretexts(agreed.pretext, agreed))
        return
    check_names(settings.pretext)
    agreed_grid(settings, start)
    if settings.target == "classification":
        check_settings(settings, start)
    else:
        check_transfer(settings, start)
        agreed_network(settings, start)
