"""When the feed-forward is handed over in 8-bit segments, and what that does to its error."""

import pytest
import torch
from torch.utils._pytree import tree_map_only

from halfbyte.models.fused import fuse_blocks, handover
from halfbyte.models.fused.single_stream import Apart, Joined
from halfbyte.ops import OPS, quantize_act, use_backend
from halfbyte.ops.native import architectures
from halfbyte.ops.operands import dequantize_act
from halfbyte.testing import Inputs, relative_rms
from halfbyte.testing.pretended_gpu import moved, pretended_gpu

from .conftest import OPS_OF_PRODUCTS, STACKS, made_in_tiles
from .test_equality import LIMITS, changes, worst

def handovers(model):
    double, single = (forward.operands for forward in fuse_blocks(model).forwards.values() if forward.reason() is None)
    return double.image.ff, double.text.ff, single.up


def test_where_one_kernel_makes_them_the_next_layer_reads_segments(make_flux, pretend_gpu, stand_in):
    pretend_gpu("int8")
    stand_in(made_in_tiles)
    for each in handovers(make_flux()):
        assert each.in_one_op and each.segment_width == 256 and each.next.segments == 2


@pytest.mark.parametrize(
    ("kernel", "width"),
    [
        (lambda op, read, made: None if made in (256, 512) else "the kernel", 128),
        (lambda op, read, made: None if made is not None else "the kernel", None),
        (lambda op, read, made: "of warps" if made in (128, 256) else "of warpgroups", None),
        (lambda op, read, made: "of warps" if read > 1 and op.endswith("residual") else "the kernel", None),
        (lambda op, read, made: "of warps" if read == 2 and op.endswith("residual") else "the kernel", 128),
        (lambda op, read, made: None, None),
    ],
    ids=["narrower", "two launches", "made elsewhere", "read elsewhere", "read elsewhere when wide", "nothing is known"],
)
def test_no_product_is_moved_to_another_kernel_for_them(make_flux, pretend_gpu, stand_in, kernel, width):
    pretend_gpu("int8")
    stand_in(kernel)
    assert [each.segment_width for each in handovers(make_flux())] == [width] * 3


@pytest.mark.parametrize("moves", [True, False])
def test_no_product_is_moved_to_another_backend_for_one_op(make_flux, pretend_gpu, stand_in, monkeypatch, moves):
    """The second backend has the op; the first, which runs the product without it, may not."""
    pretend_gpu("int8")
    stand_in(lambda op, read, made: None)
    op = OPS["gemm_w8a8_act_quantize"]
    monkeypatch.setitem(handover.PREFERENCE, "cpu", ("cpu", "triton", "reference"))
    monkeypatch.setitem(op.targets, "triton", op.reference)
    monkeypatch.delitem(op._missing, "triton", raising=False)
    monkeypatch.setitem(op.rejects, "triton", lambda *_: None)
    if moves:
        monkeypatch.setitem(op.rejects, "cpu", lambda *_: "a token's scale is in many tiles")
    assert [each.in_one_op for each in handovers(make_flux())] == [not moves] * 3


def test_4_bit_codes_have_groups_already(make_flux, pretend_gpu, stand_in):
    pretend_gpu("int4")
    stand_in(made_in_tiles)
    assert [each.next.segments for each in handovers(make_flux())] == [1] * 3


def test_the_choice_is_made_anew_for_a_backend_asked_for_later(make_flux, pretend_gpu, stand_in):
    pretend_gpu("int8")
    fused = fuse_blocks(make_flux())
    for forward in fused.forwards.values():
        assert forward.reason() is None
    single = fused.forwards["single_transformer_blocks.0"]
    assert single.operands.up.segment_width is None
    stand_in(made_in_tiles)
    with use_backend("cpu"):
        assert single.operands.up.segment_width == 256
    assert single.operands.up.segment_width is None


# The stored form's proj_out is one product of both sides' codes; a derived one is two products.
STORED = [("int4", "int8", Apart), ("int8", "int8", Joined), ("fp8", "fp8", Joined)]


@pytest.mark.parametrize(("stored", "multiplied", "kind"), STORED)
@pytest.mark.parametrize("stack", STACKS)
def test_a_block_in_segments_equals_the_block_and_is_no_further_from_float_activations(
    make_flux, pretend_gpu, in_float, arguments, stand_in, stack, stored, multiplied, kind
):
    pretend_gpu(multiplied)
    model = make_flux(weight=stored, activation=stored)
    exact, given = in_float(model), arguments()
    want = changes(getattr(exact, stack)[0], tree_map_only(torch.Tensor, torch.Tensor.float, given))
    plain = changes(getattr(model, stack)[0], given)
    stand_in(made_in_tiles)
    fused = fuse_blocks(model)
    got = changes(getattr(model, stack)[0], given)
    single = fused.forwards["single_transformer_blocks.0"]
    assert single.reason() is None and isinstance(single.operands.out, kind) and single.operands.up.segment_width
    assert worst(got, plain) < LIMITS[torch.bfloat16][multiplied]
    assert worst(got, want) < 1.05 * worst(plain, want)


@pytest.mark.parametrize("format", ["int8", "fp8"])
@pytest.mark.parametrize("outliers", [0, 12], ids=["GELU", "GELU with outliers"])
def test_finer_scales_err_as_little_or_less(format, outliers):
    """Outputs of GELU, where a few columns are large in a few tokens, as in the feed-forward of FLUX."""
    inputs, k = Inputs(torch.float32), 3072
    x = torch.nn.functional.gelu(inputs.normal(64, k), approximate="tanh")
    x[:, :outliers] *= 30

    def error(segments):
        codes, scales, _ = quantize_act(x, None, None, format, 0.0, False, segments)
        return relative_rms(dequantize_act(codes, scales, format, False)[:, 256:], x[:, 256:])

    whole, wide, narrow = error(1), error(k // 256), error(k // 128)
    assert narrow <= wide * 1.001 and wide <= whole * 1.001
    assert wide < whole * {"int8": 0.9, "fp8": 1.001}[format]
    if outliers and format == "int8":
        assert wide < whole / 4


@pytest.mark.parametrize(("backend", "width"), [("simt", 256), ("triton", 128)])
def test_the_kernels_take_segments(make_flux, pretend_gpu, backend, width):
    if reason := OPS["gemm_w8a8_act_quantize"].missing(backend):
        pytest.skip(reason)
    pretend_gpu("int8")
    fused = fuse_blocks(make_flux())
    assert set(fused.reasons.values()) == {None}
    double, single = fused.forwards.values()
    with use_backend(backend):
        assert [each.segment_width for each in (double.operands.image.ff, single.operands.up)] == [width] * 2


# E4M3 sums move to a second accumulator, which leaves tiles of 128 columns.
@pytest.mark.parametrize(("stored", "multiplied", "width"), [("int4", "int8", 256), ("nvfp4", "fp8", 128)])
def test_the_warpgroup_kernel_takes_them_on_hopper(make_flux, monkeypatch, stored, multiplied, width):
    for op in (OPS[name] for name in OPS_OF_PRODUCTS):
        monkeypatch.setitem(op.targets, "cuda", op.reference)
        monkeypatch.delitem(op._missing, "cuda", raising=False)
    monkeypatch.setattr(architectures, "cuda_architectures", lambda: "90a")
    model = make_flux(weight=stored, activation=stored)
    with pretended_gpu((9, 0)), torch.no_grad():
        fused = fuse_blocks(moved(model))
        assert set(fused.reasons.values()) == {None}
        double, single = (forward.operands for forward in fused.forwards.values())
        found = double.image.ff, double.text.ff, single.up
    assert [(each.product.format, each.in_one_op, each.segment_width) for each in found] == [(multiplied, True, width)] * 3
