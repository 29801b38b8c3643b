// The shim's controls, for Python.
#pragma once

#include <pybind11/pybind11.h>

namespace halfbyte {

void bind_simt(pybind11::module_& module);

}  // namespace halfbyte
