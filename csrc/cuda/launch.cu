#include "launch.h"

#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

namespace halfbyte {
namespace {

constexpr size_t kSharedBytesWithoutAsking = 48 * 1024;

std::string describe(const KernelCall& call) {
    return std::string(call.name) + ": " + std::to_string(call.grid.x) + " x " + std::to_string(call.grid.y) + " x " +
           std::to_string(call.grid.z) + " blocks of " + std::to_string(call.threads) + " threads with " +
           std::to_string(call.shared_bytes) + " bytes of shared memory could not be started";
}

void check(cudaError_t error, const KernelCall& call) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // or the next launch would report it again
    throw std::runtime_error(describe(call) + ": " + cudaGetErrorString(error));
}

void allow_shared_bytes(const KernelCall& call) {
    static std::mutex mutex;
    static std::set<std::pair<const void*, int>> allowed;
    int device = 0;
    check(cudaGetDevice(&device), call);
    std::lock_guard<std::mutex> lock(mutex);
    if (allowed.count({call.kernel, device})) return;
    int most = 0;
    check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), call);
    cudaFuncAttributes attributes;
    check(cudaFuncGetAttributes(&attributes, call.kernel), call);
    check(cudaFuncSetAttribute(call.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               most - int(attributes.sharedSizeBytes)), call);
    allowed.insert({call.kernel, device});
}

}  // namespace

int multiprocessors() {
    int device = 0, count = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    if (error == cudaSuccess) return count;
    cudaGetLastError();
    throw std::runtime_error(std::string("the device's multiprocessors could not be counted: ") + cudaGetErrorString(error));
}

int clusters_at_once(const void* kernel, int blocks, int threads, size_t shared_bytes) {
    static std::mutex mutex;
    static std::map<std::tuple<const void*, int, int, size_t, int>, int> known;
    const KernelCall call{kernel, "clusters_at_once", {unsigned(blocks), 1, 1}, threads, shared_bytes, 0, nullptr, 0};
    int device = 0;
    check(cudaGetDevice(&device), call);
    std::lock_guard<std::mutex> lock(mutex);
    int& count = known[{kernel, blocks, threads, shared_bytes, device}];
    if (count) return count;
    allow_shared_bytes(call);
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(blocks), config.blockDim = dim3(threads), config.dynamicSmemBytes = shared_bytes;
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {unsigned(blocks), 1, 1};
    config.attrs = &cluster, config.numAttrs = 1;
    int found = 0;
    check(cudaOccupancyMaxActiveClusters(&found, kernel, &config), call);
    return count = found > 0 ? found : 1;
}

void launch(const KernelCall& call) {
    if (call.shared_bytes > kSharedBytesWithoutAsking) allow_shared_bytes(call);
    void* arguments[] = {const_cast<void*>(call.arguments)};
    check(cudaLaunchKernel(call.kernel, dim3(call.grid.x, call.grid.y, call.grid.z), dim3(call.threads), arguments,
                           call.shared_bytes, reinterpret_cast<cudaStream_t>(call.stream)), call);
}

}  // namespace halfbyte
