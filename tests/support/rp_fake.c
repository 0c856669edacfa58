/* rp_fake.c - the CPU's table with a budget and failures to order. */
#include "rp_fake.h"

#include "base/check.h"
#include "base/log.h"
#include "tensor/cpu/cpu.h"

#include <stdio.h>

#define HEAD_BYTES 64 /* before each allocation: its size; keeps the alignment */
#define ALL_PRECISIONS                                                                             \
    (RP_PRECISION_BIT(RP_PRECISION_F32) | RP_PRECISION_BIT(RP_PRECISION_BF16) |                    \
     RP_PRECISION_BIT(RP_PRECISION_FP8) | RP_PRECISION_BIT(RP_PRECISION_FP8_ATTENTION))

rp_fake_state rp_fake = {.budget = RP_FAKE_ENOUGH};

rp_backend_ops rp_fake_ops;
const rp_backend_ops *const rp_backend_list[] = {&rp_fake_ops, &rp_backend_cpu, NULL};

static rp_status take(size_t n_bytes, const char *what)
{
    if (n_bytes > rp_fake.budget - rp_fake.used) {
        return RP_FAIL(RP_E_NOMEM, "fake GPU: %s needs %zu bytes, %zu are free", what, n_bytes,
                       rp_fake.budget - rp_fake.used);
    }
    rp_fake.used += n_bytes;
    rp_fake.most = rp_fake.used > rp_fake.most ? rp_fake.used : rp_fake.most;
    return RP_OK;
}

static bool fake_usable(void)
{
    return !rp_fake.absent;
}

static const char *fake_why_not(void)
{
    return "there is no fake GPU";
}

static void fake_info(void *self, rp_device_info *out)
{
    rp_backend_cpu.info(self, out);
    out->on_device = !rp_fake.host_memory;
    out->precisions = ALL_PRECISIONS & ~rp_fake.lacks; /* that it says: it computes in f32 */
    out->bytes_scratch_room = rp_fake.scratch_room;
    out->bytes_total = rp_fake.budget;
    out->bytes_free = rp_fake.budget - rp_fake.used;
    out->bytes_scratch = rp_fake.scratch;
    (void)snprintf(out->name, sizeof(out->name), "%s",
                   rp_fake.name != NULL ? rp_fake.name : "fake GPU");
    (void)snprintf(out->id, sizeof(out->id), "%s", rp_fake.id != NULL ? rp_fake.id : "");
}

static rp_status fake_alloc(void *self, size_t n_bytes, const char *what, void **out)
{
    void *mem = NULL;

    RP_TRY(take(n_bytes, what));
    const rp_status st = rp_backend_cpu.alloc(self, n_bytes + HEAD_BYTES, what, &mem);
    if (st != RP_OK) {
        rp_fake.used -= n_bytes;
        return st;
    }
    *(size_t *)mem = n_bytes;
    *out = (char *)mem + HEAD_BYTES;
    return RP_OK;
}

static rp_status fake_alloc_act(void *self, size_t n_elems, const char *what, void **out)
{
    return fake_alloc(self, n_elems * sizeof(float), what, out);
}

static void fake_release(void *self, void *mem)
{
    if (mem != NULL) {
        void *const head = (char *)mem - HEAD_BYTES;
        rp_fake.used -= *(size_t *)head;
        rp_backend_cpu.release(self, head);
    }
}

/* As a device that computes in f32 would keep it, whatever the file has. */
static size_t bytes_of(const rp_tensor *t)
{
    return (size_t)rp_tensor_elems(t) * sizeof(float);
}

static rp_status fake_weights_begin(void *self, rp_tensor *const *host, size_t n)
{
    (void)self;
    (void)host;
    (void)n;
    rp_fake.n_networks++;
    return RP_OK;
}

static rp_status fake_weight(void *self, const rp_tensor *host, rp_tensor *out)
{
    RP_TRY(take(bytes_of(host), "a weight"));
    return rp_backend_cpu.weight(self, host, out);
}

static void fake_weight_release(void *self, rp_tensor *weight)
{
    rp_fake.used -= weight->data != NULL ? bytes_of(weight) : 0;
    rp_backend_cpu.weight_release(self, weight);
}

/* ---- scratch: grows only, until it is trimmed */

static void drop_scratch(void)
{
    rp_fake.used -= rp_fake.scratch;
    rp_fake.scratch = 0;
}

static void fake_trim(void *self)
{
    rp_fake.n_trims++;
    drop_scratch();
    rp_backend_cpu.trim(self);
}

static void fake_close(void *self)
{
    drop_scratch();
    rp_backend_cpu.close(self);
}

static void fake_linear(void *self, const float *x, int t, int k, int x_stride,
                        const rp_tensor *const *w, int n_w, const rp_tensor *bias, float *out)
{
    rp_cpu *const cpu = self;
    const size_t need = (size_t)t * (size_t)k * rp_fake.scratch_of;

    if (need > rp_fake.scratch) {
        drop_scratch();
        const rp_status st = take(need, "scratch");
        if (st != RP_OK) {
            cpu->failed = cpu->failed == RP_OK ? st : cpu->failed;
            return;
        }
        rp_fake.scratch = need;
    }
    rp_backend_cpu.linear(self, x, t, k, x_stride, w, n_w, bias, out);
}

/* ---- failures to order */

enum { MARKS = 512 };

static int g_units_at[MARKS]; /* n_units when a mark was set */

static void fake_check_finite(void *self, const float *x, size_t n)
{
    rp_fake.n_units++;
    rp_backend_cpu.check_finite(self, x, n);
}

static void fake_to_bytes(void *self, const float *x, size_t hw, uint8_t *bytes)
{
    rp_fake.n_pictures++;
    rp_backend_cpu.to_bytes(self, x, hw, bytes);
}

static rp_status state_after(void *self, int n_units)
{
    if ((rp_fake.fail_unit > 0 && n_units >= rp_fake.fail_unit) ||
        (rp_fake.fail_picture > 0 && rp_fake.n_pictures >= rp_fake.fail_picture)) {
        return RP_FAIL(RP_E_CUDA, "GPU 0 (fake GPU, GPU-fake): kernels: an illegal memory access");
    }
    return rp_backend_cpu.sync(self);
}

static rp_status fake_sync(void *self)
{
    return state_after(self, rp_fake.n_units);
}

/* A device knows at a mark what has failed before it, and nothing of what was queued behind. */
static void fake_mark(void *self, int index)
{
    if (index >= 0 && index < MARKS) {
        g_units_at[index] = rp_fake.n_units;
    }
    rp_backend_cpu.mark(self, index);
}

static rp_status fake_wait(void *self, int index)
{
    return index >= 0 && index < MARKS ? state_after(self, g_units_at[index]) : fake_sync(self);
}

/* Before main: the list's row is a copy of the CPU's with these slots changed. */
static void __attribute__((constructor)) fill_table(void)
{
    rp_fake_ops = rp_backend_cpu;
    rp_fake_ops.name = "fake";
    rp_fake_ops.help = "for tests";
    rp_fake_ops.usable = fake_usable;
    rp_fake_ops.why_not = fake_why_not;
    rp_fake_ops.info = fake_info;
    rp_fake_ops.close = fake_close;
    rp_fake_ops.trim = fake_trim;
    rp_fake_ops.linear = fake_linear;
    rp_fake_ops.alloc = fake_alloc;
    rp_fake_ops.alloc_act = fake_alloc_act;
    rp_fake_ops.release = fake_release;
    rp_fake_ops.weights_begin = fake_weights_begin;
    rp_fake_ops.weight_place = fake_weight; /* the files are read all the same */
    rp_fake_ops.weight = fake_weight;
    rp_fake_ops.weight_release = fake_weight_release;
    rp_fake_ops.check_finite = fake_check_finite;
    rp_fake_ops.to_bytes = fake_to_bytes;
    rp_fake_ops.sync = fake_sync;
    rp_fake_ops.mark = fake_mark;
    rp_fake_ops.wait = fake_wait;
}
