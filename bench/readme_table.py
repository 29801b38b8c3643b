"""Write the README's table of results from bench/results/*.json, between its markers: python bench/readme_table.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results -->", "<!-- /results -->"


def interval(value: dict[str, float]) -> str:
    return f"{value['estimate']:+.1f} dB [{value['low']:+.1f}, {value['high']:+.1f}]"


def section(name: str, result: dict[str, Any]) -> list[str]:
    rows, claims, times = result["rows"], result["claims"], result["times"]
    lines = [
        f"**{name}**",
        "",
        "| run | images | steps | class accuracy | FID | PSNR to float | PSNR to 250 steps |",
        "|---|---|---|---|---|---|---|",
    ]
    for run, row in rows.items():
        decibels = ["" if row[key] is None else f"{row[key]:.1f} dB" for key in ("psnr", "psnr_250")]
        lines.append(f"| {run} | {row['images']} | {row['steps']} | {100 * row['accuracy']:.1f} % | {row['fid']:.2f} | {' | '.join(decibels)} |")
    speed = times["both_speedup"]
    lines += [
        "",
        f"- Denoising of 4-bit + cached against float ({'bf16' if 'bf16' in times['baseline'] else 'fp32'}, the faster here): "
        f"**{speed['estimate']:.2f}x** [{speed['low']:.2f}, {speed['high']:.2f}].",
        f"- Cached against {times['rival_steps']} steps of DPM++ 2M, which take at least as long: "
        f"{interval(claims['cached over fewer steps (DPM++ 2M), to the float run, dB'])} to the float run, "
        f"{interval(claims['cached over fewer steps (DPM++ 2M), to the 250-step run, dB'])} to a 250-step run.",
        f"- SVDQuant against round-to-nearest, both W4A4: {interval(claims['SVDQuant over RTN, dB'])}; "
        f"NVFP4 against INT4: {interval(claims['NVFP4 over INT4, dB'])}.",
        "",
    ]
    return lines


def ratio(value: dict[str, float]) -> str:
    return f"{value['estimate']:.2f}x [{value['low']:.2f}, {value['high']:.2f}]"


def gpu_section(data: dict[str, Any]) -> list[str]:
    """A record of bench/gpu.py; nothing of a dry run, nor without a green conformance run of the source that was measured."""
    parts = data["parts"]
    source = parts.get("conformance", {}).get("source")
    if data["dry_run"] or parts.get("conformance", {}).get("status") != "done":
        return []
    cases = {name: part["cases"] for name, part in parts.items() if part.get("source") == source}
    lines = linear_rows({name: case for name, case in cases.get("ops", {}).items() if name.startswith("linear ")})
    lines += run_rows({name: case for name, case in cases.get("flux12b", {}).items() if name.endswith(" steps")})
    lines += facts(cases)
    versions, gpu = data["machine"]["versions"], data["machine"]["gpu"]
    title = f"{data['gpu']}, driver {gpu['driver_version']}, torch {versions['torch']}, Triton {versions['triton']}"
    return [f"**{title}**; intervals are 95 %, paired by round.", "", *lines] if lines else []


def linear_rows(linears: dict[str, Any]) -> list[str]:
    own = list(dict.fromkeys(name for case in linears.values() for name in case["speed-up"] if name.endswith("rank 32")))
    if not own:
        return []
    lines = [
        "Linear layers, activation quantization included, against the faster of `F.linear` and max-autotune in bf16:",
        "",
        f"| layer | M x N x K | bf16 | {' | '.join(own)} |",
        "|---" * (3 + len(own)) + "|",
    ]
    for name, case in linears.items():
        speeds = [ratio(case["speed-up"][column]) if column in case["speed-up"] else "" for column in own]
        size = " x ".join(map(str, case["m, n, k"]))
        baseline = f"{case['median us'][case['baseline']]:.0f} us"
        lines.append(f"| {name.removeprefix('linear ')} | {size} | {baseline} | {' | '.join(speeds)} |")
    return [*lines, ""]


def run_rows(runs: dict[str, Any]) -> list[str]:
    if not runs:
        return []
    ways = list(dict.fromkeys(way for case in runs.values() for way in case["median s"]))
    lines = [
        "A FLUX.1-dev-shaped 12 B model at 1024 x 1024, denoising alone. Its weights are random: this shows speed, not quality.",
        "",
        f"| run | {' | '.join(runs)} |",
        "|---" * (1 + len(runs)) + "|",
    ]
    for way in ways:
        cells = []
        for case in runs.values():
            seconds, speeds = case["median s"].get(way), case.get("speed-up", {})
            cells.append("" if seconds is None else f"{seconds:.2f} s" + (f", {ratio(speeds[way])}" if way in speeds else ""))
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return [*lines, ""]


def facts(cases: dict[str, Any]) -> list[str]:
    lines, flux = [], cases.get("flux12b", {})
    if copy := cases.get("ceilings", {}).get("copy"):
        shares = [case.get("share of the measured copy", {}) for name, case in cases.get("ops", {}).items() if name.startswith("quantize ")]
        own = [share for of in shares for name, share in of.items() if name.startswith(("cuda", "triton")) and "rank" not in name]
        quantizing = f"; quantize_act reaches {100 * min(own):.0f} to {100 * max(own):.0f} % of it" if own else ""
        lines.append(f"- A copy moves {copy['TB/s']['copy']:.2f} TB/s{quantizing}.")
    if "quantize" in flux:
        lines.append(f"- The 12 B model is quantized data-free in {flux['quantize']['quantize seconds']:.0f} s.")
    for name, words in (("memory", ""), ("memory, 4-bit", ' with `memory="4bit"`')):
        if name in flux:
            lines.append(f"- It runs in {flux[name]['peak bytes'] / 1e9:.1f} GB{words}.")
    return [*lines, ""] if lines else []


def main() -> None:
    lines = []
    for path in sorted((ROOT / "bench" / "results").glob("*.json")):
        data = json.loads(path.read_text())
        if data.get("kind") == "gpu":
            lines += gpu_section(data)
        if "models" not in data:
            continue
        lines += [f"{data['machine']}, {data['threads']} threads, torch {data['torch']} ({path.name}); intervals are 95 %, paired by seed. FID is biased by the number of images: compare rows of equal number.", ""]
        for name, result in data["models"].items():
            lines += section(name, result)
    readme = ROOT / "README.md"
    head, rest = readme.read_text().split(BEGIN)
    _, tail = rest.split(END)
    readme.write_text(f"{head}{BEGIN}\n" + "\n".join(lines).rstrip() + f"\n{END}{tail}")


if __name__ == "__main__":
    main()
