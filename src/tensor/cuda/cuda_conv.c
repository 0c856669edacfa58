/*
 * cuda_conv.c - convolutions of one picture: [c, h, w] in f32, rows [h w, c] in bf16.
 *
 * A kernel of 1 is a matrix product. A kernel of 3 is cuDNN's (cuda_conv_plan.c). Its tensor cores
 * read rows of a multiple of 8 channels; others (3 colours) are made that wide with zeros, which
 * costs less than turning the picture to [c, h, w] and back.
 *
 * Doubling is a kernel of its own, before: its output goes to scratch. So is what comes after a
 * convolution: bias, addend, and rows as narrow as they should be, in one pass.
 *
 * A picture too large for cuDNN goes in bands of rows, each with a row more at its inner edges,
 * whose output is dropped.
 */
#include "tensor/cuda/cuda_conv.h"

#include "base/check.h"
#include "base/log.h"

#define CHANNELS 8 /* that a tensor core reads at once: 16 bytes */

bool rp_cuda_picture_rows(void *self)
{
    const rp_cuda *cuda = self;

    return cuda->act == RP_BF16;
}

static int padded(int channels)
{
    return (channels + CHANNELS - 1) / CHANNELS * CHANNELS;
}

rp_status rp_cuda_turn_filter(rp_cuda *cuda, const rp_tensor *filter)
{
    const int c_out = (int)filter->dim[0], c_in = (int)filter->dim[1], kernel = (int)filter->dim[2];
    const rp_cuda_view to = rp_cuda_weight_view(filter);
    const size_t n_bytes = (size_t)rp_tensor_elems(filter) * rp_dtype_bytes(filter->dtype);

    if (filter->n_dims != 4 || kernel == 1 || !rp_cuda_picture_rows(cuda) ||
        padded(c_out) != c_out || padded(c_in) != c_in) {
        return RP_OK; /* one that must be padded is turned when it is used */
    }
    RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->scores, n_bytes, "a filter being turned"));
    const rp_cuda_view from = {cuda->scores.data, to.dtype};
    rp_cuda_k_convert(cuda->stream, to, from, (size_t)rp_tensor_elems(filter));
    rp_cuda_k_filter_rows(cuda->stream, from, c_out, c_in, kernel, c_out, c_in, to);
    return RP_OK;
}

/* ------------------------------------------------------------------ one convolution */

typedef struct {
    rp_conv_shape s;
    bool rows;
    rp_cuda_view x, w, out;
    const float *bias; /* or NULL */
    rp_cuda_view add;  /* data NULL: none */
    int above, below;  /* of a band: first and last rows of the output that nobody wants; add and
                          out begin behind those */
} conv_task;

/* cuDNN reads 16 bytes at a time. */
static bool aligned(rp_cuda_view v)
{
    return (uintptr_t)v.data % 16 == 0;
}

/* What lies in the scores' scratch, one after the other: the padded filter, the doubled input, the
 * output as the convolution writes it. */
typedef struct {
    int c_in, c_out, h, w; /* of the convolution: padded, doubled */
    bool widened;          /* the input has fewer channels than that */
    bool filter, doubled, aside;
    size_t filter_bytes, doubled_bytes, y_bytes;
} conv_layout;

static conv_layout layout_of(const conv_task *t)
{
    const rp_conv_shape *s = &t->s;
    const bool pads = t->rows && s->kernel != 1;
    const size_t elem = rp_dtype_bytes(t->w.dtype), taps = (size_t)(s->kernel * s->kernel);
    conv_layout l = {.c_in = pads ? padded(s->c_in) : s->c_in,
                     .c_out = pads ? padded(s->c_out) : s->c_out,
                     .h = s->h * s->upsample,
                     .w = s->w * s->upsample,
                     .doubled = s->upsample == 2};
    const size_t hw = (size_t)l.h * (size_t)l.w;

    l.widened = l.c_in != s->c_in;
    l.filter = l.widened || l.c_out != s->c_out;
    l.aside = t->add.data == t->out.data || l.c_out != s->c_out || t->above + t->below > 0 ||
              (s->kernel != 1 && (t->out.dtype != t->w.dtype || !aligned(t->out)));
    l.filter_bytes =
        l.filter ? rp_cuda_whole_lines((size_t)l.c_out * taps * (size_t)l.c_in * elem) : 0;
    l.doubled_bytes = l.doubled ? rp_cuda_whole_lines((size_t)l.c_in * hw * elem) : 0;
    l.y_bytes = l.aside ? (size_t)l.c_out * hw * elem : 0;
    return l;
}

/* x as the convolution reads it, before doubling: as it is or, copied, in the cast scratch. */
static rp_status take_input(rp_cuda *cuda, const conv_task *t, const conv_layout *l,
                            rp_cuda_view *out)
{
    const size_t n_pixels = (size_t)t->s.h * (size_t)t->s.w;
    const size_t n = n_pixels * (size_t)l->c_in;

    *out = t->x;
    if (t->x.dtype == t->w.dtype && aligned(t->x) && !l->widened) {
        return RP_OK;
    }
    RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->cast, n * rp_dtype_bytes(t->w.dtype),
                                "input of a convolution"));
    *out = (rp_cuda_view){cuda->cast.data, t->w.dtype};
    if (l->widened) {
        rp_cuda_k_pad_rows(cuda->stream, t->x, n_pixels, t->s.c_in, l->c_in, *out);
    } else {
        rp_cuda_k_convert(cuda->stream, t->x, *out, n);
    }
    return RP_OK;
}

/* x, w and y of the job: where they are, or in the scratch. */
static rp_status lay_out(rp_cuda *cuda, const conv_task *t, const conv_layout *l,
                         rp_cuda_conv_job *job)
{
    RP_TRY(rp_cuda_scratch_grow(cuda, &cuda->scores,
                                l->filter_bytes + l->doubled_bytes + l->y_bytes,
                                "scratch of a convolution"));
    char *const at = cuda->scores.data;

    if (l->filter) {
        job->w = (rp_cuda_view){at, t->w.dtype};
        rp_cuda_k_filter_rows(cuda->stream, t->w, t->s.c_out, t->s.c_in, t->s.kernel, l->c_out,
                              l->c_in, job->w);
    }
    if (l->doubled) {
        const rp_cuda_view doubled = {at + l->filter_bytes, t->w.dtype};
        (t->rows ? rp_cuda_k_upsample_rows : rp_cuda_k_upsample)(cuda->stream, job->x, l->c_in,
                                                                 t->s.h, t->s.w, doubled);
        job->x = doubled;
    }
    if (l->aside) {
        job->y = (rp_cuda_view){at + l->filter_bytes + l->doubled_bytes, t->w.dtype};
    }
    return RP_OK;
}

/* y[h w, c_out] = x w^T of rows, or y[c_out, h w] = w x. */
static rp_status run_product(rp_cuda *cuda, const rp_cuda_conv_job *job)
{
    const int hw = job->key.h * job->key.w;
    const int c_in = job->key.c_in, c_out = job->key.c_out;
    const rp_cuda_gemm_shape of_rows = {.m = hw,
                                        .n = c_out,
                                        .k = c_in,
                                        .batch = 1,
                                        .lda = c_in,
                                        .ldb = c_in,
                                        .ldd = c_out,
                                        .b_transposed = true,
                                        .alpha = 1.0f};
    const rp_cuda_gemm_shape of_planes = {.m = c_out,
                                          .n = hw,
                                          .k = c_in,
                                          .batch = 1,
                                          .lda = c_in,
                                          .ldb = hw,
                                          .ldd = hw,
                                          .b_transposed = false,
                                          .alpha = 1.0f};

    return job->key.rows ? rp_cuda_gemm(cuda, &of_rows, job->x, job->w, job->y)
                         : rp_cuda_gemm(cuda, &of_planes, job->w, job->x, job->y);
}

static rp_cuda_view moved_by(rp_cuda_view view, size_t n_elems)
{
    if (view.data != NULL) {
        view.data = (char *)view.data + n_elems * rp_dtype_bytes(view.dtype);
    }
    return view;
}

/* out = y + bias + add */
static void end(rp_cuda *cuda, const conv_task *t, const conv_layout *l, rp_cuda_view y)
{
    const size_t hw = (size_t)(l->h - t->above - t->below) * (size_t)l->w;
    const size_t dropped = (size_t)t->above * (size_t)l->w * (size_t)l->c_out;

    if (t->bias == NULL && t->add.data == NULL && y.data == t->out.data) {
        return;
    }
    if (t->rows) {
        rp_cuda_k_end_rows(cuda->stream, moved_by(y, dropped), hw, t->s.c_out, l->c_out, t->bias,
                           t->add, t->out);
    } else {
        rp_cuda_k_end_planes(cuda->stream, y.data, t->s.c_out, hw, t->bias, t->add.data,
                             t->out.data);
    }
}

/* What the convolution itself may add: all or nothing. */
static int ends_of(const conv_task *t, const conv_layout *l)
{
    const bool takes = t->add.data == NULL || (t->add.dtype == t->w.dtype && aligned(t->add));

    if (!t->rows || t->s.kernel == 1 || l->aside || !takes || (uintptr_t)t->bias % 16 != 0) {
        return 0;
    }
    return (t->bias != NULL ? RP_CUDA_ENDS_BIAS : 0) | (t->add.data != NULL ? RP_CUDA_ENDS_ADD : 0);
}

static rp_status run_task(rp_cuda *cuda, const conv_task *t)
{
    const conv_layout l = layout_of(t);
    bool ended = false;
    rp_cuda_conv_job job = {
        .key = {l.c_in, l.c_out, l.h, l.w, t->s.kernel, (int)t->w.dtype, t->rows, ends_of(t, &l)},
        .w = t->w,
        .y = t->out,
        .bias = t->bias,
        .add = t->add,
    };

    RP_TRY(take_input(cuda, t, &l, &job.x));
    RP_TRY(lay_out(cuda, t, &l, &job));
    RP_TRY(t->s.kernel == 1 ? run_product(cuda, &job) : rp_cuda_conv_run(cuda, &job, &ended));
    if (!ended) {
        end(cuda, t, &l, job.y);
    }
    return RP_CUDA(cuda, cudaPeekAtLastError());
}

/* ------------------------------------------------------------------ bands */

/* Elements of a row of the input, with all that it becomes: the wider of both pictures. */
static size_t row_elems(const conv_task *t)
{
    const conv_layout l = layout_of(t);
    const int c = l.c_in > l.c_out ? l.c_in : l.c_out;

    return (size_t)t->s.upsample * (size_t)l.w * (size_t)c;
}

/* Rows [begin, end) of the input. */
static conv_task band_of(const conv_task *t, int begin, int end)
{
    const int halo = t->s.kernel / 2, u = t->s.upsample;
    const int above = begin > 0 ? halo : 0, below = end < t->s.h ? halo : 0;
    const size_t in_row = (size_t)t->s.w * (size_t)t->s.c_in;
    const size_t out_row = (size_t)u * (size_t)u * (size_t)t->s.w * (size_t)t->s.c_out;
    conv_task band = *t;

    band.s.h = end - begin + above + below;
    band.above = u * above;
    band.below = u * below;
    band.x = moved_by(t->x, (size_t)(begin - above) * in_row);
    band.add = moved_by(t->add, (size_t)begin * out_row);
    band.out = moved_by(t->out, (size_t)begin * out_row);
    return band;
}

static rp_status run_whole(rp_cuda *cuda, const conv_task *t)
{
    const size_t per_row = row_elems(t), room = cuda->conv_elems / 4;
    const int n = room > per_row ? (int)(room / per_row) : 1;

    if (per_row * (size_t)t->s.h <= cuda->conv_elems) {
        return run_task(cuda, t);
    }
    if (!t->rows) {
        return RP_FAIL(RP_E_UNSUP,
                       "a convolution of %d to %d channels, %d x %d, is too large for precision "
                       "f32 on a GPU: %zu elements at most; bf16 has no such limit",
                       t->s.c_in, t->s.c_out, t->s.h * t->s.upsample, t->s.w * t->s.upsample,
                       cuda->conv_elems);
    }
    for (int begin = 0; begin < t->s.h; begin += n) {
        const conv_task band = band_of(t, begin, t->s.h - begin < n ? t->s.h : begin + n);
        RP_TRY(run_task(cuda, &band));
    }
    return RP_OK;
}

void rp_cuda_conv2d(void *self, const rp_conv_shape *shape, const float *x, const rp_tensor *w,
                    const rp_tensor *bias, const float *add, float *out)
{
    rp_cuda *cuda = self;
    const conv_task task = {
        .s = *shape,
        .rows = rp_cuda_picture_rows(cuda),
        .x = rp_cuda_at(cuda, x),
        .w = rp_cuda_weight_view(w),
        .out = rp_cuda_at(cuda, out),
        .bias = bias != NULL ? bias->data : NULL,
        .add = add != NULL ? rp_cuda_at(cuda, add) : (rp_cuda_view){NULL, RP_F32},
    };

    rp_cuda_keep(cuda, run_whole(cuda, &task));
}
