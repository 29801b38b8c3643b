"""The CPU's fused INT8 linear against PyTorch's bfloat16 one, at the demo's layers and at PixArt's.

    python bench/cpu.py                                  both sets of shapes, the widest instruction set and AVX2
    python bench/cpu.py --shapes demo --isa avx2 --rounds 20

Every round times every candidate once, in turn. The baseline is the faster of F.linear and the same with a weight prepacked as
TorchInductor does; both have the low-rank branch merged. INT8 quantizes its activations on the way, smoothed; "merged" is what a
layer runs whose branch went into the INT8 weight, "rank 32" keeps it beside.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from halfbyte.checkpoint import load_pipeline
from halfbyte.env import machine
from halfbyte.formats import int8
from halfbyte.measure import interleave, load_guard, paired_ratio
from halfbyte.models import find_denoisers
from halfbyte.ops.cpu import isas, pack
from halfbyte.report import Workload
from halfbyte.testing import LAYER_SHAPES, Shape

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "digits"
RESULTS = Path(__file__).resolve().parent / "results"
RANK = 32
IMAGES = 50
BASELINES = ("linear", "prepacked linear")


def demo_shapes() -> list[Shape]:
    """Every distinct linear of the demo's models, as `halfbyte demo` runs them."""
    found: dict[tuple[int, int, int], str] = {}
    for name, workload in Workload.load_all(EXAMPLES).items():
        pipe = load_pipeline(workload.pipeline, torch.bfloat16)
        pipe.set_progress_bar_config(disable=True)
        model = next(iter(find_denoisers(pipe).values()))

        def record(path: str, module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            size = (output.numel() // module.out_features, module.out_features, module.in_features)
            found.setdefault(size, f"{workload.name}.{path}")

        for path, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_hook(partial(record, path))
        pipe(**workload.call_arguments(IMAGES, 0, 1))
    return [Shape(name, *size) for size, name in sorted(found.items())]


def pixart_shapes(tokens: int) -> list[Shape]:
    return [Shape(shape.name, min(shape.m, tokens), shape.n, shape.k) for shape in LAYER_SHAPES if shape.name.startswith("pixart")]


def candidates(shape: Shape, isa_names: list[str]) -> dict[str, Callable[[], torch.Tensor]]:
    generator = torch.Generator().manual_seed(shape.m + shape.n + shape.k)
    normal = partial(torch.randn, generator=generator)
    rank = min(RANK, shape.n, shape.k)
    x, weight, bias = normal(shape.m, shape.k).bfloat16(), normal(shape.n, shape.k), normal(shape.n).bfloat16()
    down, up, smooth = normal(shape.k, rank).bfloat16(), normal(shape.n, rank).bfloat16(), normal(shape.k).abs() + 0.5
    dense = weight.bfloat16()
    blocked = torch.ops.mkldnn._reorder_linear_weight(dense, shape.m)
    calls: dict[str, Callable[[], torch.Tensor]] = {
        BASELINES[0]: partial(F.linear, x, dense, bias),
        BASELINES[1]: partial(torch.ops.mkldnn._linear_pointwise, x, blocked, bias, "none", [], ""),
    }
    codes, scales = int8.quantize(weight)
    for isa in isa_names:
        merged = pack(codes, scales.squeeze(-1), None, None, torch.bfloat16, isa)
        beside = pack(codes, scales.squeeze(-1), down, up, torch.bfloat16, isa)
        calls[f"{isa}, merged"] = partial(merged.linear, x, smooth, bias)
        calls[f"{isa}, rank {RANK}"] = partial(beside.linear, x, smooth, bias)
    return calls


def measure(shapes: list[Shape], isa_names: list[str], rounds: int) -> dict[str, Any]:
    """Per shape the medians and the ratios to its baseline; over all shapes the geometric mean of those, round by round."""
    rows, logs = {}, {}
    for shape in shapes:
        taken = interleave(candidates(shape, isa_names), rounds, warmup=3)
        baseline = min(BASELINES, key=lambda name: statistics.median(taken[name]))
        ratios = {name: paired_ratio(taken[baseline], samples) for name, samples in taken.items() if name not in BASELINES}
        for name in ratios:
            pair = torch.tensor([taken[baseline], taken[name]], dtype=torch.float64).log()
            logs[name] = logs.get(name, 0) + pair / len(shapes)
        rows[shape.name] = {
            "m, n, k": [shape.m, shape.n, shape.k],
            "median us": {name: round(statistics.median(samples) * 1e6, 1) for name, samples in taken.items()},
            "baseline": baseline,
            "speed-up": {name: vars(ratio) for name, ratio in ratios.items()},
        }
    return {"shapes": rows, "geometric mean": {name: vars(paired_ratio(*pair.exp())) for name, pair in logs.items()}}


def show(title: str, result: dict[str, Any], console: Console) -> None:
    names = list(result["geometric mean"])
    table = Table("M x N x K", "baseline us", *names, title=title, title_justify="left")
    text = "{estimate:.2f} [{low:.2f}, {high:.2f}]"
    for row in result["shapes"].values():
        cells = [text.format(**row["speed-up"][name]) for name in names]
        table.add_row(" x ".join(map(str, row["m, n, k"])), f"{row['median us'][row['baseline']]:.0f}", *cells)
    table.add_row("geometric mean", "", *(text.format(**result["geometric mean"][name]) for name in names))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=["demo", "pixart"], default=["demo", "pixart"])
    parser.add_argument("--isa", nargs="+", default=["best", "avx2"], help=f"best, or some of {', '.join(isas())}")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tokens", type=int, default=1024, help="PixArt's M is cut to this; N and K never are")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    names = list(dict.fromkeys(isas()[0] if name == "best" else name for name in arguments.isa))
    if unknown := [name for name in names if name not in isas()]:
        parser.error(f"--isa: best or some of {', '.join(isas())} needed, got {unknown[0]}")
    torch.set_num_threads(arguments.threads)
    here, console = machine(), Console(highlight=False, width=130)
    found: dict[str, Any] = {"machine": here.cpu, "flags": here.flags, "threads": arguments.threads, "torch": here.torch}
    found |= {"rounds": arguments.rounds, "load_warning": load_guard(), "results": {}}
    with torch.no_grad():
        for name in arguments.shapes:
            shapes = demo_shapes() if name == "demo" else pixart_shapes(arguments.tokens)
            found["results"][name] = measure(shapes, names, arguments.rounds)
            show(f"{name}: {here.cpu}, {arguments.threads} threads, speed-up over bfloat16", found["results"][name], console)
    if found["load_warning"]:
        console.print(found["load_warning"])
    slug = "_".join(here.cpu.lower().replace("(r)", "").replace("@", "").split())
    path = arguments.out / f"cpu_gemm_{slug}_{os.cpu_count()}_cores.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_suffix(".partial")
    partial_path.write_text(json.dumps(found, indent=1) + "\n")
    partial_path.replace(path)
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
