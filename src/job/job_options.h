/*
 * job_options.h - THE table of options: one row is the flag, the job key, the environment variable,
 * the default, the range and the help of one option.
 *
 * A row: X(ID, "name", kind, "META", "default", min, max, choices, flags, group, "help")
 *   default  "" means "not set": the job decides (native size, all cores)
 *   choices  function that gives "a|b|c" for kind CHOICE, else NULL
 *   flags    RUN: fixed when the pool opens;  PICTURE: belongs in the picture's text chunk
 */
#ifndef RP_JOB_OPTIONS_H
#define RP_JOB_OPTIONS_H

#include <rankpool/rankpool.h>

#include <stdbool.h>

#define RP_GROUP_BENCH "measuring" /* heading of rows that only `rankpool bench` takes */

#define RP_SYSTEM_PROMPT                                                                           \
    "You are an assistant designed to generate superior images with the superior degree of "       \
    "image-text alignment based on textual prompts or user prompts."

typedef enum {
    RP_OPT_TEXT,
    RP_OPT_INT,
    RP_OPT_U64,
    RP_OPT_REAL,
    RP_OPT_SWITCH,
    RP_OPT_CHOICE
} rp_option_kind;

enum { RP_OPT_RUN = 1, RP_OPT_PICTURE = 2 };

/* clang-format off */
#define RP_OPTION_MAP(X) \
    X(PROMPT, "prompt", TEXT, "TEXT", "", 0, 0, NULL, PICTURE, "picture", \
      "what the picture shows; empty is allowed") \
    X(NEGATIVE, "negative", TEXT, "TEXT", "", 0, 0, NULL, PICTURE, "picture", \
      "what guidance steers away from") \
    X(SEED, "seed", U64, "N", "0", 0, 0, NULL, PICTURE, "picture", \
      "seed of the noise, as torch.manual_seed; image i of a job has seed N + i") \
    X(IMAGES, "images", INT, "N", "1", 1, 1024, NULL, NONE, "picture", \
      "how many pictures, all in flight as units of the same waves") \
    X(WIDTH, "width", INT, "PX", "", 8, 16384, NULL, PICTURE, "picture", \
      "width in pixels; default: the model's own size") \
    X(HEIGHT, "height", INT, "PX", "", 8, 16384, NULL, PICTURE, "picture", \
      "height in pixels; default: the model's own size") \
    X(OUT, "out", TEXT, "FILE.png", "rankpool.png", 0, 0, NULL, NONE, "files", \
      "where the picture goes; with N images FILE-0000.png, FILE-0001.png ...") \
    X(OVERWRITE, "overwrite", SWITCH, "", "off", 0, 0, NULL, NONE, "files", \
      "replace outputs that exist") \
    X(LATENTS_IN, "latents-in", TEXT, "FILE.safetensors", "", 0, 0, NULL, NONE, "files", \
      "start from the tensor 'latents' [images, c, h, w] instead of noise") \
    X(LATENTS_OUT, "latents-out", TEXT, "FILE.safetensors", "", 0, 0, NULL, NONE, "files", \
      "write the final latents [images, c, h, w]") \
    X(REPORT, "report", TEXT, "FILE.json", "", 0, 0, NULL, NONE, "files", \
      "write settings, seconds per step, it/s, and busy, idle and wire seconds per rank") \
    X(CHECKPOINT, "checkpoint", TEXT, "FILE", "", 0, 0, NULL, NONE, "files", \
      "where a job that is ended early leaves its state; the next start goes on from there") \
    X(TRACE, "trace", TEXT, "FILE.json", "", 0, 0, NULL, NONE, "files", \
      "write what every rank did when, for ui.perfetto.dev: each unit, scatter, gather, merge, decode, waiting") \
    X(STEPS, "steps", INT, "N", "30", 1, 1000, NULL, PICTURE, "sampling", \
      "sampling steps") \
    X(GUIDANCE, "guidance", REAL, "X", "4", 0, 100, NULL, PICTURE, "sampling", \
      "guidance scale; 1 or less turns guidance off and halves the work") \
    X(GUIDANCE_RENORM, "guidance-renorm", SWITCH, "", "on", 0, 0, NULL, PICTURE, "sampling", \
      "rescale the guided prediction to the norm of the conditional one (diffusers' cfg_normalization)") \
    X(GUIDANCE_TRUNCATION, "guidance-truncation", REAL, "X", "1", 0, 1, NULL, PICTURE, "sampling", \
      "guide only the first share X of the steps (diffusers' cfg_trunc_ratio)") \
    X(GUIDER, "guider", CHOICE, "NAME", "cfg", 0, 0, rp_options_guiders, PICTURE, "sampling", \
      "how predictions are merged; see rankpool list guiders") \
    X(SAMPLER, "sampler", CHOICE, "NAME", "euler", 0, 0, rp_options_samplers, PICTURE, "sampling", \
      "how predictions become the next latents; see rankpool list samplers") \
    X(SCHEDULE, "schedule", CHOICE, "NAME", "flow", 0, 0, rp_options_schedules, PICTURE, "sampling", \
      "which noise levels are stepped through; see rankpool list schedules") \
    X(SHIFT, "shift", REAL, "X", "", 0.01, 1000, NULL, PICTURE, "sampling", \
      "shift of the noise levels; default: as the model's scheduler config says") \
    X(SYSTEM_PROMPT, "system-prompt", TEXT, "TEXT", RP_SYSTEM_PROMPT, 0, 0, NULL, PICTURE, "text", \
      "put before the prompt with ' <Prompt Start> '; empty for none") \
    X(MAX_TOKENS, "max-tokens", INT, "N", "256", 1, 65536, NULL, PICTURE, "text", \
      "longest prompt in tokens; what is over is cut with a warning") \
    X(SOFTCAP, "softcap", SWITCH, "", "off", 0, 0, NULL, PICTURE, "text", \
      "attention soft-capping in the text encoder (diffusers leaves it out)") \
    X(MODEL, "model", TEXT, "DIR", "", 0, 0, NULL, RUN, "pool", \
      "pipeline folder in diffusers' layout; default: the shipped emoji model") \
    X(THREADS, "threads", INT, "N", "", 1, 1024, NULL, RUN, "pool", \
      "threads per rank; default: the cores that --bind gives this rank") \
    X(BIND, "bind", CHOICE, "HOW", "auto", 0, 0, rp_options_bind, RUN, "pool", \
      "auto: each rank to its share of the cores it may use, near its device; none: as the launcher left it; " \
      "print: auto, and print the table of ranks also for one rank on a CPU") \
    X(BACKEND, "backend", CHOICE, "NAME", "auto", 0, 0, rp_options_backends, RUN, "pool", \
      "device that evaluates; see rankpool list backends") \
    X(PRECISION, "precision", CHOICE, "TYPE", "auto", 0, 0, rp_options_precisions, RUN, "pool", \
      "type that activations and matrices have; auto: bf16 on a GPU, f32 on the CPU; " \
      "fp8: matrices of the blocks in 8 bits; fp8-attention: attention too, a little faster, less exact") \
    X(ALLOW_SHARED_GPU, "allow-shared-gpu", SWITCH, "", "off", 0, 0, NULL, RUN, "pool", \
      "let several ranks use one GPU (they take turns: for tests, not for speed)") \
    X(TRANSPORT, "transport", CHOICE, "NAME", "auto", 0, 0, rp_options_transports, RUN, "pool", \
      "how latents and predictions travel; see rankpool list transports") \
    X(RESIDENCY, "residency", CHOICE, "WHEN", "run", 0, 0, rp_options_residency, NONE, "pool", \
      "keep the pool for the run, or open it again for every job or step (for comparison)") \
    X(QUIET, "quiet", SWITCH, "", "off", 0, 0, NULL, RUN, "pool", \
      "print errors only") \
    X(RANDOM_WEIGHTS, "random-weights", SWITCH, "", "off", 0, 0, NULL, RUN, RP_GROUP_BENCH, \
      "draw the weights on the device: a model folder then needs its JSON configs only") \
    X(PROMPT_TOKENS, "prompt-tokens", INT, "N", "128", 1, 65536, NULL, RUN, RP_GROUP_BENCH, \
      "with random weights: prompt and negative prompt are N made-up tokens each")
/* clang-format on */

enum { RP_OPT_NONE = 0 };

typedef enum {
#define X(id, ...) RP_OPTION_##id,
    RP_OPTION_MAP(X)
#undef X
        RP_N_OPTIONS
} rp_option_id;

/* The machine-readable half of a row; rp_option_at has the half for people. */
typedef struct {
    rp_option_kind kind;
    double min, max;
    const char *(*choices)(void);
    int flags;
} rp_option_rule;

const rp_option_rule *rp_option_rule_at(rp_option_id id);

/* Row of a name, RP_N_OPTIONS if there is none (no log line). */
rp_option_id rp_option_find(const char *name);

/* Would `text` be a value of this row? RP_E_ARG with a line that names the option, the value and
 * what is allowed. `name` is how the user wrote it ("--steps", "RANKPOOL_STEPS"). */
rp_status rp_option_check(rp_option_id id, const char *name, const char *text);

/* "a|b|c" of the registries; static storage. */
const char *rp_options_guiders(void);
const char *rp_options_samplers(void);
const char *rp_options_schedules(void);
const char *rp_options_backends(void);
const char *rp_options_bind(void);
const char *rp_options_precisions(void);
const char *rp_options_transports(void);
const char *rp_options_residency(void);

#endif
