"""Write cache configs by hand: a static schedule and a first-block gate, on the float DiT, with what each of them did.

    python examples/own_cache.py
    python examples/own_cache.py --steps 50 --interval 2 --threshold 0.1

One row of the picture per cache. "every step" is the run the others are compared with.
"""

import argparse
from pathlib import Path

import torch

import halfbyte
from halfbyte.measure import psnr
from halfbyte.report import as_images, draw_rows

DIT = Path(__file__).resolve().parent / "digits" / "dit"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--interval", type=int, default=3, help="the schedule computes every so many steps")
    parser.add_argument("--threshold", type=float, default=0.2, help="change of the first block that makes the gate compute")
    parser.add_argument("--out", type=Path, default=Path("out/own_cache.png"))
    options = parser.parse_args()

    schedule = halfbyte.StaticSchedule(interval=options.interval)
    gate = halfbyte.FirstBlockGate(threshold=options.threshold, max_consecutive=3)
    caches = {
        "every step": None,
        "schedule": halfbyte.CacheConfig(schedule, predictor=halfbyte.DampedLinear(0.5), site="output"),
        "gate": halfbyte.CacheConfig(gate, predictor=halfbyte.Hold()),
    }
    call = {"class_labels": [index % 10 for index in range(options.images)], "guidance_scale": 2.0, "output_type": "np"}
    pipe = halfbyte.from_pretrained(DIT)
    pipe.set_progress_bar_config(disable=True)
    rows = {}
    for name, cache in caches.items():
        fast = halfbyte.accelerate(pipe, recipe=None, cache=cache)
        rows[name] = as_images(fast(generator=torch.Generator().manual_seed(1), num_inference_steps=options.steps, **call))
        stats = fast.stats["transformer"]
        print(f"{name}: {stats.computed} computed, {stats.reused} reused, {stats.forecast} forecast")
        print(f"  computed because: {stats.reasons}")
        print(f"  PSNR to every step: {float(psnr(rows[name], rows['every step']).mean()):.1f} dB")
        fast.disable()
    print(f"picture: {draw_rows(rows, options.out)}")


if __name__ == "__main__":
    main()
