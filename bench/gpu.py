"""Build, check and measure halfbyte on the GPU of this machine: one command, one JSON with every sample.

    python bench/gpu.py --out out/gpu                              everything, in this order; run again to go on where it stopped
    python bench/gpu.py --out out/gpu --parts build conformance ops
    python bench/gpu.py --out out/gpu --parts ops --again          measure a finished part anew
    python bench/gpu.py --out out/gpu --minutes 9                  end in time, keeping what there is
    python bench/gpu.py --out out/gpu --parts ops --although-red   for work on kernels while others are red: no result
    python bench/gpu.py --out out/dry --dry-run                    every part on a CPU, tiny: no figures

Parts:
  build        install for the GPU found here (nvcc)          ceilings     copy, bf16, _int_mm, _scaled_mm, attention, own product
  conformance  every op against its reference, in pytest      ops          fused linears of six layers, quantization, feed-forward
  sanitizer    compute-sanitizer: memcheck and racecheck      block        one FLUX block of each kind, fused and not
  simt         the GPU's bits against the CPU shim's          flux12b      a 12 B model with random weights, whole runs
                                                              tune         halfbyte tune over the shared shapes

Each part has a process of its own and at most 8 minutes. The last five report no speed unless the conformance run of the same
source is green. docs/benchmarking.md says what each part's figures mean.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# Run with -P, the folder of this file is not on the path.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_parts.machine import add_toolkit_to_path  # noqa: E402
from gpu_parts.run import PARTS, run_all, run_one  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the record; a finished part in it is not run again")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART", help="in this order")
    parser.add_argument("--again", action="store_true", help="forget what the record has of these parts, and run them anew")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of all parts together")
    parser.add_argument("--part-minutes", type=float, default=8, help="of one part (default 8)")
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, tiny shapes, no GPU needed: shows that everything runs")
    parser.add_argument(
        "--although-red", action="store_true", help="measure without a green conformance run, for work on kernels; no result to report"
    )
    parser.add_argument("--only", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    add_toolkit_to_path()
    if options.only:
        return run_one(options.only, options.out, options.dry_run, options.part_minutes * 60, options.although_red)
    minutes = options.minutes * 60, options.part_minutes * 60
    return run_all(options.parts, options.out, options.dry_run, options.again, *minutes, options.although_red)


if __name__ == "__main__":
    sys.exit(main())
