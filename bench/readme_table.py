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


def main() -> None:
    lines = []
    for path in sorted((ROOT / "bench" / "results").glob("*.json")):
        data = json.loads(path.read_text())
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
