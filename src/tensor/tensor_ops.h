/*
 * tensor_ops.h - THE ops table: all arithmetic that a model may use, on one kind of device.
 *
 * Models are written once on these ops. The CPU table is the readable reference; every other
 * backend is checked against it, op by op (a backend lacks no op: each slot of each row of
 * rp_backend_list is filled, a unit test holds it).
 *
 * Conventions
 *   - Activations are float* in backend memory, row major, [t, d] unless stated otherwise. Memory
 * from alloc_act() is addressed like floats too, but the backend may keep narrower elements in it
 * (bf16); put, get and copy convert. Every op takes either kind for every activation.
 *   - Weights are rp_tensor (F32, F16, BF16 or F8_E4M3) that went through weight(); they stay
 *     borrowed.
 *   - An op returns nothing: the first failure is kept inside and returned by the next sync().
 *   - `out` may alias an input only where it says so.
 *   - `feeds_linear`, of an op or its shape: the next op is linear() or gated_linear() of all
 *     rows of out, and nothing else ever reads them. The backend may then keep them only in the
 *     narrower form that `narrow` weights are multiplied with; out itself is then not written.
 *     Other weights are multiplied with what that form stands for: better not said for them.
 *   - No op allocates after reserve(), or on a GPU after the first run of its shape. Same bits for
 *     any number of threads: work is cut into pieces whose size does not depend on the thread
 *     count, and a piece is computed by one thread.
 *
 * Adding a backend: backend_<name>.c with one table, one line in backend_list.c.
 */
#ifndef RP_TENSOR_OPS_H
#define RP_TENSOR_OPS_H

#include "base/vec.h"
#include "tensor/tensor.h"

#include <rankpool/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Arithmetic of activations and matrices: --precision. AUTO is the backend's own choice (cpu: f32,
 * cuda: bf16). FP8: bf16, but for the weights that are `narrow` and what they are multiplied with.
 */
typedef enum {
    RP_PRECISION_AUTO,
    RP_PRECISION_F32,
    RP_PRECISION_BF16,
    RP_PRECISION_FP8,
    RP_PRECISION_FP8_ATTENTION /* and attention of many tokens, where its output feeds a product */
} rp_precision;

const char *rp_precision_name(rp_precision precision);
rp_precision rp_precision_named(const char *name); /* AUTO when there is none of that name */
bool rp_precision_is_fp8(rp_precision precision);

/* Of a set of precisions. */
#define RP_PRECISION_BIT(precision) (1u << (unsigned)(precision))

typedef struct {
    int n_threads; /* >= 1, of this rank */
    int device;    /* number of the GPU among the visible ones; the CPU has one device, 0 */
    rp_precision precision; /* RP_E_UNSUP where the device cannot */
} rp_backend_params;

/* What an opened backend runs on, for people. */
typedef struct {
    char name[64];      /* "NVIDIA H200", "" for the CPU */
    char id[64];        /* unique over machines (a GPU's UUID), "" for the CPU */
    char pci[16];       /* "0000:1b:00.0", "" for the CPU */
    char precision[16]; /* as in --precision, never "auto" */
    bool on_device;     /* its memory is not host memory: put and get are needed */
    size_t bytes_total; /* device memory, 0 for the CPU */
    size_t bytes_free;
    size_t bytes_scratch; /* that trim() would give back now, 0 for the CPU */
    /* What to leave free for it as long as nobody knows what a job's ops will ask for. */
    size_t bytes_scratch_room;
    unsigned precisions; /* that open() takes on this device: RP_PRECISION_BIT of each but AUTO */
} rp_device_info;

/* How rope() pairs the elements of a head. */
typedef enum {
    RP_ROPE_PAIRS, /* (x[2i], x[2i+1]) turned by angle i: Lumina, complex numbers in diffusers */
    RP_ROPE_HALVES /* (x[i], x[i + d/2]) turned by angle i: Gemma, Llama */
} rp_rope_kind;

typedef struct {
    int t;
    int n_q, n_k;   /* heads of queries, then of keys, side by side at the start of each row */
    int head_dim;   /* even */
    int row_stride; /* elements from row to row */
    float eps;
    rp_rope_kind kind;
} rp_rope_shape;

typedef struct {
    int n_q, n_kv;           /* query rows and key/value rows */
    int n_heads, n_kv_heads; /* n_heads is a multiple of n_kv_heads; head i reads kv head i /
                                (n_heads / n_kv_heads) */
    int head_dim;
    int q_stride, k_stride, v_stride, out_stride; /* elements from row to row */
    float scale;                                  /* multiplies q.k */
    float softcap;     /* 0: none; else s = softcap * tanh(s / softcap) before the mask */
    bool causal;       /* row i sees keys 0..i (n_q == n_kv) */
    int window;        /* 0: none; else with causal, row i sees keys j with i - j < window */
    bool feeds_linear; /* see the conventions above */
} rp_attention_shape;

typedef struct {
    int c_in, c_out; /* channels */
    int h, w;        /* of the input, before upsampling */
    int kernel;      /* 1 or 3, stride 1, padding kernel / 2 */
    int upsample;    /* 1, or 2: nearest-neighbour doubling of the input on the fly */
} rp_conv_shape;

typedef struct rp_backend_ops {
    const char *name; /* as in --backend */
    const char *help; /* one line */

    bool (*usable)(void);         /* could open() work on this machine? No side effects. */
    int (*n_devices)(void);       /* that this process sees; the CPU counts 1 */
    const char *(*why_not)(void); /* when not usable: the cause, as a clause. Static storage */
    /* Device's PCI address before open(), as in rp_device_info; "" for the CPU and where nobody
     * knows. */
    void (*pci)(int device, char *out, size_t n_out);
    void (*info)(void *self, rp_device_info *out);

    /* *self_out on success only; RP_E_NOMEM, RP_E_UNSUP. */
    rp_status (*open)(const rp_backend_params *params, void **self_out);
    void (*close)(void *self); /* NULL is allowed */

    /* Stop and start again what open() started (threads, scratch, plans); memory from alloc() and
     * weights stay. For measuring what residency is worth. */
    rp_status (*restart)(void *self);

    /* Make scratch big enough for: a weight matrix with rows of up to k_max elements, attention
     * over up to n_kv_max keys with heads of up to head_dim_max, group norms of any size. Grows
     * only. */
    rp_status (*reserve)(void *self, int k_max, int n_kv_max, int head_dim_max);

    /*
     * Give back device memory that is kept between ops only so that the next run need not ask for
     * it. Waits for everything and forgets all sequences (replay() below); memory from alloc(),
     * weights and plans stay, and so do the bits. The next run of a shape allocates as its first
     * did. For when memory is short: never while a sequence is recorded, nor between an attention
     * that feeds_linear and its linear(). A failure is kept for sync().
     */
    void (*trim)(void *self);

    /* ---- memory ---- */
    rp_status (*alloc)(void *self, size_t n_bytes, const char *what,
                       void **out); /* zeroed, 64-byte aligned */
    /* The same for n floats' worth of activations, in the element type that the backend computes
     * with. */
    rp_status (*alloc_act)(void *self, size_t n_elems, const char *what, void **out);
    void (*release)(void *self, void *mem); /* of both; NULL is allowed */
    /* Host memory that put() and get() reach fastest, zeroed; release_host() takes NULL too. It
     * must stay as it is until the next sync() when it is given to put(). */
    rp_status (*alloc_host)(void *self, size_t n_bytes, const char *what, void **out);
    void (*release_host)(void *self, void *mem);
    /* n_bytes counts floats, 4 bytes each, whatever is kept; of memory from alloc() it is any
     * number. get() has arrived after sync(). */
    void (*put)(void *self, void *dst, const void *host, size_t n_bytes);
    void (*get)(void *self, void *host, const void *src, size_t n_bytes);
    void (*copy)(void *self, void *dst, const void *src, size_t n_bytes);
    /* The next weights are these n, by shape and type: room for all of them at once, so that
     * weights that follow each other lie side by side. RP_E_NOMEM says what is missing. The call
     * may be left out. */
    rp_status (*weights_begin)(void *self, rp_tensor *const *host, size_t n);
    /* Where the weights since weights_begin() lie, as one piece of memory of *n_bytes; NULL and 0
     * where they are borrowed. */
    void *(*weights_span)(void *self, size_t *n_bytes);
    /* Room for a weight, as weight() would take it; somebody else fills it. */
    rp_status (*weight_place)(void *self, const rp_tensor *host, rp_tensor *out);
    /* A weight in host memory (mmap'd) -> the tensor that ops take. The CPU borrows it as it is. */
    rp_status (*weight)(void *self, const rp_tensor *host, rp_tensor *out);
    void (*weight_release)(void *self, rp_tensor *weight);
    /* A weight of this shape and type made on the device: normal(0, std) from `seed`, or all ones
     * for std 0. For measuring without a checkpoint. Release with weight_release. */
    rp_status (*weight_fill)(void *self, const rp_tensor *shape, uint64_t seed, float std,
                             rp_tensor *out);
    /* Wait for everything; the first failure since the last sync, logged. */
    rp_status (*sync)(void *self);
    /* Without waiting: the first failure since the last sync that is known already. Not logged
     * again, and sync() returns it too. */
    rp_status (*peek)(void *self);

    /*
     * A sequence of ops that is the same every time, memory included: when replay() knows `key`, it
     * has started the whole sequence and returns true. On false the caller runs the ops and then
     * calls recorded(). The sequence allocates nothing and must not sync, get or put. Releasing any
     * memory forgets all sequences, and so does trim(). The CPU never knows a key.
     */
    bool (*replay)(void *self, uint64_t key);
    void (*recorded)(void *self);
    /* The next sync() fails with RP_E_MODEL if one of x[n] is not finite. x from alloc(). */
    void (*check_finite)(void *self, const float *x, size_t n);
    /* dst row i = src row i, i < n_rows, n_cols floats each; strides in floats. Both from alloc().
     */
    void (*copy_rows)(void *self, float *dst, size_t dst_stride, const float *src,
                      size_t src_stride, int n_rows, int n_cols);

    /* ---- latents: f32 memory from alloc(), the slots of rp_vec (vec.h) ---- */
    void (*combine)(void *self, float *out, size_t n, int n_terms, const float *coef,
                    const float *const *in);
    void (*project)(void *self, const float *a, const float *b, size_t n, float *room);
    void (*extrapolate)(void *self, const rp_vec_rows *rows, float *out);

    /* ---- time marks ---- */
    /* Make room for marks 0 to n - 1; grows only, and what was marked is lost when it does. */
    rp_status (*marks_reserve)(void *self, int n);
    /* Keep the time at which the device gets here, behind all that was queued. Not inside a
     * sequence that replay() may know. Without room for `index` nothing happens. */
    void (*mark)(void *self, int index);
    /* Wait until the device has got to mark `index`, not for what was queued behind it; the first
     * failure that is known then, as from sync(). Without room for `index`: sync(). */
    rp_status (*wait)(void *self, int index);
    /* After sync(): milliseconds from mark 0 to each of the marks 0 to n - 1, all of them set. */
    rp_status (*marks_read)(void *self, int n, double *ms_out);

    /* ---- text ---- */
    /* out[t, d] = table[ids[t], :] * scale; ids in host memory, 0 <= id < v checked by the caller
     */
    void (*embed)(void *self, const rp_tensor *table, const int32_t *ids, int t, float scale,
                  float *out);

    /* ---- linear algebra ---- */
    /*
     * out[t, sum n_i] = x[t, k] * [w_0; w_1; ...]^T (+ bias)
     *   w     n_w (1 to 4) weights [n_i, k], their outputs side by side (q, k and v in one call)
     *   bias  NULL, or for n_w == 1 a weight [n_0]
     *   x_stride  elements from row to row of x, >= k;  out is contiguous
     */
    void (*linear)(void *self, const float *x, int t, int k, int x_stride,
                   const rp_tensor *const *w, int n_w, const rp_tensor *bias, float *out);

    /*
     * out[t, d] = silu(x[t, k] w_gate^T) * (x w_up^T), rows contiguous
     *   w_gate, w_up  weights [d, k]
     *   room          [t, 2 d], written or not as the backend likes; not x, not out
     *   feeds_linear  see the conventions above
     */
    void (*gated_linear)(void *self, const float *x, int t, int k, const rp_tensor *w_gate,
                         const rp_tensor *w_up, bool feeds_linear, float *room, float *out);

    /* out = softmax(scale * q k^T, masked) v, head by head; heads lie side by side in a row. */
    void (*attention)(void *self, const rp_attention_shape *shape, const float *q, const float *k,
                      const float *v, float *out);

    /* ---- norms; w NULL means ones; `shift` is added to w: 1 for Gemma's (1 + w) ---- */
    /* out[t, d] = x / sqrt(mean(x^2) + eps) * (w + shift) * (1 + scale);  scale [d] or NULL. out
     * may be x. */
    void (*rms_norm)(void *self, const float *x, int t, int d, const rp_tensor *w, float shift,
                     float eps, const float *scale, float *out, bool feeds_linear);
    /* x[t, d] += tanh(gate) * rms_norm(y);  gate [d], or NULL for 1 (no tanh) */
    void (*add_rms_norm)(void *self, float *x, const float *y, int t, int d, const rp_tensor *w,
                         float shift, float eps, const float *gate);
    /* add_rms_norm(x, y, w, shift, eps, gate), then out = rms_norm(x, w2, shift, eps, scale2). */
    void (*add_rms_norm_rms_norm)(void *self, float *x, const float *y, int t, int d,
                                  const rp_tensor *w, float shift, float eps, const float *gate,
                                  const rp_tensor *w2, const float *scale2, float *out,
                                  bool feeds_linear);
    /* out[t, d] = (x - mean) / sqrt(var + eps) * (1 + scale);  scale [d]. out may be x. */
    void (*layer_norm)(void *self, const float *x, int t, int d, float eps, const float *scale,
                       float *out);
    /*
     * In place on the heads of queries and keys in each row of x: rms norm over head_dim with w_q
     * or w_k (skipped for those whose weight is NULL), then rotary embedding. What lies behind the
     * heads stays.
     *   cos, sin  [t, head_dim / 2]
     */
    void (*head_norm_rope)(void *self, const rp_rope_shape *shape, float *x, const rp_tensor *w_q,
                           const rp_tensor *w_k, const float *cos, const float *sin);

    /* ---- elementwise ---- */
    /* out[t, d] = silu(ab[t, 0:d]) * ab[t, d:2d] */
    void (*swiglu)(void *self, const float *ab, int t, int d, float *out);
    /* out[t, d] = gelu_tanh(ab[t, 0:d]) * ab[t, d:2d] */
    void (*geglu)(void *self, const float *ab, int t, int d, float *out);
    void (*silu)(void *self, const float *x, size_t n, float *out); /* out may be x */
    void (*add)(void *self, float *x, const float *y, size_t n);    /* x += y */

    /* ---- pictures: [c, h, w] ---- */
    /* Do conv2d and group_norm take and give pictures as rows [h w, c] instead of [c, h, w]? That
     * is what tensor cores like. The network then transposes at its ends. */
    bool (*picture_rows)(void *self);
    /* out[(h/p)(w/p), p p c]: token (i, j), element (di, dj, channel), channel fastest */
    void (*patchify)(void *self, const float *x, int c, int h, int w, int p, float *out);
    /* the inverse, times `sign` */
    void (*unpatchify)(void *self, const float *tokens, int c, int h, int w, int p, float sign,
                       float *out);
    /* out[c_out, u h, u w] = conv(upsample(x)) + bias + add; w [c_out, c_in, kernel, kernel]
     *   bias  NULL or [c_out];  add  NULL or a picture like out, which it may be */
    void (*conv2d)(void *self, const rp_conv_shape *shape, const float *x, const rp_tensor *w,
                   const rp_tensor *bias, const float *add, float *out);
    /* group norm over [c / groups, h w] with affine w, b [c]; then silu when `silu`. out may be x.
     */
    void (*group_norm)(void *self, const float *x, int c, int hw, int groups, const rp_tensor *w,
                       const rp_tensor *b, float eps, bool silu, float *out);
    /* out[cols, rows] = x[rows, cols]^T */
    void (*transpose)(void *self, const float *x, int rows, int cols, float *out);
    /* bytes[hw, 3] of a picture of 3 channels that lies as picture_rows() says, about -1 to 1:
     * round(clamp(x / 2 + 0.5, 0, 1) * 255) in f32, halves to even as numpy.round (diffusers'
     * VaeImageProcessor); NaN gives 0. bytes from alloc(). */
    void (*to_bytes)(void *self, const float *x, size_t hw, uint8_t *bytes);
} rp_backend_ops;

/* One opened backend, as models carry it. */
typedef struct {
    const rp_backend_ops *ops;
    void *self;
} rp_backend;

/* All backends of this build, best first, ended by NULL. */
extern const rp_backend_ops *const rp_backend_list[];

#endif
