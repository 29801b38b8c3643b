"""Generated mutants of the CUDA kernels, run on the host shim: which ones do the kernels' checks miss?

python bench/mutations                                    everything, minutes to an hour
python bench/mutations --files gemm_kernel.h gemm_tile.h --rules barrier wait commit
python bench/mutations --sample 40 --out mutations.json   the same 40 every time
python bench/mutations --show gemm_kernel.h:60:wait:1     one mutant, with what found it

Needs g++ and pybind11, no GPU. Verdicts are kept under out/mutations until a source, a call or a reference changes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from build import CUDA, ROOT, Builder, CompileError, dependents, kernel_stems, parts
from mutants import Mutant, mutants_of
from report import outcome, show, write
from rules import RULES
from source import Source
from trial import KERNEL_CALLS, Call, Verdict, calls_of, try_module

# Instructions and conversions are tested one by one (tests/kernels/simt); the others hold no kernel code.
LEFT_OUT = {"platform.h", "ptx.h", "check.h", "launch.h", "launch.cu", "bindings.cpp", "dtype.h", "gemm.h", "gemm_arguments.h"}
LEFT_OUT |= {"arithmetic.h", "numbers.h", "functions.h", "quantize.h", "quantize_arguments.h", "tensor_map.h"}
# Run by the PTX interpreter alone (tests/kernels/ptx/test_sm90.py), a compilation for each mutant.
PTX_ONLY = "sm90_"


def mutable_files() -> list[str]:
    """Sources of the kernels that have calls; the shim they run on is no part of them."""
    names = {name for stem in kernel_stems() if stem in KERNEL_CALLS for name in parts(stem)}
    return sorted(name for name in names - LEFT_OUT if not name.startswith(("ptx_", "../", PTX_ONLY)))


def calls_for(stems: Iterable[str]) -> list[Call]:
    return [call for stem in stems for call in calls_of(stem)]


def try_switched(mutant: Mutant, module: Path, number: int) -> Verdict:
    return try_module(module, number, calls_for(dependents(mutant.file)))


def try_constant(mutant: Mutant, builder: Builder) -> Verdict:
    try:
        verdicts = []
        for stem in dependents(mutant.file):
            verdicts.append(try_module(builder.one(mutant, stem), 0, calls_for([stem])))
            if verdicts[-1].by:
                return verdicts[-1]
        return Verdict("", bits=" ".join(verdict.bits for verdict in verdicts))
    except CompileError as error:
        lines = [line for line in str(error).splitlines() if " error: " in line] or [str(error)]
        return Verdict("compiler", lines[0].split(" error: ")[-1])
    finally:
        builder.forget(mutant)


def digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(paths))).hexdigest()[:16]


class Kept:
    """Verdicts of earlier runs, one JSON line each, with a digest of all that they depend on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = [path for room in ("formats", "ops", "testing") for path in (ROOT / "engine" / room).rglob("*.py")]
        self.checks = digest(*engine, *(ROOT / "csrc/simt").iterdir(), Path(__file__).with_name("trial.py"))
        lines = map(json.loads, path.read_text().splitlines() if path.exists() else ())
        self.results: dict[str, dict[str, str]] = {row["key"]: row for row in lines}

    @cache
    def basis(self, file: str) -> str:
        names = {name for stem in dependents(file) for name in parts(stem)}
        return digest(*(CUDA / name for name in names)) + self.checks

    def key(self, mutant: Mutant) -> str:
        return f"{mutant.id} {mutant.text} {self.basis(mutant.file)}"

    def get(self, mutant: Mutant) -> dict[str, str] | None:
        return self.results.get(self.key(mutant))

    def add(self, mutant: Mutant, verdict: Verdict) -> None:
        row = {"key": self.key(mutant), **vars(verdict)}
        self.results[row["key"]] = row
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def chosen(arguments: argparse.Namespace) -> list[Mutant]:
    files = arguments.files or mutable_files()
    rules = set(arguments.rules) if arguments.rules else None
    mutants = [m for file in files for m in mutants_of(Source(file, (CUDA / file).read_text()), rules)]
    if arguments.show:
        mutants = [m for m in mutants if m.id in arguments.show]
    if arguments.sample:
        # Shuffled before it is cut, so that a larger sample holds the smaller ones, whose verdicts are kept.
        random.Random(0).shuffle(mutants)
        mutants = mutants[: arguments.sample]
    return mutants


def bits_of_unchanged(builder: Builder, kernels: set[tuple[str, ...]]) -> set[str]:
    """Also shows that the checks pass where nothing is wrong."""
    bits: set[str] = set()
    for stems in kernels:
        verdict = try_module(builder.unchanged(stems), 0, calls_for(stems))
        if verdict.by:
            sys.exit(f"the kernels as they are fail their calls: {verdict.what}")
        bits |= set(verdict.bits.split())
    return bits


def run(mutants: list[Mutant], builder: Builder, kept: Kept, jobs: int, console: Console) -> None:
    waiting = [m for m in mutants if kept.get(m) is None]
    if not waiting:
        return
    with console.status(f"compiling {len(waiting)} mutants"):
        module, numbered = builder.switched(waiting)
    numbers = {mutant.id: number for number, mutant in numbered.items()}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool, Progress(*columns, console=console) as progress:
        survivors, task = 0, progress.add_task("0 survivors", total=len(waiting))
        pending = {}
        for mutant in sorted(waiting, key=lambda m: m.id not in numbers):
            if mutant.id in numbers:
                pending[pool.submit(try_switched, mutant, module, numbers[mutant.id])] = mutant
            else:
                pending[pool.submit(try_constant, mutant, builder)] = mutant
        for done in as_completed(pending):
            mutant = pending[done]
            kept.add(mutant, done.result())
            survivors += outcome(mutant, kept.get(mutant)) == "survived"
            progress.update(task, advance=1, description=f"{survivors} survivors")


def main() -> int:
    summary, _, examples = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        "python bench/mutations", description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", nargs="+", metavar="FILE", choices=mutable_files(), help=f"of {', '.join(mutable_files())}")
    parser.add_argument("--rules", nargs="+", metavar="RULE", choices=list(RULES), help=f"of {', '.join(RULES)}")
    parser.add_argument("--show", nargs="+", metavar="ID", help="only these mutants, with their verdicts")
    parser.add_argument("--sample", type=int, metavar="N", help="N mutants, the same every time")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    work = ROOT / "out/mutations"
    parser.add_argument("--work", type=Path, default=work, help="folder for objects and verdicts (default: out/mutations)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the verdicts as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    mutants = chosen(arguments)
    if not mutants:
        sys.exit("no mutant answers these filters")
    builder = Builder(arguments.work)
    kept = Kept(arguments.work / "verdicts.jsonl")
    with console.status("compiling the kernels as they are, and running their calls"):
        unchanged = bits_of_unchanged(builder, {dependents(m.file) for m in mutants})
    run(mutants, builder, kept, arguments.jobs, console)
    results = {mutant.id: kept.get(mutant) for mutant in mutants}
    for mutant in mutants if arguments.show else ():
        result = results[mutant.id]
        console.print(f"{mutant.id}: {result['by'] or 'survived'} {result['what']}", markup=False, highlight=False)
    show(console, mutants, results, unchanged)
    if arguments.out:
        write(arguments.out, mutants, results)
    return any(outcome(m, results[m.id]) == "survived" for m in mutants)


if __name__ == "__main__":
    sys.exit(main())
