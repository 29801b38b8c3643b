"""One training loop for every network: warm-up, cosine decay to the planned end, weight averaging, resume, Ctrl-C."""

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from checkpoint import optimizer_tensors, read_state, restore_optimizer, write_state


@dataclass(frozen=True)
class Budget:
    """When to stop (`steps` or `minutes` of wall time, whichever is first) and how fast to learn."""

    steps: int
    minutes: float
    learning_rate: float
    warmup: int = 200
    ema_decay: float = 0.999
    weight_decay: float = 0.01
    save_every: float = 120.0
    export_after: float = 600.0
    export_every: float = 300.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.minutes <= 0:
            raise ValueError(f"training needs at least one step and some minutes, not {self.steps} and {self.minutes}")


class Average:
    """Exponential moving average of every floating tensor of a module, the weights that ship."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards `module`; early steps weigh more, so that the random start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, 1 - decay)
            else:
                self.tensors[name].copy_(tensor)


class Interrupt:
    """Turns the first Ctrl-C or SIGTERM into a flag that the loop reads between steps; a second one stops at once."""

    def __init__(self) -> None:
        self.raised = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle)

    def handle(self, number: int, frame: object) -> None:
        if self.raised:
            raise KeyboardInterrupt
        self.raised = True


def train(name: str, module: nn.Module, loss: Callable[[torch.Generator], torch.Tensor], budget: Budget, work: Path,
          export: Callable[[dict[str, torch.Tensor], dict], None]) -> bool:
    """Train `module` until the budget ends and hand its averaged weights to `export(tensors, facts)`.

    `loss(generator)` draws a batch and returns a scalar. `export` is also called now and then before the end.
    Returns False when interrupted; the state is saved either way. On a slow machine the decay follows the clock, on
    a fast one the step count.
    """
    device = next(module.parameters()).device
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=budget.learning_rate, weight_decay=budget.weight_decay, betas=(0.9, 0.99), fused=True)
    average = Average(module, budget.ema_decay)
    generator = torch.Generator().manual_seed(0)
    facts = {"step": 0, "wall_seconds": 0.0, "cpu_seconds": 0.0}
    if (saved := read_state(work / name)) is not None:
        tensors, facts = saved
        facts.pop("tensors")
        module.load_state_dict({key[6:]: value for key, value in tensors.items() if key.startswith("model.")})
        average.tensors = {key[4:]: value.to(device) for key, value in tensors.items() if key.startswith("ema.")}
        restore_optimizer(optimizer, tensors)
        generator.set_state(tensors["rng"])
        torch.set_rng_state(tensors["rng_global"])

    def save() -> None:
        state = {f"model.{key}": value for key, value in module.state_dict().items()}
        state |= {f"ema.{key}": value for key, value in average.tensors.items()}
        state |= optimizer_tensors(optimizer) | {"rng": generator.get_state(), "rng_global": torch.get_rng_state()}
        write_state(work / name, state, facts)

    interrupt = Interrupt()
    limit = budget.minutes * 60
    last_save = last_export = facts["wall_seconds"]
    module.train()
    form = "{desc}: {percentage:5.1f}%|{bar}| {elapsed}<{remaining} {postfix}"

    def progress() -> float:
        return min(1.0, max(facts["step"] / budget.steps, facts["wall_seconds"] / limit))

    with tqdm(total=1.0, initial=progress(), desc=name, mininterval=5, dynamic_ncols=True, bar_format=form) as bar:
        while facts["step"] < budget.steps and facts["wall_seconds"] < limit and not interrupt.raised:
            wall, cpu = time.monotonic(), time.process_time()
            decay = 0.02 + 0.49 * (1 + math.cos(math.pi * progress()))
            rate = min(1.0, (facts["step"] + 1) / budget.warmup) * decay
            optimizer.param_groups[0]["lr"] = budget.learning_rate * rate
            value = loss(generator)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            average.update(module, facts["step"])
            facts["step"] += 1
            if facts["step"] % 50 == 0:
                bar.set_postfix(step=facts["step"], loss=f"{value.item():.4f}", refresh=False)
            bar.update(progress() - bar.n)
            facts["wall_seconds"] += time.monotonic() - wall
            facts["cpu_seconds"] += time.process_time() - cpu
            if facts["wall_seconds"] - last_save > budget.save_every:
                save()
                last_save = facts["wall_seconds"]
            if facts["wall_seconds"] > budget.export_after and facts["wall_seconds"] - last_export > budget.export_every:
                export(average.tensors, facts)
                last_export = facts["wall_seconds"]
    save()
    if not interrupt.raised:
        export(average.tensors, facts)
    return not interrupt.raised
