"""The shim with the checks' kernels, built with g++ once per test run and called through ctypes."""

import ctypes
import fcntl
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent
CSRC = FOLDER.parents[2] / "csrc"
SANITIZERS = "-fsanitize=bounds-strict,shift,object-size"  # of kernels, as in setup.py
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
FLAGS = ["-std=c++20", "-O2", "-ffp-contract=off", "-fPIC", "-DHALFBYTE_SIMT", f"-I{CSRC}", f"-I{FOLDER}", *WARNINGS]


def build(folder: Path) -> Path:
    library = folder / "simt_checks.so"
    if library.exists():
        return library
    shim = [path for path in sorted((CSRC / "simt").glob("*.cpp")) if "bindings" not in path.name]
    objects = []
    for source in [*shim, *sorted(FOLDER.glob("*.c*"))]:
        objects.append(folder / f"{source.stem}.o")
        sanitizers = [SANITIZERS] if source.suffix == ".cu" else []
        subprocess.run(["g++", *FLAGS, *sanitizers, "-x", "c++", "-c", source, "-o", objects[-1]], check=True)
    subprocess.run(["g++", "-shared", *objects, "-ldl", "-o", folder / "unfinished.so"], check=True)
    return (folder / "unfinished.so").rename(library)


class Checks:
    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        self.library.run.restype = self.library.symbol_of.restype = ctypes.c_char_p

    def run(self, name: str, x: np.ndarray, y: np.ndarray, seed=0, run_to_barrier=False, races=False) -> str:
        """The fault's sentence, or an empty one."""
        self.library.configure(ctypes.c_uint64(seed), ctypes.c_bool(run_to_barrier), ctypes.c_bool(races))
        memory = [(ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)) for array in (x, y)]
        return self.library.run(name.encode(), *memory[0], *memory[1]).decode()

    def convert(self, name: str, x: np.ndarray, dtype: type) -> np.ndarray:
        x = np.ascontiguousarray(x)
        y = np.empty(x.shape, dtype)
        addresses = [ctypes.c_void_p(array.ctypes.data) for array in (x, y)]
        self.library.convert(name.encode(), *addresses, ctypes.c_int64(x.size))
        return y

    @staticmethod
    def zeros(count: int, dtype: type = np.uint8) -> np.ndarray:
        """On a 64-byte boundary."""
        room = np.zeros(count * np.dtype(dtype).itemsize + 64, np.uint8)
        start = -room.ctypes.data % 64
        return room[start : start + count * np.dtype(dtype).itemsize].view(dtype)

    def symbol_of(self, name: str) -> tuple[str, int, int]:
        symbol, argument_bytes, threads = self.library.symbol_of(name.encode()).decode().split()
        return symbol, int(argument_bytes), int(threads)


@pytest.fixture(scope="session")
def checks(tmp_path_factory) -> Checks:
    base = tmp_path_factory.getbasetemp()
    shared_by_workers = "PYTEST_XDIST_WORKER" in os.environ
    folder = (base.parent if shared_by_workers else base) / "simt_checks"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return Checks(build(folder))
