"""When a block runs fused and when it does not, and that nothing of it stays or leaks."""

import copy
import io
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from halfbyte.layers import prepare
from halfbyte.models.fused import FusedForward, forward, fuse_blocks
from halfbyte.models.fused.match import match

from .conftest import STACKS

DOUBLE, SINGLE = (f"{stack}.0" for stack in STACKS)


@pytest.fixture
def fused(make_flux, pretend_gpu):
    """(model, its fused blocks) with every block ready."""
    pretend_gpu()
    model = make_flux()
    blocks = fuse_blocks(model)
    assert blocks.reasons == {DOUBLE: None, SINGLE: None}
    return model, blocks


@pytest.fixture
def spy(monkeypatch):
    """Names of the block classes whose own forward ran."""
    from diffusers.models.transformers import transformer_flux

    ran = []
    for kind in (transformer_flux.FluxTransformerBlock, transformer_flux.FluxSingleTransformerBlock):

        def forward(self, *args, original=kind.forward, **kwargs):
            ran.append(type(self).__name__)
            return original(self, *args, **kwargs)

        forward.__wrapped__ = kind.forward
        monkeypatch.setattr(kind, "forward", forward)
    return ran


def call(block, given, **changes):
    with torch.no_grad():
        return block(**(given | changes))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_fused_block_does_not_call_its_class(fused, spy, arguments):
    model, _ = fused
    for stack in STACKS:
        call(getattr(model, stack)[0], arguments())
    assert spy == []


def test_positional_arguments(fused, arguments):
    block, given = fused[0].transformer_blocks[0], arguments()
    with torch.no_grad():
        assert same(block(*given.values()), block(**given))


UNUSUAL = {
    "ip adapter": {"joint_attention_kwargs": {"ip_hidden_states": []}},
    "mask": {"joint_attention_kwargs": {"attention_mask": None}},
    "no rotary": {"image_rotary_emb": None},
}


@pytest.mark.parametrize("changes", UNUSUAL.values(), ids=UNUSUAL)
@pytest.mark.parametrize("stack", STACKS)
def test_unusual_arguments_run_the_block_itself(fused, spy, arguments, stack, changes):
    block, given = getattr(fused[0], stack)[0], arguments()
    call(block, given, **changes)
    assert spy == [type(block).__name__]
    call(block, given, joint_attention_kwargs={})
    assert len(spy) == 1


def test_gradients_and_autocast_run_the_block_itself(fused, spy, arguments):
    block, given = fused[0].transformer_blocks[0], arguments()
    with torch.autocast("cpu", torch.bfloat16):
        call(block, given)
    given["hidden_states"].requires_grad_()
    assert block(**given)[1].requires_grad and len(spy) == 2
    call(block, given)
    assert len(spy) == 2


CHANGES = {
    "another processor": (
        lambda block: block.attn.set_processor(type("Other", (), {"__call__": lambda *_: None})()),
        "its attention was given a processor, a backend or a parallel layout of its own",
    ),
    "an attention backend": (
        lambda block: setattr(block.attn.processor, "_attention_backend", "native"),
        "its attention was given a processor, a backend or a parallel layout of its own",
    ),
    "a hook on a layer": (
        lambda block: block.attn.to_k.register_forward_hook(lambda *_: None),
        "attn.to_k has hooks or another forward",
    ),
    "a hook on attention": (
        lambda block: block.attn.register_forward_pre_hook(lambda *_: None),
        "attn has hooks or another forward",
    ),
    "another forward": (
        lambda block: setattr(block.attn.norm_q, "forward", lambda x: x),
        "attn.norm_q has hooks or another forward",
    ),
    "a fused adapter": (lambda block: block.attn.to_v.weight.data.add_(0.01), "attn.to_v has an adapter fused into it"),
    "a float layer": (lambda block: setattr(block.attn, "to_q", nn.Linear(128, 128).bfloat16()), "attn.to_q has a float weight"),
    "a wrapped layer": (
        lambda block: setattr(block.attn, "to_q", type("LoraLayer", (nn.Linear,), {"__module__": "peft"})(128, 128).bfloat16()),
        "attn.to_q is a peft.LoraLayer, not a plain linear layer",
    ),
    "other numerics": (lambda block: prepare(block, "w4a4"), "attn.to_q runs emulated w4a4"),
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("stack", STACKS)
def test_what_changes_after_fusing_is_seen_at_the_next_call(fused, arguments, spy, stack, change, reason):
    model, blocks = fused
    block = getattr(model, stack)[0]
    call(block, arguments())
    change(block)
    assert blocks.reasons[f"{stack}.0"] == reason
    if not any(word in reason for word in ("processor", "float", "Lora")):
        call(block, arguments())
        assert spy == [type(block).__name__]


@pytest.mark.parametrize("how", ["written", "replaced"])
@pytest.mark.parametrize("name", ["add_v_proj", "to_add_out"])
def test_a_changed_bias_is_read_again(fused, arguments, name, how):
    block, given = fused[0].transformer_blocks[0], arguments()
    before = call(block, given)
    linear = getattr(block.attn, name)
    if how == "written":
        linear.bias.add_(1)
    else:
        linear.bias = nn.Parameter(linear.bias + 1, requires_grad=False)
    after = call(block, given)
    assert not torch.equal(after[0], before[0]) and fused[1].forwards[DOUBLE].reason() is None


def test_adapters_come_and_go(fused, arguments, spy):
    model, blocks = fused
    block, given = model.single_transformer_blocks[0], arguments()
    before = call(block, given)
    delta = torch.randn(128, 128).bfloat16()
    block.attn.to_q.weight.data += delta
    assert blocks.reasons[SINGLE] is not None
    block.attn.to_q.weight.data -= delta
    assert blocks.reasons[SINGLE] is None and same(call(block, given), before) and spy == []


def test_undo_leaves_the_blocks_as_they_were(make_flux, pretend_gpu, arguments):
    pretend_gpu()
    model = make_flux()
    untouched = copy.deepcopy(model)
    names, given = [set(vars(block)) for block in model.transformer_blocks], arguments()
    blocks = fuse_blocks(model)
    for stack in STACKS:
        call(getattr(model, stack)[0], given)
    blocks.undo()
    assert [set(vars(block)) for block in model.transformer_blocks] == names
    for stack in STACKS:
        assert same(call(getattr(model, stack)[0], given), call(getattr(untouched, stack)[0], given))


def test_the_state_dict_is_that_of_the_model(make_flux, pretend_gpu):
    pretend_gpu()
    model = make_flux()
    before = model.state_dict()
    fuse_blocks(model).reasons
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name].float(), after[name].float()) for name in before)


@pytest.mark.parametrize("copied", ["deepcopy", "pickle"])
def test_a_copy_runs_on_its_own_weights(fused, arguments, copied):
    model, given = fused[0], arguments()
    want = call(model.transformer_blocks[0], given)
    if copied == "deepcopy":
        other = copy.deepcopy(model)
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    block = other.transformer_blocks[0]
    assert isinstance(block.forward, FusedForward) and block.forward.block is block
    with torch.no_grad():
        model.transformer_blocks[0].attn.to_out[0].bias.add_(100)
    assert block.forward.reason() is None and same(call(block, given), want)


def test_a_weight_that_moves_away_is_not_kept(fused):
    model, blocks = fused
    assert blocks.forwards[DOUBLE].operands is not None
    model.to(torch.float16)
    assert blocks.forwards[DOUBLE].operands is None


def test_layers_prepared_anew_leave_nothing_of_the_old_ones(fused, arguments):
    model, blocks = fused
    call(model.transformer_blocks[0], arguments())
    codes = weakref.ref(blocks.forwards[DOUBLE].operands.image.qkv[0].products[0][1].qweight)
    prepare(model)
    assert codes() is None and blocks.forwards[DOUBLE].operands is None
    assert blocks.reasons == {DOUBLE: None, SINGLE: None}


def test_other_blocks_are_left_alone(make_flux):
    from diffusers import DiTTransformer2DModel

    sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "sample_size": 8}
    dit = DiTTransformer2DModel(num_layers=1, **sizes)
    assert not fuse_blocks(dit).forwards
    model = make_flux()
    block = model.transformer_blocks[0]
    block.extra = nn.Linear(8, 8)
    assert match(block) is None
    model.single_transformer_blocks[0].forward = lambda *args: args
    assert not fuse_blocks(model).forwards


def test_why_a_block_runs_unfused_is_said_once(make_flux, arguments, caplog):
    forward.say_once.cache_clear()
    model = make_flux()
    fuse_blocks(model)
    with caplog.at_level("INFO", "halfbyte.models"):
        for _ in range(2):
            call(model.transformer_blocks[0], arguments())
    assert caplog.messages == ["a FluxTransformerBlock runs unfused: attn.to_q runs expanded bfloat16"]


def test_threads_that_call_first_at_once(make_flux, pretend_gpu, arguments):
    pretend_gpu()
    model = make_flux()
    fuse_blocks(model)
    block, given = model.single_transformer_blocks[0], arguments()
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda _: call(block, given), range(8)))
    assert all(same(output, outputs[0]) for output in outputs)
