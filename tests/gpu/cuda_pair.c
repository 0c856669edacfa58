/* cuda_pair.c - the same data on the CPU backend and on the device; see cuda_pair.h. */
#include "cuda_pair.h"

#include <stdio.h>

/*
 * Relative L2 error that is allowed. Of f32 the order of sums differs; of bf16 one rounding is 2^-9
 * at most, and matrix products and fused norms round more than once on the way. Results of a few
 * elements do not average, so they get three times that.
 */
#define TOLERANCE_F32  5e-6
#define TOLERANCE_BF16 1e-2
#define FEW_ELEMS      32

#define GUARD_ELEMS  16
#define GUARD        768.0f /* a value that bf16 keeps */
#define INSIDE_ELEMS 13     /* odd, and more than no alignment forgives */
#define MAX_PRINTED  40

static const int g_k_max = 9216, g_n_kv_max = 4300, g_head_dim_max = 512;

const pair_mode pair_modes[] = {
    {RP_PRECISION_F32, PAIR_ALLOC, PAIR_ACT, "f32 alloc -> act"},
    {RP_PRECISION_F32, PAIR_INSIDE, PAIR_INSIDE, "f32 inside -> inside"},
    {RP_PRECISION_BF16, PAIR_ACT, PAIR_ACT, "bf16 act -> act"},
    {RP_PRECISION_BF16, PAIR_ALLOC, PAIR_ALLOC, "bf16 alloc -> alloc"},
    {RP_PRECISION_BF16, PAIR_ACT, PAIR_ALLOC, "bf16 act -> alloc"},
    {RP_PRECISION_BF16, PAIR_ALLOC, PAIR_ACT, "bf16 alloc -> act"},
    {RP_PRECISION_BF16, PAIR_INSIDE, PAIR_INSIDE, "bf16 inside -> inside"},
};
int pair_n_modes = (int)COUNT(pair_modes);
rp_backend pair_on[N_SIDES];
const rp_backend_ops *pair_ops;

static void *g_gpu[2]; /* f32, bf16 */
static const pair_mode *g_mode = &pair_modes[0];
static char g_case[160];
static int g_n_checks, g_n_bad, g_n_printed;
static double g_worst[2];

static int is_bf16(void)
{
    return g_mode->precision == RP_PRECISION_BF16;
}

static const rp_backend_ops *row(const char *name)
{
    for (int i = 0; rp_backend_list[i] != NULL; i++) {
        if (strcmp(rp_backend_list[i]->name, name) == 0) {
            return rp_backend_list[i];
        }
    }
    return NULL;
}

static void *open_side(const rp_backend_ops *ops, rp_precision precision)
{
    const rp_backend_params params = {.n_threads = 4, .precision = precision};
    void *self = NULL;

    if (ops->open(&params, &self) != RP_OK ||
        ops->reserve(self, g_k_max, g_n_kv_max, g_head_dim_max) != RP_OK) {
        print_error("%s does not open\n", ops->name);
        exit(1);
    }
    return self;
}

void pair_open_or_skip(void)
{
    /* "cpu" compares the CPU with itself: a test of the tests, where there is no device */
    const char *name = getenv("RP_TEST_BACKEND") != NULL ? getenv("RP_TEST_BACKEND") : "cuda";

    pair_ops = row(name);
    if (pair_ops == NULL || !pair_ops->usable()) {
        printf("SKIP: %s: %s\n", name,
               pair_ops == NULL ? "this build has no such backend" : pair_ops->why_not());
        exit(77);
    }
    pair_on[CPU] = (rp_backend){row("cpu"), open_side(row("cpu"), RP_PRECISION_F32)};
    g_gpu[0] = open_side(pair_ops, RP_PRECISION_F32);
    if (pair_ops == row("cpu")) {
        pair_n_modes = 2;
    } else {
        g_gpu[1] = open_side(pair_ops, RP_PRECISION_BF16);
    }
    pair_use(&pair_modes[0]);
}

void pair_close(void)
{
    pair_on[CPU].ops->close(pair_on[CPU].self);
    pair_ops->close(g_gpu[0]);
    pair_ops->close(g_gpu[1]);
}

void pair_use(const pair_mode *mode)
{
    g_mode = mode;
    pair_on[GPU] = (rp_backend){pair_ops, g_gpu[is_bf16()]};
}

void pair_say(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(g_case, sizeof(g_case), format, args);
    va_end(args);
}

/* To nearest, ties to even, as the device rounds. */
static float round_bf16(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    if (isfinite(x)) {
        bits += 0x7fffu + ((bits >> 16) & 1u);
        bits &= 0xffff0000u;
    }
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* ---- arrays ---- */

static float *host_values(size_t n, unsigned seed, float scale, float offset)
{
    float *x = malloc((n + 1) * sizeof(*x));

    assert_non_null(x);
    rpt_fill(x, n, seed);
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] * scale + offset;
        x[i] = is_bf16() ? round_bf16(x[i]) : x[i];
    }
    return x;
}

/* body NULL: NaN */
static pair_array new_array(pair_kind kind, size_t n, const float *body)
{
    pair_array a = {.n = n, .before = kind == PAIR_INSIDE ? INSIDE_ELEMS : 0};
    const size_t total = a.before + n + GUARD_ELEMS;
    float *host = malloc(total * sizeof(*host));

    assert_non_null(host);
    for (size_t i = 0; i < total; i++) {
        const bool inside = i >= a.before && i < a.before + n;
        host[i] = !inside ? GUARD : body != NULL ? body[i - a.before] : NAN;
    }
    for (int s = 0; s < N_SIDES; s++) {
        const rp_backend *b = &pair_on[s];
        const rp_status st =
            kind == PAIR_ALLOC ? b->ops->alloc(b->self, total * sizeof(float), "test", &a.block[s])
                               : b->ops->alloc_act(b->self, total, "test", &a.block[s]);
        assert_int_equal(st, RP_OK);
        b->ops->put(b->self, a.block[s], host, total * sizeof(float));
        assert_int_equal(b->ops->sync(b->self), RP_OK);
        a.at[s] = (float *)a.block[s] + a.before;
    }
    free(host);
    return a;
}

pair_array pair_random(pair_kind kind, size_t n, unsigned seed, float scale, float offset)
{
    float *x = host_values(n, seed, scale, offset);
    const pair_array a = new_array(kind, n, x);

    free(x);
    return a;
}

pair_array pair_of(pair_kind kind, size_t n, const float *host)
{
    return new_array(kind, n, host);
}

pair_array pair_poison(pair_kind kind, size_t n)
{
    return new_array(kind, n, NULL);
}

void pair_drop(pair_array *array)
{
    for (int s = 0; s < N_SIDES; s++) {
        pair_on[s].ops->release(pair_on[s].self, array->block[s]);
    }
    *array = (pair_array){0};
}

/* ---- weights ---- */

static uint16_t f16_of(float x)
{
    int e = 0;
    const float m = frexpf(fabsf(x), &e); /* in [0.5, 1) */
    const int sign = signbit(x) ? 0x8000 : 0;
    const int scaled = (int)(m * 2048.0f); /* 11 bits, cut off */

    if (x == 0 || e < -13) {
        return (uint16_t)sign;
    }
    return (uint16_t)(sign | ((e + 14) << 10) | (scaled - 1024));
}

static uint16_t bf16_of(float x)
{
    uint32_t bits;

    x = round_bf16(x);
    memcpy(&bits, &x, sizeof(bits));
    return (uint16_t)(bits >> 16);
}

pair_weight pair_weight_random(rp_dtype dtype, int rows, int cols, int kernel, unsigned seed)
{
    const size_t side = kernel > 0 ? (size_t)kernel : 1;
    const size_t n = (size_t)rows * (cols > 0 ? (size_t)cols : 1) * side * side;
    rp_tensor host = {.dtype = dtype,
                      .n_dims = cols == 0     ? 1
                                : kernel == 0 ? 2
                                              : 4,
                      .dim = {rows, cols > 0 ? cols : 1, (int64_t)side, (int64_t)side}};
    pair_weight w = {.host = host_values(n, seed, 1.0f, 0)};
    uint16_t *half = dtype == RP_F32 ? NULL : malloc(n * sizeof(*half));

    if (half != NULL) {
        for (size_t i = 0; i < n; i++) {
            const float x = ((float *)w.host)[i];
            half[i] = dtype == RP_F16 ? f16_of(x) : bf16_of(x);
        }
        free(w.host);
        w.host = half;
    }
    host.data = w.host;
    for (int s = 0; s < N_SIDES; s++) {
        assert_int_equal(pair_on[s].ops->weight(pair_on[s].self, &host, &w.at[s]), RP_OK);
    }
    return w;
}

void pair_weight_drop(pair_weight *weight)
{
    for (int s = 0; s < N_SIDES; s++) {
        pair_on[s].ops->weight_release(pair_on[s].self, &weight->at[s]);
    }
    free(weight->host);
    *weight = (pair_weight){0};
}

/* ---- comparison ---- */

static void bad(const char *op, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void bad(const char *op, const char *format, ...)
{
    char text[200];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    g_n_bad++;
    if (g_n_printed++ < MAX_PRINTED) {
        print_error("%s, %s, %s: %s\n", op, g_case, g_mode->name, text);
    }
}

static size_t worst_at(const float *got, const float *want, size_t n)
{
    size_t worst = 0;

    for (size_t i = 0; i < n; i++) {
        if (!(fabsf(got[i] - want[i]) <= fabsf(got[worst] - want[worst]))) {
            worst = i;
        }
    }
    return worst;
}

static double tolerance_of(pair_how how, size_t n)
{
    if (how == PAIR_EXACT) {
        return 0;
    }
    return (is_bf16() ? TOLERANCE_BF16 : TOLERANCE_F32) * (n < FEW_ELEMS ? 3 : 1);
}

double pair_check(const char *op, const pair_array *out, pair_how how)
{
    const size_t total = out->before + out->n + GUARD_ELEMS;
    float *all[N_SIDES];

    g_n_checks++;
    for (int s = 0; s < N_SIDES; s++) {
        const rp_backend *b = &pair_on[s];
        all[s] = malloc(total * sizeof(float));
        assert_non_null(all[s]);
        b->ops->get(b->self, all[s], out->block[s], total * sizeof(float));
        const rp_status st = b->ops->sync(b->self);
        if (st != RP_OK) {
            bad(op, "%s: sync gives %s: %s", b->ops->name, rp_status_text(st), rpt_log_last());
        }
    }
    const float *got = all[GPU] + out->before, *want = all[CPU] + out->before;
    const double error = rpt_rel_l2(got, want, out->n);
    const double tolerance = tolerance_of(how, out->n);
    if (!(error <= tolerance)) {
        const size_t i = worst_at(got, want, out->n);
        bad(op, "error %.3g > %.3g; worst [%zu of %zu] got %.9g, want %.9g", error, tolerance, i,
            out->n, (double)got[i], (double)want[i]);
    }
    for (size_t i = 0; i < total; i++) {
        if ((i < out->before || i >= out->before + out->n) && all[GPU][i] != GUARD) {
            bad(op, "written outside: element %zd of %zu", (ptrdiff_t)i - (ptrdiff_t)out->before,
                out->n);
            break;
        }
    }
    g_worst[is_bf16()] = error > g_worst[is_bf16()] ? error : g_worst[is_bf16()];
    free(all[CPU]);
    free(all[GPU]);
    return error;
}

void pair_done(void)
{
    const int n_bad = g_n_bad, n_checks = g_n_checks;

    print_message("    %d comparisons, largest error %.2g in f32, %.2g in bf16\n", n_checks,
                  g_worst[0], g_worst[1]);
    g_n_bad = g_n_checks = g_n_printed = 0;
    g_worst[0] = g_worst[1] = 0;
    if (n_bad > 0) {
        fail_msg("%d of %d comparisons", n_bad, n_checks);
    }
}

void pair_get(const float *src, float *host, size_t n)
{
    pair_on[GPU].ops->get(pair_on[GPU].self, host, src, n * sizeof(float));
    assert_int_equal(pair_on[GPU].ops->sync(pair_on[GPU].self), RP_OK);
}

void pair_read_weight(const rp_tensor *weight, int rows, int cols, float *host)
{
    const rp_backend *b = &pair_on[GPU];
    int32_t *ids = malloc((size_t)rows * sizeof(*ids));
    void *out = NULL;

    assert_non_null(ids);
    for (int i = 0; i < rows; i++) {
        ids[i] = i;
    }
    assert_int_equal(b->ops->alloc(b->self, (size_t)(rows * cols) * sizeof(float), "test", &out),
                     RP_OK);
    b->ops->embed(b->self, weight, ids, rows, 1.0f, out);
    pair_get(out, host, (size_t)(rows * cols));
    b->ops->release(b->self, out);
    free(ids);
}
