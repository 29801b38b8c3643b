"""From the low-bit linear layers of a block to the operands of its fused ops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...layers import LowBitWeight
from ...layers.kernel_form import KernelForm
from ...layers.streamed_form import StreamedForm
from .groups import Group
from .operands import Input, Product

# What the kernels that quantize take of low-rank factors side by side.
MAX_RANK = 128


def reason_against(linear: nn.Module) -> str | None:
    """Half a sentence why a linear layer cannot be part of a fused block, or None."""
    if type(linear) is not nn.Linear:
        return f"is a {type(linear).__module__}.{type(linear).__qualname__}, not a plain linear layer"
    weight = linear._parameters["weight"]
    if not isinstance(weight, LowBitWeight):
        return "has a float weight"
    if weight.side:
        return "has an adapter fused into it"
    form = weight.prepared()
    if not isinstance(form, KernelForm | StreamedForm):
        return f"runs {form.kind}"
    return "keeps 16-bit activations" if kernel_of(linear).activation is None else None


def kernel_of(linear: nn.Linear) -> KernelForm:
    """What the layer runs, with its stored codes where they are folded at each call."""
    form = linear.weight.prepared()
    return form.kernel if isinstance(form, StreamedForm) else form


def input_of(linear: nn.Linear) -> Input:
    form = kernel_of(linear)
    return Input(form.activation, form.smooth, form.proj_down, form.act_shift, form.four_over_six)


def product_of(linear: nn.Linear, activation: str = "none") -> Product:
    form, bias = linear.weight.prepared(), linear.bias
    kernel = kernel_of(linear)
    if kernel.shift_product is not None:
        bias = (-kernel.shift_product if bias is None else bias - kernel.shift_product).to(linear.weight.dtype)
    product = Product(
        kernel.activation, kernel.qweight, kernel.wscales, kernel.wtscale, kernel.proj_up, bias, kernel.act_shift > 0, activation
    )
    return replace(product, wscales=form.product_scales, streamed=form) if form is not kernel else product


def is_derived(linear: nn.Linear) -> bool:
    """Whether the codes that run were made from the stored ones, and so may be laid out anew."""
    weight = linear.weight
    return all(kernel_of(linear).qweight is not tensor for tensor in weight.storage.values())


def release(linears: Sequence[nn.Linear]) -> None:
    """Drop forms whose codes were copied; a layer that is called by itself builds its own again."""
    for linear in linears:
        linear.weight.state.set_prepared(None)


def group_by_input(layers: Mapping[str, nn.Linear], activations: Mapping[str, str] = {}) -> tuple[Group, ...]:
    """Products of layers that read the same rows, those that quantize them alike in one group.

    Layers of a group with derived codes and the same activation function become one product, and their forms are released.
    """
    alike: list[dict[str, nn.Linear]] = []
    for name, linear in layers.items():
        for members in alike:
            first = next(iter(members.values()))
            if _quantized_alike(first, linear) and _total_rank([*members.values(), linear]) <= MAX_RANK:
                members[name] = linear
                break
        else:
            alike.append({name: linear})
    return tuple(_group(members, activations) for members in alike)


def _quantized_alike(first: nn.Linear, second: nn.Linear) -> bool:
    a, b = input_of(first), input_of(second)
    return replace(a, smooth=None, proj_down=None) == replace(b, smooth=None, proj_down=None) and _equal(a.smooth, b.smooth)


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and a.shape == b.shape and torch.equal(a, b))


def _distinct_downs(linears: Sequence[nn.Linear]) -> list[Tensor]:
    downs: list[Tensor] = []
    for down in (kernel_of(linear).proj_down for linear in linears):
        if down is not None and not any(_equal(down, other) for other in downs):
            downs.append(down)
    return downs


def _total_rank(linears: Sequence[nn.Linear]) -> int:
    return sum(down.shape[1] for down in _distinct_downs(linears))


def _group(layers: dict[str, nn.Linear], activations: Mapping[str, str]) -> Group:
    downs = _distinct_downs(list(layers.values()))
    down = torch.cat(downs, 1) if len(downs) > 1 else next(iter(downs), None)
    shared = replace(input_of(next(iter(layers.values()))), proj_down=down)
    products = {name: _with_ranks(linear, downs, activations.get(name, "none")) for name, linear in layers.items()}
    sides: dict[object, list[str]] = {}
    for name, linear in layers.items():
        sides.setdefault(products[name].activation if is_derived(linear) else name, []).append(name)
    joined = tuple(
        (tuple((name, len(products[name].qweight)) for name in names), _side_by_side([products[name] for name in names]))
        for names in sides.values()
    )
    release([layers[name] for names in sides.values() if len(names) > 1 for name in names])
    return Group(shared, joined)


def _with_ranks(linear: nn.Linear, downs: list[Tensor], activation: str) -> Product:
    """The layer's product, its proj_up widened by zeros for the ranks of other layers."""
    product, own = product_of(linear, activation), kernel_of(linear).proj_down
    up = product.proj_up
    ups = [up if own is not None and _equal(own, down) else up.new_zeros(len(up), down.shape[1]) for down in downs]
    return replace(product, proj_up=torch.cat(ups, 1)) if len(downs) > 1 or (own is None and downs) else product


def _side_by_side(products: list[Product]) -> Product:
    """8-bit products of one input as one, along N."""
    if len(products) == 1:
        return products[0]
    bias = None
    if any(product.bias is not None for product in products):
        bias = torch.cat([p.proj_up.new_zeros(len(p.proj_up)) if p.bias is None else p.bias for p in products])
    return replace(
        products[0],
        qweight=torch.cat([product.qweight for product in products]),
        wscales=torch.cat([product.wscales for product in products]),
        proj_up=torch.cat([product.proj_up for product in products]),
        bias=bias,
    )
