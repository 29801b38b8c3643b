"""Make the shipped class-conditional DiT 4-bit and cached, and save one picture.

    python examples/quickstart.py
    python examples/quickstart.py --digit 7 --steps 50 --cache 0.3 --out out/seven.png

Calibration draws the ten digits once; from it come the 4-bit weights and the steps that the cache computes.
"""

import argparse
from pathlib import Path

import torch

import halfbyte

DIT = Path(__file__).resolve().parent / "digits" / "dit"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digit", type=int, default=3, choices=range(10), metavar="0-9")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps, of calibration too")
    parser.add_argument("--recipe", default="svdq_int4", choices=halfbyte.RECIPES)
    parser.add_argument("--cache", type=float, default=0.4, help="fraction of steps to compute")
    parser.add_argument("--out", type=Path, default=Path("out/quickstart.png"))
    options = parser.parse_args()

    pipe = halfbyte.from_pretrained(DIT)
    pipe.set_progress_bar_config(disable=True)
    call = {"guidance_scale": 2.0, "num_inference_steps": options.steps}
    calibration = call | {"class_labels": list(range(10)), "generator": torch.Generator().manual_seed(0)}
    fast = halfbyte.accelerate(pipe, options.recipe, cache=options.cache, calibration=calibration)
    print(fast.plan)
    print(f"runs here as: {fast.prepared.description}")

    image = fast(class_labels=[options.digit], generator=torch.Generator().manual_seed(1), **call).images[0]
    stats = fast.stats["transformer"]
    print(f"{stats.computed} steps computed, {stats.reused} reused, {stats.forecast} forecast")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    image.save(options.out)
    print(f"picture: {options.out}")


if __name__ == "__main__":
    main()
