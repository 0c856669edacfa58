/* test_image_files.c - several pictures to their files by threads: the same bytes, errors in order.
 */
#include "rp_test.h"

#include "image/image.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <png.h>

#define N    20
#define SIDE 40

static char *g_dir;
static uint8_t g_rgb[N][SIDE * SIDE * 3];
static char g_path[N][700], g_settings[N][32];
static rp_image_file g_files[N];

/* Calls of png_create_info_struct (linked with --wrap) from g_fails_from on give NULL, g_fails of
 * them. */
static atomic_int g_calls, g_fails_from, g_fails;

png_infop __real_png_create_info_struct(png_const_structrp png);
png_infop __wrap_png_create_info_struct(png_const_structrp png);

png_infop __wrap_png_create_info_struct(png_const_structrp png)
{
    const int call = atomic_fetch_add(&g_calls, 1), from = atomic_load(&g_fails_from);

    return call >= from && call < from + atomic_load(&g_fails) ? NULL
                                                               : __real_png_create_info_struct(png);
}

static int set_up(void **state)
{
    (void)state;
    g_calls = g_fails_from = g_fails = 0;
    g_dir = rpt_mkdir();
    rpt_log_collect();
    rpt_log_clear();
    for (int i = 0; i < N; i++) {
        for (size_t k = 0; k < sizeof(g_rgb[i]); k++) {
            g_rgb[i][k] = (uint8_t)(k * k / 97 + (size_t)i * k);
        }
        (void)snprintf(g_path[i], sizeof(g_path[i]), "%s/%d.png", g_dir, i);
        (void)snprintf(g_settings[i], sizeof(g_settings[i]), "{\"seed\": %d}", i);
        g_files[i] = (rp_image_file){g_path[i], g_rgb[i], g_settings[i]};
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rpt_rmdir(g_dir);
    return 0;
}

static size_t slurp(const char *path, uint8_t *bytes, size_t room)
{
    FILE *f = fopen(path, "rb");

    assert_non_null(f);
    const size_t n = fread(bytes, 1, room, f);
    (void)fclose(f);
    return n;
}

static bool is_there(int i)
{
    return access(g_path[i], F_OK) == 0;
}

static void every_picture_is_that_of_one_thread(void **state)
{
    (void)state;
    static uint8_t one[1 << 16], many[1 << 16];
    static const int n_threads[] = {0, 1, 2, 7, 1000};

    for (size_t t = 0; t < sizeof(n_threads) / sizeof(n_threads[0]); t++) {
        assert_int_equal(rp_image_write_pngs(g_files, N, SIDE, SIDE, 1, n_threads[t]), RP_OK);
        for (int i = 0; i < N; i++) {
            const char *alone = "alone.png";
            char path[700];
            (void)snprintf(path, sizeof(path), "%s/%s", g_dir, alone);
            assert_int_equal(rp_image_write_png(path, g_rgb[i], SIDE, SIDE, g_settings[i], 1),
                             RP_OK);
            const size_t n = slurp(path, one, sizeof(one));
            assert_int_equal(slurp(g_path[i], many, sizeof(many)), n);
            assert_memory_equal(one, many, n);
        }
    }
}

static void the_first_that_fails_ends_it(void **state)
{
    (void)state;
    (void)snprintf(g_path[11], sizeof(g_path[11]), "%s/no/11.png", g_dir);
    assert_int_equal(rp_image_write_pngs(g_files, N, SIDE, SIDE, 0, 4), RP_E_IO);
    assert_non_null(strstr(rpt_log_last(), "no/11.png"));
    for (int i = 0; i < N; i++) {
        assert_true(is_there(i) == (i < 11));
    }
}

static void what_is_there_is_kept(void **state)
{
    (void)state;
    FILE *f = fopen(g_path[3], "w");

    assert_non_null(f);
    (void)fclose(f);
    assert_int_equal(rp_image_write_pngs(g_files, N, SIDE, SIDE, 0, 4), RP_E_EXISTS);
    assert_true(is_there(2) && !is_there(4));
}

static void bad_ones_are_refused_before_any_is_written(void **state)
{
    (void)state;
    g_files[N - 1].settings = "x\xFFy";
    assert_int_equal(rp_image_write_pngs(g_files, N, SIDE, SIDE, 0, 4), RP_E_ARG);
    assert_false(is_there(0));
    assert_int_equal(rp_image_write_pngs(g_files, 0, SIDE, SIDE, 0, 4), RP_OK);
}

/* Threads that find no memory are not the end: one picture at a time may do. */
static void without_memory_for_threads_one_does_it(void **state)
{
    (void)state;
    for (int from = 0; from < N; from += 3) {
        g_calls = 0;
        g_fails_from = from;
        g_fails = 1;
        assert_int_equal(rp_image_write_pngs(g_files, N, SIDE, SIDE, 1, 4), RP_OK);
        for (int i = 0; i < N; i++) {
            assert_true(is_there(i));
            assert_int_equal(unlink(g_path[i]), 0);
        }
    }
    g_calls = 0;
    g_fails_from = 8;
    g_fails = 1000;
    assert_int_equal(rp_image_write_pngs(g_files, N, SIDE, SIDE, 1, 4), RP_E_NOMEM);
    assert_non_null(strstr(rpt_log_last(), "cannot encode"));
    assert_false(is_there(N - 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_picture_is_that_of_one_thread, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_first_that_fails_ends_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_there_is_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_ones_are_refused_before_any_is_written, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(without_memory_for_threads_one_does_it, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("image files", tests, NULL, NULL);
}
