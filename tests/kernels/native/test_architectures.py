"""Who is given which kernel: by compute capability, codes, and whether the backend was asked for by name."""

from types import SimpleNamespace

import pytest
import torch

from halfbyte.ops import use_backend
from halfbyte.ops.native import architectures
from halfbyte.ops.native.architectures import CAPABILITIES, here, reason_against
from halfbyte.ops.native.gemm import Epilogue
from halfbyte.ops.native.gemm_w8a8 import warpgroups_reject
from halfbyte.ops.native.quantize import CLUSTERS_FILE, ROWS_FILE, Quantization, clusters_reject
from halfbyte.ops.native.register import KERNELS, cuda_rejects
from halfbyte.ops.registry import named_backend
from halfbyte.testing import Shape, calls_of

EVERY = "80;86;89;90a;100a;120f"
GPUS = ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0), (12, 1))


def served(kernel, codes=torch.int8, by_name=False):
    return [gpu for gpu in GPUS if reason_against(kernel, gpu, EVERY, codes, by_name) is None]


@pytest.mark.parametrize("kernel", CAPABILITIES)
def test_a_kernel_serves_its_range(kernel):
    lowest, highest = CAPABILITIES[kernel]
    assert served(kernel) == [gpu for gpu in GPUS if lowest <= gpu <= highest]


def test_nvfp4_is_for_sm_120_and_emulated_by_name():
    assert served("sm120_gemm_nvfp4") == [(12, 0), (12, 1)]
    assert served("sm120_gemm_nvfp4", by_name=True) == [(9, 0), (12, 0), (12, 1)]


def test_e4m3_codes_are_for_tensor_cores_that_have_them_and_emulated_by_name():
    assert served("sm80_gemm_w8a8", torch.float8_e4m3fn) == [(8, 9), (12, 0), (12, 1)]
    assert served("sm80_gemm_w8a8", torch.float8_e4m3fn, by_name=True) == [(8, 9), (9, 0), (12, 0), (12, 1)]


def test_e4m3_codes_are_native_to_sm_90_in_the_kernel_made_for_it():
    assert served("sm90_gemm_w8a8", torch.float8_e4m3fn) == [(9, 0)]


def on_a_gpu(monkeypatch, capability):
    """An 8-bit call whose codes say that they lie on a GPU."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    codes = calls_of("gemm_w8a8", Shape("small", 5, 16, 64), torch.bfloat16)["int8-low-rank"]
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    return codes


@pytest.mark.parametrize(("gpu", "file"), [((9, 0), "sm90_gemm_w8a8"), ((8, 9), "sm80_gemm_w8a8"), ((10, 0), "sm80_gemm_w8a8")])
def test_warpgroups_take_8_bit_products_on_sm_90(monkeypatch, gpu, file):
    args = on_a_gpu(monkeypatch, gpu)
    files = [KERNELS[name].file_of(*args, *rest) for name, rest in (("gemm_w8a8", ()), ("gemm_w8a8_act", ("silu", "none")))]
    assert files == [file, file]


def test_warpgroups_take_segments_of_whole_boxes(monkeypatch):
    qx, ascales, *rest = on_a_gpu(monkeypatch, (9, 0))
    product, two = KERNELS["gemm_w8a8"], ascales.repeat(2, 1)
    assert product.file_of(qx.repeat(1, 4), two, *rest) == "sm90_gemm_w8a8"
    assert product.file_of(qx, two, *rest) == "sm80_gemm_w8a8"
    assert warpgroups_reject(qx, two, *rest) == "segments must be a multiple of 128 columns wide, got 32"


@pytest.mark.parametrize(
    ("codes", "segments", "widest"), [(torch.int8, 1, 256), (torch.int8, 2, 128), (torch.float8_e4m3fn, 1, 128)]
)
def test_warpgroups_quantize_what_fits_into_their_tiles(monkeypatch, codes, segments, widest):
    qx, ascales, qweight, *rest = on_a_gpu(monkeypatch, (9, 0))
    args = qx.repeat(1, 4).to(codes), ascales.repeat(segments, 1), qweight.repeat(32, 4).to(codes), *rest
    n = args[2].shape[0]
    kernel = KERNELS["gemm_w8a8_act_quantize"]
    after = "gelu_tanh", "none", None, None, "int8", 0.0, False
    assert kernel.file_of(*args, *after, n // widest) == "sm90_gemm_w8a8"
    assert kernel.file_of(*args, *after, n // (2 * widest)) == "sm80_gemm_w8a8"
    reason = f"segments of the next layer must be a power of two and at most {widest} columns wide, got {2 * widest}"
    assert warpgroups_reject(*args, Epilogue(next=Quantization(None, None, "int8", segments=n // (2 * widest)))) == reason
    halves = Epilogue("silu", "gate_first", next=Quantization(None, None, "int8", segments=n // (2 * widest)))
    assert "at most" in warpgroups_reject(*args, halves)


def test_warpgroups_refuse_what_no_kernel_takes(monkeypatch):
    args = on_a_gpu(monkeypatch, (9, 0))
    assert warpgroups_reject(*args[:-1], torch.float16).startswith("one 16-bit dtype needed")


@pytest.mark.parametrize(("gpu", "file"), [((9, 0), CLUSTERS_FILE), ((8, 9), ROWS_FILE), ((10, 0), ROWS_FILE)])
def test_clusters_quantize_long_rows_on_sm_90(monkeypatch, gpu, file):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: gpu)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    x, proj_down = torch.empty(256, 1024, dtype=torch.float16), torch.empty(1024, 32, dtype=torch.float16)
    assert KERNELS["quantize_act"].file_of(x, None, proj_down, "int8") == file
    assert KERNELS["quantize_act"].file_of(x, None, proj_down, "int4") == ROWS_FILE


@pytest.mark.parametrize(
    ("sizes", "options", "sentence"),
    [
        ((256, 1024, 32), ("int8",), None),
        ((4608, 15360, 32), ("fp8",), None),
        ((4096, 40960, 0), ("int8",), None),
        ((256, 1024, 32), ("nvfp4",), "8-bit codes with one scale for each token and no shift needed"),
        ((256, 1024, 32), ("int8", 0.0, False, 2), "8-bit codes with one scale for each token and no shift needed"),
        ((256, 1024, 32), ("int8", 0.5), "8-bit codes with one scale for each token and no shift needed"),
        ((256, 1024, 36), ("int8",), "a rank that is a multiple of 8 up to 64 needed, got 36"),
        ((256, 1024, 72), ("int8",), "a rank that is a multiple of 8 up to 64 needed, got 72"),
        ((4096, 8192, 64), ("int8",), None),
        ((255, 1024, 0), ("int8",), "at least 256 rows of 1024 to 40960 columns needed for rank 0, got [255, 1024]"),
        ((256, 1008, 8), ("int8",), "at least 256 rows of 1024 to 15360 columns needed for rank 8, got [256, 1008]"),
        ((4096, 15376, 32), ("int8",), "at least 256 rows of 1024 to 15360 columns needed for rank 32, got [4096, 15376]"),
        ((4096, 8208, 40), ("int8",), "at least 256 rows of 1024 to 8192 columns needed for rank 40, got [4096, 8208]"),
    ],
)
def test_what_clusters_refuse(sizes, options, sentence):
    m, k, rank = sizes
    assert clusters_reject(torch.empty(m, k), None, torch.empty(k, rank) if rank else None, *options) == sentence


def test_every_call_that_clusters_take_has_a_tile(simt):
    for rank in range(0, 72, 8):
        proj_down = [torch.empty(0, rank)] if rank else [None]
        for k in (*range(1024, 40961, 1008), 40960, 15360, 8192):
            if clusters_reject(torch.empty(256, k, device="meta"), None, *proj_down, "int8") is None:
                assert simt.choose_sm90_quantize_tile(256, k, rank, 16, 32).slots, (k, rank)


@pytest.mark.parametrize(
    ("kernel", "gpu", "codes", "sentence"),
    [
        ("sm90_gemm_w8a8", (8, 9), torch.int8, "sm90_gemm_w8a8 is made for sm_90, not sm_89"),
        ("sm80_gemm_w4a4", (12, 0), torch.int8, "sm80_gemm_w4a4 is made for sm_80 to sm_89, not sm_120"),
        ("sm120_gemm_nvfp4", (8, 6), torch.int8, "sm120_gemm_nvfp4 is made for sm_120 to sm_121, not sm_86"),
        (
            "sm120_gemm_nvfp4", (9, 0), torch.int8,
            "sm120_gemm_nvfp4 is made for sm_120 to sm_121; sm_90 emulates it when the backend is asked for by name",
        ),
        (
            "sm80_gemm_w8a8", (8, 0), torch.float8_e4m3fn,
            "sm80_gemm_w8a8 with E4M3 codes is made for sm_89 and sm_120 to sm_121, not sm_80",
        ),
    ],
)  # fmt: skip
def test_a_refusal_is_a_sentence(kernel, gpu, codes, sentence):
    assert reason_against(kernel, gpu, EVERY, codes) == sentence


def test_what_was_not_built_is_refused():
    assert reason_against("sm80_gemm_w8a8", (8, 7), "86;90a") is None
    refusal = "the CUDA kernels were built for 86;90a, not sm_80; reinstall on this machine"
    assert reason_against("sm80_gemm_w8a8", (8, 0), "86;90a") == refusal


def test_the_device_and_the_codes_of_the_first_tensor_decide(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(architectures, "cuda_architectures", lambda: EVERY)
    codes = SimpleNamespace(is_cuda=True, device="cuda:0", dtype=torch.float8_e4m3fn)
    assert here("sm80_gemm_w8a8", codes, by_name=True) is None
    assert "asked for by name" in here("sm80_gemm_w8a8", codes, by_name=False)
    assert here("sm80_gemm_w8a8", torch.empty(1), by_name=True) == "tensors on a GPU needed, got them on cpu"


def test_the_backend_asked_for_is_known_inside_the_context_only():
    before = named_backend()
    with use_backend("cuda"):
        assert named_backend() == "cuda"
    assert named_backend() == before


@pytest.mark.parametrize(
    ("call", "sentence"), [("int8-3x3", "tensors on a GPU needed"), ("fp8-1x1", "int4 or int8 codes needed, got fp8")]
)
def test_a_call_that_no_kernel_takes_has_a_reason_and_no_file(call, sentence):
    args = calls_of("conv2d", Shape("refused", 5, 16, 64))[call]
    assert cuda_rejects(KERNELS["conv2d"], *args).startswith(sentence)
