"""Which phases of a cine are end-diastole and end-systole.

By rule, from the header: triggered cines start at the R wave, so the first phase is ED, and systole ends a good third
of the cycle later. Once a model has segmented the blood pool, its volume decides instead.
"""

from __future__ import annotations

import numpy as np

from .study import View

#: End of systole as a share of the cycle at rest (about 330 ms of 900 ms).
ES_SHARE = 0.36


def ed_es_phases(view: View) -> tuple[int, int]:
    """ED and ES phase of a view by the header's order; both 0 for a still image.

    A cine of two phases is ED and ES. Otherwise ED is the first phase, and ES the one whose time after the R wave (or,
    without times, number) is nearest to :data:`ES_SHARE` of the cycle, which ends one step after the last phase.
    """
    if view.phases < 3:
        return 0, view.phases - 1
    times = np.array(view.trigger_times if len(view.trigger_times) == view.phases else range(view.phases), dtype=float)
    cycle = times[-1] + float(np.median(np.diff(times)))
    return 0, int(np.abs(times - ES_SHARE * cycle).argmin())
