/* job_info.c - what this build and machine have, and what each rank is bound to, for a person. */
#include "job/job_resident.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "job/job_build.h"
#include "job/job_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One rank's line of the table. */
typedef struct {
    char cores[96], cpu[96], backend[16], device[160];
    int32_t n_cores, n_threads, n_numa;
} rank_line;

static void build_text(FILE *out)
{
    uint8_t id[RP_BUILD_ID_BYTES];

    rp_build_id(id);
    (void)fprintf(out, "rankpool %s, build ", rp_version());
    for (int i = 0; i < 6; i++) {
        (void)fprintf(out, "%02x", id[i]);
    }
    (void)fprintf(out, "\n  MPI         %s\n",
#ifdef RP_HAVE_MPI
                  "yes"
#else
                  "no: this build has one rank"
#endif
    );
    (void)fprintf(out, "  backends    %s\n", rp_options_backends() + strlen("auto|"));
    (void)fprintf(out, "  transports  %s\n", rp_options_transports() + strlen("auto|"));
    (void)fprintf(out, "  samplers    %s\n", rp_options_samplers());
    (void)fprintf(out, "  schedules   %s\n", rp_options_schedules());
    (void)fprintf(out, "  guiders     %s\n", rp_options_guiders());
}

static void machine_text(FILE *out)
{
    rp_topo topo;

    if (rp_topo_read(&topo) == RP_OK) {
        (void)fprintf(out, "machine\n  processor   %s\n  cores       %d, of which this process may use %d (%s)\n",
                      topo.cpu[0] != '\0' ? topo.cpu : "unknown", topo.n_machine_cores, topo.n_cores,
                      topo.cores);
        (void)fprintf(out, "  NUMA nodes  %d\n", topo.n_numa);
    }
}

static void line_of(const rankpool *pool, rank_line *line)
{
    memset(line, 0, sizeof(*line));
    memcpy(line->cores, pool->topo.cores, sizeof(line->cores));
    memcpy(line->cpu, pool->topo.cpu, sizeof(line->cpu));
    (void)snprintf(line->backend, sizeof(line->backend), "%s", pool->backend.ops->name);
    if (pool->device.on_device) {
        (void)snprintf(line->device, sizeof(line->device), "  %s, %s, %.0f of %.0f GB free", pool->device.name,
                       pool->device.precision, (double)pool->device.bytes_free * 1e-9,
                       (double)pool->device.bytes_total * 1e-9);
    }
    line->n_cores   = pool->topo.n_cores;
    line->n_threads = pool->n_threads;
    line->n_numa    = pool->topo.n_numa;
}

/* "read 10.5 GB in 1.3 s (8.1 GB/s), connected in 0.6 s, sent 5.2 GB in 0.2 s (26 GB/s)" */
static void start_text(FILE *out, const rankpool *pool)
{
    const rp_pipeline *p = &pool->pipeline;
    const double read    = (double)p->bytes_read * 1e-9;
    const double sent    = (double)pool->weights_bytes * 1e-9;

    if (!p->on_device) {
        return;
    }
    (void)fprintf(out, "  read %.2f GB in %.2f s (%.1f GB/s)", read, p->read_seconds,
                  read / p->read_seconds);
    if (rp_ctrl_n_ranks(pool->ctrl) > 1) {
        (void)fprintf(out, ", connected in %.2f s", pool->connect_seconds);
    }
    if (pool->share_seconds > 0) {
        (void)fprintf(out, ", sent %.2f GB in %.2f s (%.1f GB/s)", sent, pool->share_seconds,
                      sent / pool->share_seconds);
    }
    (void)fprintf(out, "\n");
}

static void ranks_text(FILE *out, const rankpool *pool, const rank_line *lines)
{
    (void)fprintf(out, "pool\n  control %s, transport %s, model %s (%.1f M parameters)\n",
                  rp_ctrl_kind(pool->ctrl), pool->xport->name, pool->pipeline.dir,
                  (double)pool->pipeline.denoiser_info.n_params * 1e-6);
    start_text(out, pool);
    (void)fprintf(out, "  rank  host              device  threads  may run on\n");
    for (int r = 0; r < rp_ctrl_n_ranks(pool->ctrl); r++) {
        (void)fprintf(out, "  %4d  %-16.16s  %-6s  %7d  %d core%s (%s)%s\n", r, rp_ctrl_host(pool->ctrl, r),
                      lines[r].backend, (int)lines[r].n_threads, (int)lines[r].n_cores,
                      lines[r].n_cores == 1 ? "" : "s", lines[r].cores, lines[r].device);
    }
}

/* All ranks know all lines, so all have the same text. */
static rp_status gather_lines(rankpool *pool, rank_line **lines_out)
{
    rank_line mine;
    rank_line *lines = NULL;

    line_of(pool, &mine);
    RP_TRY(rp_mem_new((size_t)rp_ctrl_n_ranks(pool->ctrl), sizeof(*lines), "ranks", (void **)&lines));
    const rp_status st = rp_ctrl_allgather(pool->ctrl, &mine, sizeof(mine), lines);
    if (st != RP_OK) {
        free(lines);
        return st;
    }
    *lines_out = lines;
    return RP_OK;
}

rp_status rp_info_answer(rankpool *pool)
{
    rank_line *lines = NULL;

    RP_TRY(gather_lines(pool, &lines));
    free(lines);
    return RP_OK;
}

char *rp_info_text(rankpool *pool)
{
    rank_line *lines = NULL;
    char *text       = NULL;
    size_t n_bytes   = 0;

    if (pool != NULL && (rp_resident_tell(pool, &(int32_t){RP_MSG_INFO}, 1) != RP_OK ||
                         gather_lines(pool, &lines) != RP_OK)) {
        return NULL;
    }
    FILE *out = open_memstream(&text, &n_bytes);
    if (out != NULL) {
        build_text(out);
        machine_text(out);
        if (pool != NULL) {
            ranks_text(out, pool, lines);
        }
        (void)fclose(out);
    }
    free(lines);
    return text;
}
