"""A GPU that is not there: Triton compiles for it everything that an op would launch, and launches nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

CAPABILITIES = (80, 86, 89, 90, 100, 120)


class AbsentGpu:
    """What Triton asks of its driver before it compiles. Each capability is a device of its own, with its own compiled kernels."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)


@contextlib.contextmanager
def compiling_for(capability: int, then: Callable[..., None] | None = None) -> Iterator[list]:
    """Launches of Triton kernels compile for sm_<capability> and are listed, as Triton's CompiledKernel, instead of run.

    then(kernel, grid, values of its parameters, name) is called after each.

    Raises RuntimeError where Triton was told to interpret kernels, which it cannot take back.
    """
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("TRITON_INTERPRET: unset or 0 needed to compile Triton kernels, got 1")
    import torch
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    compiled: list = []
    run, active, own_capability = JITFunction.run, driver._active, torch.cuda.get_device_capability

    def compile_only(self, *args, grid, warmup, **options):
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        compiled.append(kernel)
        if then:
            bound = self.signature.bind(*args, **{name: value for name, value in options.items() if name in self.signature.parameters})
            then(kernel, grid, list(_values(kernel.src.signature, bound.arguments)), kernel.name)

    driver.set_active(AbsentGpu(capability))
    JITFunction.run = compile_only
    torch.cuda.get_device_capability = lambda device=None: divmod(capability, 10)
    try:
        yield compiled
    finally:
        JITFunction.run = run
        torch.cuda.get_device_capability = own_capability
        driver.set_active(active)


def _values(signature: dict, arguments: dict) -> Iterator:
    """What a kernel gets at run time, in order: everything that its signature does not hold for constant."""
    for name, kind in signature.items():
        yield from _flat(kind, arguments.get(name))


def _flat(kind, value) -> Iterator:
    if isinstance(kind, tuple):
        for one, each in zip(kind, value, strict=True):
            yield from _flat(one, each)
    elif kind != "constexpr":
        yield value
