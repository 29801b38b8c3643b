"""Launch what ops launch through Triton's own launcher on a driver that is not there: python launch_calls.py DRIVER FOLDER OP..."""

import ctypes
import os
import sys

import torch

CAPABILITY = (9, 0)


def main(library: str, folder: str, ops: list[str]) -> None:
    os.environ["TRITON_LIBCUDA_PATH"] = folder
    # Under its own name, so that Triton's modules and its dlopen find it loaded.
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    from triton.backends.nvidia.driver import CudaDriver
    from triton.runtime import driver

    from halfbyte.ops import OPS
    from halfbyte.ops.triton.register import TABLES
    from halfbyte.testing import Shape
    from halfbyte.testing.triton import empty_calls

    absent = CudaDriver()
    for name, answer in {"get_device_capability": CAPABILITY, "get_current_device": 0, "get_current_stream": 0}.items():
        setattr(absent, name, lambda *device, answer=answer: answer)
    driver.set_active(absent)
    torch.cuda.get_device_capability = lambda device=None: CAPABILITY
    rejects = {name: each for table in TABLES.values() for name, each in table.items()}
    for op in ops:
        assert OPS[op].missing("triton") is None, OPS[op].missing("triton")
        calls = {name: args for name, args in empty_calls(op, Shape("wide", 4096, 1024, 2048)).items() if rejects[op](*args) is None}
        # Of a product's epilogue the one with a GLU, else the last, which has every optional tensor.
        name = next((name for name in calls if "value_first" in name), list(calls)[-1])
        print(f"call {op}", file=sys.stderr, flush=True)
        OPS[op].targets["triton"](*calls[name])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
