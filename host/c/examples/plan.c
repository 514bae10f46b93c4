/*
 * A plan that is made once and launched often: in 8 bits, which needs a workspace.
 *
 *     cc plan.c $(pkg-config --cflags --libs fulgurite) -l:libcuda.so.1
 */
#include <fulgurite.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of <cuda.h>. */
#ifdef __cplusplus
extern "C" {
#endif
int cuInit(unsigned flags);
int cuDevicePrimaryCtxRetain(void **context, int device);
int cuCtxSetCurrent(void *context);
int cuCtxSynchronize(void);
int cuMemAlloc_v2(uint64_t *address, size_t bytes);
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

static void *allocate(uint64_t bytes) {
    uint64_t address = 0;
    cuda(cuMemAlloc_v2(&address, (size_t)bytes));
    return (void *)(uintptr_t)address;
}

/* A buffer for each that the plan brings, by the name of its field; their content does not matter
 * here. */
static void bring(fulgurite_forward_args *args, const fulgurite_plan *plan) {
    const fulgurite_buffer *buffers = NULL;
    uint64_t index, count = 0;
    check(fulgurite_plan_buffers(plan, &buffers, &count));
    for (index = 0; index < count; ++index) {
        void *memory = allocate(buffers[index].bytes);
        if (strcmp(buffers[index].name, "q") == 0) args->q = memory;
        if (strcmp(buffers[index].name, "k") == 0) args->k = memory;
        if (strcmp(buffers[index].name, "v") == 0) args->v = memory;
        if (strcmp(buffers[index].name, "out") == 0) args->out = memory;
        if (strcmp(buffers[index].name, "lse") == 0) args->lse = memory;
    }
}

int main(void) {
    static const fulgurite_layout layout = {
        FULGURITE_F16, FULGURITE_BATCHED, 0, {1, 8, 4096, 128}, {4194304, 128, 1024, 1}};
    fulgurite_forward_request request;
    fulgurite_forward_args args;
    fulgurite_plan *plan = NULL;
    const char *text = NULL;
    void *context = NULL;
    int launch;

    memset(&request, 0, sizeof request);
    request.size_bytes = sizeof request;
    request.mask = FULGURITE_MASK_FULL;
    request.precision = FULGURITE_PRECISION_S8E4M3;
    request.with_lse = 1;
    request.q = request.k = request.v = request.out = layout;
    check(fulgurite_plan_forward(&request, NULL, &plan));
    check(fulgurite_plan_describe(plan, &text));
    printf("%s\n", text);

    cuda(cuInit(0));
    cuda(cuDevicePrimaryCtxRetain(&context, 0));
    cuda(cuCtxSetCurrent(context));
    memset(&args, 0, sizeof args);
    args.size_bytes = sizeof args;
    bring(&args, plan);
    check(fulgurite_plan_workspace_bytes(plan, &args.workspace_bytes));
    args.workspace = allocate(args.workspace_bytes);
    check(fulgurite_workspace_reset(0, NULL, args.workspace, args.workspace_bytes));
    for (launch = 0; launch < 3; ++launch) check(fulgurite_launch_forward(plan, NULL, &args));
    cuda(cuCtxSynchronize());
    check(fulgurite_plan_destroy(plan));
    printf("launched 3 times\n");
    return 0;
}
