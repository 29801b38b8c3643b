"""Model and recipe in, the same model with low-bit weights out, one block at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from .formats import LayerFormat
from .layers import LowBitWeight, install, share_down
from .models.layer_roles import layer_sites
from .quantize.calibrate import FEWEST_ROWS, Samples, Tap, collect, sample_bytes
from .quantize.finished import FinishedBlocks, block_key
from .quantize.recipe import RECIPES, Recipe, get_recipe
from .quantize.select import Decision, decide
from .quantize.svdquant import quantize_group

# (layers done, layers in all, name of the input group being fitted)
Progress = Callable[[int, int, str], None]
Storages = dict[str, dict[str, Tensor]]
UNHEARD = f", fitted without data as calibration reached it with fewer than {FEWEST_ROWS} rows"


@dataclass(frozen=True)
class _Group:
    """Layers that read one input, in definition order."""

    name: str
    decisions: list[Decision]
    layers: list[nn.Linear | nn.Conv2d]
    attention: nn.Module | None

    @property
    def layer_format(self) -> LayerFormat:
        return self.decisions[0].layer_format

    def tap(self, recipe: Recipe) -> Tap:
        weight = self.layers[0].weight
        return Tap(self.name, self.layers[0], recipe.rows_for(weight[0].numel()), self.attention)


@dataclass(frozen=True)
class _Block:
    """The groups of one block, and the module they are in."""

    name: str
    module: nn.Module
    groups: list[_Group]

    @property
    def decisions(self) -> list[Decision]:
        return [decision for group in self.groups for decision in group.decisions]


def convert(
    model: nn.Module,
    recipe: str | Recipe | None,
    calibrate: Callable[[], None] | None = None,
    decisions: Sequence[Decision] | None = None,
    progress: Progress | None = None,
    resume: str | os.PathLike | None = None,
    low_memory: bool = False,
    memory_budget: int = 8 << 30,
) -> list[Decision]:
    """Replace the weights of the decided layers in place and return the decisions with what was found added to their reasons.

    recipe: how to fit; None, allowed when decisions are given, fits as "svdq_int4" does, in the formats decided.
    calibrate: runs the float model on typical inputs once per call; without it the recipe runs data-free.
    decisions: from `decide`; None decides here.
    progress: called before and after every input group with (layers done, layers in all, group name).
    resume: a folder that keeps every finished block; the same model, recipe and calibration data continue from it, bit for bit.
    memory_budget: bytes of calibration samples held at a time; when they would be more, calibrate runs again for the next blocks.
    low_memory: False installs the new weights when all are fitted, so that whatever ends the conversion leaves the model fully
        float, at a peak of the float model plus the low-bit one. True installs them after each calibration pass (after each
        block without calibration) and frees the float ones: a conversion that fails half way leaves a model to be discarded,
        and later passes see the inputs that the layers converted so far produce.
    Raises ValueError for a decision that does not match a layer of the model.
    """
    if decisions is None:
        if recipe is None:
            raise ValueError("recipe: a name or a Recipe needed when no decisions are given, got None")
        decisions = decide(model, recipe)
    recipe = RECIPES["svdq_int4"] if recipe is None else get_recipe(recipe)
    blocks = _blocks(model, decisions)
    calibrate = calibrate if recipe.uses_calibration else None
    finished = FinishedBlocks(resume) if resume is not None else None
    report = _Reporter(progress, sum(len(block.decisions) for block in blocks))
    pending: dict[str, LowBitWeight] = {}
    notes: dict[str, str] = {}
    for blocks_of_pass in _passes(blocks, recipe, calibrate, memory_budget):
        taps = [group.tap(recipe) for block in blocks_of_pass for group in block.groups]
        samples = collect(taps, calibrate) if calibrate is not None else {}
        for block in blocks_of_pass:
            storages, found = _fit_block(block, recipe, samples, finished, report)
            notes |= found
            if calibrate is not None:
                notes |= {layer: f"{found[layer]}{UNHEARD}" for layer in _unheard(block, samples)}
            pending |= _weights(block, storages)
            for group in block.groups:
                samples.pop(group.name, None)
        if low_memory:
            _install(model, pending)
            pending = {}
    _install(model, pending)
    return [replace(decision, reason=_join(decision.reason, notes.get(decision.name))) for decision in decisions]


def _blocks(model: nn.Module, decisions: Sequence[Decision]) -> list[_Block]:
    sites = {site.name: site for site in layer_sites(model)}
    grouped: dict[str, dict[str, list[Decision]]] = {}
    for decision in decisions:
        if decision.layer_format is None:
            continue
        site = sites.get(decision.name)
        if site is None or tuple(site.module.weight.shape) != tuple(decision.shape):
            found = "no such layer" if site is None else f"a weight of {tuple(site.module.weight.shape)}"
            shape = tuple(decision.shape)
            raise ValueError(f"decisions: {decision.name} with a weight of {shape} needed in the model, got {found}")
        if site.module.weight.is_meta:
            raise ValueError(f"model: {decision.name}.weight needed with data to convert, got a meta tensor")
        group = grouped.setdefault(site.block, {}).setdefault(decision.input_group, [])
        if group and group[0].layer_format != decision.layer_format:
            shared = f"the format of {group[0].name}, whose input it shares"
            raise ValueError(f"decisions: {decision.name} needs {shared}, got {decision.layer_format}")
        group.append(decision)
    blocks = []
    for block, groups in grouped.items():
        entries = []
        for name, members in groups.items():
            layers = [sites[member.name].module for member in members]
            parent = model.get_submodule(members[0].name.replace(".base_layer", "").rpartition(".")[0])
            entries.append(_Group(name, members, layers, parent if members[0].role == "qkv" else None))
        blocks.append(_Block(block, model.get_submodule(block), entries))
    return blocks


def _passes(blocks: list[_Block], recipe: Recipe, calibrate: Callable | None, budget: int) -> Iterator[list[_Block]]:
    """Runs of blocks whose samples fit the budget together; single blocks without calibration."""
    run: list[_Block] = []
    held = 0
    for block in blocks:
        size = sum(sample_bytes(group.tap(recipe)) for group in block.groups) if calibrate is not None else budget
        if run and held + size > budget:
            yield run
            run, held = [], 0
        run.append(block)
        held += size
    if run:
        yield run


def _fit_block(
    block: _Block, recipe: Recipe, samples: dict[str, Samples], finished: FinishedBlocks | None, report: _Reporter
) -> tuple[Storages, dict[str, str]]:
    dtype = block.groups[0].layers[0].weight.dtype
    if finished is not None:
        key = _key(block, recipe, samples)
        if (kept := finished.load(block.name, key, block.decisions, dtype)) is not None:
            for group in block.groups:
                report(group.name, len(group.layers))
            return kept
    storages: Storages = {}
    notes: dict[str, str] = {}
    for group in block.groups:
        report(group.name, 0)
        found = quantize_group(group.name, group.layers, group.layer_format, recipe, samples.get(group.name), group.attention)
        for decision, storage in zip(group.decisions, found.storages, strict=True):
            storages[decision.name] = storage
            notes[decision.name] = found.note
        report(group.name, len(group.layers))
    if finished is not None:
        finished.save(block.name, key, storages, notes)
    return storages, notes


def _key(block: _Block, recipe: Recipe, samples: dict[str, Samples]) -> str:
    settings = {
        "recipe": recipe.to_dict(),
        "formats": {decision.name: decision.layer_format.to_dict() for decision in block.decisions},
        "groups": {group.name: [decision.name for decision in group.decisions] for group in block.groups},
    }

    def tensors() -> Iterator[tuple[str, Tensor]]:
        yield from block.module.state_dict().items()
        for group in block.groups:
            heard = samples.get(group.name)
            if heard is not None:
                yield f"{group.name} fit", heard.fit
                yield f"{group.name} held out", heard.held_out
                yield from _tensors_in(heard.calls, f"{group.name} calls")

    return block_key(settings, tensors())


def _tensors_in(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors_in(item, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _tensors_in(item, f"{name}.{index}")


def _unheard(block: _Block, samples: dict[str, Samples]) -> list[str]:
    return [decision.name for group in block.groups if group.name not in samples for decision in group.decisions]


def _weights(block: _Block, storages: Storages) -> dict[str, LowBitWeight]:
    weights: dict[str, LowBitWeight] = {}
    for group in block.groups:
        members = []
        for decision, layer in zip(group.decisions, group.layers, strict=True):
            storage = {name: tensor.to(layer.weight.device) for name, tensor in storages[decision.name].items()}
            members.append(LowBitWeight(storage, decision.layer_format, tuple(decision.shape), layer.weight.dtype))
        if len(members) > 1 and group.layer_format.rank:
            share_down(members)
        weights |= {decision.name: weight for decision, weight in zip(group.decisions, members, strict=True)}
    return weights


def _install(model: nn.Module, weights: dict[str, LowBitWeight]) -> None:
    """All or none: what interrupts the loop puts the float parameters back."""
    replaced: list[tuple[nn.Module, nn.Parameter]] = []
    try:
        for name, weight in weights.items():
            module = model.get_submodule(name)
            replaced.append((module, module.weight))
            install(module, weight)
    except BaseException:
        for module, parameter in replaced:
            module.weight = parameter
        raise


class _Reporter:
    def __init__(self, progress: Progress | None, total: int):
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, group: str, finished: int) -> None:
        self.done += finished
        if self.progress is not None:
            self.progress(self.done, self.total, group)


def _join(reason: str, note: str | None) -> str:
    return f"{reason}; {note.removeprefix(', ')}" if note else reason
