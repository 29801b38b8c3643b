#include "simt_bindings.h"

#include <pybind11/stl.h>

#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "machine.h"
#include "memory.h"
#include "recorder.h"

namespace py = pybind11;

namespace halfbyte {
namespace {

using NamedMemory = std::tuple<std::string, uintptr_t, size_t>;

void configure(uint64_t seed, bool run_to_barrier, bool races) {
    simt::configure({seed, run_to_barrier ? simt::kRunToBarrier : simt::kInterleaved, races});
}

void register_memory(const std::vector<NamedMemory>& named) {
    std::vector<simt::Range> ranges;
    for (const auto& [name, address, bytes] : named) ranges.push_back({name, address, address + bytes});
    simt::register_memory(std::move(ranges));
}

void set_recorder(const py::object& callable) {
    if (callable.is_none()) return simt::set_recorder({});
    // Never destroyed: a static recorder would outlive the interpreter.
    auto* kept = new py::object(callable);
    simt::set_recorder([kept](const std::string& symbol, const KernelCall& call) {
        py::gil_scoped_acquire gil;
        (*kept)(symbol, call.name, py::make_tuple(call.grid.x, call.grid.y, call.grid.z), call.threads, call.shared_bytes,
                 py::bytes(static_cast<const char*>(call.arguments), call.argument_bytes));
    });
}

}  // namespace

void bind_simt(py::module_& module) {
    py::register_exception<simt::Fault>(module, "Fault", PyExc_RuntimeError);
    module.def("configure", &configure, py::arg("seed") = 0, py::arg("run_to_barrier") = false, py::arg("races") = false,
               "How the launches that follow are scheduled, and whether races are looked for (slowly).");
    module.def("take_work", [] {
        const simt::Work work = std::exchange(simt::machine.work, {});
        return py::make_tuple(work.products, work.bank_conflicts, work.global_accesses, work.shared_accesses);
    }, "(matrix instructions of whole warps, bank conflicts of ldmatrix, global and shared accesses of threads) since the last call.");
    module.def("register_memory", &register_memory, py::arg("memory"),
               "The global memory that kernels may touch from now on. memory: [(name, address, bytes)].");
    module.def("clear_memory", [] { simt::register_memory({}); }, "Leaves kernels no global memory.");
    module.def("set_recorder", &set_recorder, py::arg("recorder").none(true),
               "Calls recorder(symbol, name, (x, y, z), threads, shared_bytes, arguments) instead of running a launch; "
               "None runs them again. arguments: the kernel's argument struct as bytes.");
}

}  // namespace halfbyte
