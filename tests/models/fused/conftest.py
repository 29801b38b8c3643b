"""A tiny FLUX with low-bit layers in the forms of a GPU, which run on the ops' references here."""

import copy

import pytest
import torch

from halfbyte.formats import LayerFormat
from halfbyte.layers import LowBitWeight, install, low_bit_layers, prepared, weight
from halfbyte.layers.build_kernel_form import kernel_form, small_form
from halfbyte.layers.expanded import expand
from halfbyte.models.fused.match import match
from halfbyte.ops import OPS

DIM, TEXTS, IMAGES = 128, 7, 12
STACKS = ("transformer_blocks", "single_transformer_blocks")
OPS_OF_PRODUCTS = ("gemm_w8a8", "gemm_w8a8_act", "gemm_w8a8_act_quantize", "gemm_w8a8_gate_residual")
TILE = 256


def quantized(linear, name, layer_format):
    """q, k and v share smoothing and down factor, as conversion makes them."""
    weight, rank = linear.weight.data.float(), layer_format.rank
    companions = {}
    generator = torch.Generator().manual_seed(1 if "to_out" not in name and ".to_" in name else len(name))
    if layer_format.smooth:
        companions["smooth_factor"] = torch.rand(weight.shape[1], generator=generator) + 0.5
    if rank:
        down = torch.linalg.qr(torch.randn(weight.shape[1], rank, generator=generator)).Q
        companions |= {"proj_down": down.contiguous(), "proj_up": weight @ down}
    return LowBitWeight.from_float(linear.weight.data, layer_format, **companions)


@pytest.fixture
def make_flux():
    from diffusers import FluxTransformer2DModel

    def make(dtype=torch.bfloat16, layers=1, **format):
        torch.manual_seed(0)
        model = FluxTransformer2DModel(
            patch_size=1,
            in_channels=4,
            num_layers=layers,
            num_single_layers=layers,
            attention_head_dim=32,
            num_attention_heads=DIM // 32,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=[8, 12, 12],
        )
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        format = {"weight": "int4", "activation": "int4", "rank": 8, "smooth": True} | format
        for block in (block for stack in STACKS for block in getattr(model, stack)):
            for name, parameter in block.named_parameters():
                # Blocks that change their streams by about their own size, so that rounding the streams hides nothing.
                if name.endswith(("norm1.linear.weight", "norm1_context.linear.weight", "norm.linear.weight")):
                    parameter.data *= 3
                if name.endswith(("to_out.0.weight", "to_add_out.weight", "net.2.weight", "proj_out.weight")):
                    parameter.data *= 4
            for name, linear in match(block).linears(block).items():
                shift = 0.171875 if name.endswith("net.2") and format["activation"] == "int4" else 0.0
                install(linear, quantized(linear, name, LayerFormat(**format, act_shift=shift)))
        return model.eval().requires_grad_(False)

    return make


@pytest.fixture
def pretend_gpu(monkeypatch):
    """Let layers run the form of a GPU that multiplies in this format; made from now on, and anew when a weight changes."""

    def pretend(activation="int8"):
        def built(weight):
            if weight.numerics != "native":
                return prepared.build(weight)
            return (kernel_form if weight.memory == "fast" else small_form)(weight, activation, "pretended")

        monkeypatch.setattr(weight, "build", built)

    return pretend


@pytest.fixture
def in_float():
    """The same low-bit weights computed in float32, activations not rounded."""

    def give(model):
        model = copy.deepcopy(model).float()
        for module in low_bit_layers(model).values():
            module.weight.state.set_prepared(expand(module.weight, torch.float32, "asked for"))
        return model

    return give


@pytest.fixture
def arguments():
    def make(dtype=torch.bfloat16, batch=2):
        angle = torch.randn(TEXTS + IMAGES, 16).repeat_interleave(2, 1)
        sizes = {"hidden_states": (batch, IMAGES, DIM), "encoder_hidden_states": (batch, TEXTS, DIM), "temb": (batch, DIM)}
        given = {name: torch.randn(*size).to(dtype) for name, size in sizes.items()}
        return given | {"image_rotary_emb": (angle.cos(), angle.sin())}

    return make


@pytest.fixture
def stand_in(monkeypatch):
    """stand_in(kernel): the products on a backend of their own; kernel(op, segments read, columns of a segment made)."""

    def register(kernel):
        for name in OPS_OF_PRODUCTS:
            op = OPS[name]

            def named(*args, name=name):
                scales, qweight = args[1], args[2]
                made = None if not name.endswith("act_quantize") else len(qweight) // args[15]
                return kernel(name, len(scales), made)

            monkeypatch.setitem(op.targets, "cpu", op.reference)
            monkeypatch.setitem(op.rejects, "cpu", lambda *_: None)
            monkeypatch.setitem(op.kernels, "cpu", named)
            op._missing.pop("cpu", None)

    return register


def made_in_tiles(op, read, made):
    """The kernel of a backend whose tiles are TILE columns wide."""
    return None if made is not None and made > TILE else "the kernel"
