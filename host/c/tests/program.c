/*
 * Uses every declaration of the header, as C99 and as C++11, and prints what the test beside this
 * file expects: without arguments for a device that is nowhere, with `0` for device 0, whose driver
 * must be one that follows no address.
 */
#include "fulgurite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 2, ROWS = 1024, HEADS = 16, KV_HEADS = 4, HEAD_DIM = 64 };

/* A contiguous bf16 tensor [batch, rows, heads, head_dim]. */
static fulgurite_layout bshd(uint64_t batch, uint64_t rows, uint64_t heads, uint64_t head_dim) {
    fulgurite_layout layout;
    memset(&layout, 0, sizeof layout);
    layout.dtype = FULGURITE_BF16;
    layout.form = FULGURITE_BATCHED;
    layout.shape[0] = batch;
    layout.shape[1] = heads;
    layout.shape[2] = rows;
    layout.shape[3] = head_dim;
    layout.strides[0] = rows * heads * head_dim;
    layout.strides[1] = head_dim;
    layout.strides[2] = heads * head_dim;
    layout.strides[3] = 1;
    return layout;
}

/* Says what went wrong, if something did. */
static void check(const char *call, fulgurite_status status) {
    if (status == FULGURITE_OK) return;
    printf("%s: status %d: %s\n", call, (int)status, fulgurite_last_error());
    exit(status == FULGURITE_ERROR_DEVICE ? 0 : 1);
}

/* What a plan says about itself. */
static void print_plan(const fulgurite_plan *plan) {
    const char *text = NULL;
    const char *entry = NULL;
    const fulgurite_buffer *buffers = NULL;
    uint64_t index, count = 0, bytes = 1;
    int32_t is_noop = -1;

    check("describe", fulgurite_plan_describe(plan, &text));
    check("entry", fulgurite_plan_entry(plan, &entry));
    check("buffers", fulgurite_plan_buffers(plan, &buffers, &count));
    check("workspace_bytes", fulgurite_plan_workspace_bytes(plan, &bytes));
    check("is_noop", fulgurite_plan_is_noop(plan, &is_noop));
    printf("%s\nentry %s, noop %d, workspace %u\n", text, entry, (int)is_noop, (unsigned)bytes);
    for (index = 0; index < count; ++index) {
        const fulgurite_buffer *buffer = &buffers[index];
        printf("%s: dtype %u, %s, %u elements, %u bytes, aligned to %u\n", buffer->name,
               (unsigned)buffer->dtype, buffer->access == FULGURITE_WRITE ? "written" : "read",
               (unsigned)buffer->elements, (unsigned)buffer->bytes, (unsigned)buffer->align_bytes);
    }
}

int main(int argument_count, char **arguments) {
    fulgurite_forward_request request;
    fulgurite_plan_options options;
    fulgurite_forward_args args;
    fulgurite_plan *plan = NULL;

    printf("version %s %s\n", FULGURITE_VERSION, fulgurite_version());
    memset(&request, 0, sizeof request);
    request.size_bytes = sizeof request;
    request.device = argument_count > 1 ? (uint32_t)atoi(arguments[1]) : UINT32_MAX;
    request.mask = FULGURITE_MASK_CAUSAL;
    request.with_lse = 1;
    request.q = request.out = bshd(BATCH, ROWS, HEADS, HEAD_DIM);
    request.k = request.v = bshd(BATCH, ROWS, KV_HEADS, HEAD_DIM);

    memset(&options, 0, sizeof options);
    options.size_bytes = sizeof options;
    options.sm_limit = 66;
    options.arch = FULGURITE_SM90;
    check("plan", fulgurite_plan_forward(&request, &options, &plan));
    check("device_supported", fulgurite_device_supported(request.device));
    print_plan(plan);

    /* Addresses that no memory has. */
    memset(&args, 0, sizeof args);
    args.size_bytes = sizeof args;
    args.q = (const void *)0x10000;
    args.k = (const void *)0x20000;
    args.v = (const void *)0x30000;
    args.out = (void *)0x40000;
    args.lse = (void *)0x50000;
    args.workspace = (void *)0x60000;
    args.workspace_bytes = 1 << 20;
    check("workspace_reset", fulgurite_workspace_reset(request.device, NULL, args.workspace,
                                                       args.workspace_bytes));
    check("launch", fulgurite_launch_forward(plan, NULL, &args));
    check("destroy", fulgurite_plan_destroy(plan));
    check("preload", fulgurite_preload_forward(&request));
    check("forward", fulgurite_forward(&request, NULL, &args));
    args.lse = NULL;
    if (fulgurite_forward(&request, NULL, &args) != FULGURITE_ERROR_BUFFER) return 2;
    printf("without lse: %s\n", fulgurite_last_error());
    return 0;
}
