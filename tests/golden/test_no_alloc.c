/*
 * test_no_alloc.c - nothing is allocated inside a step: malloc, calloc, realloc, aligned_alloc and
 * posix_memalign of the whole process (every library too) are counted between two steps of a real job.
 */
#include "rp_test.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#ifndef RP_SANITIZED

static atomic_long g_n_allocs;

/* glibc's own names for the functions that this program puts itself in front of. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *mem, size_t n);
void *__libc_memalign(size_t align, size_t n);

void *malloc(size_t n)
{
    atomic_fetch_add(&g_n_allocs, 1);
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    atomic_fetch_add(&g_n_allocs, 1);
    return __libc_calloc(n, size);
}

void *realloc(void *mem, size_t n)
{
    atomic_fetch_add(&g_n_allocs, 1);
    return __libc_realloc(mem, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    atomic_fetch_add(&g_n_allocs, 1);
    return __libc_memalign(align, n);
}

int posix_memalign(void **mem, size_t align, size_t n)
{
    atomic_fetch_add(&g_n_allocs, 1);
    *mem = __libc_memalign(align, n);
    return *mem != NULL ? 0 : 12;
}

typedef struct {
    long at_step[64];
} counts;

static void count(void *arg, int step, const float *latents, const int shape[4])
{
    counts *c = arg;

    (void)latents;
    (void)shape;
    c->at_step[step] = atomic_load(&g_n_allocs);
}

static rp_settings *job_of(const char *sampler, const char *images, const char *threads)
{
    rp_settings *s = rp_settings_new();

    assert_non_null(s);
    assert_int_equal(rp_settings_set(s, "model", RP_TEST_MODEL), RP_OK);
    assert_int_equal(rp_settings_set(s, "backend", "cpu"), RP_OK);
    assert_int_equal(rp_settings_set(s, "sampler", sampler), RP_OK);
    assert_int_equal(rp_settings_set(s, "images", images), RP_OK);
    assert_int_equal(rp_settings_set(s, "threads", threads), RP_OK);
    assert_int_equal(rp_settings_set(s, "steps", "5"), RP_OK);
    assert_int_equal(rp_settings_set(s, "out", ""), RP_OK);
    return s;
}

static void no_step_allocates(const char *sampler, const char *images, const char *threads)
{
    rankpool *pool       = NULL;
    counts c             = {{0}};
    const rp_hooks hooks = {.arg = &c, .latents = count};
    rp_settings *s       = job_of(sampler, images, threads);

    assert_int_equal(rp_open(s, &pool), RP_OK);
    assert_int_equal(rp_generate(pool, s, &hooks, NULL), RP_OK);
    assert_true(c.at_step[0] > 0); /* the counter counts: opening and setting up did allocate */
    for (int step = 1; step < 5; step++) {
        assert_int_equal(c.at_step[step], c.at_step[0]);
    }
    rp_close(pool);
    rp_settings_free(s);
}

static void one_image(void **state)
{
    (void)state;
    no_step_allocates("euler", "1", "1");
}

static void two_images_two_threads_two_calls_a_step(void **state)
{
    (void)state;
    no_step_allocates("heun", "2", "2");
}

#else

static void one_image(void **state)
{
    (void)state;
    skip(); /* the sanitizer owns malloc */
}

static void two_images_two_threads_two_calls_a_step(void **state)
{
    (void)state;
    skip();
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_image),
        cmocka_unit_test(two_images_two_threads_two_calls_a_step),
    };
    const char *backend = getenv("RP_TEST_BACKEND");

    if (backend != NULL && strcmp(backend, "cpu") != 0) {
        print_message("SKIP: %s: a device's driver allocates as it likes\n", backend);
        return 77;
    }
    return cmocka_run_group_tests_name("no_alloc", tests, NULL, NULL);
}
