// Python bindings on raw pointers and sizes: the extension links no libtorch, so one build serves every torch.
#include <pybind11/pybind11.h>

#include "cpu_kernels.h"

namespace py = pybind11;

namespace {

// Addresses come from Tensor.data_ptr(); 0 stands for a tensor that is not there.
using Address = uintptr_t;

template <typename T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

template <typename T>
void quantize(Address x, Address smooth, float shift, Address codes, Address scales, int64_t rows, int64_t columns, int threads) {
    quantize_int8(at<const T>(x), at<const float>(smooth), shift, at<int8_t>(codes), at<float>(scales), rows, columns, threads);
}

template <typename T>
void rescale(
    Address accumulator, Address ascales, Address wscales, Address bias, Address out, int64_t rows, int64_t columns,
    int threads) {
    rescale_int32(
        at<const int32_t>(accumulator), at<const float>(ascales), at<const float>(wscales), at<const float>(bias), at<T>(out),
        rows, columns, threads);
}

void expand(Address qweight, Address scales, Address out, int64_t rows, int64_t columns, int threads) {
    expand_int4(at<const int8_t>(qweight), at<const float>(scales), at<float>(out), rows, columns, threads);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    module.doc() = "CPU kernels of halfbyte on raw pointers";
    const py::call_guard<py::gil_scoped_release> unlocked;
    module.def("expand_int4", &expand, unlocked);
    module.def("quantize_int8_float32", &quantize<float>, unlocked);
    module.def("quantize_int8_bfloat16", &quantize<bfloat16>, unlocked);
    module.def("rescale_int32_float32", &rescale<float>, unlocked);
    module.def("rescale_int32_bfloat16", &rescale<bfloat16>, unlocked);
}
