// Python bindings on raw pointers and sizes: the extension links no libtorch, so one build serves every torch.
#include <pybind11/pybind11.h>

#include "cpu_kernels.h"

namespace py = pybind11;

namespace {

// Addresses come from Tensor.data_ptr(); 0 stands for a tensor that is not there.
template <typename T>
T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

template <typename T>
void bind_quantize(py::module_& module, const char* name) {
    module.def(
        name,
        [](uintptr_t x, uintptr_t smooth, float shift, uintptr_t codes, uintptr_t scales, int64_t rows, int64_t columns, int threads) {
            quantize_int8(at<const T>(x), at<const float>(smooth), shift, at<int8_t>(codes), at<float>(scales), rows, columns, threads);
        },
        py::call_guard<py::gil_scoped_release>());
}

template <typename T>
void bind_rescale(py::module_& module, const char* name) {
    module.def(
        name,
        [](uintptr_t accumulator, uintptr_t ascales, uintptr_t wscales, uintptr_t bias, uintptr_t out, int64_t rows, int64_t columns,
           int threads) {
            rescale_int32(
                at<const int32_t>(accumulator), at<const float>(ascales), at<const float>(wscales), at<const float>(bias), at<T>(out), rows,
                columns, threads);
        },
        py::call_guard<py::gil_scoped_release>());
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    module.doc() = "CPU kernels of halfbyte on raw pointers";
    module.def(
        "expand_int4",
        [](uintptr_t qweight, uintptr_t scales, uintptr_t out, int64_t rows, int64_t columns, int threads) {
            expand_int4(at<const int8_t>(qweight), at<const float>(scales), at<float>(out), rows, columns, threads);
        },
        py::call_guard<py::gil_scoped_release>());
    bind_quantize<float>(module, "quantize_int8_float32");
    bind_quantize<bfloat16>(module, "quantize_int8_bfloat16");
    bind_rescale<float>(module, "rescale_int32_float32");
    bind_rescale<bfloat16>(module, "rescale_int32_bfloat16");
}
