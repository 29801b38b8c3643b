"""The 1,000-image figures of the README: accuracy and fidelity per way of running, resumable chunk by chunk.

    python bench/evaluate.py                          everything, 1,000 images (hours on two cores)
    python bench/evaluate.py --models dit --images 200 --out out/quick
    python bench/evaluate.py --report                 only print what is there

Images are kept under --out, a file per chunk, written whole or not at all; run again to go on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor

import halfbyte
from halfbyte.checkpoint import load_pipeline
from halfbyte.env import machine
from halfbyte.measure import frechet_distance, load_guard, paired_difference, paired_ratio, psnr
from halfbyte.report import Judge, Workload, as_images, timed_call

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "digits"
CALIBRATION_SEED = 100_000
CALIBRATION_IMAGES = 30
CHUNK = 50
STEPS, REFERENCE_STEPS = 50, 250


class Study:
    """One workload and the ways it is run; every pipeline is built at first use."""

    def __init__(self, workload: Workload, out: Path, fraction: float):
        self.workload, self.out, self.fraction = workload, out / workload.name, fraction
        self.judge = Judge(workload.classifier)
        self.pipes: dict[str, Any] = {}
        self.conversion_seconds: dict[str, float] = {}
        self.steps = {"float, 250 steps": REFERENCE_STEPS}
        self.out.mkdir(parents=True, exist_ok=True)

    def load(self, dtype: torch.dtype = torch.float32) -> Any:
        pipe = load_pipeline(self.workload.pipeline, dtype)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def calibration(self) -> dict[str, Any]:
        return self.workload.call_arguments(CALIBRATION_IMAGES, CALIBRATION_SEED, STEPS)

    def pipe(self, variant: str) -> Any:
        if variant not in self.pipes:
            self.pipes[variant] = self.build(variant)
        return self.pipes[variant]

    def build(self, variant: str) -> Any:
        if variant in ("float", "float, 250 steps", "fewer steps (DPM++ 2M)"):
            return self.load()
        if variant == "float bf16":
            return self.load(torch.bfloat16)
        if variant == "fewer steps (DDIM)":
            pipe = self.load()
            pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
            return pipe
        if variant == "cached":
            return halfbyte.accelerate(self.load(), recipe=None, cache=self.fraction, calibration=self.calibration())
        recipe, numerics, dtype, cached = VARIANTS[variant]
        cache = self.pipe("cached").plan.cache if cached else None
        calibration = self.calibration() if recipe.startswith("svdq") else None
        start = time.perf_counter()
        pipe = halfbyte.accelerate(self.load(dtype), recipe=recipe, numerics=numerics, cache=cache, calibration=calibration)
        self.conversion_seconds[variant] = time.perf_counter() - start
        return pipe

    def images(self, variant: str, count: int, tick: Callable[[], None]) -> Tensor:
        """float32 [count, 3, H, W], from disk where a chunk is there."""
        chunks = []
        for first in range(0, count, CHUNK):
            path = self.out / variant.replace(" ", "_") / f"{first:05d}.safetensors"
            if not path.is_file():
                call = self.workload.call_arguments(CHUNK, first, self.steps.get(variant, STEPS))
                images = as_images(self.pipe(variant)(**call))
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_suffix(".partial")
                save_file({"images": images.half().contiguous()}, partial)
                partial.replace(path)
            chunks.append(load_file(path)["images"].float())
            tick()
        return torch.cat(chunks)[:count]

    def equal_time(self) -> dict[str, Any]:
        """Denoising seconds, interleaved: float in fp32 and bf16, cached, 4-bit + cached; rivals' steps in at least the cached time."""
        path = self.out / "times.json"
        if path.is_file():
            return json.loads(path.read_text())
        call = lambda steps: self.workload.call_arguments(CHUNK, 0, steps)  # noqa: E731
        names = ["float", "float bf16", "cached", FASTEST]
        taken: dict[str, list[float]] = {name: [] for name in names}
        for round_index in range(6):
            for name in names:
                seconds = timed_call(self.pipe(name), call(STEPS))[1].denoising
                if round_index:
                    taken[name].append(seconds)
        cached_speedup = paired_ratio(taken["float"], taken["cached"])
        baseline = min(("float", "float bf16"), key=lambda name: statistics.median(taken[name]))
        both_speedup = paired_ratio(taken[baseline], taken[FASTEST])
        steps = math.ceil(STEPS / cached_speedup.estimate)
        while True:  # rivals get equal or more measured time
            pairs = [
                (timed_call(self.pipe("cached"), call(STEPS))[1].denoising, timed_call(self.pipe("fewer steps (DPM++ 2M)"), call(steps))[1].denoising)
                for _ in range(5)
            ]
            if paired_ratio([fewer for _, fewer in pairs], [cached for cached, _ in pairs]).estimate >= 1:
                break
            steps += 1
        times = {
            "seconds": taken,
            "rival_steps": steps,
            "fewer_steps_seconds": [fewer for _, fewer in pairs],
            "baseline": baseline,
            "cached_speedup": vars(cached_speedup),
            "both_speedup": vars(both_speedup),
            "load_warning": load_guard(),
            "threads": torch.get_num_threads(),
        }
        path.write_text(json.dumps(times, indent=1))
        return times


FASTEST = "4-bit native bf16 + cached"
# variant: recipe, numerics, compute dtype, cached
VARIANTS = {
    "RTN INT4 (w4a4)": ("rtn_int4", "w4a4", torch.float32, False),
    "SVDQuant INT4 (w4a4)": ("svdq_int4", "w4a4", torch.float32, False),
    "SVDQuant NVFP4 (nvfp4)": ("svdq_nvfp4", "nvfp4", torch.float32, False),
    "SVDQuant INT4 (w4a4) + cached": ("svdq_int4", "w4a4", torch.float32, True),
    FASTEST: ("svdq_int4", "native", torch.bfloat16, True),
}
RIVALS = ("fewer steps (DPM++ 2M)", "fewer steps (DDIM)")
COUNTED = ("float", FASTEST)
ORDER = ["float", "float, 250 steps", *RIVALS, "cached", *VARIANTS]


def evaluate(study: Study, count: int, paired_count: int, progress: Progress) -> dict[str, Any]:
    """Figures of one workload: per variant accuracy, FID, PSNR to the float run and to the 250-step float run, per image."""
    times = study.equal_time()
    study.steps |= dict.fromkeys(RIVALS, times["rival_steps"])
    counts = {name: count if name in COUNTED else min(count, paired_count) for name in ORDER}
    task = progress.add_task(study.workload.name, total=sum(math.ceil(n / CHUNK) for n in counts.values()))
    images = {}
    for name in ORDER:
        progress.update(task, description=f"{study.workload.name}: {name}")
        images[name] = study.images(name, counts[name], lambda: progress.advance(task))
    rows, labels = {}, study.workload.labels(count)
    for name, made in images.items():
        judged = study.judge(made)
        fine, base = images["float, 250 steps"], images["float"]
        shared = min(len(made), len(fine))
        rows[name] = {
            "images": len(made),
            "steps": study.steps.get(name, STEPS),
            "right": (judged.predicted == labels[: len(made)]).double(),
            "fid": frechet_distance(judged.features, study.judge.real_features),
            "seconds_to_convert": study.conversion_seconds.get(name),
            "psnr": psnr(made, base[: len(made)]),
            "psnr_250": psnr(made[:shared], fine[:shared]),
        }
    return {"times": times, "rows": rows}


def claims(figures: dict[str, Any]) -> dict[str, Any]:
    """Paired differences in dB with 95 % intervals, and the accuracy differences in points."""
    rows = figures["rows"]
    found: dict[str, Any] = {"float accuracy": float(rows["float"]["right"].mean())}
    for name in list(VARIANTS):
        right, float_right = rows[name]["right"], rows["float"]["right"][: rows[name]["images"]]
        found[f"{name}: accuracy points from float on the same images"] = 100 * float((right - float_right).mean())

    def gain(better: str, worse: str, target: str = "psnr") -> dict[str, float]:
        shared = min(len(rows[better][target]), len(rows[worse][target]))
        return vars(paired_difference(rows[better][target][:shared], rows[worse][target][:shared]))

    found["SVDQuant over RTN, dB"] = gain("SVDQuant INT4 (w4a4)", "RTN INT4 (w4a4)")
    found["NVFP4 over INT4, dB"] = gain("SVDQuant NVFP4 (nvfp4)", "SVDQuant INT4 (w4a4)")
    for target, label in (("psnr", "the float run"), ("psnr_250", "the 250-step run")):
        for rival in RIVALS:
            found[f"cached over {rival}, to {label}, dB"] = gain("cached", rival, target)
    found["4-bit + cached, denoising speed-up"] = figures["times"]["both_speedup"]
    return found


def finite(value: Tensor) -> float | None:
    """None for the infinite PSNR of a run with itself."""
    return float(value) if value.isfinite() else None


def summary(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures as JSON: per-image values become their mean."""
    rows = {
        name: {**{key: value for key, value in row.items() if key != "right"}, "accuracy": float(row["right"].mean()), **{key: finite(row[key].mean()) for key in ("psnr", "psnr_250")}}
        for name, row in figures["rows"].items()
    }
    return {"times": figures["times"], "rows": rows, "claims": claims(figures)}


def show(name: str, result: dict[str, Any], console: Console) -> None:
    table = Table("run", "images", "steps", "accuracy", "FID", "PSNR to float", "PSNR to 250 steps", title=name, title_justify="left")
    for row, values in result["rows"].items():
        decibels = ["same" if values[key] is None else f"{values[key]:.2f}" for key in ("psnr", "psnr_250")]
        table.add_row(row, str(values["images"]), str(values["steps"]), f"{100 * values['accuracy']:.1f} %", f"{values['fid']:.2f}", *decibels)
    console.print(table)
    for claim, value in result["claims"].items():
        text = "{estimate:.3f} [{low:.3f}, {high:.3f}]".format(**value) if isinstance(value, dict) else f"{value:.3f}"
        console.print(f"  {claim}: {text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["dit", "unet"])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--paired-images", type=int, default=1000, help="images of the runs that are compared pair by pair with float")
    parser.add_argument("--cache", type=float, default=0.36, help="fraction of steps the cached runs compute")
    parser.add_argument("--examples", type=Path, default=EXAMPLES)
    parser.add_argument("--out", type=Path, default=Path("out/evaluate"))
    parser.add_argument("--report", action="store_true", help="print the figures that are there and stop")
    options = parser.parse_args()
    console = Console(highlight=False)
    results_path = options.out / "evaluate.json"
    if options.report:
        for name, result in json.loads(results_path.read_text())["models"].items():
            show(name, result, console)
        return
    workloads = Workload.load_all(options.examples)
    results: dict[str, Any] = {"machine": machine().cpu, "threads": torch.get_num_threads(), "torch": torch.__version__, "models": {}}
    with Progress(console=console) as progress:
        for name in options.models:
            study = Study(workloads[name], options.out, options.cache)
            results["models"][name] = summary(evaluate(study, options.images, options.paired_images, progress))
            results_path.write_text(json.dumps(results, indent=1))
    for name, result in results["models"].items():
        show(name, result, console)


if __name__ == "__main__":
    main()
