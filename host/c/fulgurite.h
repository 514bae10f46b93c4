/*
 * Fulgurite: exact attention for NVIDIA GPUs, Hopper and all from Ampere on, C interface.
 *
 * The library needs an NVIDIA driver (CUDA 12.0 or later) and no CUDA toolkit. It works in the
 * primary context of a device, the one that CUDA's runtime, and so PyTorch, uses.
 *
 *     fulgurite_forward_request request = {0};            fill in what the call is: layouts, mask
 *     request.size_bytes = sizeof request;
 *     fulgurite_plan_forward(&request, NULL, &plan);      checks it, loads the kernel: once
 *     fulgurite_forward_args args = {0};                  fill in device addresses
 *     args.size_bytes = sizeof args;
 *     fulgurite_launch_forward(plan, stream, &args);      any number of times
 *     fulgurite_plan_destroy(plan);
 *
 * fulgurite_forward(&request, stream, &args) does all of that with plans that the library keeps.
 *
 * Library. libfulgurite.so; its name for the linker (SONAME) is libfulgurite.so.0, and another
 * number means that programs must be compiled again. Programs that load the library themselves
 * compare FULGURITE_VERSION, of the header, with fulgurite_version(), of the library.
 *
 * Structs that a caller fills in begin with size_bytes: their sizeof. Set the struct to zero first:
 * zero is "absent", so that what has to be said starts at 1, and what is left at zero by mistake is
 * refused. In later versions such structs grow, at their end: the library takes those of every
 * version before it, whose missing fields are absent; and those of later versions as long as what
 * it does not know is zero (4096 bytes in all at most). fulgurite_layout and fulgurite_buffer
 * never grow.
 *
 * Status. Every function but fulgurite_version and fulgurite_last_error returns a status. If it is
 * not FULGURITE_OK, nothing was launched and nothing written through the caller's pointers, and
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

/* The version that this header belongs to, as a text and as a number for the preprocessor: major *
 * 10000 + minor * 100 + patch. */
#define FULGURITE_VERSION "0.1.0"
#define FULGURITE_VERSION_NUMBER 100

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the library, as FULGURITE_VERSION; never null, never freed. */
const char *fulgurite_version(void);

/* What a function returns. */
typedef int32_t fulgurite_status;
enum {
    FULGURITE_OK = 0,
    /* A pointer to host memory is null, a number stands for nothing, a struct's size is off, or
     * the arguments are those of another request than the plan's. */
    FULGURITE_ERROR_ARGUMENT = 1,
    /* Shapes, strides, scale: a request that makes no sense. */
    FULGURITE_ERROR_REQUEST = 2,
    /* A device address is null, misaligned, missing or too many, or the workspace is too small. */
    FULGURITE_ERROR_BUFFER = 3,
    /* No driver, a stub or one too old, no such device, or one older than Ampere. */
    FULGURITE_ERROR_DEVICE = 4,
    /* A driver call failed, the context was reset, or the process forked. */
    FULGURITE_ERROR_DRIVER = 5,
    /* An error of this library: its build lacks a kernel, or it broke a rule of its own. */
    FULGURITE_ERROR_INTERNAL = 6,
    /* A request that makes sense, but that no kernel computes; the text names the nearest one. */
    FULGURITE_ERROR_UNSUPPORTED = 7
};

/*
 * What the last call of the calling thread that failed had to say; "" if none did. UTF-8. Valid
 * until a later call of the same thread fails, or the thread ends.
 */
const char *fulgurite_last_error(void);

/* Element types. */
enum {
    FULGURITE_BF16 = 1,
    FULGURITE_F16 = 2,
    FULGURITE_F32 = 3,
    FULGURITE_E4M3 = 4,
    FULGURITE_E5M2 = 5,
    FULGURITE_U8 = 6,
    FULGURITE_I8 = 7,
    FULGURITE_I32 = 8,
    FULGURITE_I64 = 9
};

/* What the first axis of a layout counts. */
enum {
    /* Batch entries, each of as many rows as the others. */
    FULGURITE_BATCHED = 1,
    /* One run of tokens (size 1), in which sequences of different lengths follow each other. */
    FULGURITE_PACKED = 2,
    /* Pages of a cache, in any order. */
    FULGURITE_PAGED = 3
};

/* Which keys a query row sees. */
enum {
    /* Every key. */
    FULGURITE_MASK_FULL = 1,
    /* Keys col <= row + kv_len - q_len (aligned bottom right). Rows without keys: 0, LSE -inf. */
    FULGURITE_MASK_CAUSAL = 2,
    /* Keys row + kv_len - q_len - window_left <= col <= row + kv_len - q_len + window_right, both
     * ends included. 1024 keys, the row's own among them: 1023 and 0. Negative numbers are offsets;
     * an end that window_ends leaves out is unbounded. */
    FULGURITE_MASK_WINDOW = 3
};

/* The ends that a window has. */
enum { FULGURITE_WINDOW_LEFT = 1, FULGURITE_WINDOW_RIGHT = 2 };

/* How exactly attention is computed. */
enum {
    /* In the tensors' own types. */
    FULGURITE_PRECISION_GIVEN = 1,
    /* q and k as integers of 8 bits, v as e4m3: faster, with more error. Launches quantise bf16 or
     * f16 tensors, whose head_dim is a multiple of 16, in a workspace. Scales and means depend on
     * all keys, so that under a causal mask later keys change earlier rows by rounding. */
    FULGURITE_PRECISION_S8E4M3 = 2,
    /* The same for q and k alone, v in its own type: less error, slower above head_dim 64. */
    FULGURITE_PRECISION_S8X16 = 3,
    /* The better one of the two for the head_dim. */
    FULGURITE_PRECISION_BITS8 = 4
};

/* What has a number of its own that the stored numbers of a tensor are multiplied with. */
enum {
    /* Nothing: the stored numbers are meant. No buffer. */
    FULGURITE_DESCALE_ONE = 1,
    /* The tensor. */
    FULGURITE_DESCALE_PER_TENSOR = 2,
    /* Each batch entry and KV head, also of q, whose heads share that of their KV head. */
    FULGURITE_DESCALE_PER_HEAD = 3,
    /* Of q alone: each row, float[batch][heads][q_len], contiguous. */
    FULGURITE_DESCALE_PER_ROW = 4
};

/* GPU architectures. */
enum {
    /* Hopper. */
    FULGURITE_SM90 = 1,
    /* Ampere and everything later. */
    FULGURITE_SM80 = 2
};

/* What launches do with a buffer. */
enum { FULGURITE_READ = 1, FULGURITE_WRITE = 2 };

/*
 * Where the elements of a tensor are. Axes are always (batch, heads, rows, head_dim), whatever
 * their order in memory: element (b, h, r, c) lies b * strides[0] + h * strides[1] + r * strides[2]
 * + c * strides[3] elements after the first. A contiguous [batch, rows, heads, head_dim] has the
 * strides {rows * heads * head_dim, head_dim, heads * head_dim, 1}.
 */
typedef struct fulgurite_layout {
    /* FULGURITE_BF16 ... */
    uint32_t dtype;
    /* FULGURITE_BATCHED ... */
    uint32_t form;
    /* Sequences, if packed; else 0. */
    uint64_t sequences;
    /* Sizes: batch (1 if packed, pages if paged), heads, rows, head_dim. */
    uint64_t shape[4];
    /* Strides in elements, in the order of shape. That of an axis of size 1 is not looked at. */
    uint64_t strides[4];
} fulgurite_layout;

/* What the stored numbers of a tensor are multiplied with. */
typedef struct fulgurite_descale {
    /* FULGURITE_DESCALE_ONE ...; 0: not said. */
    uint32_t kind;
    /* 0. */
    uint32_t reserved;
    /* Per head: numbers from one batch entry to the next, and from one KV head to the next; may be
     * 0. Else 0. */
    uint64_t strides[2];
} fulgurite_descale;

/*
 * A forward call: out = softmax(scale * q k^T + mask) v and, if wanted,
 * lse[row] = ln sum exp(scale * q.k + mask), the natural logarithm.
 *
 * q and out have the shape (batch, heads, q_len, head_dim), k and v (batch, kv_heads, kv_len,
 * head_dim); all are batched, all bf16 or all f16, or q, k and v are e4m3 and out bf16 or f16.
 * heads is a multiple of kv_heads, and query head h reads head h / (heads / kv_heads). head_dim is
 * a multiple of 8 (of 16 in 8 bits), at most 256. Batch 0 and q_len 0 are calls without work; with
 * kv_len 0 every row of out is 0 and its LSE -inf.
 *
 * The head_dim stride is 1; the others are multiples of 16 bytes, not 0, below 2^40 bytes. Elements
 * of out may not overlap. The batch strides of k and v may be 0, and so may both head strides: all
 * entries, or all query heads, then read the same one.
 */
typedef struct fulgurite_forward_request {
    /* sizeof(fulgurite_forward_request). */
    uint64_t size_bytes;
    /* Ordinal of the GPU, as the CUDA driver counts. */
    uint32_t device;
    /* FULGURITE_MASK_FULL ... */
    uint32_t mask;
    /* 1: launches write the log-sum-exp; 0: they do not. */
    uint32_t with_lse;
    /* Factor of the scores, positive; +0: 1 / sqrt(head_dim). */
    float scale;
    fulgurite_layout q;
    fulgurite_layout k;
    fulgurite_layout v;
    fulgurite_layout out;
    /* FULGURITE_PRECISION_GIVEN ...; 0: as given. */
    uint32_t precision;
    /* With FULGURITE_MASK_WINDOW: FULGURITE_WINDOW_LEFT, FULGURITE_WINDOW_RIGHT, both or 0; else 0.
     */
    uint32_t window_ends;
    /* Of e4m3 tensors: what their numbers are multiplied with. All three are said, or none. */
    fulgurite_descale descale_q;
    fulgurite_descale descale_k;
    fulgurite_descale descale_v;
    /* Keys before a row's position that it sees, if the window ends there; else 0. */
    int32_t window_left;
    /* The same behind it. Together at least 0, if both are there. */
    int32_t window_right;
} fulgurite_forward_request;

/*
 * The buffers of a forward launch: device addresses of the tensors' first elements. Which ones a
 * plan takes, fulgurite_plan_buffers tells: each is given exactly if the plan has a use for it,
 * else null. Of tensors without elements the address is not looked at.
 *
 * They must stay allocated until the kernel has run; no other work may write what is read or touch
 * what is written meanwhile; what is written may share no memory with anything else.
 */
typedef struct fulgurite_forward_args {
    /* sizeof(fulgurite_forward_args). */
    uint64_t size_bytes;
    /* Multiples of 16 bytes, as is out. */
    const void *q;
    const void *k;
    const void *v;
    void *out;
    /* float[batch][heads][q_len], contiguous, if the request asked for it. */
    void *lse;
    /* Memory to work in, a multiple of 256 bytes; not looked at where the plan needs none. It was
     * given to fulgurite_workspace_reset once, and no other launch uses it at the same time. */
    void *workspace;
    /* How large that is: fulgurite_plan_workspace_bytes at least. */
    uint64_t workspace_bytes;
    /* floats, as the request says; null where that has none. */
    const void *descale_q;
    const void *descale_k;
    const void *descale_v;
} fulgurite_forward_args;

/*
 * The gradients of a forward call: with the gradient d_out of a number, the gradients dq, dk and dv
 * of that number. The forward call is one in the tensors' own type, bf16 or f16, with_lse 1;
 * launches bring its q, k and v, and what one launch of it left: its out and its lse.
 *
 * d_out has the shape of out, dq that of q, dk that of k and dv that of v, where a stride of 0
 * makes each index one of its own; all have their element type, and strides as a forward call's.
 * Elements of dq, dk and dv may not overlap. The same call leaves the same bits on every launch.
 */
typedef struct fulgurite_backward_request {
    /* sizeof(fulgurite_backward_request). */
    uint64_t size_bytes;
    /* The forward call, which also says the device; read during the call only. */
    const fulgurite_forward_request *forward;
    fulgurite_layout d_out;
    fulgurite_layout dq;
    fulgurite_layout dk;
    fulgurite_layout dv;
    /* 1: launches bring a gradient of the log-sum-exp, too; 0: they do not. */
    uint32_t with_d_lse;
    /* 0. */
    uint32_t reserved;
} fulgurite_backward_request;

/* The buffers of a backward launch; what is said of fulgurite_forward_args holds for them. */
typedef struct fulgurite_backward_args {
    /* sizeof(fulgurite_backward_args). */
    uint64_t size_bytes;
    /* Multiples of 16 bytes, as are out, d_out, dq, dk and dv. */
    const void *q;
    const void *k;
    const void *v;
    const void *out;
    /* float[batch][heads][q_len], contiguous. */
    const void *lse;
    const void *d_out;
    void *dq;
    void *dk;
    void *dv;
    /* As lse, if the request says so; else null. */
    const void *d_lse;
    /* As that of fulgurite_forward_args. */
    void *workspace;
    uint64_t workspace_bytes;
} fulgurite_backward_args;

/* How a request is carried out, which is no part of what it asks for. Zero: as the library likes. */
typedef struct fulgurite_plan_options {
    /* sizeof(fulgurite_plan_options). */
    uint64_t size_bytes;
    /* The name of the kernel, to measure or test it. It is not kept. */
    const char *entry;
    /* Bytes of the workspace at most; a plan that needs more is refused. */
    uint64_t workspace_limit_bytes;
    /* Blocks of a grid at most, as if the device had no more multiprocessors. */
    uint32_t sm_limit;
    /* Only kernels of this architecture: FULGURITE_SM90 or FULGURITE_SM80; 0: any. */
    uint32_t arch;
} fulgurite_plan_options;

/* A buffer that launches of a plan bring. */
typedef struct fulgurite_buffer {
    /* The field of the arguments. */
    const char *name;
    /* Type of its elements. */
    uint32_t dtype;
    /* FULGURITE_READ or FULGURITE_WRITE. */
    uint32_t access;
    /* Elements it has at least, from its tensor's first one on. */
    uint64_t elements;
    /* The same in bytes. */
    uint64_t bytes;
    /* Its address is a multiple of so many bytes. */
    uint64_t align_bytes;
} fulgurite_buffer;

/* A checked request, of whichever operation, with its kernels loaded. */
typedef struct fulgurite_plan fulgurite_plan;

/* CUDA's stream: CUstream and cudaStream_t are pointers to this struct. */
struct CUstream_st;

/*
 * Whether the library can compute on a device: FULGURITE_OK, or a status and a text that say why
 * not. Makes no context.
 */
fulgurite_status fulgurite_device_supported(uint32_t device);

/*
 * Checks a request, opens the device, has the driver compile the kernel (on its first use, about a
 * second; kept in the driver's cache on disk, and loaded for the rest of the process) and writes a
 * new plan to *plan. options may be null. Not to be called during a capture. What is wrong with a
 * request is told even where no device can be opened.
 */
fulgurite_status fulgurite_plan_forward(const fulgurite_forward_request *request,
                                        const fulgurite_plan_options *options,
                                        fulgurite_plan **plan);

/*
 * Enqueues the kernels of a plan on a stream of its device (null: the legacy default stream). Waits
 * for nothing, allocates nothing, may be captured into a graph, which then holds the addresses. A
 * plan without work returns at once and looks at no address.
 */
fulgurite_status fulgurite_launch_forward(const fulgurite_plan *plan, struct CUstream_st *stream,
                                          const fulgurite_forward_args *args);

/*
 * Both in one: plans that were made before, of the last 1024 different requests on a device, are
 * found again. In a capture, only for a request whose kernel was loaded before
 * (fulgurite_preload_forward).
 */
fulgurite_status fulgurite_forward(const fulgurite_forward_request *request,
                                   struct CUstream_st *stream, const fulgurite_forward_args *args);

/*
 * Loads the kernels of a request ahead of its first use, and keeps its plan for fulgurite_forward: a
 * second now instead of later, and what a capture needs before it begins.
 */
fulgurite_status fulgurite_preload_forward(const fulgurite_forward_request *request);

/* The same four for gradients. */
fulgurite_status fulgurite_plan_backward(const fulgurite_backward_request *request,
                                         const fulgurite_plan_options *options,
                                         fulgurite_plan **plan);
fulgurite_status fulgurite_launch_backward(const fulgurite_plan *plan, struct CUstream_st *stream,
                                           const fulgurite_backward_args *args);
fulgurite_status fulgurite_backward(const fulgurite_backward_request *request,
                                    struct CUstream_st *stream,
                                    const fulgurite_backward_args *args);
fulgurite_status fulgurite_preload_backward(const fulgurite_backward_request *request);

/* Writes the bytes of workspace that a launch needs at least. */
fulgurite_status fulgurite_plan_workspace_bytes(const fulgurite_plan *plan, uint64_t *bytes);

/*
 * Writes the place and number of the buffers that launches bring, the workspace apart; they live
 * as long as the plan.
 */
fulgurite_status fulgurite_plan_buffers(const fulgurite_plan *plan,
                                        const fulgurite_buffer **buffers, uint64_t *count);

/*
 * Writes a text of some lines: all that was decided, and what the request left to a default. It
 * lives as long as the plan.
 */
fulgurite_status fulgurite_plan_describe(const fulgurite_plan *plan, const char **text);

/*
 * Writes the name of the plan's kernel, of the last one if it has several, "" if there is nothing
 * to compute; it lives as long as the plan.
 */
fulgurite_status fulgurite_plan_entry(const fulgurite_plan *plan, const char **entry);

/* Writes 1 if there is nothing to compute, so that launches return at once and write nothing,
 * else 0. */
fulgurite_status fulgurite_plan_is_noop(const fulgurite_plan *plan, int32_t *is_noop);

/* Frees a plan. Null is allowed and does nothing. */
fulgurite_status fulgurite_plan_destroy(fulgurite_plan *plan);

/*
 * Makes memory of a device a workspace, in the order of the stream: sets its first 8192 bytes (all,
 * if it has fewer) to zero, which is how launches find and leave them. To be called once before the
 * first launch that uses it, and after a launch that failed. The address is a multiple of 256. One
 * workspace serves all launches of all requests on one stream, in order.
 */
fulgurite_status fulgurite_workspace_reset(uint32_t device, struct CUstream_st *stream,
                                           void *workspace, uint64_t workspace_bytes);

#ifdef __cplusplus
}
#endif

#endif
