/*
 * rankpool.h - pictures from a diffusion model on a resident pool of ranks.
 *
 *     #include <rankpool/rankpool.h>
 *
 *     int main(void)
 *     {
 *         rankpool *pool = NULL;
 *         rp_settings *job = rp_settings_new();
 *
 *         rp_settings_set(job, "prompt", "red heart");
 *         rp_settings_set(job, "out", "heart.png");
 *         rp_status st = rp_open(job, &pool);
 *         if (st == RP_OK) {
 *             st = rp_rank(pool) == 0 ? rp_generate(pool, job, NULL, NULL) : rp_serve(pool);
 *         }
 *         rp_close(pool);
 *         rp_settings_free(job);
 *         return st == RP_OK ? 0 : 1;
 *     }
 *
 * The same program is one rank when it is started alone and N ranks under
 * `mpirun -n N`. Two objects exist: settings (option names and values) and the
 * pool (this process's share of the ranks, with the model resident in it).
 * Rank 0 generates; every other rank serves until rank 0 closes.
 *
 * The header is narrow on purpose: settings are named by the rows that
 * `rankpool sample --help` prints, so a new option needs no new function; and
 * neither MPI nor any other library shows through.
 *
 * Errors: whoever finds one logs it once (stderr, or the function given to
 * rp_set_log) and returns a negative rp_status. Output arguments are written on
 * success only. close and free accept NULL and cannot fail.
 *
 * Threads: one pool per process, used from the thread that opened it.
 */
#ifndef RANKPOOL_H
#define RANKPOOL_H

#include <stddef.h>
#include <stdint.h>

#include <rankpool/status.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define RP_API __attribute__((visibility("default")))
#else
#define RP_API
#endif

#define RP_VERSION_MAJOR 0
#define RP_VERSION_MINOR 1
#define RP_VERSION_PATCH 0
#define RP_VERSION       "0.1.0"

typedef struct rankpool rankpool;
typedef struct rp_settings rp_settings;
typedef struct rp_result rp_result;

/* Version of the library that was linked, as "0.1.0"; compare with RP_VERSION. Static storage. */
RP_API const char *rp_version(void);

/* One English clause for a status; never NULL. Static storage. */
RP_API const char *rp_status_text(rp_status status);

/* ------------------------------------------------------------------ log */

typedef enum { RP_LOG_ERROR, RP_LOG_WARN, RP_LOG_INFO } rp_log_level;

/* One line without a newline. May be called from a thread of the library's own. */
typedef void (*rp_log_fn)(void *arg, rp_log_level level, const char *line);

/* Send log lines to `fn` instead of stderr; NULL restores stderr. */
RP_API void rp_set_log(rp_log_fn fn, void *arg);

/* ------------------------------------------------------------- settings */

/* What `--help` prints about one option; static storage. */
typedef struct {
    const char *name;  /* "guidance"; the flag is --guidance, the job key "guidance" */
    const char *env;   /* "RANKPOOL_GUIDANCE" */
    const char *meta;  /* what stands for the value in help: "X", "FILE.png" */
    const char *def;   /* default as text; "" for none */
    const char *range; /* "0 to 100", "on|off", "" for any text */
    const char *help;  /* one sentence */
    const char *group; /* heading in --help */
    int is_switch;     /* on|off option that may stand without a value */
    int per_run;       /* fixed when the pool opens: refused as a key of a job line */
} rp_option_info;

/* All options, in the order of --help. rp_option_at: NULL past the end. */
RP_API size_t rp_option_count(void);
RP_API const rp_option_info *rp_option_at(size_t index);

/* Defaults, then the environment (RANKPOOL_*); a bad environment value is reported by rp_open or
 * rp_generate. NULL when out of memory. Free with rp_settings_free. */
RP_API rp_settings *rp_settings_new(void);
RP_API rp_settings *rp_settings_copy(const rp_settings *settings);
RP_API void rp_settings_free(rp_settings *settings);

/* Set one option from text. RP_E_ABSENT: no such option (the log names the nearest); RP_E_ARG: the
 * value is not allowed (the log says what is). The settings are unchanged on error. */
RP_API rp_status rp_settings_set(rp_settings *settings, const char *name, const char *value);

/* Value as text, as rp_settings_set would take it. NULL: no such option. Valid until the option is
 * set again or the settings are freed. */
RP_API const char *rp_settings_get(const rp_settings *settings, const char *name);

/* Set options from one JSON object, a line of a batch file: {"prompt": "sun", "steps": 20}. All or
 * nothing. RP_E_FORMAT: not a JSON object; else as rp_settings_set. */
RP_API rp_status rp_settings_set_json(rp_settings *settings, const char *json);

/* Set options from the text chunks of a PNG that rankpool wrote (not its output name). RP_E_IO,
 * RP_E_FORMAT (no PNG, or none of ours), or as rp_settings_set. */
RP_API rp_status rp_settings_set_png(rp_settings *settings, const char *path);

/* ----------------------------------------------------------------- pool */

/*
 * Join the pool: MPI up when a launcher started several ranks, device bound, transport connected,
 * weights mapped, buffers warm. Collective: every rank calls it with the same settings, and all get
 * the same status. Release with rp_close, also after a failed rp_generate or rp_serve.
 */
RP_API rp_status rp_open(const rp_settings *settings, rankpool **pool_out);

/* Collective. Releases everything; rank 0's call ends rp_serve on the others. NULL is allowed. */
RP_API void rp_close(rankpool *pool);

/* This process's rank, 0 <= rank < rp_n_ranks. 0 and 1 for NULL. */
RP_API int rp_rank(const rankpool *pool);
RP_API int rp_n_ranks(const rankpool *pool);

/* Ranks > 0: evaluate what rank 0 sends until it closes (RP_OK) or a rank fails (that status).
 * RP_E_ARG on rank 0. */
RP_API rp_status rp_serve(rankpool *pool);

/* Called on rank 0 between steps; keep it short. */
typedef struct {
    int step, n_steps; /* steps done, steps of this job */
    int n_images;
    double seconds;          /* since the first step began */
    double steps_per_second; /* all steps so far; 0 before the first is done */
    const char *phase;       /* "encode", "sample", "decode", "write" */
} rp_progress;

/* Non-zero return cancels the job at the next step: rp_generate returns RP_E_CANCEL. */
typedef int (*rp_progress_fn)(void *arg, const rp_progress *progress);

/* The latents after a step, for previews: [images, channels, h, w] = shape, f32, borrowed for the
 * call. */
typedef void (*rp_latents_fn)(void *arg, int step, const float *latents, const int shape[4]);

typedef struct {
    rp_progress_fn progress; /* or NULL */
    void *arg;
    rp_latents_fn latents; /* or NULL; with the same arg */
} rp_hooks;

/*
 * Rank 0: run one job and write the files that its settings name ("out", "latents-out", "report",
 * "trace").
 *   hooks       or NULL
 *   result_out  or NULL; the pictures and numbers in memory, freed with rp_result_free
 * Files appear under their names whole or not at all. A job that its hook cancels between two steps
 * leaves its state in the file that "checkpoint" names, if any; the same job later goes on from
 * there. After RP_E_ARG, RP_E_IO, RP_E_EXISTS, RP_E_FORMAT, RP_E_CANCEL the pool still serves;
 * after any other error close it.
 */
RP_API rp_status rp_generate(rankpool *pool, const rp_settings *job, const rp_hooks *hooks,
                             rp_result **result_out);

/* --------------------------------------------------------------- result */

RP_API void rp_result_free(rp_result *result);
RP_API int rp_result_n_images(const rp_result *result);

/* Picture i: [height, width, 3] bytes, RGB, row by row. Borrowed; NULL out of range. */
RP_API const uint8_t *rp_result_rgb(const rp_result *result, int i, int *width_out,
                                    int *height_out);

/* The report as JSON text, what --report writes: settings, seconds per step, it/s, and per rank
 * busy, idle and wire seconds, units, and what a unit takes there (null while too few were timed).
 * Borrowed. */
RP_API const char *rp_result_report(const rp_result *result);

/* When rank 0's units ran on its device, as a trace in Chrome's JSON format (Perfetto opens it).
 * NULL when out of memory. Free with rp_free. */
RP_API char *rp_result_timeline(const rp_result *result);

/* One number of the report: "sample_seconds", "steps_per_second", "total_seconds",
 * "encode_seconds", "noise_seconds", "load_seconds" (conditions and noise levels to all ranks, and
 * what each computes of them), "decode_seconds" (all pictures, from all ranks), "open_seconds";
 * "step_ms", and "unit_ms" of one evaluation on rank 0: medians of the job's; "gpu_idle_us" and
 * "gpu_idle_us_max" between two of them, with a GPU. Of opening: "read_seconds", "read_gb" (rank
 * 0's files), "connect_seconds", "share_seconds", "share_gb" (to other GPUs); "warm_seconds" more
 * than the median in the first two steps. NaN: no such name, or not measured. */
RP_API double rp_result_number(const rp_result *result, const char *name);

/* ---------------------------------------------------------- information */

/* A registry's rows: kind is "samplers", "schedules", "guiders", "models", "transports" or
 * "backends". RP_E_ABSENT past the end or for another kind. Static storage. */
RP_API rp_status rp_list(const char *kind, size_t index, const char **name_out,
                         const char **help_out);

/* What this build and this machine have and, with a pool, what each rank is bound to, as text for a
 * person. With a pool: called on rank 0 while the others serve. NULL on failure (logged). Free with
 * rp_free. */
RP_API char *rp_info(rankpool *pool);

/* The part of rp_info with a line for each rank: host, NUMA node, threads, cores, network card,
 * device. Called as rp_info. NULL also where there is nothing to tell: one rank on a CPU, unless
 * the option bind is print. */
RP_API char *rp_ranks(rankpool *pool);
RP_API void rp_free(void *text);

/* Write pictures of equal size side by side into one PNG.
 *   rgb      n pictures of [height, width, 3] bytes
 *   columns  1 <= columns
 * RP_E_ARG, RP_E_EXISTS (overwrite 0 and the file is there), RP_E_IO. */
RP_API rp_status rp_write_sheet(const char *path, const uint8_t *const *rgb, int n, int width,
                                int height, int columns, int overwrite);

#ifdef __cplusplus
}
#endif
#endif
