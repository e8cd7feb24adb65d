/* A CUDA driver, NVRTC and cuBLAS that do nothing and take no time: what a training step costs the host can then be
 * measured, and profiled, on a machine without a GPU (see host_time.py). Memory has addresses and no content; whatever
 * is read from the device is zeros. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
typedef uint64_t Address;

/* New addresses for memory, and new handles for everything else. */
static uint64_t next_address = 1ull << 46, next_handle = 4096;
static Result allocate(Address *address, size_t size) {
    *address = __atomic_fetch_add(&next_address, (size + 511) & ~511ull, __ATOMIC_RELAXED);
    return 0;
}
static Result create(void **handle) {
    *handle = (void *)__atomic_fetch_add(&next_handle, 16, __ATOMIC_RELAXED);
    return 0;
}

#define NOTHING(name, ...) Result name(__VA_ARGS__) { return 0; }
#define CREATES(name, ...) Result name(void **handle, ##__VA_ARGS__) { return create(handle); }
#define WRITES(name, type, value, ...) Result name(type *out, ##__VA_ARGS__) { *out = value; return 0; }

/* The driver. */
NOTHING(cuInit, unsigned flags)
WRITES(cuDriverGetVersion, int, 13000)
WRITES(cuDeviceGetCount, int, 1)
WRITES(cuDeviceGet, int, ordinal, int ordinal)
WRITES(cuDeviceTotalMem_v2, size_t, 80ull << 30, int device)
NOTHING(cuDeviceGetPCIBusId, char *id, int length, int device)
NOTHING(cuDeviceGetLuid, char *id, unsigned *mask, int device)
Result cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, "no device", length);
    return 0;
}
Result cuDeviceGetUuid_v2(char *id, int device) {
    memset(id, 0, 16);
    return 0;
}
/* Those of an H100. */
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 1: case 2: case 3: *value = 1024; break;                           /* threads of a block */
    case 4: *value = 64; break;
    case 5: *value = 2147483647; break;                                     /* blocks of a grid */
    case 6: case 7: *value = 65535; break;
    case 8: *value = 49152; break;                                          /* shared memory */
    case 10: *value = 32; break;                                            /* threads of a warp */
    case 12: *value = 65536; break;                                         /* registers */
    case 16: *value = 132; break;                                           /* multiprocessors */
    case 39: *value = 2048; break;                                          /* threads of a multiprocessor */
    case 75: *value = 9; break;                                             /* compute capability */
    case 76: *value = 0; break;
    case 81: *value = 233472; break;
    case 97: *value = 232448; break;
    default: *value = 1;
    }
    return 0;
}
CREATES(cuDevicePrimaryCtxRetain, int device)
NOTHING(cuCtxSetCurrent, void *context)
Result cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    *least = *greatest = 0;
    return 0;
}
CREATES(cuStreamCreate, unsigned flags)
CREATES(cuStreamCreateWithPriority, unsigned flags, int priority)
NOTHING(cuStreamSynchronize, void *stream)
NOTHING(cuStreamQuery, void *stream)
NOTHING(cuStreamWaitEvent, void *stream, void *event, unsigned flags)
NOTHING(cuStreamDestroy_v2, void *stream)
CREATES(cuEventCreate, unsigned flags)
NOTHING(cuEventRecord, void *event, void *stream)
NOTHING(cuEventQuery, void *event)
NOTHING(cuEventSynchronize, void *event)
NOTHING(cuEventDestroy_v2, void *event)
Result cuMemAlloc_v2(Address *address, size_t size) { return allocate(address, size); }
Result cuMemAllocAsync(Address *address, size_t size, void *stream) { return allocate(address, size); }
NOTHING(cuMemFree_v2, Address address)
NOTHING(cuMemFreeAsync, Address address, void *stream)
Result cuMemAllocHost_v2(void **memory, size_t size) {
    *memory = calloc(1, size);
    return 0;
}
Result cuMemFreeHost(void *memory) {
    free(memory);
    return 0;
}
NOTHING(cuMemcpyHtoDAsync_v2, Address to, const void *from, size_t size, void *stream)
NOTHING(cuMemcpyDtoDAsync_v2, Address to, Address from, size_t size, void *stream)
NOTHING(cuMemcpy2DAsync_v2, const void *copy, void *stream)
Result cuMemcpyDtoHAsync_v2(void *to, Address from, size_t size, void *stream) {
    memset(to, 0, size);
    return 0;
}
CREATES(cuModuleLoadData, const void *image)
CREATES(cuModuleGetFunction, void *module, const char *name)
NOTHING(cuFuncSetAttribute, void *function, int attribute, int value)
NOTHING(cuLaunchKernel, void *function, unsigned x, unsigned y, unsigned z, unsigned block_x, unsigned block_y,
        unsigned block_z, unsigned shared, void *stream, void **arguments, void **extra)

/* NVRTC. */
CREATES(nvrtcCreateProgram, const char *source, const char *name, int headers, const char *const *texts,
        const char *const *names)
NOTHING(nvrtcCompileProgram, void *program, int options, const char *const *texts)
Result nvrtcGetPTXSize(void *program, size_t *size) {
    *size = 1;
    return 0;
}
Result nvrtcGetPTX(void *program, char *text) {
    *text = 0;
    return 0;
}
NOTHING(nvrtcDestroyProgram, void **program)

/* cuBLAS. */
CREATES(cublasCreate_v2)
NOTHING(cublasDestroy_v2, void *handle)
NOTHING(cublasSetStream_v2, void *handle, void *stream)
Result cublasGemmStridedBatchedEx() { return 0; }
