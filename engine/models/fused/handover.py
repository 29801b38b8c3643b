"""The output of one product quantized for the next, in the product's own kernel where a fast backend has it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ...ops import OPS
from ...ops.registry import PREFERENCE, Op, named_backend
from .operands import PRODUCTS, Codes, Input, Product

# Rows of the example calls that backends are asked about; what they answer does not depend on it.
EXAMPLE_ROWS = 8
# Columns that share an 8-bit scale where the product that makes them quantizes them: a token's are in many blocks, these in one.
SEGMENT_WIDTHS = (256, 128)


@dataclass(frozen=True)
class Handover:
    """A product whose output goes through its activation into the product `reader`; in one op where the product's backend has it.

    input: what the product reads; next: how its output is quantized; reader_input: how all that the reader reads is, with one
    scale a token; dtype: of the activations in between.
    """

    product: Product
    input: Input
    next: Input
    reader: Product
    reader_input: Input
    dtype: torch.dtype
    in_one_op: bool

    @property
    def segment_width(self) -> int | None:
        """Columns that share a scale, or None where all of a token do."""
        return self.product.n // self.next.segments if self.next.segments > 1 else None

    def codes(self, codes: Codes) -> Codes:
        if not self.in_one_op:
            return self.next.quantize(self.product.multiply(codes, self.dtype))
        op, arguments = act_quantize_call(self.product, self.next, codes, self.dtype)
        return op(*arguments)

    def chosen_anew(self) -> Handover:
        next = replace(self.next, segments=1)
        return hand_over(self.product, self.input, next, self.reader, self.reader_input, self.dtype)


def hand_over(
    product: Product, input: Input, next: Input, reader: Product, reader_input: Input, dtype: torch.dtype
) -> Handover:
    """next: with one scale a token, from which 8-bit codes go to segments where that makes it one kernel."""
    example = example_of(product)
    codes = example_codes(example, input, dtype)
    for width in SEGMENT_WIDTHS:
        finer = in_segments(next, product.n, width)
        if finer is not None and takes_segments(example, codes, finer, example_of(reader), reader_input, width, dtype):
            return Handover(product, input, finer, reader, reader_input, dtype, in_one_op=True)
    device, (op, arguments) = codes[0].device, act_quantize_call(example, next, codes, dtype)
    stays = backend_of(op, arguments, device) == backend_of(*example.call(codes, dtype), device)
    return Handover(product, input, next, reader, reader_input, dtype, stays and is_fast(op, device, arguments))


def in_segments(input: Input, columns: int, width: int) -> Input | None:
    """The same for 8-bit scales of `width` columns, or None where these are not several of them."""
    fits = input.format in ("int8", "fp8") and columns % width == 0 and columns > width
    return replace(input, segments=columns // width) if fits else None


def takes_segments(
    product: Product, codes: Codes, next: Input, reader: Product, reader_input: Input, width: int, dtype: torch.dtype
) -> bool:
    """Whether one kernel makes the codes, and both products run on the kernels that they would run on otherwise."""
    if (finer := in_segments(reader_input, reader.k, width)) is None:
        return False
    reads = (gate_residual_call(reader, example_codes(reader, each, dtype), dtype) for each in (reader_input, finer))
    calls = (product.call(codes, dtype), act_quantize_call(product, next, codes, dtype), *reads)
    without, making, reading_without, reading = (kernel_of(*call, codes[0].device) for call in calls)
    return None not in (making, reading) and making == without and reading == reading_without


def example_of(product: Product) -> Product:
    """One with the operands that kernels get; nothing is folded for it."""
    if product.streamed is None:
        return product
    dtype = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}[product.format]
    qweight = torch.empty(product.n, product.k, dtype=dtype, device=product.qweight.device)
    return replace(product, qweight=qweight, streamed=None)


def example_codes(product: Product, input: Input, dtype: torch.dtype) -> Codes:
    x = torch.empty(EXAMPLE_ROWS, product.k, dtype=dtype, device=product.qweight.device)
    return OPS["quantize_act"].fake(x, *input.arguments)


def act_quantize_call(product: Product, next: Input, codes: Codes, dtype: torch.dtype) -> tuple[Op, tuple]:
    op = OPS[f"{PRODUCTS[product.format]}_act_quantize"]
    return op, (*product.arguments(codes, dtype), product.activation, "none", *next.arguments)


def gate_residual_call(product: Product, codes: Codes, dtype: torch.dtype) -> tuple[Op, tuple]:
    residual = torch.empty(EXAMPLE_ROWS, product.n, dtype=dtype, device=product.qweight.device)
    return OPS[f"{PRODUCTS[product.format]}_gate_residual"], (*product.arguments(codes, dtype), residual[:1], residual)


def is_fast(op: Op, device: torch.device, arguments: tuple) -> bool:
    """Whether a call runs on the backend asked for, or else on another than the reference, or the op has no other here."""
    if named := named_backend():
        return op.missing(named) is None and op.rejects[named](*arguments) is None
    backends = (backend for backend in PREFERENCE.get(device.type, ()) if backend != "reference")
    present = [backend for backend in backends if op.missing(backend) is None]
    return not present or any(op.rejects[backend](*arguments) is None for backend in present)


def backend_of(op: Op, arguments: tuple, device: torch.device) -> str | None:
    """The one that a call runs on, or None."""
    named = named_backend()
    for backend in (named,) if named else PREFERENCE.get(device.type, ("reference",)):
        if op.missing(backend) is None and op.rejects[backend](*arguments) is None:
            return backend
    return None


def kernel_of(op: Op, arguments: tuple, device: torch.device) -> tuple[str, str] | None:
    """The backend that runs a call and its one kernel there, or None where it takes several or none is known."""
    backend = backend_of(op, arguments, device)
    kernel = None if backend is None else op.kernels[backend](*arguments)
    return None if kernel is None else (backend, kernel)
