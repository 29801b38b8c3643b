"""Environment variables, all under one prefix, and what this machine has."""

from __future__ import annotations

import functools
import importlib
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

PREFIX = "HALFBYTE_"
BACKENDS = ("cuda", "triton", "cpu", "simt", "reference")
CPU_KINDS = ("auto", "float32", "bfloat16", "int8")
CPU_ISAS = ("auto", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx2", "generic")
ATTENTIONS = ("auto", "flash3", "cudnn", "flash", "efficient", "math")
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")


@dataclass(frozen=True)
class Variable:
    """One environment variable; parse turns its text into the value or raises ValueError with what was needed."""

    name: str
    meaning: str
    default: Callable[[], Any]
    parse: Callable[[str], Any]

    def value(self) -> Any:
        """Raises ValueError naming the variable, what was needed and what it holds."""
        if not (text := os.environ.get(self.name, "")):
            return self.default()
        try:
            return self.parse(text)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error} needed, got {text!r}") from None


def one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return text

    return parse


def positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ValueError("a whole number above 0")
    return int(text)


def folder(text: str) -> Path:
    path = Path(text).expanduser()
    if path.exists() and not path.is_dir():
        raise ValueError("a folder, or a path where one can be made,")
    return path


def default_cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "halfbyte"


VARIABLES = (
    Variable("HALFBYTE_CACHE_DIR", "folder of what is measured or compiled once per machine", default_cache_dir, folder),
    Variable("HALFBYTE_BACKEND", "the one backend that ops may run on", lambda: None, one_of(*BACKENDS)),
    Variable("HALFBYTE_ATTENTION", "the one attention kernel that GPUs run", lambda: "auto", one_of(*ATTENTIONS)),
    Variable("HALFBYTE_CPU_KIND", "what native numerics run on a CPU, unmeasured", lambda: "auto", one_of(*CPU_KINDS)),
    Variable("HALFBYTE_CUDA_ARCHS", 'GPUs that setup.py builds kernels for: all, none or a list such as 86;90a', lambda: None, str),
    Variable("HALFBYTE_SIMT", "1: setup.py also builds the kernels for the CPU, for tests", lambda: None, one_of("0", "1")),
    Variable("HALFBYTE_CPU_ISA", "the instruction set of the C++ kernels", lambda: "auto", one_of(*CPU_ISAS)),
    Variable("HALFBYTE_BUILD_JOBS", "compilers that setup.py runs at once", lambda: None, positive),
)


def settings() -> dict[str, Any]:
    """Variable -> value; raises ValueError for a variable with a bad value."""
    return {variable.name: variable.value() for variable in VARIABLES}


def setting(name: str) -> Any:
    """The value of one variable."""
    return next(variable for variable in VARIABLES if variable.name == name).value()


@functools.cache
def extension() -> ModuleType | None:
    """The compiled CPU kernels, or None where they were not built."""
    try:
        return importlib.import_module("._C", __package__)
    except ImportError:
        return None


@functools.cache
def cuda_architectures() -> str | None:
    """What the CUDA kernels were built for, such as "86;90a", or None where they were not built."""
    try:
        return importlib.import_module("._cuda", __package__).architectures
    except ImportError:
        return None


@dataclass(frozen=True)
class Gpu:
    name: str
    capability: tuple[int, int]


@dataclass(frozen=True)
class Machine:
    """cpu: its model name; flags: those of CPU_FLAGS it has; cuda_kernels: architectures; None for what is not installed."""

    cpu: str
    flags: tuple[str, ...]
    threads: int
    gpus: tuple[Gpu, ...]
    nvcc: str | None
    extension: bool
    cuda_kernels: str | None
    torch: str
    diffusers: str | None
    triton: str | None

    def findings(self) -> list[tuple[str, str, str]]:
        """(what, what was found, what that means or costs), one row for each fact."""
        gpus = ", ".join(f"{gpu.name} (sm_{gpu.capability[0]}{gpu.capability[1]})" for gpu in self.gpus)
        unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in {v.name for v in VARIABLES})
        rows = [
            ("CPU", f"{self.cpu}, {self.threads} threads", "the processor that native numerics are measured on"),
            ("CPU instructions", *self._instructions()),
            ("GPU", gpus or "none", "runs pipelines" if gpus else "everything runs on the CPU"),
            ("C++ extension", *(("built", "fast CPU kernels") if self.extension else ("missing", "slower PyTorch code runs"))),
            ("nvcc", self.nvcc or "none", "CUDA kernels can be built" if self.nvcc else "no CUDA kernels can be built"),
            ("CUDA kernels", *self._kernels()),
            ("triton", *self._triton(bool(gpus))),
            ("torch", self.torch, "2.11 to 2.13 are tested"),
            ("diffusers", self.diffusers or "none", "0.41 and 0.42 are tested" if self.diffusers else "no pipelines"),
        ]
        return rows + [(name, "set", "no such variable, so it has no effect") for name in unknown]

    def _kernels(self) -> tuple[str, str]:
        if self.cuda_kernels is not None:
            return f"built for {self.cuda_kernels}", "4-bit layers run on GPUs of these architectures"
        cost = "GPUs run 4-bit layers expanded to 16 bits; reinstall where nvcc is found" if self.gpus else "no GPU here needs them"
        return "none", cost

    def _triton(self, gpus: bool) -> tuple[str, str]:
        if self.triton is None:
            return "none", "no Triton kernels run"
        try:
            importlib.import_module("triton")
        except ImportError as error:
            return f"{self.triton}, does not import", f"no Triton kernels run ({error})"
        return self.triton, "Triton kernels can run" if gpus else "Triton kernels can run in its interpreter, for tests"

    def _instructions(self) -> tuple[str, str]:
        int8 = {"avx512_vnni", "amx_int8"} & set(self.flags)
        meaning = "INT8 products in hardware" if int8 else "INT8 is emulated, so float weights usually run faster"
        return ", ".join(self.flags) or "none of note", meaning


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def cpu() -> tuple[str, tuple[str, ...]]:
    """Model name and those of CPU_FLAGS that it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    present = facts.get("flags", "").split()
    name = facts.get("model name") or platform.processor() or platform.machine()
    return name, tuple(flag for flag in CPU_FLAGS if flag in present)


def machine() -> Machine:
    """What was found here."""
    import torch

    name, flags = cpu()
    devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return Machine(
        cpu=name,
        flags=flags,
        threads=torch.get_num_threads(),
        gpus=tuple(Gpu(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)) for i in devices),
        nvcc=shutil.which("nvcc"),
        extension=extension() is not None,
        cuda_kernels=cuda_architectures(),
        torch=torch.__version__,
        diffusers=installed("diffusers"),
        triton=installed("triton"),
    )
