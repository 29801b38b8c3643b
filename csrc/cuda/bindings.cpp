// Python bindings on raw addresses, ints and a stream: the extension links no libtorch, so one build serves every torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cache.h"
#include "conv2d.h"
#include "gemm.h"
#include "gemm_w4a16.h"
#include "qk_norm_rope.h"
#include "quantize.h"
#ifdef HALFBYTE_SIMT
#include "simt/simt_bindings.h"
#endif

namespace py = pybind11;

namespace halfbyte {
namespace {

// From Tensor.data_ptr(); 0 stands for a tensor that is not there.
using Address = uintptr_t;

template <class T = void>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

// Adding -0 leaves every value as it is, and +0 would not: -0 becomes 0, another code.
float exact_shift(float shift) { return shift == 0 ? -0.0f : shift; }

EpilogueArguments epilogue_arguments(Address bias, Address gate, Address residual, Address out, int rows_per_gate, int out_stride,
                                     int out_dtype, int activation, int glu, const NextLayerArguments& next) {
    return {at(bias),   at(gate),         at(residual),           at(out), rows_per_gate,
            out_stride, Dtype(out_dtype), Activation(activation), Glu(glu), next};
}

NextLayerArguments next_layer_arguments(Address smooth, Address proj_down, Address qx, Address ascales, Address partials,
                                        Address low_rank_act, int padded_rows, int columns, int rank, int scale_columns,
                                        float shift, int format) {
    return {at(smooth), at(proj_down), at(qx),  at(ascales),   at<float>(partials), at(low_rank_act),
            padded_rows, columns,      rank, scale_columns, exact_shift(shift),  ActFormat(format)};
}

GemmArguments gemm_arguments(Address qx, Address ascales, Address qweight, Address wscales, Address wtscale, Address low_rank_act,
                             Address proj_up, int m, int padded_m, int n, int row_bytes, int rank, int segment_bytes,
                             const EpilogueArguments& epilogue) {
    return {at<const uint8_t>(qx),           at(ascales),  at<const uint8_t>(qweight), at(wscales),
            at<const float>(wtscale),        at<const uint8_t>(low_rank_act),          at<const uint8_t>(proj_up),
            m, padded_m, n, row_bytes, 2 * rank, segment_bytes, epilogue};
}

QuantizeArguments quantize_arguments(Address x, Address smooth, Address proj_down, Address qx, Address ascales, Address low_rank_act,
                                     int rows, int padded_rows, int columns, int rank, int segments, float shift, int format) {
    return {at(x), at(smooth), at(proj_down), at(qx), at(ascales), at(low_rank_act),
            rows, padded_rows, columns, rank, segments, exact_shift(shift), ActFormat(format), {}};
}

NormArguments norm_arguments(Address weight, Address bias, Address mod_scale, Address mod_shift, int rows_per_scale,
                             int rows_per_shift, float eps, bool centred) {
    return {at(weight), at(bias), at(mod_scale), at(mod_shift), rows_per_scale, rows_per_shift, eps, centred};
}

GroupNormArguments group_norm_arguments(Address weight, Address bias, Address workspace, int batch, int pixels, int groups,
                                        float eps, bool silu) {
    return {at(weight), at(bias), at<float>(workspace), batch, pixels, groups, eps, silu};
}

W4A16Arguments w4a16_arguments(Address qweight, Floats wscales, Address wtscale, Floats low_rank_act, Floats proj_up, Floats bias,
                               Address out, int out_dtype, int m, int n, int k, int rank) {
    return {nullptr, at<const uint8_t>(qweight), wscales, at<const float>(wtscale), low_rank_act, proj_up, bias, at(out),
            Dtype(out_dtype), m, n, k, rank, 1};
}

RopeSide rope_side(Floats x, Floats weight, Address y, int64_t batch_stride, int64_t row_stride, int heads, int tokens,
                   int first_token, bool norm_all_heads, bool rotated) {
    return {x, weight, at(y), batch_stride, row_stride, heads, tokens, first_token, norm_all_heads, rotated};
}

RopeArguments rope_arguments(Floats cos, Floats sin, int64_t batch, int tokens, int width, float eps, bool half) {
    return {cos, sin, batch, tokens, width, eps, half};
}

ConvGeometry conv_geometry(int height, int width, int out_height, int out_width, int kernel_height, int kernel_width, int stride_height,
                           int stride_width, int padding_height, int padding_width, int dilation_height, int dilation_width,
                           int pixel_bytes) {
    const int row_step = dilation_height * width - (kernel_width - 1) * dilation_width;
    return {height, width, out_height, out_width, kernel_height, kernel_width, stride_height, stride_width,
            padding_height, padding_width, dilation_height, dilation_width, row_step, pixel_bytes};
}

}  // namespace
}  // namespace halfbyte

PYBIND11_MODULE(MODULE_NAME, module) {
    using namespace halfbyte;
    module.doc() = "GPU kernels of halfbyte on raw addresses";
    module.attr("architectures") = BUILT_ARCHITECTURES;
    // Both extensions may be loaded into one process: each has argument classes of its own.
    const py::module_local kOwn;
    py::class_<NextLayerArguments>(module, "NextLayerArguments", kOwn).def(py::init([] { return NextLayerArguments{}; })).def(py::init(&next_layer_arguments));
    py::class_<EpilogueArguments>(module, "EpilogueArguments", kOwn).def(py::init(&epilogue_arguments));
    py::class_<GemmArguments>(module, "GemmArguments", kOwn).def(py::init(&gemm_arguments));
    module.def("gemm_w4a4", [](const GemmArguments& arguments, bool act_unsigned, int dtype, Stream stream) {
        gemm_w4a4(arguments, act_unsigned, Dtype(dtype), stream);
    });
    module.def("gemm_w8a8", [](const GemmArguments& arguments, bool e4m3, int dtype, Stream stream) {
        gemm_w8a8(arguments, e4m3, Dtype(dtype), stream);
    });
    module.def("sm90_gemm_w8a8", [](const GemmArguments& arguments, bool e4m3, int dtype, Stream stream) {
        sm90_gemm_w8a8(arguments, e4m3, Dtype(dtype), stream);
    });
    module.def("gemm_nvfp4", [](const GemmArguments& arguments, int dtype, Stream stream) {
        gemm_nvfp4(arguments, Dtype(dtype), stream);
    });
    py::class_<TileChoice>(module, "TileChoice", kOwn).def_readonly("block_n", &TileChoice::block_n).def("__str__", &TileChoice::describe);
    module.def("choose_gemm_w4a4_tile", &choose_gemm_w4a4_tile, py::arg("m"), py::arg("n"), py::arg("quantized") = false);
    module.def("choose_gemm_w8a8_tile", &choose_gemm_w8a8_tile, py::arg("m"), py::arg("n"), py::arg("segmented") = false,
               py::arg("quantized") = false);
    module.def("choose_sm90_gemm_w8a8_tile", &choose_sm90_gemm_w8a8_tile, py::arg("m"), py::arg("n"), py::arg("e4m3"),
               py::arg("segmented"), py::arg("next_columns"), py::arg("multiprocessors"));
    module.def("multiprocessors", &multiprocessors);
    module.def("choose_gemm_nvfp4_tile", &choose_gemm_nvfp4_tile, py::arg("m"), py::arg("n"), py::arg("quantized") = false);
    py::class_<QuantizeArguments>(module, "QuantizeArguments", kOwn).def(py::init(&quantize_arguments));
    py::class_<NormArguments>(module, "NormArguments", kOwn).def(py::init(&norm_arguments));
    py::class_<GroupNormArguments>(module, "GroupNormArguments", kOwn).def(py::init(&group_norm_arguments));
    module.def("quantize_act", [](const QuantizeArguments& arguments, int dtype, Stream stream) {
        quantize_act(arguments, Dtype(dtype), stream);
    });
    module.def("sm90_quantize_act", [](const QuantizeArguments& arguments, int dtype, Stream stream) {
        sm90_quantize_act(arguments, Dtype(dtype), stream);
    });
    py::class_<ClusterQuantizeTile>(module, "ClusterQuantizeTile", kOwn)
        .def_readonly("slots", &ClusterQuantizeTile::slots)
        .def("__str__", &ClusterQuantizeTile::describe);
    module.def("choose_sm90_quantize_tile", &choose_sm90_quantize_tile, py::arg("rows"), py::arg("columns"), py::arg("rank"),
               py::arg("clusters_alone"), py::arg("clusters_paired"));
    module.def("norm_quantize", [](const QuantizeArguments& arguments, const NormArguments& norm, int dtype, Stream stream) {
        norm_quantize(arguments, norm, Dtype(dtype), stream);
    });
    module.def("group_norm_quantize",
               [](const QuantizeArguments& arguments, const GroupNormArguments& norm, int dtype, Stream stream) {
                   group_norm_quantize(arguments, norm, Dtype(dtype), stream);
               });
    module.def("group_norm_workspace_floats", &group_norm_workspace_floats);
    module.def("describe_quantize_tile", [](int rows, int columns, int rank, int segments, bool four_bits, bool row_statistics) {
        return choose_quantize_tile({rows, columns, rank, segments, four_bits, row_statistics}).describe();
    });
    py::class_<Floats>(module, "Floats", kOwn).def(py::init([](Address data, int dtype) { return Floats{at(data), Dtype(dtype)}; }));
    py::class_<W4A16Arguments>(module, "W4A16Arguments", kOwn).def(py::init(&w4a16_arguments));
    module.def("gemm_w4a16",
               [](Floats x, Floats smooth, Address parts, bool nvfp4, const W4A16Arguments& arguments, Stream stream) {
                   const WeightFormat format = nvfp4 ? WeightFormat::kNvfp4 : WeightFormat::kInt4;
                   gemm_w4a16(x, smooth, at<uint16_t>(parts), format, arguments, stream);
               });
    module.def("describe_gemm_w4a16", [](int m, int n, int parts) { return choose_w4a16(m, n, parts).describe(); });
    py::class_<RopeSide>(module, "RopeSide", kOwn).def(py::init(&rope_side));
    py::class_<RopeArguments>(module, "RopeArguments", kOwn).def(py::init(&rope_arguments));
    module.def("qk_norm_rope", &qk_norm_rope);
    module.def("joint_qkv_norm_rope", &joint_qkv_norm_rope);
    module.def("describe_qk_norm_rope",
               [](int width, int norm_width) { return choose_qk_norm_rope(width, norm_width).describe(); });
    module.def("rel_l1_workspace", &rel_l1_workspace);
    module.def("rel_l1", [](Floats value, Floats base, Address workspace, Address out, int64_t count, Stream stream) {
        rel_l1(value, base, at<float>(workspace), at<float>(out), count, stream);
    });
    module.def("delta_apply", [](Floats hidden_states, Floats delta, Address out, int64_t count, Stream stream) {
        delta_apply(hidden_states, delta, at(out), count, stream);
    });
    module.def("affine_correct",
               [](Floats hidden_states, Floats scale, Floats shift, Address out, int64_t count, int channels, Stream stream) {
                   affine_correct(hidden_states, scale, shift, at(out), count, channels, stream);
               });
    module.def("forecast", [](const std::vector<Address>& history, int dtype, Address coefficients, Address out, int64_t count,
                              Stream stream) {
        std::vector<const void*> pointers;
        for (Address address : history) pointers.push_back(at<const void>(address));
        forecast(pointers, Dtype(dtype), at<const float>(coefficients), at(out), count, stream);
    });
    py::class_<ConvGeometry>(module, "ConvGeometry", kOwn).def(py::init(&conv_geometry));
    module.def("conv2d_w4a4", [](const GemmArguments& arguments, const ConvGeometry& geometry, int dtype, Stream stream) {
        conv2d_w4a4({arguments, geometry}, Dtype(dtype), stream);
    });
    module.def("conv2d_w8a8", [](const GemmArguments& arguments, const ConvGeometry& geometry, int dtype, Stream stream) {
        conv2d_w8a8({arguments, geometry}, Dtype(dtype), stream);
    });
    module.def("choose_conv2d_w4a4_tile", &choose_conv2d_w4a4_tile, py::arg("m"), py::arg("n"));
    module.def("choose_conv2d_w8a8_tile", &choose_conv2d_w8a8_tile, py::arg("m"), py::arg("n"));
#ifdef HALFBYTE_SIMT
    bind_simt(module);
#endif
}
