"""Quantize the shipped DiT, save it, load it again, and compare: the same bits, in fewer bytes.

    python examples/quantize_and_reload.py
    python examples/quantize_and_reload.py --recipe svdq_nvfp4 --numerics nvfp4 --out out/digits-nvfp4

Ends with an error when the reloaded pipeline does not draw exactly what the saved one drew.
"""

import argparse
from pathlib import Path

import torch

import halfbyte
from halfbyte.measure import module_bytes, psnr
from halfbyte.report import as_images

DIT = Path(__file__).resolve().parent / "digits" / "dit"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--recipe", default="svdq_int4", choices=halfbyte.RECIPES)
    parser.add_argument("--numerics", default="native", choices=["native", "w4a4", "w4a8", "nvfp4"])
    parser.add_argument("--out", type=Path, default=Path("out/digits-4bit"))
    options = parser.parse_args()

    def draw(pipe, seed):
        pipe.set_progress_bar_config(disable=True)
        labels = [index % 10 for index in range(options.images)]
        return as_images(pipe(class_labels=labels, generator=torch.Generator().manual_seed(seed), **call))

    call = {"guidance_scale": 2.0, "num_inference_steps": options.steps, "output_type": "np"}
    pipe = halfbyte.from_pretrained(DIT)
    wanted, float_bytes = draw(pipe, seed=1), module_bytes(pipe.transformer)
    calibration = call | {"class_labels": list(range(10)), "generator": torch.Generator().manual_seed(0)}
    quantized = halfbyte.accelerate(pipe, options.recipe, calibration=calibration, numerics=options.numerics)
    before = draw(quantized, seed=1)
    print(f"transformer: {float_bytes:,} bytes float, {module_bytes(quantized.transformer):,} quantized")
    print(f"PSNR to float: {float(psnr(before, wanted).mean()):.1f} dB, run as {quantized.prepared.description}")

    quantized.save_pretrained(options.out)
    after = draw(halfbyte.from_pretrained(options.out), seed=1)
    if not torch.equal(after, before):
        raise SystemExit(f"{options.out}: the reloaded pipeline draws other images")
    print(f"{options.out}: saved, reloaded, the same {options.images} images bit for bit")


if __name__ == "__main__":
    main()
