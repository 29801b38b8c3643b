"""Every op of one backend at small sizes, for a tool that watches: python small_calls.py BACKEND DEVICE."""

from __future__ import annotations

import sys

import torch

from halfbyte.ops import OPS, NoBackendError, use_backend
from halfbyte.testing import BUILDERS, Shape, calls_of

ONE_ROW, RAGGED = Shape("one_row", 1, 72, 64), Shape("ragged", 67, 200, 320)


def main(backend: str, device: str, shapes: tuple[Shape, ...] = (ONE_ROW, RAGGED)) -> int:
    made = 0
    for name in BUILDERS:
        if OPS[name].missing(backend) is not None:
            continue
        for shape in shapes:
            for args in calls_of(name, shape, torch.bfloat16, device).values():
                try:
                    with use_backend(backend):
                        OPS[name](*args)
                    made += 1
                except NoBackendError:
                    continue
    if device == "cuda":
        torch.cuda.synchronize()
    return made


if __name__ == "__main__":
    print(f"{main(*sys.argv[1:3])} calls")
