"""Models on a GPU that is not there: what is chosen for it, and that a step neither waits for it nor computes anywhere else."""

import copy

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from halfbyte.convert import convert
from halfbyte.layers import low_bit_layers, prepare
from halfbyte.models import find_denoisers
from halfbyte.models.fused import fuse_blocks
from halfbyte.ops import OPS, attention_kernels
from halfbyte.quantize import get_recipe
from halfbyte.steps import compile_blocks
from halfbyte.testing.pipelines import tiny_pipeline
from halfbyte.testing.pretended_gpu import Watch, moved, pretended_gpu


def float_model(name):
    """A tiny pipeline's denoiser in bfloat16, and the arguments of its first call."""
    pipe, call = tiny_pipeline(name)
    model, seen = next(iter(find_denoisers(pipe).values())), []
    hook = model.register_forward_pre_hook(lambda model, *given: seen.append(given), with_kwargs=True)
    pipe(**call, generator=torch.Generator().manual_seed(0))
    hook.remove()
    return model.to(torch.bfloat16), seen[0]


def low_bit_model(name, recipe="svdq_int4"):
    model, given = float_model(name)
    convert(model, get_recipe(recipe))
    return model, given


def on_gpu(given):
    def twin(tensor):
        halves = tensor.dtype == torch.float32 and tensor.dim() > 0
        return torch.empty(tensor.shape, dtype=torch.bfloat16 if halves else tensor.dtype, device="cuda")

    return tree_map_only(torch.Tensor, twin, given)


def watched(model, given):
    args, kwargs = given
    with Watch() as watch:
        output = model(*args, **kwargs)
    output = getattr(output, "sample", output)
    return tree_leaves(output)[0], watch


CASES = [
    *((name, "svdq_int4", (9, 0), "fast", {"kernel int8", "kernel w4a16"}) for name in ("flux", "sdxl", "dit", "sana", "wan", "qwenimage")),
    ("flux", "svdq_int4", (9, 0), "4bit", {"streamed int8", "kernel w4a16"}),
    ("flux", "svdq_nvfp4", (9, 0), "fast", {"kernel fp8", "kernel w4a16"}),
    ("flux", "svdq_nvfp4", (9, 0), "4bit", {"streamed fp8", "kernel w4a16"}),
    ("flux", "svdq_int4", (8, 9), "fast", {"kernel int4", "kernel w4a16"}),
    ("flux", "svdq_nvfp4", (12, 0), "4bit", {"kernel nvfp4", "kernel w4a16"}),
    ("sdxl", "svdq_int4", (8, 9), "fast", {"kernel int4"}),
    ("dit", "svdq_int4", (7, 5), "fast", {"expanded bfloat16"}),
]


def readable(value) -> str:
    """A set in order: the workers of one run must give a case one name."""
    return str(sorted(value) if isinstance(value, set) else value).replace(" ", "")


@pytest.mark.parametrize(("name", "recipe", "capability", "memory", "kinds"), CASES, ids=readable)
def test_a_step_stays_on_the_gpu_and_reads_nothing_back(name, recipe, capability, memory, kinds):
    model, given = float_model(name)
    plain = copy.deepcopy(model)
    convert(model, get_recipe(recipe))
    with pretended_gpu(capability), torch.no_grad():
        model, plain, given = moved(model), moved(plain), on_gpu(given)
        want, by_diffusers = watched(plain, given)
        assert set(prepare(model, memory=memory).kinds) <= kinds
        fused = None
        for _ in range(2):
            got, watch = watched(model, given)
            assert (got.shape, got.dtype, got.device) == (want.shape, want.dtype, want.device)
            assert watch.on_cpu == by_diffusers.on_cpu
            assert {backend for op, backend in watch.chosen if op != "attention"} <= {"cuda", "triton"}
            assert any(op.startswith("gemm") for op, _ in watch.chosen) == (capability >= (8, 0))
            fused = fused or fuse_blocks(model)
        if name == "flux":
            assert set(fused.reasons.values()) == {None}
            assert sum(calls for (op, _), calls in watch.chosen.items() if op == "attention") == 4


def test_fused_blocks_compile_to_whole_graphs_that_blocks_share():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, given = low_bit_model("flux")
    with pretended_gpu((9, 0)), torch.no_grad():
        model, (args, kwargs) = moved(model), on_gpu(given)
        prepare(model)
        fuse_blocks(model)
        compile_blocks(model, fullgraph=True, backend="aot_eager", dynamic=False)
        output = model(*args, **kwargs)[0]
    assert output.device.type == "cuda" and not torch._dynamo.utils.counters["graph_break"]
    # Of the four blocks, the second single-stream one reads parts of what the first wrote, as all after it do.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3
    torch._dynamo.reset()


def test_a_weight_takes_all_it_holds_along():
    model, _ = low_bit_model("dit")
    with pretended_gpu((9, 0)), torch.no_grad():
        module = next(iter(low_bit_layers(moved(model)).values()))
        module.weight.prepared()
        for device in ("cpu", "cuda:0"):
            weight = module.weight.data.to(device).to(device)
            assert {str(tensor.device) for tensor in (weight, *weight.storage.values())} == {device}
        assert module.weight.data.to("cpu").state.prepared is None
        half = module.weight.data.to(torch.float16)
        y = torch.nn.functional.linear(torch.empty(3, half.shape[1], dtype=torch.float16, device="cuda"), half)
        assert (y.dtype, y.device.type, y.shape) == (torch.float16, "cuda", (3, half.shape[0]))


WITH_MASK = ("cudnn", "efficient", "math")


@pytest.mark.parametrize(("kernel", "masked"), [("flash", False), *((name, masked) for name in WITH_MASK for masked in (False, True))])
def test_attention_kernels_return_what_the_op_says(kernel, masked):
    with pretended_gpu((9, 0)), Watch() as watch:
        q, k, v = (torch.empty(2, tokens, 4, 64, dtype=torch.bfloat16, device="cuda") for tokens in (48, 77, 77))
        mask = torch.ones(2, 1, 1, 77, dtype=torch.bool, device="cuda") if masked else None
        got = attention_kernels.run(kernel, q, k, v, mask, None)
        want = OPS["attention"].fake(q, k, v, mask)
        assert (got.shape, got.dtype, got.device) == (want.shape, want.dtype, want.device) and got.is_contiguous()
    assert watch.on_cpu == []


class WithAConstant(torch.nn.Module):
    def forward(self, x):
        return x + torch.arange(3).to(x.device)


class ThatWaits(torch.nn.Module):
    def forward(self, x):
        return x if x.sum().item() else -x


def test_a_tensor_made_on_the_cpu_is_told_and_a_value_read_back_raises():
    with pretended_gpu((9, 0)):
        x = torch.empty(3, device="cuda")
        _, watch = watched(WithAConstant(), ((x,), {}))
        assert watch.on_cpu == ["aten.arange.default [3]"]
        with pytest.raises(RuntimeError, match="_local_scalar_dense"):
            watched(ThatWaits(), ((x,), {}))
        with pytest.raises(RuntimeError, match="device"):
            watched(torch.nn.Linear(3, 3), ((x,), {}))
