// Python bindings on raw pointers and sizes: the extension links no libtorch, so one build serves every torch.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_C, module) {
    module.doc() = "CPU kernels of halfbyte on raw pointers";
}
