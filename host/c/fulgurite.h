/*
 * Fulgurite: exact attention for NVIDIA Hopper GPUs (H100, H200, GH200), C interface.
 *
 *     out = softmax(scale * q k^T + mask) v,   lse[row] = ln sum exp(scale * q.k + mask)
 *
 * q and out have the shape (batch, heads, q_len, head_dim), k and v (batch, heads_kv, kv_len,
 * head_dim). The library needs an NVIDIA driver (CUDA 12.0 or later) and no CUDA toolkit. It
 * works in the primary context of a device, the one that CUDA's runtime, and so PyTorch, uses.
 *
 * Version. The shared library's name for the linker (SONAME) is libfulgurite_c.so.0; another number
 * means that programs must be compiled again. Programs that load the library themselves compare
 * FULGURITE_VERSION, of the header, with fulgurite_version(), of the library.
 *
 * Status. Every function but fulgurite_version and fulgurite_last_error returns a status. If it is not FULGURITE_OK,
 * nothing was launched and nothing written through the caller's pointers, and
 * fulgurite_last_error says what was got, what is allowed and what to do. Errors of a kernel
 * itself come with a later synchronisation of the stream, as always with CUDA.
 *
 * Threads. Every function may be called from any thread. A plan may be used by several threads at
 * once, but destroyed only when no call uses it. The caller's current CUDA context stays as it is.
 *
 * Lifetimes. A plan holds no addresses and serves any number of launches. It may be destroyed
 * while kernels that it launched still run, and before graphs that captured them: kernels and
 * the device's context stay for the rest of the process, so the library must not be unloaded.
 *
 * Resets and forks. After cudaDeviceReset a plan from before returns FULGURITE_ERROR_DRIVER; create
 * it again. In a process that was forked after the first use of CUDA every call that needs a
 * device returns FULGURITE_ERROR_DRIVER: start such processes another way.
 */
#ifndef FULGURITE_H
#define FULGURITE_H

#include <stdint.h>

/* The version that this header belongs to. */
#define FULGURITE_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the library, as FULGURITE_VERSION; never null, never freed. */
const char *fulgurite_version(void);

/* What a function returns. */
typedef int32_t fulgurite_status;
enum {
    FULGURITE_OK = 0,
    /* A pointer to host memory is null, a number stands for nothing, or a struct's size is off. */
    FULGURITE_ERROR_ARGUMENT = 1,
    /* Shapes, strides, scale: a request that is not supported or makes no sense. */
    FULGURITE_ERROR_REQUEST = 2,
    /* A device address is null, misaligned, missing or too many. */
    FULGURITE_ERROR_ADDRESS = 3,
    /* No driver, a stub or one too old, no such device, or one that is no Hopper GPU. */
    FULGURITE_ERROR_DEVICE = 4,
    /* A driver call failed, the context was reset, or the process forked. */
    FULGURITE_ERROR_DRIVER = 5,
    /* An error of this library: its build lacks a kernel, or it broke a rule of its own. */
    FULGURITE_ERROR_INTERNAL = 6
};

/* Element types of q, k, v and out. */
enum { FULGURITE_BF16 = 0, FULGURITE_F16 = 1 };

/* Which keys a query row sees. */
enum {
    /* Every key. */
    FULGURITE_MASK_FULL = 0,
    /* Keys col <= row + kv_len - q_len (aligned bottom right). Rows without keys: 0, LSE -inf. */
    FULGURITE_MASK_CAUSAL = 1
};

/*
 * Strides of one tensor in elements: multiples of 8, not 0, below 2^40 bytes. head_dim is
 * contiguous. Strides of axes of size 1 are not looked at. Elements of out may not overlap. The
 * batch strides of k and v may be 0, and so may both head strides: all entries, or all query
 * heads, then read the same one.
 */
typedef struct fulgurite_strides {
    uint64_t batch;
    uint64_t head;
    uint64_t row;
} fulgurite_strides;

/* A call to plan. Every field must be set. */
typedef struct fulgurite_request {
    /* sizeof(fulgurite_request): tells a library that expects another struct. */
    uint32_t size_bytes;
    /* FULGURITE_BF16 or FULGURITE_F16. */
    uint32_t dtype;
    /* FULGURITE_MASK_FULL or FULGURITE_MASK_CAUSAL. */
    uint32_t mask;
    /* 1: launches write the log-sum-exp; 0: they do not. */
    uint32_t lse;
    /* Factor of the scores, positive; +0: 1 / sqrt(head_dim). */
    float scale;
    /* Ordinal of the GPU, as the CUDA driver counts. */
    uint32_t device;
    /* Batch entries; 0 is a call without work. */
    uint64_t batch;
    /* Query heads, a multiple of heads_kv. */
    uint64_t heads;
    /* Heads of k and v. Query head h reads head h / (heads / heads_kv). */
    uint64_t heads_kv;
    /* Rows of q and out; 0 is a call without work. */
    uint64_t q_len;
    /* Rows of k and v; without any, every row of out is 0 and its LSE -inf. */
    uint64_t kv_len;
    /* Columns of a head: a multiple of 8, at most 256. */
    uint64_t head_dim;
    fulgurite_strides q;
    fulgurite_strides k;
    fulgurite_strides v;
    fulgurite_strides out;
} fulgurite_request;

/* A checked request with its kernel loaded. */
typedef struct fulgurite_plan fulgurite_plan;

/* CUDA's stream: CUstream and cudaStream_t are pointers to this struct. */
struct CUstream_st;

/*
 * Checks a request, opens the device, has the driver compile the kernel (on its first use; kept in
 * the driver's cache on disk) and writes a new plan to *plan. Not to be called during a capture.
 */
fulgurite_status fulgurite_plan_create(const fulgurite_request *request, fulgurite_plan **plan);

/* Writes the name of the plan's kernel to *name; it lives as long as the plan. */
fulgurite_status fulgurite_plan_variant(const fulgurite_plan *plan, const char **name);

/* Writes 1 to *is_noop if there is nothing to compute (batch 0 or q_len 0), else 0. */
fulgurite_status fulgurite_plan_is_noop(const fulgurite_plan *plan, int32_t *is_noop);

/*
 * Enqueues the kernel on a stream of the plan's device (null: the legacy default stream). Waits
 * for nothing, allocates nothing, may be captured into a graph.
 *
 * q, k, v, out: device addresses of the tensors' first elements, multiples of 16 bytes. lse: a
 * device address of float[batch][heads][q_len] if the request asked for it, else null. All five
 * must stay allocated until the kernel has run; no other work may write q, k, v or touch out and
 * lse meanwhile; out and lse may share no memory with anything else. Of tensors without elements
 * the address is not looked at. A plan without work returns at once and looks at none of them.
 */
fulgurite_status fulgurite_launch(const fulgurite_plan *plan, struct CUstream_st *stream,
                                  const void *q, const void *k, const void *v, void *out,
                                  void *lse);

/* Frees a plan. Null is allowed and does nothing. */
fulgurite_status fulgurite_plan_destroy(fulgurite_plan *plan);

/*
 * What the last call of the calling thread that failed had to say; "" if none did. UTF-8. Valid
 * until a later call of the same thread fails, or the thread ends.
 */
const char *fulgurite_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
