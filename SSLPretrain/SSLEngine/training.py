"""One loop for pretraining and fine-tuning, in one process or many.

Several losses are balanced by one rule: each is divided by what an output of zeros would cost on slices of the same
run, so that 1 means "knows nothing" for every task, and is then multiplied by its weight. That divisor is computed from
the slices, before the first step and again after a resume; it is no state of its own.

A run is a network, a few *streams* (slices to draw from, tasks to learn on them) and a schedule. Every random draw of a
step comes from a generator seeded by (seed, step, rank), and the slices of a step from a permutation seeded by
(seed, epoch): the position of the sampler is the step, and a resumed run goes the way the unbroken one would have gone.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any
from typing import Protocol

import torch
from torch import distributed
from torch import nn

from .jobs import CHECKPOINTS
from .jobs import Cancelled
from .jobs import JobError
from .jobs import Reporter
from .jobs import naming
from .models import Net
from .models import misfit
from .pretext.base import Batch
from .settings import RATES
from .settings import Augmentation
from .settings import Schedule
from .settings import SettingsError
from .slices import SliceSet
from .slices import make_batch
from .targets import Task

#: Seconds between checkpoints where the settings do not say.
CHECKPOINT_SECONDS = 60.0
#: Norm at which gradients are clipped.
MAX_GRADIENT = 12.0
#: Held-out slices that a score is computed on, at most.
SCORED_SLICES = 96
#: Slices that the cost of knowing nothing is measured on.
BALANCE_SLICES = 32
#: Slices that are scored together.
SCORED_TOGETHER = 16
#: Studies that a step looks at, at least, where slices are drawn by study.
MIN_STUDIES = 2


@dataclass(frozen=True)
class Stream:
    """Slices that are drawn together, and what is learned on them.

    Attributes:
        indices: ``(n,)`` int64, slices to draw from.
        tasks: Tasks and their weights in the loss.
        bags: The same slices by study, where slices of one study are to be drawn together.
        bag: How many of a study are drawn together.
    """

    indices: torch.Tensor
    tasks: Sequence[tuple[Task, float]]
    bags: Sequence[torch.Tensor] = ()
    bag: int = 1


#: Output and target of a task, as the task's own loss, score and picture take them.
Answer = tuple[torch.Tensor, torch.Tensor]


class Learning(Protocol):
    """How a kind of network is taught and scored on its tasks; :class:`Heads` is one, ``regions.Regions`` another."""

    def losses(
        self, network: nn.Module, batch: Batch, tasks: Sequence[Task], generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Scalar loss of each task by name; the network is in training mode."""
        ...

    def answers(
        self, network: nn.Module, batch: Batch, tasks: Sequence[Task], generator: torch.Generator
    ) -> dict[str, Answer]:
        """Output and target of each task by name; the network is in evaluation mode."""
        ...

    def scores(
        self, network: nn.Module, batch: Batch, tasks: Sequence[Task], generator: torch.Generator
    ) -> dict[str, dict[str, float]]:
        """Figures of each task by name."""
        ...


class Heads:
    """The network has a head for each task, and the task judges what its head answers."""

    def losses(
        self, network: nn.Module, batch: Batch, tasks: Sequence[Task], generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Loss of each task's answer."""
        found = answers(network, batch, tasks, generator)
        return {task.name: task.loss(*found[task.name]) for task in tasks}

    def answers(
        self, network: nn.Module, batch: Batch, tasks: Sequence[Task], generator: torch.Generator
    ) -> dict[str, Answer]:
        """What the heads answer, and the targets."""
        return answers(network, batch, tasks, generator)

    def scores(
        self, network: nn.Module, batch: Batch, tasks: Sequence[Task], generator: torch.Generator
    ) -> dict[str, dict[str, float]]:
        """Figures of each task's answer."""
        found = answers(network, batch, tasks, generator)
        return {task.name: task.score(*found[task.name], batch.spacing_mm) for task in tasks}


@dataclass
class Run:
    """Everything that a training run is made of.

    Attributes:
        network: The network, on its device.
        slices: The slices, on the same device.
        streams: What is learned from which slices.
        schedule: Length and rates; ``steps`` must be set.
        augmentation: Ranges of the random changes.
        patch: Side of a patch in pixels.
        seed: Seed of every draw.
        held_out: ``(n,)`` slices for the score; may be empty. Where slices are drawn by study, one bag after another.
        frozen: Prefixes of parameter names that do not learn.
        thaw: Step from which those learn too; None for never.
        warm: Prefixes of parameter names that carry pretrained weights.
        warm_rate: Their learning rate as a share of that of new weights.
        history: Scores so far, one dictionary a validation.
        blank: What each task's loss is divided by; set by :func:`train` where there are several tasks.
    """

    network: Net
    slices: SliceSet
    streams: Sequence[Stream]
    schedule: Schedule
    augmentation: Augmentation
    patch: int
    seed: int
    held_out: torch.Tensor
    learning: Learning = field(default_factory=Heads)
    frozen: tuple[str, ...] = ()
    thaw: int | None = None
    warm: tuple[str, ...] = ()
    warm_rate: float = 1.0
    history: list[dict[str, Any]] = field(default_factory=list)
    blank: dict[str, float] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------
# Device and processes


def choose_device(name: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda:N`` to a device; never falls back in silence.

    Raises:
        SettingsError: The device does not exist here.
    """
    if name == "auto":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        msg = f"Device '{name}' is not known; use auto, cpu or cuda:0, cuda:1, ..."
        raise SettingsError(msg) from None
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        msg = f"Device '{name}' is not here ({count} CUDA devices are); use auto or cpu."
        raise SettingsError(msg)
    if device.type not in ("cpu", "cuda"):
        msg = f"Device '{name}' is not supported; use auto, cpu or cuda:N."
        raise SettingsError(msg)
    return device


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 autocast where the processor computes in it, else a context that changes nothing."""
    capable = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if device.type == "cpu":
        # AMX and AVX512-BF16 make a step 2 to 3 times as fast; elsewhere bfloat16 is emulated and slower.
        flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        capable = bool(flags.get("amx_bf16") or flags.get("avx512_bf16"))
    return torch.autocast(device.type, torch.bfloat16, enabled=capable)


@contextlib.contextmanager
def processes(device: torch.device) -> Any:
    """Joins the process group that torchrun has prepared, if any; yields (rank, world size)."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1
        return
    if device.type == "cuda":
        # NCCL's barrier works on the current device, which is the first one for every process unless it is set.
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield distributed.get_rank(), world
        # Without this barrier a fast process tears the group down under a slow one, which then aborts.
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def make_deterministic(seed: int) -> None:
    """Seeds every generator and asks for deterministic kernels."""
    random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling memory that is about to be written takes a tenth of a step, and only shows who reads it before.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def _share_gradients(network: nn.Module, world: int) -> None:
    """Averages the gradients of all processes; heads that a process did not use count as zero."""
    for parameter in network.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)
            parameter.grad /= world


# ---------------------------------------------------------------------------------------------
# Draws


def step_generator(seed: int, step: int, rank: int) -> torch.Generator:
    """The generator of one step of one process, on the CPU."""
    # A large odd factor keeps neighbouring seeds, steps and ranks apart.
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 4099 + rank)


def drawn_indices(stream: Stream, seed: int, step: int, batch: int, rank: int = 0, world: int = 1) -> torch.Tensor:
    """Slices of one step: consecutive parts of one random permutation after another."""
    if not stream.bags:
        return stream.indices[_drawn(len(stream.indices), seed, (step * world + rank) * batch, batch)]
    studies = max(MIN_STUDIES, batch // stream.bag)
    drawn = _drawn(len(stream.bags), seed, (step * world + rank) * studies, studies)
    generator = step_generator(seed, step, rank)
    return torch.cat([some_of(stream.bags[k], stream.bag, generator) for k in drawn.tolist()])


def _drawn(count: int, seed: int, first: int, wanted: int) -> torch.Tensor:
    chosen = []
    for position in range(first, first + wanted):
        epoch, place = divmod(position, count)
        chosen.append(_permutation(seed, epoch, count)[place])
    return torch.stack(chosen)


def some_of(slices: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """``count`` random slices of a study; where it has fewer, each comes about equally often."""
    order = torch.randperm(len(slices), generator=generator)
    return slices[order.repeat(-(-count // len(slices)))[:count]]


_permutations: dict[tuple[int, int, int], torch.Tensor] = {}


def _permutation(seed: int, epoch: int, count: int) -> torch.Tensor:
    key = (seed, epoch, count)
    if key not in _permutations:
        if len(_permutations) > 8:
            _permutations.clear()
        generator = torch.Generator().manual_seed(seed * 7919 + epoch)
        _permutations[key] = torch.randperm(count, generator=generator)
    return _permutations[key]


def learning_rate(schedule: Schedule, step: int) -> float:
    """Rises linearly over the warm-up, then falls as half a cosine to a hundredth."""
    rate = schedule.rate or RATES["unet"]
    warm = max(1, round(schedule.warmup * schedule.steps))
    if step < warm:
        return rate * (step + 1) / warm
    along = (step - warm) / max(1, schedule.steps - warm)
    return rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, along))))


# ---------------------------------------------------------------------------------------------
# Checkpoints


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Writes ``checkpoint-<step>.pt`` (temp file, fsync, rename, in this folder) and keeps the last two."""
    path = folder / f"checkpoint-{step:07d}.pt"
    temporary = path.with_suffix(f".{os.getpid()}.part")
    try:
        with naming(path), temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    for old in sorted(folder.glob(CHECKPOINTS))[:-2]:
        old.unlink(missing_ok=True)


def load_checkpoint(folder: Path | None, device: torch.device) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None. Nothing in it is executed (``weights_only``)."""
    paths = sorted(folder.glob(CHECKPOINTS), reverse=True) if folder else []
    for path in paths:
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # whatever is wrong with it, the one before may be whole
            print(f"{path.name} cannot be read ({type(error).__name__}); going on from the one before it.", flush=True)
            continue
        return state
    return None


# ---------------------------------------------------------------------------------------------
# The loop


def make_optimiser(run: Run) -> torch.optim.AdamW:
    """AdamW over what may learn; pretrained parts at their own share of the rate, no decay on norms and biases."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in run.network.named_parameters():
        if run.thaw is not None or not _frozen(run, name):
            factor = run.warm_rate if run.warm and name.startswith(run.warm) else 1.0
            decay = run.schedule.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "factor": f, "weight_decay": d} for (f, d), p in groups.items()],
        lr=learning_rate(run.schedule, 0),
        fused=True,
    )


def _frozen(run: Run, name: str) -> bool:
    return name.startswith(run.frozen)


def hold(run: Run, step: int) -> None:
    """Lets all learn that learns at this step; what does not gets no gradient, and the optimiser leaves it alone."""
    thawed = run.thaw is not None and step >= run.thaw
    for name, parameter in run.network.named_parameters():
        parameter.requires_grad_(thawed or not _frozen(run, name))


@torch.no_grad()
def blank_losses(run: Run) -> dict[str, float]:
    """The loss of an output of zeros for each task, over evenly spaced slices; nothing for a single task."""
    if len({task.name for stream in run.streams for task, _ in stream.tasks}) < 2:
        return {}
    blank: dict[str, float] = {}
    for stream in run.streams:
        count = min(BALANCE_SLICES, len(stream.indices))
        chosen = stream.indices[torch.linspace(0, len(stream.indices) - 1, count).long()]
        generator = step_generator(run.seed, 0, 0)
        batch = make_batch(run.slices, chosen, run.patch, None, generator)
        for task, _ in stream.tasks:
            own = replace(batch)
            task.distort(own, generator)
            shape = (task.pixel_outputs, *batch.images.shape[-2:]) if task.pixel_outputs else (task.image_outputs,)
            cost = float(task.loss(torch.zeros(count, *shape, device=batch.images.device), task.target(own)))
            # A task without a target on these slices costs nothing here, and is left as it is.
            if cost > 1e-6:
                blank.setdefault(task.name, cost)
    return blank


def answers(network: nn.Module, batch: Batch, tasks: Sequence[Task], generator: torch.Generator) -> dict[str, Answer]:
    """Output and target of each task; what one task does to its input, the others do not see."""
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    undistorted = []
    for task in tasks:
        own = replace(batch)
        task.distort(own, generator)
        if own.images is batch.images:
            undistorted.append(task)
            continue
        with autocast(batch.images.device):
            output = network(own.images, [task.name])[task.name]
        found[task.name] = output, task.target(own)
    if undistorted:
        with autocast(batch.images.device):
            outputs = network(batch.images, [task.name for task in undistorted])
        found.update({task.name: (outputs[task.name], task.target(batch)) for task in undistorted})
    return found


def step_loss(run: Run, step: int, rank: int, world: int) -> torch.Tensor:
    """The weighted loss of one step over all streams."""
    generator = step_generator(run.seed, step, rank)
    total = torch.zeros((), device=run.slices.device)
    for number, stream in enumerate(run.streams):
        indices = drawn_indices(stream, run.seed + 31 * number, step, run.schedule.batch, rank, world)
        batch = make_batch(run.slices, indices, run.patch, run.augmentation, generator)
        found = run.learning.losses(run.network, batch, [task for task, _ in stream.tasks], generator)
        for task, weight in stream.tasks:
            total = total + weight / run.blank.get(task.name, 1.0) * found[task.name]
    return total


def train(run: Run, reporter: Reporter, rank: int = 0, world: int = 1) -> Net:
    """Trains to the end of the schedule, from the folder's last checkpoint if there is one.

    Returns:
        The network whose weights are the running mean.

    Raises:
        Cancelled: A stop was asked for; a checkpoint is written.
        FloatingPointError: The loss is not finite.
        SettingsError: The patch does not fit the network.
    """
    factor = run.network.factor
    if run.patch % factor or run.patch == factor:
        levels = factor.bit_length()
        need = f"a larger multiple of {factor} for network.widths of {levels} levels"
        msg = f"grid.patch is {run.patch} and must be {need}."
        raise SettingsError(msg)
    folder, steps = reporter.folder, run.schedule.steps
    optimiser = make_optimiser(run)
    average = deepcopy(run.network).requires_grad_(False)
    begin = _restore(run, optimiser, average, folder)
    run.blank = blank_losses(run)
    validate_every = run.schedule.validate_every or max(1, steps // 10)
    saved = time.monotonic()
    run.network.train()
    for step in range(begin, steps):
        if _stop_agreed(reporter, world, run.slices.device):
            if folder and rank == 0:
                save_checkpoint(folder, step, _state(run, optimiser, average, step))
            raise Cancelled
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(run.schedule, step) * group["factor"]
        hold(run, step)
        loss = step_loss(run, step, rank, world)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if world > 1:
            _share_gradients(run.network, world)
        nn.utils.clip_grad_norm_(run.network.parameters(), MAX_GRADIENT)
        value = _finite(loss, step, world)
        optimiser.step()
        _follow(average, run.network, run.schedule.average, step)
        done = step + 1
        if rank != 0:
            continue
        reporter.progress(done, steps, value)
        if done % validate_every == 0 or done == steps:
            _look(run, average, reporter, done)
        if folder and done < steps and _checkpoint_due(run.schedule, done, saved):
            save_checkpoint(folder, done, _state(run, optimiser, average, done))
            saved = time.monotonic()
    if folder and rank == 0 and begin < steps:
        save_checkpoint(folder, steps, _state(run, optimiser, average, steps))
    return average


def _look(run: Run, average: nn.Module, reporter: Reporter, done: int) -> None:
    """Scores the held-out slices; leaves a picture of what the network predicts in the job folder."""
    if len(run.held_out):
        scores = validate(run, average)
        run.history.append({"step": done, **scores})
        reporter.event("validated", step=done, steps=run.schedule.steps, scores=scores)
    if reporter.folder:
        # Drawing needs matplotlib, which nothing else here waits for.
        from .samples import write_samples

        average.eval()
        write_samples(run, average, reporter.folder, done)


def _finite(loss: torch.Tensor, step: int, world: int) -> float:
    """The mean loss of all processes.

    Raises:
        FloatingPointError: That of any is not finite; every process learns it at the same step, before the weights do.
    """
    mean = loss.detach().clone()
    if world > 1:
        distributed.all_reduce(mean)
        mean /= world
    value = float(mean)
    if not math.isfinite(value):
        msg = f"The loss is {value} at step {step}; lower schedule.rate, then resume or start again."
        raise FloatingPointError(msg)
    return value


def _stop_agreed(reporter: Reporter, world: int, device: torch.device) -> bool:
    """Whether any process was asked to stop; all of them then stop at the same step."""
    wanted = reporter.stop_requested()
    if world == 1:
        return wanted
    flag = torch.tensor(int(wanted), device=device)
    distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
    return bool(flag)


def _checkpoint_due(schedule: Schedule, done: int, saved: float) -> bool:
    if schedule.checkpoint_every:
        return done % schedule.checkpoint_every == 0
    return time.monotonic() - saved > CHECKPOINT_SECONDS


def _follow(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Moves the running mean towards the weights; early on it forgets faster, so that it starts unbiased."""
    weight = 1 - min(decay, (1 + step) / (10 + step)) if decay else 1.0
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), weight)


def _state(run: Run, optimiser: torch.optim.Optimizer, average: nn.Module, step: int) -> dict[str, Any]:
    return {
        "step": step,
        "seed": run.seed,
        "network": run.network.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": torch.get_rng_state(),
        "history": run.history,
    }


def _restore(run: Run, optimiser: torch.optim.Optimizer, average: nn.Module, folder: Path | None) -> int:
    """Puts a run where the folder's last checkpoint left it; returns the number of steps done.

    Raises:
        JobError: The checkpoint is that of another network or version.
    """
    state = load_checkpoint(folder, run.slices.device)
    if state is None:
        return 0
    try:
        wrong = misfit(state["network"], run.network.state_dict()) or misfit(state["average"], average.state_dict())
        if not wrong:
            run.network.load_state_dict(state["network"])
            average.load_state_dict(state["average"])
            optimiser.load_state_dict(state["optimiser"])
            torch.set_rng_state(state["random"].cpu())
            run.history[:] = state["history"]
            moments = [(kept["exp_avg"], weight) for weight, kept in optimiser.state.items()]
            if all(moment.shape == weight.shape for moment, weight in moments):
                return int(state["step"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        wrong = ""
    what = f"of its weights {wrong}" if wrong else "it does not hold what this version writes"
    msg = (
        f"The checkpoint in {folder} is damaged or comes from another version of the network: {what}; "
        "resume with the version that wrote it, or start a new job in another folder."
    )
    raise JobError(msg)


@torch.no_grad()
def validate(run: Run, network: nn.Module) -> dict[str, dict[str, float]]:
    """Scores of every task on the held-out slices, without augmentation; means over batches that have a target."""
    chosen = run.held_out
    if len(chosen) > SCORED_SLICES:
        chosen = chosen[torch.linspace(0, len(chosen) - 1, SCORED_SLICES).long()]
    network.eval()
    collected: dict[str, dict[str, list[float]]] = {}
    generator = step_generator(run.seed, 0, 0)
    tasks = {task.name: task for stream in run.streams for task, _ in stream.tasks}
    bag = max(stream.bag for stream in run.streams)
    for part in chosen.split(max(1, SCORED_TOGETHER // bag) * bag):
        batch = make_batch(run.slices, part, run.patch, None, generator)
        for name, figures in run.learning.scores(network, batch, list(tasks.values()), generator).items():
            for figure, value in figures.items():
                if math.isfinite(value):
                    collected.setdefault(name, {}).setdefault(figure, []).append(value)
    return {name: {f: sum(v) / len(v) for f, v in figures.items()} for name, figures in collected.items()}
