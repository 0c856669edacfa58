/*
 * plain_loop.c - the denoiser called in a plain loop, without pool, guidance, sampler or ranks:
 * what a step of the pool is compared with (bench.sh).
 *
 *   plain_loop TRANSFORMER-DIR PRECISION SIZE TOKENS STEPS
 *
 * Random weights from the config; prints one JSON line: the median of the steps, two units each.
 */
#include "model/model.h"

#include "base/clock.h"
#include "base/randn.h"

#include <rankpool/rankpool.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Times STEPS before the timed ones, as many as bench.sh gives the pool: a card slows down for
 * seconds while it warms up. */
enum { WARM_UP = 3 };

typedef struct {
    rp_backend backend;
    const rp_denoiser_ops *ops;
    void *self;
    rp_denoiser_info info;
} loop;

static void check(rp_status st, const char *what)
{
    if (st != RP_OK) {
        (void)fprintf(stderr, "plain_loop: %s: %s\n", what, rp_status_text(st));
        exit(1);
    }
}

static void open_backend(loop *l, const char *precision)
{
    const rp_backend_params params = {.n_threads = 1, .precision = rp_precision_named(precision)};

    for (size_t i = 0; rp_backend_list[i] != NULL; i++) {
        if (strcmp(rp_backend_list[i]->name, "cuda") == 0) {
            l->backend.ops = rp_backend_list[i];
        }
    }
    if (l->backend.ops == NULL || !l->backend.ops->usable()) {
        (void)fprintf(stderr, "plain_loop: no GPU\n");
        exit(77);
    }
    check(l->backend.ops->open(&params, &l->backend.self), "backend");
}

static void open_model(loop *l, const char *dir, int size, int tokens)
{
    const rp_model_source source = {.dir = dir, .backend = l->backend, .random_weights = true};
    const float sigma = 0.5f;

    l->ops = rp_denoiser_list[0];
    check(l->ops->open(&source, &l->self), "model");
    l->ops->info(l->self, &l->info);
    const rp_denoiser_job job = {.c = l->info.latent_channels,
                                 .h = size / 8,
                                 .w = size / 8,
                                 .sigma = &sigma,
                                 .n_evals = 1,
                                 .n_conds = 2,
                                 .max_tokens = tokens};
    check(l->ops->begin(l->self, &job), "begin");

    float *embeds = calloc((size_t)tokens * (size_t)l->info.cond_dim, sizeof(*embeds));
    for (size_t i = 0; i < (size_t)tokens * (size_t)l->info.cond_dim; i++) {
        embeds[i] = (float)(i % 17) / 17.0f - 0.5f;
    }
    check(l->ops->condition(l->self, 0, embeds, tokens), "condition");
    check(l->ops->condition(l->self, 1, embeds, tokens), "condition");
    free(embeds);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Seconds of one step: both units, each waited for as the pool does. */
static double one_step(const loop *l, const float *x, float *velocity)
{
    const double start = rp_clock_now();

    for (int cond = 0; cond < 2; cond++) {
        check(l->ops->predict(l->self, cond, 0, x, velocity), "predict");
        check(l->backend.ops->sync(l->backend.self), "sync");
    }
    return rp_clock_now() - start;
}

int main(int argc, char **argv)
{
    loop l = {0};
    void *x = NULL, *velocity = NULL;

    if (argc != 6) {
        (void)fprintf(stderr, "usage: plain_loop TRANSFORMER-DIR PRECISION SIZE TOKENS STEPS\n");
        return 2;
    }
    const int size = atoi(argv[3]), steps = atoi(argv[5]);
    open_backend(&l, argv[2]);
    open_model(&l, argv[1], size, atoi(argv[4]));
    const size_t n = (size_t)l.info.latent_channels * (size_t)(size / 8) * (size_t)(size / 8);
    check(l.backend.ops->alloc(l.backend.self, n * sizeof(float), "latents", &x), "latents");
    check(l.backend.ops->alloc(l.backend.self, n * sizeof(float), "velocity", &velocity),
          "velocity");

    float *host = calloc(n, sizeof(*host)); /* noise: zeros would cost the GPU less power */
    rp_randn(0, host, n);
    l.backend.ops->put(l.backend.self, x, host, n * sizeof(*host));
    free(host);

    double *seconds = calloc((size_t)steps, sizeof(*seconds));
    for (int i = 0; i < (1 + WARM_UP) * steps; i++) {
        seconds[i % steps] = one_step(&l, x, velocity);
    }
    qsort(seconds, (size_t)steps, sizeof(*seconds), by_value);
    printf("{\"loop_step_ms\": %.4f, \"steps\": %d}\n", 1e3 * seconds[steps / 2], steps);
    free(seconds);
    l.backend.ops->release(l.backend.self, x);
    l.backend.ops->release(l.backend.self, velocity);
    l.ops->close(l.self);
    l.backend.ops->close(l.backend.self);
    return 0;
}
