// Python bindings on raw pointers and sizes: the extension links no libtorch, so one build serves every torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace py = pybind11;

namespace halfbyte {
namespace {

// Addresses come from Tensor.data_ptr(); 0 stands for a tensor that is not there.
using Address = uintptr_t;

template <typename T = void>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

std::vector<std::string> isas() {
    std::vector<std::string> names;
    for (auto kernels = kKernels; *kernels; ++kernels)
        if ((*kernels)->supported()) names.push_back((*kernels)->isa);
    return names;
}

const Kernels& kernels_of(const std::string& isa) {
    for (auto kernels = kKernels; *kernels; ++kernels)
        if ((*kernels)->isa == isa && (*kernels)->supported()) return **kernels;
    throw std::invalid_argument("isa: one that this machine has needed, got " + isa);
}

void expand(Address qweight, Address scales, Address out, int64_t rows, int64_t columns, int threads) {
    expand_int4(at<const int8_t>(qweight), at<const float>(scales), at<float>(out), rows, columns, threads);
}

int64_t packed_bytes(const std::string& isa, const WeightShape& shape) { return kernels_of(isa).packed_bytes(shape); }

void pack(
    const std::string& isa, const WeightShape& shape, Address qweight, Address wscales, Address proj_down, Address proj_up,
    Address packed) {
    const Weight weight{at<const int8_t>(qweight), at<const float>(wscales), at<const void>(proj_down), at<const void>(proj_up)};
    kernels_of(isa).pack(shape, weight, at<uint8_t>(packed));
}

void quantize(
    const std::string& isa, Address x, bool x_bf16, Address smooth, float shift, Address codes, Address scales, int64_t m,
    int64_t k, int threads) {
    const Quantization work{at<const void>(x), x_bf16, at<const float>(smooth), shift, at<int8_t>(codes), at<float>(scales), m, k};
    kernels_of(isa).quantize(work, threads);
}

void linear(
    const std::string& isa, const WeightShape& shape, Address packed, int64_t m, Address x, Address smooth, Address bias,
    bool bias_bf16, Address out, int threads) {
    Linear work{};
    work.shape = shape, work.packed = at<const uint8_t>(packed), work.m = m;
    work.x = at<const void>(x), work.smooth = at<const float>(smooth);
    work.bias = at<const void>(bias), work.bias_bf16 = bias_bf16;
    work.out = at<>(out), work.out_bf16 = shape.bf16;
    kernels_of(isa).linear(work, threads);
}

void gemm(
    const std::string& isa, const WeightShape& shape, Address packed, int64_t m, Address qx, Address ascales,
    Address low_rank_act, Address bias, bool bias_bf16, Address out, bool out_bf16, int threads) {
    Linear work{};
    work.shape = shape, work.packed = at<const uint8_t>(packed), work.m = m;
    work.qx = at<const int8_t>(qx), work.ascales = at<const float>(ascales), work.low_rank_act = at<const void>(low_rank_act);
    work.bias = at<const void>(bias), work.bias_bf16 = bias_bf16;
    work.out = at<>(out), work.out_bf16 = out_bf16;
    kernels_of(isa).linear(work, threads);
}

// geometry: height and width of the image, of the output, the kernel, the stride, the padding before, the dilation.
void convolve(
    const std::string& isa, const WeightShape& shape, Address packed, int64_t batch, int64_t channels,
    const std::vector<int64_t>& geometry, Address x, bool channels_last, Address smooth, Address bias, bool bias_bf16,
    Address peaks, Address out, int threads) {
    Convolution work{};
    work.shape = shape, work.packed = at<const uint8_t>(packed), work.batch = batch, work.channels = channels;
    work.x = at<const void>(x), work.channels_last = channels_last, work.smooth = at<const float>(smooth);
    work.bias = at<const void>(bias), work.bias_bf16 = bias_bf16;
    work.peaks = at<float>(peaks), work.out = at<>(out);
    int64_t* const pairs[] = {work.size, work.out_size, work.kernel, work.stride, work.padding, work.dilation};
    for (size_t i = 0; i < 12; ++i) pairs[i / 2][i % 2] = geometry.at(i);
    kernels_of(isa).convolve(work, threads);
}

}  // namespace
}  // namespace halfbyte

PYBIND11_MODULE(_C, module) {
    using namespace halfbyte;
    module.doc() = "CPU kernels of halfbyte on raw pointers";
    py::class_<WeightShape>(module, "WeightShape")
        .def(py::init([](int64_t n, int64_t k, int64_t rank, bool bf16) { return WeightShape{n, k, rank, bf16}; }));
    const py::call_guard<py::gil_scoped_release> unlocked;
    module.def("isas", &isas, "The instruction sets of this machine that there are kernels for, widest first.");
    module.def("expand_int4", &expand, unlocked);
    module.def("packed_bytes", &packed_bytes);
    module.def("pack", &pack, unlocked);
    module.def("quantize", &quantize, unlocked);
    module.def("linear", &linear, unlocked);
    module.def("gemm", &gemm, unlocked);
    module.def("convolve", &convolve, unlocked);
}
