"""What each GPU computes each storage in."""

import pytest

from halfbyte.formats import LayerFormat
from halfbyte.layers.gpu_compute import gpu_compute

RTX_30, RTX_40, A100, H100, B200, RTX_50 = (8, 6), (8, 9), (8, 0), (9, 0), (10, 0), (12, 0)
INT4, NVFP4 = LayerFormat("int4", "int4"), LayerFormat("nvfp4", "nvfp4")


@pytest.mark.parametrize(
    ("layer_format", "capability", "activation"),
    [
        (INT4, RTX_30, "int4"),
        (INT4, RTX_40, "int4"),
        (INT4, A100, "int8"),
        (INT4, H100, "int8"),
        (INT4, B200, "int8"),
        (INT4, RTX_50, "int8"),
        (NVFP4, RTX_50, "nvfp4"),
        (NVFP4, RTX_40, "int8"),
        (NVFP4, H100, "fp8"),
        (LayerFormat("fp8", "fp8"), H100, "fp8"),
        (LayerFormat("nvfp4", "int8"), H100, "int8"),
        (LayerFormat("nvfp4", "fp8"), H100, "fp8"),
        (LayerFormat("int4", "fp8"), H100, "int8"),
        (NVFP4, B200, "int8"),
        (LayerFormat("int4", "int8"), RTX_40, "int8"),
        (LayerFormat("fp8", "fp8"), RTX_40, "fp8"),
        (LayerFormat("fp8", "fp8"), B200, "int8"),
        (LayerFormat("fp8", "fp8"), RTX_50, "fp8"),
        (LayerFormat("fp8", "fp8"), A100, "int8"),
        (LayerFormat("int8", "int8"), RTX_30, "int8"),
        (LayerFormat("int4", None), H100, None),
    ],
)
def test_each_gpu_gets_what_its_tensor_cores_multiply(layer_format, capability, activation):
    compute = gpu_compute(layer_format, capability)
    assert compute.activation == activation and compute.reason


def test_a_convolution_on_hopper_runs_int8():
    for layer_format in (NVFP4, LayerFormat("fp8", "fp8")):
        assert gpu_compute(layer_format, H100, convolves=True).activation == "int8"


def test_no_kernel_is_made_for_gpus_before_sm_80():
    assert gpu_compute(INT4, (7, 5)) is None
