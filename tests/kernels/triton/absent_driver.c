// A CUDA driver without a GPU, as far as Triton's launcher asks one: it loads nothing, starts nothing, and refuses what a real
// one refuses. Sizes are those of sm_90.
#include <cuda.h>
#include <stdio.h>
#include <string.h>

CUresult cuGetErrorString(CUresult error, const char** text) {
    static char shown[32];
    snprintf(shown, sizeof shown, "error %d", (int)error);
    *text = shown;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    *device = ordinal;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
    *value = attribute == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN ? 227 << 10
             : attribute == CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK         ? 1 << 16
             : attribute == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT            ? 132
                                                                                : 32;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext* context) {
    *context = (CUcontext)1;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) { return CUDA_SUCCESS; }

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) { return cuCtxGetCurrent(context); }

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    *module = (CUmodule)1;
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    *function = (CUfunction)strdup(name);
    return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction function) {
    *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
    return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) { return CUDA_SUCCESS; }

CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache config) { return CUDA_SUCCESS; }

CUresult cuPointerGetAttribute(void* value, CUpointer_attribute attribute, CUdeviceptr pointer) {
    *(CUdeviceptr*)value = pointer;
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig* launch, CUfunction function, void** parameters, void** extra) {
    if (!launch->gridDimX || !launch->gridDimY || !launch->gridDimZ || launch->gridDimY > 65535 || launch->gridDimZ > 65535)
        return CUDA_ERROR_INVALID_VALUE;
    fprintf(stderr, "launched %s\n", (const char*)function);
    return CUDA_SUCCESS;
}

// What the driver's documentation asks of a map without interleaving.
CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address, const cuuint64_t* sizes,
                                const cuuint64_t* strides, const cuuint32_t* box, const cuuint32_t* steps,
                                CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                                CUtensorMapFloatOOBfill fill) {
    const cuuint32_t widest[] = {256, 32, 64, 128};
    int fits = type == CU_TENSOR_MAP_DATA_TYPE_UINT8 && (cuuint64_t)address % 16 == 0 && (cuuint64_t)map % 64 == 0;
    for (cuuint32_t i = 0; i < rank; i++) fits &= sizes[i] > 0 && sizes[i] <= 1ull << 32 && box[i] > 0 && box[i] <= 256 && steps[i] == 1;
    for (cuuint32_t i = 0; i + 1 < rank; i++) fits &= strides[i] > 0 && strides[i] % 16 == 0 && strides[i] < 1ull << 40;
    fits &= box[0] % 16 == 0 && swizzle <= CU_TENSOR_MAP_SWIZZLE_128B && box[0] <= widest[swizzle];
    fprintf(stderr, "map of rank %u\n", rank);
    return fits ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// Triton's module of helpers names these; nothing here calls them.
CUresult cuCtxGetLimit(size_t* value, CUlimit limit) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuCtxSetLimit(CUlimit limit, size_t value) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuOccupancyMaxActiveClusters(int* count, CUfunction function, const CUlaunchConfig* launch) { return CUDA_ERROR_NOT_SUPPORTED; }
