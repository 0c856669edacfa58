/* cli_bench.h - the numbers of `rankpool bench`, and how they are shown. */
#ifndef RP_CLI_BENCH_H
#define RP_CLI_BENCH_H

#include "cli/cli_args.h"

#define RP_BENCH_MAX_REPEAT 1000
#define RP_BENCH_MAX_MODES  3

/* One residency; name is NULL when they are not compared. */
typedef struct {
    const char *name;
    int n;                                  /* jobs timed */
    double seconds[RP_BENCH_MAX_REPEAT];    /* of a whole job, prompt to picture */
    double per_second[RP_BENCH_MAX_REPEAT]; /* steps per second of its sampling */
    double step_ms[RP_BENCH_MAX_REPEAT];    /* median of its steps */
    double unit_ms[RP_BENCH_MAX_REPEAT];    /* median of one evaluation on rank 0 */
    double encode_ms[RP_BENCH_MAX_REPEAT];  /* prompts to conditions */
    double noise_ms[RP_BENCH_MAX_REPEAT];   /* the start: noise, or a file of latents */
    double load_ms[RP_BENCH_MAX_REPEAT];    /* conditions and noise levels to all ranks */
    double decode_ms[RP_BENCH_MAX_REPEAT];  /* latents to pixels, all images, on all ranks */
    double write_ms[RP_BENCH_MAX_REPEAT];   /* files */
    double idle_us[RP_BENCH_MAX_REPEAT];    /* median between two units on the GPU */
    double idle_us_max;                     /* of all timed jobs */
    int n_idle;                             /* jobs in idle_us; 0 without a GPU */
} rp_bench_mode;

/* Sums over all timed jobs: seconds, and units (model evaluations). unit: seconds that one takes on
 * this rank, as placement saw it at the end; 0 when not known. */
typedef struct {
    double busy, idle, wire, units, unit;
} rp_bench_rank;

typedef struct {
    const rp_cli_args *args;
    rp_settings *settings; /* of every job */
    bool quiet, compare;
    int repeat, warmup;
    rp_bench_mode modes[RP_BENCH_MAX_MODES];
    int n_modes;
    int n_ranks, n_images, width, height;
    rp_bench_rank *ranks; /* [n_ranks] */
    double began, open_seconds;
    double read_seconds, read_gb, connect_seconds, share_seconds, share_gb; /* of the start */
    char *timeline; /* of the last timed job, when asked for; free with rp_free */
} rp_bench;

/* To stdout. */
void rp_bench_print(rp_bench *bench);

/* The numbers as JSON; the file appears whole or not at all. RP_E_IO (logged). */
rp_status rp_bench_write_json(rp_bench *bench, const char *path);
/* bench->timeline, likewise. */
rp_status rp_bench_write_timeline(rp_bench *bench, const char *path);

#endif
