"""Run example calls of ops on the PTX that Triton makes of their kernels: capability, ops. Prints a line of JSON for each."""

import json
import sys

from torch import Tensor
from torch.utils._pytree import tree_map_only

from halfbyte.ops import OPS
from halfbyte.ops.triton.one_launch import one_launch
from halfbyte.testing import LIMITS, Shape, calls_of, outputs_as_floats, relative_rms
from halfbyte.testing.kernel_calls.call import into_poison
from halfbyte.testing.triton import one_of_each_kind
from halfbyte.testing.triton.check import REJECTS
from halfbyte.testing.triton.on_ptx import running_on_ptx

SHAPE = Shape("small", 9, 72, 128)
# Every format for the next layer, which a tile of 128 columns holds the scales of.
NEXT_LAYER_SHAPE = Shape("next layer", 9, 128, 64)
NEXT_LAYER_CALLS = (
    "gelu_erf-none-fp8",
    "gelu_erf-none-int8-segments",
    "gelu_tanh-value_first-nvfp4-four-over-six",
    "silu-gate_first-int4-after-gelu",
)


def errors(op, args):
    """Kernels that ran, and one sentence for each output beyond its limit."""
    with running_on_ptx(CAPABILITY) as kernels:
        if REJECTS[op](*args):
            return [], []
        got = OPS[op].targets["triton"](*tree_map_only(Tensor, into_poison, args))
    wanted = outputs_as_floats(op, args, OPS[op].reference(*args))
    found = []
    for name, (tensor, format) in outputs_as_floats(op, args, got).items():
        if (error := relative_rms(tensor, wanted[name][0])) > LIMITS[format].agreement:
            found.append(f"{op} {name}: relative RMS error {error:.3g} is over the {format} limit")
    return [kernel.name for kernel in kernels], found


def calls_on_ptx(op):
    """Few of the example calls, as the interpreter is slow."""
    if op == "quantize_act" or not op.endswith("_act_quantize"):
        return one_of_each_kind(calls_of(op, SHAPE))
    calls = {name: calls_of(op, NEXT_LAYER_SHAPE)[name] for name in NEXT_LAYER_CALLS}
    assert all(one_launch(op, *args) for args in calls.values())
    return calls


if __name__ == "__main__":
    CAPABILITY = int(sys.argv[1])
    for op in sys.argv[2:]:
        assert OPS[op].missing("triton") is None
        for name, args in calls_on_ptx(op).items():
            kernels, found = errors(op, args)
            print(json.dumps({"op": op, "call": name, "kernels": kernels, "errors": found}), flush=True)
