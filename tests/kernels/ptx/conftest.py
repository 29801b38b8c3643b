"""Run one instruction, or one kernel of a test's own, on numpy arrays."""

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from halfbyte.testing.ptx import Memory, launch, parse
from halfbyte.testing.ptx.compile import PtxModule

HERE = Path(__file__).parent
THREADS = 64
BODY = """
.version 9.0
.target sm_120f
.address_size 64

.visible .entry one(.param .align 8 .b8 arguments[{bytes}])
{{
    .reg .b64 %address, %offset, %lane_offset;
    .reg .b32 %thread, %block;
    .reg .b16 %narrow;
    .reg .pred p, q;
    {registers}
    mov.u32 %thread, %tid.x;
    mov.u32 %block, %ctaid.x;
    mad.lo.u32 %thread, %block, {threads}, %thread;
    {loads}
    {instruction};
    {stores}
    ret;
}}
"""


def aligned(array):
    """A copy at a multiple of 16 bytes."""
    buffer = np.zeros(array.nbytes + 16, np.uint8)
    start = -buffer.ctypes.data % 16
    view = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[:] = array
    return view


def pointer(name, index, element):
    return (
        f"ld.param.u64 %address, [arguments+{8 * index}]; mul.wide.u32 %offset, %thread, {element};"
        f" add.s64 %address, %address, %offset; {name}"
    )


def evaluate(instruction, results, *operands):
    """The values of d (or d0, d1, ... for several dtypes) after an instruction on registers a, b, c, ...; one lane per element.

    results: a dtype, "pred" for predicate d, or a list of them.
    """
    several = isinstance(results, list)
    results = results if several else [results]
    outs = [f"d{index}" for index in range(len(results))] if several else ["d"]
    sizes = [1 if result == "pred" else np.dtype(result).itemsize for result in results]
    count = len(operands[0])
    padded = -(-count // THREADS) * THREADS
    inputs = [aligned(np.resize(np.asarray(operand), padded)) for operand in operands]
    outputs = [aligned(np.full(padded * size, 0xAB, np.uint8)) for size in sizes]
    names = "abcefgh"[: len(inputs)]
    registers = [f".reg .b{max(8 * array.itemsize, 16)} {name};" for name, array in zip(names, inputs)]
    registers += [
        ".reg .pred d;" if r == "pred" else f".reg .b{max(8 * s, 16)} {out};" for out, r, s in zip(outs, results, sizes)
    ]
    loads = [
        pointer(f"ld.global.b{8 * array.itemsize} {name}, [%address];", index, array.itemsize)
        for index, (name, array) in enumerate(zip(names, inputs))
    ]
    stores = []
    for index, (out, result, size) in enumerate(zip(outs, results, sizes), len(inputs)):
        value = "%narrow" if result == "pred" else out
        before = "selp.b16 %narrow, 1, 0, d;" if result == "pred" else ""
        stores.append(before + pointer(f"st.global.b{8 * size} [%address], {value};", index, size))
    text = BODY.format(
        bytes=8 * (len(inputs) + len(outs)), threads=THREADS, registers=" ".join(registers), loads="\n".join(loads),
        instruction=instruction, stores="\n".join(stores),
    )  # fmt: skip
    arrays = [*inputs, *outputs]
    arguments = struct.pack(f"{len(arrays)}Q", *(array.ctypes.data for array in arrays))
    memory = Memory([(f"array {index}", array.ctypes.data, array.nbytes) for index, array in enumerate(arrays)])
    launch(parse(text), "one", (padded // THREADS, 1, 1), THREADS, 0, arguments, memory)
    got = [array.view(bool if r == "pred" else r)[:count] for array, r in zip(outputs, results)]
    return got if several else got[0]


@pytest.fixture(autouse=True)
def keep_compiled_kernels(monkeypatch):
    """Seconds of nvcc per file and architecture: kept from run to run, beside what else a build leaves."""
    monkeypatch.setenv("HALFBYTE_CACHE_DIR", str(HERE.parents[2] / "build"))


@pytest.fixture(name="evaluate")
def evaluate_fixture():
    return evaluate


@pytest.fixture(params=["checked-in", "80", "90", "120"])
def arch(request):
    """Kernels of a test's own run as checked in, and as nvcc compiles them now."""
    return request.param


@pytest.fixture
def kernel_text():
    """PTX text of a source beside this file."""

    def text(stem, arch):
        if arch == "checked-in":
            return (HERE / f"{stem}.ptx").read_text()
        if shutil.which("nvcc") is None:
            pytest.skip("no nvcc")
        return PtxModule(HERE / f"{stem}.cu", arch).text

    return text


@pytest.fixture
def run_kernel(kernel_text, arch):
    """Launch an entry whose demangled name contains `name` on named arrays and ints; the struct is pointers, then ints."""

    def run(stem, name, arrays, ints=(), grid=(1, 1, 1), threads=32, shared_bytes=0):
        module = parse(kernel_text(stem, arch))
        entry = next(entry for entry in module.entries if f"{len(name)}{name}" in entry)
        size = module.entries[entry].parameter_offsets()[1]
        arguments = struct.pack(f"{len(arrays)}Q{len(ints)}i", *(a.ctypes.data for a in arrays.values()), *ints).ljust(
            size, b"\0"
        )
        memory = Memory([(key, array.ctypes.data, array.nbytes) for key, array in arrays.items()])
        return launch(module, entry, grid, threads, shared_bytes, arguments, memory, name)

    return run


@pytest.fixture
def on_16_bytes():
    return aligned


HOPPER = """
.version 9.0
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 memory[];

.visible .entry k(.param .align 64 .b8 maps[{map_bytes}], .param .align 8 .b8 arrays[{array_bytes}])
.reqnctapercluster {cluster}, 1, 1
{{
    .reg .b64 %rd<16>, %array<8>;
    .reg .b32 %r<16>, %a<4>, %d<128>, %thread, %warp, %lane, %memory;
    .reg .b16 %rs<4>;
    .reg .pred %p<8>;
    mov.u32 %thread, %tid.x;
    shr.u32 %warp, %thread, 5;
    and.b32 %lane, %thread, 31;
    mov.u32 %memory, memory;
    {addresses}
    {body}
    ret;
}}
"""


def run_hopper(body, arrays, maps=(), threads=128, blocks=1, cluster=1, shared_bytes=2048):
    """Run instructions on registers %thread, %warp, %lane, %memory (shared) and %array0, %array1, ... (addresses of arrays).

    maps: tensor maps, at maps, maps+128, ... in param space.
    """
    addresses = "".join(f"ld.param.u64 %array{index}, [arrays+{8 * index}];" for index in range(len(arrays)))
    text = HOPPER.format(
        map_bytes=128 * max(len(maps), 1), array_bytes=8 * max(len(arrays), 1), cluster=cluster, addresses=addresses, body=body
    )
    arguments = b"".join(map.encode() for map in maps).ljust(128, b"\0")
    arguments += struct.pack(f"{len(arrays)}Q", *(array.ctypes.data for array in arrays)).ljust(8, b"\0")
    memory = Memory([(f"array {index}", array.ctypes.data, array.nbytes) for index, array in enumerate(arrays)])
    launch(parse(text), "k", (blocks, 1, 1), threads, shared_bytes, arguments, memory)


@pytest.fixture(name="run_hopper")
def run_hopper_fixture():
    return run_hopper
