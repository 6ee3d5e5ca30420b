"""Jobs on a SLURM cluster, by submitit (the extra ``slurm``). The job folder must lie on a disk that all nodes see.

The folder stays the contract: once SLURM starts the worker, the job is followed, stopped and resumed like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import jobs
from .jobs import JobError

#: Folder for submitit's own files, inside the job folder.
LOGS = "slurm"
#: What submitit calls the same on every kind of cluster; all else is SLURM's own.
SHARED = ("timeout_min", "mem_gb", "gpus_per_node", "cpus_per_task", "nodes", "tasks_per_node")


class Worker:
    """What a node runs: the job's verb, as ``sslengine VERB --job FOLDER`` would.

    Args:
        folder: The job folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> int:
        """Runs the job to its end; returns the exit code. Several tasks work together as torchrun's processes do."""
        import submitit

        from .__main__ import main

        if submitit.JobEnvironment().num_tasks > 1:
            # Each process sees all GPUs of its node and takes its own by LOCAL_RANK, as under torchrun.
            submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        return main([jobs.load(self.folder)["kind"], "--job", str(self.folder)])

    def checkpoint(self, *_: Any, **__: Any) -> Any:
        """Called when time is up or the node is taken away: the job is queued again and goes on from its checkpoint."""
        import submitit

        jobs.Reporter(self.folder).event(jobs.QUEUED, message="The node was needed or time was up; queued again.")
        return submitit.helpers.DelayedSubmission(self)


def submit(folder: Path, options: Mapping[str, Any], cluster: str | None = None) -> str:
    """Queues a prepared or stopped job.

    Args:
        folder: The job folder.
        options: :data:`SHARED` ones, and SLURM's by their names without dashes: ``partition``, ``account``, ``qos`` ...
        cluster: ``slurm``, or ``local`` for processes of this machine; None for SLURM where it is installed.

    Returns:
        The cluster's number of the job.

    Raises:
        JobError: It runs already, submitit or SLURM is missing, or an option is not known.
    """
    folder = Path(folder).resolve()
    kind = jobs.load(folder)["kind"]
    if jobs.status(folder).state == jobs.RUNNING:
        msg = f"The job in {folder} is running already; stop it first or wait for it."
        raise JobError(msg)
    try:
        import submitit
    except ImportError:
        msg = "Jobs for SLURM need the Python package 'submitit'; install sslsegmentation[slurm]."
        raise JobError(msg) from None
    try:
        executor = submitit.AutoExecutor(folder=folder / LOGS, cluster=cluster or "slurm")
        named = {name if name in SHARED else f"slurm_{name}": value for name, value in options.items()}
        executor.update_parameters(name=f"sslengine-{kind}", **named)
        (folder / jobs.STOP_FILE).unlink(missing_ok=True)
        return str(executor.submit(Worker(folder)).job_id)
    except (RuntimeError, NameError, AssertionError, submitit.core.utils.FailedJobError) as error:
        text = str(error).strip().splitlines()
        msg = f"The job could not be queued ({text[0] if text else type(error).__name__}); check the --slurm options."
        raise JobError(msg) from None
