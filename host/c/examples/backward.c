/*
 * Causal attention with grouped heads, and its gradients.
 *
 *     cc backward.c $(pkg-config --cflags --libs fulgurite) -l:libcuda.so.1
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
    fulgurite_forward_request forward;
    fulgurite_forward_args forward_args;
    fulgurite_backward_request backward;
    fulgurite_backward_args args;
    fulgurite_plan *plan = NULL;
    uint64_t lse = 0, workspace = 0;
    void *context = NULL;
    uint16_t last[HEAD_DIM];

    check(fulgurite_device_supported(0));
    cuda(cuInit(0));
    cuda(cuDevicePrimaryCtxRetain(&context, 0));
    cuda(cuCtxSetCurrent(context));

    memset(&forward, 0, sizeof forward);
    forward.size_bytes = sizeof forward;
    forward.mask = FULGURITE_MASK_CAUSAL;
    forward.with_lse = 1;
    forward.q = forward.out = bshd(HEADS);
    forward.k = forward.v = bshd(KV_HEADS);

    memset(&backward, 0, sizeof backward);
    backward.size_bytes = sizeof backward;
    backward.forward = &forward;
    backward.d_out = backward.dq = bshd(HEADS);
    backward.dk = backward.dv = bshd(KV_HEADS);
    check(fulgurite_plan_backward(&backward, NULL, &plan));

    memset(&forward_args, 0, sizeof forward_args);
    forward_args.size_bytes = sizeof forward_args;
    forward_args.q = filled(HEADS, 0x3f80);    /* 1.0 */
    forward_args.k = filled(KV_HEADS, 0x3f00); /* 0.5 */
    forward_args.v = filled(KV_HEADS, 0x4040); /* 3.0 */
    forward_args.out = filled(HEADS, 0);
    cuda(cuMemAlloc_v2(&lse, (size_t)BATCH * HEADS * ROWS * 4));
    forward_args.lse = (void *)(uintptr_t)lse;
    check(fulgurite_forward(&forward, NULL, &forward_args));

    memset(&args, 0, sizeof args);
    args.size_bytes = sizeof args;
    args.q = forward_args.q;
    args.k = forward_args.k;
    args.v = forward_args.v;
    args.out = forward_args.out;
    args.lse = forward_args.lse;
    args.d_out = filled(HEADS, 0x3f80); /* 1.0 */
    args.dq = filled(HEADS, 0);
    args.dk = filled(KV_HEADS, 0);
    args.dv = filled(KV_HEADS, 0);
    check(fulgurite_plan_workspace_bytes(plan, &args.workspace_bytes));
    cuda(cuMemAlloc_v2(&workspace, (size_t)args.workspace_bytes));
    args.workspace = (void *)(uintptr_t)workspace;
    check(fulgurite_workspace_reset(0, NULL, args.workspace, args.workspace_bytes));
    check(fulgurite_launch_backward(plan, NULL, &args));

    /* The copy waits for the stream. The last key is seen by the last row of each of the 4 heads that
     * read its head, with the weight of one of 1024 keys: 4 / 1024. */
    memset(last, 0, sizeof last);
    cuda(cuMemcpyDtoH_v2(last, (uint64_t)(uintptr_t)args.dv
        + 2 * (uint64_t)(ROWS - 1) * KV_HEADS * HEAD_DIM, sizeof last));
    printf("the first element of the last key's dv is 0x%04x (1/256 is 0x3b80)\n", (unsigned)last[0]);
    check(fulgurite_plan_destroy(plan));
    return 0;
}
