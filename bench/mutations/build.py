"""Compiles the kernels for the host shim: once with every switchable mutant in them, and once per mutant of a constant."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from mutants import Mutant
from schemata import Switches, switchable

ROOT = Path(__file__).parents[2]
CUDA = ROOT / "csrc/cuda"
HERE = Path(__file__).parent
FLAGS = ["-std=c++20", "-ffp-contract=off", "-fPIC", "-DHALFBYTE_SIMT", "-DMODULE_NAME=_simt", '-DBUILT_ARCHITECTURES=""', "-w"]
SANITIZERS = "-fsanitize=bounds-strict,shift,object-size"  # as in setup.py
KERNEL_FLAGS = ["-x", "c++", "-O2", SANITIZERS, "-Werror=vla", "-fmax-errors=0", "-include", str(HERE / "prelude.h")]
SWITCH = """#include <cstdlib>
const char* number = std::getenv("HALFBYTE_MUTANT");
extern "C" {
int halfbyte_mutant = number ? std::atoi(number) : 0;
}
"""
ERROR = re.compile(r"^(?P<path>[^\s:]+):(?P<line>\d+):(?P<column>\d+): (?P<kind>\w[\w ]*): ?(?P<what>.*)$", re.MULTILINE)


class CompileError(Exception):
    """What the compiler said."""


def kernel_stems() -> list[str]:
    return list(tomllib.loads((CUDA / "architectures.toml").read_text())["kernels"])


@cache
def includes(name: str) -> frozenset[str]:
    """The file and all of csrc/cuda that it includes."""
    found, left = set(), [name]
    while left:
        path = left.pop()
        if path not in found and (CUDA / path).exists():
            found.add(path)
            left += re.findall(r'#include "([^"]+)"', (CUDA / path).read_text())
    return frozenset(found)


@cache
def dependents(file: str) -> tuple[str, ...]:
    """Stems of the kernels that the file is part of."""
    return tuple(stem for stem in kernel_stems() if file in includes(f"{stem}.cu"))


def needed(stems: Iterable[str]) -> list[str]:
    """The kernels and those that their host code starts too: smxx_sum_partials where sum_partials.h is included."""
    included = {name for stem in stems for name in includes(f"{stem}.cu")}
    return [stem for stem in kernel_stems() if stem in stems or f"{stem.split('_', 1)[1]}.h" in included]


class Builder:
    """work: folder for objects, in which every state of csrc has a folder of its own."""

    def __init__(self, work: Path) -> None:
        from pybind11 import get_include
        from sysconfig import get_paths

        digest = hashlib.sha256()
        for path in sorted([*(ROOT / "csrc").rglob("*.*"), HERE / "prelude.h"]):
            digest.update(path.read_bytes())
        self.work = work / digest.hexdigest()[:12]
        # A copy, so that a run goes on with what it began with while the sources are worked on.
        self.csrc = self.work / "csrc"
        if not self.csrc.exists():
            shutil.copytree(ROOT / "csrc", self.csrc)
        self.cuda = self.csrc / "cuda"
        self.system = [f"-I{get_include()}", f"-I{get_paths()['include']}"]

    def compile(self, source: Path, target: Path, *flags: str) -> Path:
        """source: in a folder laid out like csrc. Raises CompileError."""
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            csrc = source.parents[1]
            part = target.with_suffix(f".{os.getpid()}.o")
            command = ["g++", *FLAGS, *flags, f"-I{csrc}/cuda", f"-I{csrc}", *self.system, "-c", str(source), "-o", str(part)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise CompileError(done.stderr)
            part.rename(target)
        return target

    def shared(self) -> list[Path]:
        """Objects without mutants: the shim, the bindings and the switch."""
        sources = [self.cuda / "bindings.cpp", *sorted((self.csrc / "simt").glob("*.cpp"))]
        bindings, *objects = [self.compile(source, self.work / "shared" / f"{source.stem}.o", "-O2") for source in sources]
        # Bindings of kernels that are not linked become null, and are never called.
        subprocess.run(["objcopy", "--weaken", str(bindings)], check=True)
        switch = self.work / "shared/cuda/switch.cpp"
        switch.parent.mkdir(parents=True, exist_ok=True)
        switch.write_text(SWITCH)
        return [bindings, *objects, self.compile(switch, self.work / "shared/switch.o", "-O2")]

    def plain(self, stem: str) -> Path:
        return self.compile(self.cuda / f"{stem}.cu", self.work / "plain" / f"{stem}.o", *KERNEL_FLAGS)

    def link(self, folder: Path, objects: list[Path]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        module = folder / "_simt.so"
        if not module.exists():
            subprocess.run(["g++", "-shared", "-o", str(module), *map(str, objects)], check=True, capture_output=True)
        return module

    def unchanged(self, stems: Iterable[str]) -> Path:
        """The kernels as they are."""
        stems = needed(stems)
        return self.link(self.work / "plain" / "-".join(stems), [*self.shared(), *map(self.plain, stems)])

    def copy_of_csrc(self, folder: Path, changed: dict[str, str]) -> Path:
        """csrc by links, with other text in some files of cuda/."""
        csrc = folder / "csrc"
        shutil.rmtree(csrc, ignore_errors=True)
        (csrc / "cuda").mkdir(parents=True)
        (csrc / "simt").symlink_to(self.csrc / "simt")
        for path in self.cuda.iterdir():
            target = csrc / "cuda" / path.name
            if path.name in changed:
                target.write_text(changed[path.name])
            else:
                target.symlink_to(path)
        return csrc

    def one(self, mutant: Mutant) -> Path:
        """A module with one mutant in place of the original. Raises CompileError."""
        folder = self.work / "one" / mutant.id.replace(":", "-")
        csrc = self.copy_of_csrc(folder, {mutant.file: mutant.applied((self.cuda / mutant.file).read_text())})
        affected = dependents(mutant.file)
        objects = [self.compile(csrc / "cuda" / f"{stem}.cu", folder / f"{stem}.o", *KERNEL_FLAGS) for stem in affected]
        others = [self.plain(stem) for stem in needed(affected) if stem not in affected]
        return self.link(folder, [*self.shared(), *objects, *others])

    def forget(self, mutant: Mutant) -> None:
        shutil.rmtree(self.work / "one" / mutant.id.replace(":", "-"), ignore_errors=True)

    def switched(self, mutants: list[Mutant]) -> tuple[Path, dict[int, Mutant]]:
        """A module with every mutant that a switch can hold, by number."""
        by_file: dict[str, list[Mutant]] = {}
        for mutant in mutants:
            by_file.setdefault(mutant.file, []).append(mutant)
        numbered = dict(enumerate((m for part in by_file.values() for m in switchable(part)), 1))
        names = hashlib.sha256("\n".join(m.id + m.text for m in numbered.values()).encode()).hexdigest()[:12]
        folder = self.work / f"switched-{names}"
        while True:
            own = {file: {n: m for n, m in numbered.items() if m.file == file} for file in by_file}
            sources = {file: Switches((self.cuda / file).read_text(), own[file]) for file in by_file}
            csrc = self.copy_of_csrc(folder, {file: switches.text for file, switches in sources.items()})
            refused: set[int] = set()
            objects = []
            for stem in needed({stem for file in by_file for stem in dependents(file)}):
                if not includes(f"{stem}.cu") & set(by_file):
                    objects.append(self.plain(stem))
                    continue
                try:
                    objects.append(self.compile(csrc / "cuda" / f"{stem}.cu", folder / f"{stem}.o", *KERNEL_FLAGS))
                except CompileError as error:
                    refused |= blamed(str(error), sources)
            if not refused:
                return self.link(folder, [*self.shared(), *objects]), numbered
            for path in folder.glob("*.o"):
                path.unlink()
            numbered = {number: mutant for number, mutant in numbered.items() if number not in refused}


def blamed(errors: str, sources: dict[str, Switches]) -> set[int]:
    """Numbers of the mutants that the compiler's messages point at. Raises CompileError when there are none."""
    numbers: set[int] = set()
    settled = True
    for found in ERROR.finditer(errors):
        settled = settled and found["kind"] not in ("error", "fatal error") or settled
        file = Path(found["path"]).name
        if found["kind"] in ("error", "fatal error"):
            settled = False
        if not settled and file in sources and (at := sources[file].at(int(found["line"]), int(found["column"]))):
            numbers |= set(at)
            settled = True
    if not numbers:
        raise CompileError(errors)
    return numbers
