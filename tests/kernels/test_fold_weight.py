"""fold_weight gives the same codes on every backend: what is folded once at load and again at each call must not differ."""

import pytest
import torch

from halfbyte.formats import quantize_weight
from halfbyte.ops import OPS, NoBackendError, use_backend

BACKENDS = [name for name in ("cpu", "triton") if OPS["fold_weight"].missing(name) is None]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FOLDS = [("int4", "int8", 127), ("nvfp4", "int8", 127), ("nvfp4", "fp8", 448)]


def operands(source, largest, n, k, dtype=torch.bfloat16):
    """Group scales over five powers of two, and channel scales that use the whole range, overflow it and leave most of it."""
    weight = torch.randn(n, k) * torch.exp2(torch.randint(-5, 1, (n, k // 16)).repeat_interleave(16, 1).float())
    stored = quantize_weight(weight, source, dtype)
    peak = {"int4": 7, "nvfp4": 6}[source] * stored["wscales"].float().amax(0)
    channel_scales = peak / largest * torch.tensor([1.0, 0.5, 1.0, 3.7])[torch.arange(n) % 4]
    return stored["qweight"].to(DEVICE), stored["wscales"].to(DEVICE), channel_scales.to(DEVICE)


def check(backend, args):
    with use_backend(backend):
        try:
            got = OPS["fold_weight"](*args)
        except NoBackendError as error:
            assert f"({backend}: " in str(error)
            return
    want = OPS["fold_weight"].reference(*args)
    nan = want.float().isnan()
    assert got.dtype == want.dtype and torch.equal(got.float().isnan(), nan)
    assert torch.equal(got.view(torch.int8)[~nan], want.view(torch.int8)[~nan])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("source", "format", "largest"), FOLDS, ids=[f"{source}-{format}" for source, format, _ in FOLDS])
class TestEveryBackend:
    @pytest.mark.parametrize("size", [(8, 64), (72, 320), (33, 576)], ids=str)
    def test_codes_are_equal(self, backend, source, format, largest, size):
        for dtype in (torch.bfloat16, torch.float16):
            check(backend, (*operands(source, largest, *size, dtype), format))

    def test_some_output_channels(self, backend, source, format, largest):
        qweight, wscales, channel_scales = operands(source, largest, 96, 128)
        part = slice(40, 80)
        args = (qweight[part], wscales[:, part], channel_scales[part], format)
        check(backend, args)
        whole = OPS["fold_weight"].reference(qweight, wscales, channel_scales, format)
        assert torch.equal(OPS["fold_weight"].reference(*args).float(), whole[part].float())

    def test_scales_that_are_not_finite(self, backend, source, format, largest):
        qweight, wscales, channel_scales = operands(source, largest, 16, 128)
        wscales[0, 1] = float("nan")
        channel_scales[2], channel_scales[3] = float("nan"), 1e-38
        if source == "int4":
            wscales[1, 4] = float("inf")
        check(backend, (qweight, wscales, channel_scales, format))


def test_operands_are_checked():
    qweight, wscales, channel_scales = operands("int4", 127, 16, 128)
    with pytest.raises(ValueError, match=r"channel_scales: shape \[16\] needed, got \[15\]"):
        OPS["fold_weight"](qweight, wscales, channel_scales[1:], "int8")
    with pytest.raises(ValueError, match="format: one of int8, fp8 needed, got 'int4'"):
        OPS["fold_weight"](qweight, wscales, channel_scales, "int4")
    with pytest.raises(ValueError, match=r"wscales: shape \[2, 16\] needed, got \[2, 8\]"):
        OPS["fold_weight"](qweight, wscales[:, :8], channel_scales, "int8")
