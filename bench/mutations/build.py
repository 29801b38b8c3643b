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
PLACE = re.compile(r"^(?P<path>[^\s:]+):(?P<line>\d+):(?P<column>\d+):(?P<message>.*)$", re.MULTILINE)


class CompileError(Exception):
    """What the compiler said."""


def kernel_stems() -> list[str]:
    return list(tomllib.loads((CUDA / "architectures.toml").read_text())["kernels"])


@cache
def parts(stem: str) -> frozenset[str]:
    """The files of csrc/cuda that a kernel is made of: includes, and smxx_sum_partials.cu where sum_partials.h is included."""
    found, left = set(), [f"{stem}.cu"]
    while left:
        name = left.pop()
        if name not in found and (CUDA / name).exists():
            found.add(name)
            left += re.findall(r'#include "([^"]+)"', (CUDA / name).read_text())
            left += [f"{other}.cu" for other in kernel_stems() if f"{other.split('_', 1)[1]}.h" == name]
    return frozenset(found)


@cache
def dependents(file: str) -> tuple[str, ...]:
    """Stems of the kernels that the file is part of."""
    return tuple(stem for stem in kernel_stems() if file in parts(stem))


def needed(stems: Iterable[str]) -> list[str]:
    """These kernels and those that their host code starts too."""
    files = {file for stem in stems for file in parts(stem)}
    return [stem for stem in kernel_stems() if f"{stem}.cu" in files]


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
            # Of an inline function that several objects hold, the linker keeps the first: kernels, then what is shared.
            order = sorted(objects, key=lambda path: path.parent.name == "shared")
            subprocess.run(["g++", "-shared", "-o", str(module), *map(str, order)], check=True, capture_output=True)
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

    def one(self, mutant: Mutant, stem: str) -> Path:
        """A module of one kernel, with one mutant in place of the original. Raises CompileError."""
        folder = self.work / "one" / mutant.id.replace(":", "-")
        if not folder.exists():
            self.copy_of_csrc(folder, {mutant.file: mutant.applied((self.cuda / mutant.file).read_text())})

        def compiled(part: str) -> Path:
            if mutant.file not in parts(part):
                return self.plain(part)
            return self.compile(folder / "csrc/cuda" / f"{part}.cu", folder / f"{part}.o", *KERNEL_FLAGS, "-O1")

        return self.link(folder / stem, [*self.shared(), *map(compiled, needed([stem]))])

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
                if not parts(stem) & set(by_file):
                    objects.append(self.plain(stem))
                    continue
                try:
                    objects.append(self.compile(csrc / "cuda" / f"{stem}.cu", folder / f"{stem}.o", *KERNEL_FLAGS))
                except CompileError as error:
                    refused |= blamed(str(error), sources)
            if not refused:
                return self.link(folder, [*self.shared(), *objects]), numbered
            changed = {numbered[number].file for number in refused}
            for stem in kernel_stems():
                if parts(stem) & changed:
                    (folder / f"{stem}.o").unlink(missing_ok=True)
            numbered = {number: mutant for number, mutant in numbered.items() if number not in refused}


def blamed(errors: str, sources: dict[str, Switches]) -> set[int]:
    """Numbers of the mutants that the compiler's messages point at. Raises CompileError when there are none.

    An error may stand in a template that only a mutant asks for: then a line before it, "required from", is in the mutant.
    """
    numbers: set[int] = set()
    places: list[tuple[Switches, int, int]] = []
    for found in PLACE.finditer(errors):
        file = Path(found["path"]).name
        if file in sources:
            places.append((sources[file], int(found["line"]), int(found["column"])))
        if found["message"].startswith((" error:", " sorry,")):
            mutants = {switches.mutant_at(line, column) for switches, line, column in places} - {None}
            nearby = [switches.all_at(line, column) for switches, line, column in reversed(places)]
            nearby += [switches.all_in(line) for switches, line, _ in reversed(places)]
            numbers |= mutants or set(next(filter(None, nearby), ()))
            places = []
        elif found["message"].startswith(" note:"):
            places = []
    if not numbers:
        raise CompileError(errors)
    return numbers
