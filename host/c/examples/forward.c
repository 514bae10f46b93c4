/*
 * Causal attention with grouped heads, in one call.
 *
 *     cc forward.c $(pkg-config --cflags --libs fulgurite) -l:libcuda.so.1
 *
 * The memory comes from the driver, so that no CUDA toolkit is needed; with one, cudaMalloc and
 * cudaMemcpy do as well, and streams are those of the runtime.
 */
#include <fulgurite.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 2, ROWS = 1024, HEADS = 16, KV_HEADS = 4, HEAD_DIM = 64 };

/* Of <cuda.h>. */
#ifdef __cplusplus
extern "C" {
#endif
int cuInit(unsigned flags);
int cuDevicePrimaryCtxRetain(void **context, int device);
int cuCtxSetCurrent(void *context);
int cuMemAlloc_v2(uint64_t *address, size_t bytes);
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes);
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes);
#ifdef __cplusplus
}
#endif

static void cuda(int code) {
    if (code == 0) return;
    fprintf(stderr, "the driver returned %d\n", code);
    exit(1);
}

static void check(fulgurite_status status) {
    if (status == FULGURITE_OK) return;
    fprintf(stderr, "fulgurite: status %d: %s\n", (int)status, fulgurite_last_error());
    exit(1);
}

/* A contiguous bf16 tensor [batch, rows, heads, head_dim]. */
static fulgurite_layout bshd(uint64_t heads) {
    fulgurite_layout layout;
    memset(&layout, 0, sizeof layout);
    layout.dtype = FULGURITE_BF16;
    layout.form = FULGURITE_BATCHED;
    layout.shape[0] = BATCH;
    layout.shape[1] = heads;
    layout.shape[2] = ROWS;
    layout.shape[3] = HEAD_DIM;
    layout.strides[0] = ROWS * heads * HEAD_DIM;
    layout.strides[1] = HEAD_DIM;
    layout.strides[2] = heads * HEAD_DIM;
    layout.strides[3] = 1;
    return layout;
}

/* A tensor on the device in which every element has these bits. */
static void *filled(uint64_t heads, uint16_t bits) {
    size_t count = (size_t)(BATCH * ROWS * heads * HEAD_DIM), index;
    uint16_t *host = (uint16_t *)malloc(count * sizeof *host);
    uint64_t address = 0;
    if (host == NULL) exit(1);
    for (index = 0; index < count; ++index) host[index] = bits;
    cuda(cuMemAlloc_v2(&address, count * sizeof *host));
    cuda(cuMemcpyHtoD_v2(address, host, count * sizeof *host));
    free(host);
    return (void *)(uintptr_t)address;
}

int main(void) {
    fulgurite_forward_request request;
    fulgurite_forward_args args;
    void *context = NULL;
    uint16_t first[HEAD_DIM];

    check(fulgurite_device_supported(0));
    cuda(cuInit(0));
    cuda(cuDevicePrimaryCtxRetain(&context, 0));
    cuda(cuCtxSetCurrent(context));

    memset(&request, 0, sizeof request);
    request.size_bytes = sizeof request;
    request.mask = FULGURITE_MASK_CAUSAL;
    request.q = request.out = bshd(HEADS);
    request.k = request.v = bshd(KV_HEADS);

    memset(&args, 0, sizeof args);
    args.size_bytes = sizeof args;
    args.q = filled(HEADS, 0x3f80);    /* 1.0 */
    args.k = filled(KV_HEADS, 0x3f00); /* 0.5 */
    args.v = filled(KV_HEADS, 0x4040); /* 3.0 */
    args.out = filled(HEADS, 0);

    check(fulgurite_forward(&request, NULL, &args));
    /* The copy waits for the stream. All values are 3.0, and so is their mean. */
    memset(first, 0, sizeof first);
    cuda(cuMemcpyDtoH_v2(first, (uint64_t)(uintptr_t)args.out, sizeof first));
    printf("the first element of out is 0x%04x (3.0 is 0x4040)\n", (unsigned)first[0]);
    return 0;
}
