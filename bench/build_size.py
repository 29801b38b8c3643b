"""What the CUDA extension costs to build, ship and import: python bench/build_size.py [--archs all] [--json OUT].

Builds it as setup.py does, into a folder thrown away afterwards: wall seconds, bytes, the libraries it asks the loader for, and
what `import halfbyte` adds after torch and diffusers, in fresh processes. Exits 1 beyond LIMITS.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from halfbyte.measure import load_guard

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {"seconds": 8 * 60, "bytes": 8_000_000}
UNWANTED = re.compile(r"lib(torch|c10|cudart|cuda\b)")
TIMED_IMPORTS = """
import time
times = [time.perf_counter()]
import torch, diffusers
times.append(time.perf_counter())
import halfbyte
times.append(time.perf_counter())
print([times[1] - times[0], times[2] - times[1]])
"""


def build(archs: str, folder: Path) -> float:
    """Wall seconds of a build from nothing into folder/lib. Raises CalledProcessError when it fails."""
    # In a copy, so that no object of an earlier build is taken.
    for name in ("csrc", "engine", "triton_kernels"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, folder)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", folder / "lib", "--build-temp", folder / "temp"]
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, env={**os.environ, "HALFBYTE_CUDA_ARCHS": archs}, check=True, stdout=sys.stderr)
    return time.perf_counter() - start


def needed(library: Path) -> list[str]:
    """The shared libraries that loading this one loads."""
    listing = subprocess.run(["readelf", "-dW", library], capture_output=True, text=True, check=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.+)\]", listing)


def import_seconds(rounds: int) -> dict[str, dict[str, float]]:
    """Medians, with 95 % intervals, over fresh processes that import torch and diffusers and then halfbyte, timing each."""
    samples = [json.loads(subprocess.check_output([sys.executable, "-P", "-c", TIMED_IMPORTS])) for _ in range(rounds + 1)]
    # The first process warms the page cache.
    peers, own = zip(*samples[1:], strict=True)
    return {"peers": median_interval(peers), "halfbyte": median_interval(own)}


def median_interval(values: Sequence[float], confidence: float = 0.95) -> dict[str, float]:
    """Median, and two order statistics that enclose the true one with at least this confidence (sign test), or the extremes."""
    ordered, n = sorted(values), len(values)
    tail, below = 0.0, 0
    while (tail := tail + math.comb(n, below) / 2**n) <= (1 - confidence) / 2:
        below += 1
    low = max(below - 1, 0)
    return {"estimate": (ordered[(n - 1) // 2] + ordered[n // 2]) / 2, "low": ordered[low], "high": ordered[n - 1 - low]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", default="all", help="as HALFBYTE_CUDA_ARCHS")
    parser.add_argument("--rounds", type=int, default=15, help="processes that import")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    if busy := load_guard():
        print(busy, file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        seconds = build(options.archs, Path(folder))
        libraries = sorted(Path(folder, "lib").rglob("_cuda*.so"))
        if not libraries:
            sys.exit("halfbyte._cuda: the build made none, so nvcc and at least one architecture are needed")
        size, loads = libraries[0].stat().st_size, needed(libraries[0])
    figures = {"archs": options.archs, "cores": len(os.sched_getaffinity(0)), "seconds": seconds, "bytes": size, "needed": loads}
    figures["import_seconds"] = imports = import_seconds(options.rounds)
    added = {name: 1000 * seconds for name, seconds in imports["halfbyte"].items()}
    print(f"build      {seconds:.0f} s on {figures['cores']} cores, CPU extension included (limit {LIMITS['seconds']})")
    print(f"size       {size / 1e6:.2f} MB (limit {LIMITS['bytes'] / 1e6:.0f})")
    print(f"needed     {', '.join(loads)}")
    print(f"import     {added['estimate']:.1f} ms [{added['low']:.1f}, {added['high']:.1f}]", end=" ")
    print(f"after torch and diffusers ({imports['peers']['estimate']:.1f} s)")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    exceeded = [name for name, limit in LIMITS.items() if figures[name] > limit]
    failures = [f"{name}: at most {LIMITS[name]} allowed, got {figures[name]:.0f}" for name in exceeded]
    failures += [f"{library}: not to be loaded by the extension" for library in loads if UNWANTED.match(library)]
    sys.exit("\n".join(failures) or None)


if __name__ == "__main__":
    main()
