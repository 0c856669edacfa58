/* job_info.c - what this build and machine have, and what each rank is bound to, for a person. */
#include "job/job_resident.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "job/job_build.h"
#include "job/job_device.h"
#include "job/job_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One rank's line of the table. */
typedef struct {
    char may_run_on[64], numa[32], nic[32], device[240], visible[160];
    int32_t n_threads;
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

static void machine_text(FILE *out, const rp_topo *topo)
{
    (void)fprintf(
        out, "machine\n  processor   %s\n  cores       %d, of which this process may use %d (%s)\n",
        topo->cpu[0] != '\0' ? topo->cpu : "unknown", topo->n_machine_cores, topo->n_cores,
        topo->mask);
    (void)fprintf(out, "  NUMA nodes  %d\n", topo->n_numa);
}

/* Without a pool. */
static void bare_machine_text(FILE *out)
{
    rp_topo_machine *machine = NULL;
    rp_topo topo;

    if (rp_topo_open(NULL, &machine) == RP_OK && rp_topo_read(machine, &topo) == RP_OK) {
        machine_text(out, &topo);
    }
    rp_topo_close(machine);
}

/* "  sees GPUs 4,5, takes 5": what Slurm gave this rank, whether or not this build computes on it.
 */
static void visible_text(const rankpool *pool, char *text, size_t n_bytes)
{
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    int n = 1;

    if (list == NULL || list[0] == '\0') {
        return;
    }
    for (const char *c = list; *c != '\0'; c++) {
        n += *c == ',';
    }
    const char *mine = list;
    for (int i = rp_device_index(rp_ctrl_local_rank(pool->ctrl), n); i > 0; i--) {
        mine = strchr(mine, ',') + 1;
    }
    (void)snprintf(text, n_bytes, "  sees GPU%s %.60s, takes %.*s", n == 1 ? "" : "s", list,
                   (int)strcspn(mine, ","), mine);
}

static const char *or_dash(const char *text)
{
    return text[0] != '\0' ? text : "-";
}

static void line_of(const rankpool *pool, rank_line *line)
{
    const rp_topo_place *place = &pool->place;
    const rp_device_info *dev = &pool->device;

    memset(line, 0, sizeof(*line));
    (void)snprintf(line->may_run_on, sizeof(line->may_run_on), "%d core%s (%.40s%s)",
                   place->n_cores, place->n_cores == 1 ? "" : "s", place->cpus,
                   strlen(place->cpus) > 40 ? "..." : "");
    (void)snprintf(line->numa, sizeof(line->numa), "%s", or_dash(place->numa));
    (void)snprintf(line->nic, sizeof(line->nic), "%s", or_dash(place->nic));
    (void)snprintf(line->device, sizeof(line->device), "%s", pool->backend.ops->name);
    if (dev->on_device) {
        (void)snprintf(line->device, sizeof(line->device), "%s, %s, %s, %s, %.0f of %.0f GB free",
                       dev->name, dev->id, dev->pci, dev->precision, (double)dev->bytes_free * 1e-9,
                       (double)dev->bytes_total * 1e-9);
    }
    visible_text(pool, line->visible, sizeof(line->visible));
    line->n_threads = pool->n_threads;
}

static int widest(int width, const char *text)
{
    const int n = (int)strlen(text);

    return n > width ? n : width;
}

/* "read 10.5 GB in 1.3 s (8.1 GB/s), connected in 0.6 s, sent 5.2 GB in 0.2 s (26 GB/s)" */
static void start_text(FILE *out, const rankpool *pool)
{
    const rp_pipeline *p = &pool->pipeline;
    const double read = (double)p->bytes_read * 1e-9;
    const double sent = (double)pool->weights_bytes * 1e-9;

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

/* Columns as wide as what is in them; the device, which may be long, comes last. */
static void table_text(FILE *out, const rankpool *pool, const rank_line *lines)
{
    const int n = rp_ctrl_n_ranks(pool->ctrl);
    int host = 4, numa = 4, cores = 10, nic = 3;

    for (int r = 0; r < n; r++) {
        host = widest(host, rp_ctrl_host(pool->ctrl, r));
        numa = widest(numa, lines[r].numa);
        cores = widest(cores, lines[r].may_run_on);
        nic = widest(nic, lines[r].nic);
    }
    (void)fprintf(out, "  rank  %-*s  %-*s  threads  %-*s  %-*s  device\n", host, "host", numa,
                  "NUMA", cores, "may run on", nic, "NIC");
    for (int r = 0; r < n; r++) {
        (void)fprintf(out, "  %4d  %-*s  %-*s  %7d  %-*s  %-*s  %s%s\n", r, host,
                      rp_ctrl_host(pool->ctrl, r), numa, lines[r].numa, (int)lines[r].n_threads,
                      cores, lines[r].may_run_on, nic, lines[r].nic, lines[r].device,
                      lines[r].visible);
    }
}

static void pool_text(FILE *out, const rankpool *pool, const rank_line *lines)
{
    (void)fprintf(out, "pool\n  control %s, transport %s, model %s (%.1f M parameters)\n",
                  rp_ctrl_kind(pool->ctrl), pool->xport->name, pool->pipeline.dir,
                  (double)pool->pipeline.denoiser_info.n_params * 1e-6);
    start_text(out, pool);
    table_text(out, pool, lines);
}

/* All ranks know all lines, so all have the same text. */
static rp_status gather_lines(rankpool *pool, rank_line **lines_out)
{
    rank_line mine;
    rank_line *lines = NULL;

    line_of(pool, &mine);
    RP_TRY(
        rp_mem_new((size_t)rp_ctrl_n_ranks(pool->ctrl), sizeof(*lines), "ranks", (void **)&lines));
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

/* Rank 0; the others serve. */
static rp_status ask_ranks(rankpool *pool, rank_line **lines_out)
{
    RP_TRY(rp_resident_tell(pool, &(int32_t){RP_MSG_INFO}, 1));
    return gather_lines(pool, lines_out);
}

char *rp_info_text(rankpool *pool)
{
    rank_line *lines = NULL;
    char *text = NULL;
    size_t n_bytes = 0;

    if (pool != NULL && ask_ranks(pool, &lines) != RP_OK) {
        return NULL;
    }
    FILE *out = open_memstream(&text, &n_bytes);
    if (out != NULL) {
        build_text(out);
        if (pool != NULL) {
            machine_text(out, &pool->topo);
            pool_text(out, pool, lines);
        } else {
            bare_machine_text(out);
        }
        (void)fclose(out);
    }
    free(lines);
    return text;
}

char *rp_ranks_text(rankpool *pool)
{
    rank_line *lines = NULL;
    char *text = NULL;
    size_t n_bytes = 0;

    const bool one_of_cores = rp_ctrl_n_ranks(pool->ctrl) == 1 && !pool->device.on_device;
    if ((one_of_cores && !pool->show_ranks) || ask_ranks(pool, &lines) != RP_OK) {
        return NULL;
    }
    FILE *out = open_memstream(&text, &n_bytes);
    if (out != NULL) {
        table_text(out, pool, lines);
        (void)fclose(out);
    }
    free(lines);
    return text;
}
