/* cpu_backend.c - the table of the CPU backend: scratch, open and close. */
#include "tensor/cpu/cpu.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

/* The least scratch of a thread: what ops with short rows need, reserved or not. */
#define MIN_SCRATCH_ELEMS 65536

static bool cpu_usable(void)
{
    return true;
}

static int cpu_n_devices(void)
{
    return 1;
}

static const char *cpu_why_not(void)
{
    return "";
}

static bool cpu_picture_rows(void *self)
{
    (void)self;
    return false;
}

static void cpu_pci(int device, char *out, size_t n_out)
{
    (void)device;
    if (n_out > 0) {
        out[0] = '\0';
    }
}

static void cpu_info(void *self, rp_device_info *out)
{
    (void)self;
    *out = (rp_device_info){.precision = "f32", .precisions = RP_PRECISION_BIT(RP_PRECISION_F32)};
}

static void free_scratch(float **scratch, int n_threads)
{
    for (int i = 0; scratch != NULL && i < n_threads; i++) {
        free(scratch[i]);
    }
    free(scratch);
}

static rp_status new_scratch(int n_threads, size_t elems, float ***scratch_out)
{
    void *list = NULL;

    RP_TRY(rp_mem_new((size_t)n_threads, sizeof(float *), "compute threads", &list));
    float **scratch = list;
    for (int i = 0; i < n_threads; i++) {
        void *mem = NULL;
        const rp_status st = rp_mem_new(elems, sizeof(float), "scratch of a compute thread", &mem);
        if (st != RP_OK) {
            free_scratch(scratch, n_threads);
            return st;
        }
        scratch[i] = mem;
    }
    *scratch_out = scratch;
    return RP_OK;
}

static void cpu_close(void *self)
{
    rp_cpu *cpu = self;

    if (cpu == NULL) {
        return;
    }
    rp_cpu_team_close(cpu->team);
    free_scratch(cpu->scratch, cpu->n_threads);
    free(cpu->conv_weight);
    free(cpu->made);
    free(cpu->marks);
    free(cpu);
}

static rp_status cpu_open(const rp_backend_params *params, void **self_out)
{
    void *mem = NULL;

    if (params->n_threads < 1) {
        return RP_FAIL(RP_E_ARG, "cpu backend: %d threads; at least 1", params->n_threads);
    }
    if (params->precision > RP_PRECISION_F32) {
        return RP_FAIL(RP_E_UNSUP,
                       "precision %s: the CPU computes in f32 (--precision f32 or auto)",
                       rp_precision_name(params->precision));
    }
    RP_TRY(rp_mem_new(1, sizeof(rp_cpu), "cpu backend", &mem));
    rp_cpu *cpu = mem;
    rp_status st = RP_OK;
    cpu->n_threads = params->n_threads;
    RP_TRY_OUT(rp_cpu_team_open(cpu->n_threads, &cpu->team));
    RP_TRY_OUT(rp_cpu_grow_scratch(cpu, MIN_SCRATCH_ELEMS));
    /* Our tasks are the parallelism: a product inside one of them must not start threads. */
    openblas_set_num_threads(1);
    *self_out = cpu;
    return RP_OK;
out:
    cpu_close(cpu);
    return st;
}

/* The new threads and scratch are there before the old ones go: a failure leaves all as it was. */
static rp_status cpu_restart(void *self)
{
    rp_cpu *cpu = self;
    rp_cpu_team *team = NULL;
    float **scratch = NULL;

    RP_TRY(rp_cpu_team_open(cpu->n_threads, &team));
    const rp_status st = new_scratch(cpu->n_threads, cpu->scratch_elems, &scratch);
    if (st != RP_OK) {
        rp_cpu_team_close(team);
        return st;
    }
    rp_cpu_team_close(cpu->team);
    free_scratch(cpu->scratch, cpu->n_threads);
    cpu->team = team;
    cpu->scratch = scratch;
    return RP_OK;
}

rp_status rp_cpu_grow_scratch(rp_cpu *cpu, size_t elems)
{
    float **scratch = NULL;

    if (elems <= cpu->scratch_elems) {
        return RP_OK;
    }
    RP_TRY(new_scratch(cpu->n_threads, elems, &scratch));
    free_scratch(cpu->scratch, cpu->n_threads);
    cpu->scratch = scratch;
    cpu->scratch_elems = elems;
    return RP_OK;
}

bool rp_cpu_has_scratch(rp_cpu *cpu, size_t elems, const char *op)
{
    if (elems <= cpu->scratch_elems) {
        return true;
    }
    if (cpu->failed == RP_OK) {
        cpu->failed = RP_FAIL(RP_E_ARG, "%s needs scratch of %zu elements, %zu are reserved", op,
                              elems, cpu->scratch_elems);
    }
    return false;
}

static rp_status cpu_reserve(void *self, int k_max, int n_kv_max, int head_dim_max)
{
    const int k = k_max > head_dim_max ? k_max : head_dim_max;
    /* a panel of a weight [cols, k], or the scores of a block of queries [queries, n_kv] */
    const size_t panel = (size_t)RP_CPU_COLS * (size_t)k;
    const size_t scores = (size_t)RP_CPU_QUERIES * (size_t)n_kv_max;

    return rp_cpu_grow_scratch(self, panel > scores ? panel : scores);
}

/* Ops may count on what reserve() made, and host memory is not what runs short: scratch stays. */
static void cpu_trim(void *self)
{
    (void)self;
}

/* Ops return when they are done: there is nothing to wait for. */
static rp_status cpu_sync(void *self)
{
    rp_cpu *cpu = self;
    const rp_status st = cpu->failed;

    cpu->failed = RP_OK;
    return st;
}

/* Ops are done when they return. */
static rp_status cpu_wait(void *self, int index)
{
    (void)index;
    return cpu_sync(self);
}

static rp_status cpu_peek(void *self)
{
    return ((const rp_cpu *)self)->failed;
}

/* An op costs no launch here: there is nothing to record. */
static bool cpu_replay(void *self, uint64_t key)
{
    (void)self;
    (void)key;
    return false;
}

static void cpu_recorded(void *self)
{
    (void)self;
}

const rp_backend_ops rp_backend_cpu = {
    .name = "cpu",
    .help = "threads of this machine's processor",
    .usable = cpu_usable,
    .n_devices = cpu_n_devices,
    .why_not = cpu_why_not,
    .pci = cpu_pci,
    .info = cpu_info,
    .open = cpu_open,
    .close = cpu_close,
    .restart = cpu_restart,
    .reserve = cpu_reserve,
    .trim = cpu_trim,
    .alloc = rp_cpu_alloc,
    .alloc_act = rp_cpu_alloc_act,
    .release = rp_cpu_release,
    .alloc_host = rp_cpu_alloc,
    .release_host = rp_cpu_release,
    .put = rp_cpu_put,
    .get = rp_cpu_get,
    .copy = rp_cpu_copy,
    .weights_begin = rp_cpu_weights_begin,
    .weights_span = rp_cpu_weights_span,
    .weight_place = rp_cpu_weight_place,
    .weight = rp_cpu_weight,
    .weight_release = rp_cpu_weight_release,
    .weight_fill = rp_cpu_weight_fill,
    .sync = cpu_sync,
    .peek = cpu_peek,
    .replay = cpu_replay,
    .recorded = cpu_recorded,
    .check_finite = rp_cpu_check_finite,
    .copy_rows = rp_cpu_copy_rows,
    .combine = rp_vec_host_combine,
    .project = rp_vec_host_project,
    .extrapolate = rp_vec_host_extrapolate,
    .marks_reserve = rp_cpu_marks_reserve,
    .mark = rp_cpu_mark,
    .wait = cpu_wait,
    .marks_read = rp_cpu_marks_read,
    .embed = rp_cpu_embed,
    .linear = rp_cpu_linear,
    .gated_linear = rp_cpu_gated_linear,
    .attention = rp_cpu_attention,
    .rms_norm = rp_cpu_rms_norm,
    .add_rms_norm = rp_cpu_add_rms_norm,
    .add_rms_norm_rms_norm = rp_cpu_add_rms_norm_rms_norm,
    .layer_norm = rp_cpu_layer_norm,
    .head_norm_rope = rp_cpu_head_norm_rope,
    .swiglu = rp_cpu_swiglu,
    .geglu = rp_cpu_geglu,
    .silu = rp_cpu_silu,
    .add = rp_cpu_add,
    .patchify = rp_cpu_patchify,
    .unpatchify = rp_cpu_unpatchify,
    .picture_rows = cpu_picture_rows,
    .conv2d = rp_cpu_conv2d,
    .group_norm = rp_cpu_group_norm,
    .transpose = rp_cpu_transpose,
    .to_bytes = rp_cpu_to_bytes,
};
