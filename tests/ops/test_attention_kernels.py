"""Which attention kernel a GPU runs, and that PyTorch's kernels are called as they are declared; none of it needs a GPU."""

import json
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode

from halfbyte import env
from halfbyte.ops import OPS, NoBackendError, attention, use_backend
from halfbyte.ops import attention_kernels as kernels
from halfbyte.ops.attention_choice import KERNELS, AttentionCall, choose_attention, order
from halfbyte.testing import assert_close

aten = torch.ops.aten
NO_FLASH3 = {"flash3": "its package, flash_attn_interface, is not installed"}
FLUX = {"dtype": torch.bfloat16, "width": 128, "value_width": 128, "tokens": 4608, "keys": 4608}
DECLARED = json.loads((Path(__file__).parent / "attention_schemas.json").read_text())


def call(capability=(9, 0), **changes):
    return AttentionCall(capability, **(FLUX | changes))


@pytest.mark.parametrize(
    ("capability", "changes", "kernel"),
    [
        ((9, 0), {}, "cudnn"),
        ((10, 0), {}, "cudnn"),
        ((8, 0), {}, "flash"),
        ((8, 9), {}, "flash"),
        ((12, 0), {}, "flash"),
        ((7, 5), {}, "math"),
        ((9, 0), {"masked": True}, "cudnn"),
        ((8, 9), {"masked": True}, "cudnn"),
        ((9, 0), {"heads_each": 4}, "flash"),
        ((9, 0), {"heads_each": 4, "masked": True}, "math"),
        ((9, 0), {"dtype": torch.float32}, "efficient"),
        ((9, 0), {"width": 256, "value_width": 256}, "flash"),
        ((9, 0), {"width": 512, "value_width": 512}, "efficient"),
        ((9, 0), {"width": 20, "value_width": 20}, "math"),
        ((9, 0), {"value_width": 64}, "cudnn"),
        ((8, 9), {"value_width": 64}, "cudnn"),
        ((9, 0), {"keys": 1}, "flash"),
        ((9, 0), {"keys": 0}, "math"),
    ],
)
def test_the_choice(capability, changes, kernel):
    assert choose_attention(call(capability, **changes), absent=NO_FLASH3).kernel == kernel


def test_flash_attention_3_comes_first_where_it_is_installed():
    assert choose_attention(call()).kernel == "flash3"
    assert choose_attention(call((8, 9))).kernel == "flash"


def test_a_choice_says_why_nothing_faster_runs():
    choice = choose_attention(call(dtype=torch.float32), absent=NO_FLASH3)
    assert str(choice) == (
        "efficient; not flash3: its package, flash_attn_interface, is not installed; "
        "not cudnn: float16 or bfloat16 needed, got float32; not flash: float16 or bfloat16 needed, got float32"
    )


@pytest.mark.parametrize(
    ("kernel", "changes", "message"),
    [
        ("flash", {"masked": True}, "flash was asked for and cannot take this call: it takes no mask"),
        ("flash3", {"capability": (8, 9)}, "it is made for sm_90, not sm_89"),
        ("cudnn", {"width": 160}, "head widths must be multiples of 8 up to 128, got 160 and 128"),
        ("flash", {"value_width": 64}, "one head width needed, got 128 and 64"),
        ("efficient", {"heads_each": 2}, "as many heads of k as of q needed, got 2 of q for each"),
        ("cudnn", {"keys": 1}, "more than 1 key needed"),
    ],
)
def test_a_kernel_asked_for_by_name_runs_or_raises(kernel, changes, message):
    with pytest.raises(ValueError, match=message):
        choose_attention(call(**changes), kernel)
    assert choose_attention(call(), kernel).kernel == kernel


def test_every_kernel_is_ordered_and_can_be_asked_for():
    for capability in ((8, 0), (8, 9), (9, 0), (10, 0), (12, 0)):
        assert order(capability)[-1] == "math" and set(order(capability)) | {"flash3"} == set(KERNELS)
    assert set(env.ATTENTIONS) == {"auto", *KERNELS} and set(kernels.BY_HEAD) | {"flash3"} == set(KERNELS)


def inputs(dtype=torch.bfloat16, keys=12, key_heads=2, **options):
    q = torch.randn(2, 9, 2, 16, dtype=dtype, **options)
    return (q, *(torch.randn(2, keys, key_heads, 16, dtype=dtype, **options) for _ in range(2)))


MASKS = {
    "none": lambda: None,
    "bool": lambda: torch.rand(2, 1, 9, 11) > 0.3,
    "bool-per-key": lambda: torch.arange(11)[None] < 7,
    "float": lambda: torch.randn(2, 2, 9, 11),
    "float-per-row": lambda: torch.randn(9, 1),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_what_surrounds_a_kernel_gives_the_reference(mask, dtype, monkeypatch):
    """On the CPU's own flash kernel, with the bias that the GPU's kernels get."""

    def flash_for_cpu(q, k, v, bias, scale):
        return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False, attn_mask=bias, scale=scale)[0]

    monkeypatch.setitem(kernels.BY_HEAD, "flash", flash_for_cpu)
    q, k, v = inputs(dtype, keys=11)
    mask = MASKS[mask]()
    mask = mask if mask is None or mask.dtype == torch.bool else mask.to(dtype)
    got, want = kernels.run("flash", q, k, v, mask, 0.5), attention.reference(q, k, v, mask, 0.5)
    assert got.is_contiguous()
    if mask is None or mask.dtype == torch.bool or mask.shape[-1] > 1:
        assert torch.equal(got, want)
    assert_close("flash", got, want, str(dtype).removeprefix("torch."))


@pytest.mark.parametrize("key_heads", [2, 1], ids=["all-heads", "grouped"])
def test_the_math_kernel_gives_the_reference(key_heads):
    q, k, v = inputs(torch.float32, key_heads=key_heads)
    mask = torch.rand(2, 1, 9, 12) > 0.3
    assert_close("math", kernels.run("math", q, k, v, mask, None), attention.reference(q, k, v, mask), "float32")


@pytest.mark.parametrize("kernel", ["cudnn", "flash", "efficient"])
def test_gpu_kernels_take_what_they_are_given(kernel):
    """Shapes alone, through PyTorch's own declarations of its CUDA kernels."""
    with FakeTensorMode():
        q, k, v = inputs(device="meta")
        mask = None if kernel == "flash" else torch.empty(2, 1, 9, 12, dtype=torch.bool, device="meta")
        out = kernels.run(kernel, q, k, v, mask, 0.25)
    assert (out.shape, out.dtype, out.stride()) == (q.shape, q.dtype, q.stride())


def test_rows_of_a_bias_are_aligned():
    q, k = torch.empty(2, 2, 9, 16), torch.empty(2, 2, 11, 16)
    for make in list(MASKS.values())[1:]:
        bias = kernels.additive(make(), q, k)
        assert bias.shape == (2, 2, 9, 11) and bias.stride(2) % 8 == 0 and bias.stride(3) == 1


@pytest.mark.parametrize("given", ["tensor", "pair"])
def test_flash_attention_3_is_called_with_the_layout_of_the_op(given, monkeypatch):
    def flash_attn_func(q, k, v, softmax_scale=None, causal=False):
        out = attention.reference(q, k, v, None, softmax_scale)
        return (out, None) if given == "pair" else out

    module = type("flash_attn_interface", (), {"flash_attn_func": staticmethod(flash_attn_func)})
    monkeypatch.setattr(kernels.importlib, "import_module", {kernels.FLASH3_MODULE: module}.__getitem__)
    q, k, v = inputs()
    assert torch.equal(kernels.run("flash3", q, k, v, None, 0.5), attention.reference(q, k, v, None, 0.5))


def process_wide():
    backends = torch.backends.cuda
    names = ("flash", "mem_efficient", "math", "cudnn")
    return [*(getattr(backends, f"{name}_sdp_enabled")() for name in names), torch._C._get_sdp_priority_order()]


def test_no_process_wide_switch_is_touched():
    before = process_wide()
    kernels.run("math", *inputs(torch.float32), None, None)
    attention(*inputs(), None)
    assert process_wide() == before


@pytest.mark.parametrize("release", ["2.11", "2.13", "here"])
@pytest.mark.parametrize("name", DECLARED["2.13"])
def test_arguments_are_those_that_every_tested_pytorch_declares(release, name):
    here = str(getattr(aten, name).default._schema) if release == "here" else DECLARED[release][name]
    ours, declared = (torch._C.parse_schema(text.removeprefix("aten::")) for text in (DECLARED["2.13"][name], here))
    given, taken = ([(a.name, str(a.type), a.kwarg_only) for a in schema.arguments] for schema in (ours, declared))
    assert given == taken and str(declared.returns[0].type) == "Tensor"


def test_tensors_on_a_cpu_are_refused(monkeypatch):
    with use_backend("cuda"), pytest.raises(NoBackendError):
        attention(*inputs(), None)
    assert OPS["attention"].rejects["cuda"](*inputs(), None) == "tensors on a GPU needed, got them on cpu"
