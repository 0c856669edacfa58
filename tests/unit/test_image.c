/* test_image.c - pictures as PNG, their settings, sheets; damaged PNGs are refused. */
#include "rp_test.h"

#include "image/image.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <png.h>

static char *g_dir;

static int set_up(void **state)
{
    (void)state;
    g_dir = rpt_mkdir();
    rpt_log_collect();
    rpt_log_clear();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rpt_rmdir(g_dir);
    return 0;
}

static const char *in_dir(const char *name)
{
    static char path[600];

    (void)snprintf(path, sizeof(path), "%s/%s", g_dir, name);
    return path;
}

static void assert_logged(const char *part)
{
    if (strstr(rpt_log_last(), part) == NULL) {
        fail_msg("\"%s\" is not in \"%s\"", part, rpt_log_last());
    }
}

/* The whole file; free with free(). */
static uint8_t *slurp(const char *path, size_t *n_out)
{
    FILE *f = fopen(path, "rb");
    uint8_t *bytes = malloc(1u << 20);

    assert_non_null(f);
    *n_out = fread(bytes, 1, 1u << 20, f);
    (void)fclose(f);
    return bytes;
}

/* A PNG of ours in memory. */
static uint8_t *make_png(const char *settings, size_t *n_out)
{
    uint8_t rgb[16 * 12 * 3];

    for (size_t i = 0; i < sizeof(rgb); i++) {
        rgb[i] = (uint8_t)(i * 7);
    }
    if (rp_image_write_png(in_dir("made.png"), rgb, 16, 12, settings, 1) != RP_OK) {
        fail_msg("%s", rpt_log_last());
    }
    return slurp(in_dir("made.png"), n_out);
}

static void put_u32(uint8_t *at, size_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> (24 - 8 * i));
    }
}

static uint32_t crc(const uint8_t *bytes, size_t n)
{
    uint32_t c = 0xFFFFFFFFu;

    for (size_t i = 0; i < n; i++) {
        c ^= bytes[i];
        for (int k = 0; k < 8; k++) {
            c = c & 1 ? 0xEDB88320u ^ c >> 1 : c >> 1;
        }
    }
    return ~c;
}

/* Insert a chunk at `where` (an offset between chunks); bytes has room for it. */
static size_t insert_chunk(uint8_t *bytes, size_t n, size_t where, const char *type,
                           const void *data, size_t n_data)
{
    uint8_t *const at = bytes + where;

    memmove(at + n_data + 12, at, n - where);
    put_u32(at, n_data);
    memcpy(at + 4, type, 4);
    memcpy(at + 8, data, n_data);
    put_u32(at + 8 + n_data, crc(at + 4, n_data + 4));
    return n + n_data + 12;
}

#define AFTER_IHDR 33 /* signature 8, IHDR 25 */
#define IEND_BYTES 12

/* ---------------------------------------------------------------- write */

static void pixels_and_text_come_back(void **state)
{
    (void)state;
    static const char settings[] = "{\"prompt\": \"ein B\xC3\xA4r \xF0\x9F\x90\xBB\"}";
    uint8_t rgb[5 * 3 * 3], back[5 * 3 * 3];
    png_image image = {.version = PNG_IMAGE_VERSION};
    char *text = NULL;
    size_t n = 0;

    for (size_t i = 0; i < sizeof(rgb); i++) {
        rgb[i] = (uint8_t)(255 - 5 * i);
    }
    assert_int_equal(rp_image_write_png(in_dir("a.png"), rgb, 5, 3, settings, 0), RP_OK);
    assert_true(png_image_begin_read_from_file(&image, in_dir("a.png")) != 0);
    assert_int_equal(image.width, 5);
    assert_int_equal(image.height, 3);
    assert_int_equal(image.format, PNG_FORMAT_RGB);
    assert_true(png_image_finish_read(&image, NULL, back, 0, NULL) != 0);
    assert_memory_equal(back, rgb, sizeof(rgb));

    assert_int_equal(rp_image_read_settings(in_dir("a.png"), &text), RP_OK);
    assert_string_equal(text, settings);
    free(text);

    uint8_t *const bytes = slurp(in_dir("a.png"), &n);
    assert_non_null(
        memmem(bytes, n, "Software\0rankpool " RP_VERSION, 18 + sizeof(RP_VERSION) - 1));
    assert_null(memmem(bytes, n, "tIME", 4));
    const uint8_t *const itxt = memmem(bytes, n, "iTXtrankpool", 13);
    assert_non_null(itxt);
    assert_true(itxt < (const uint8_t *)memmem(bytes, n, "IDAT", 4));
    free(bytes);
    assert_string_equal(rpt_log_last(), "");
}

static void the_same_picture_gives_the_same_bytes(void **state)
{
    (void)state;
    size_t n_a = 0, n_b = 0;
    uint8_t *const a = make_png("{}", &n_a);
    uint8_t *const b = make_png("{}", &n_b);

    assert_int_equal(n_a, n_b);
    assert_memory_equal(a, b, n_a);
    free(a);
    free(b);
}

static void bad_pictures_are_refused(void **state)
{
    (void)state;
    const uint8_t rgb[3] = {0};
    const size_t n_long = (512u << 10) + 1;
    char *const text = calloc(1, n_long + 1);
    char *back = NULL;

    assert_int_equal(rp_image_write_png(in_dir("a.png"), rgb, 0, 1, NULL, 0), RP_E_ARG);
    assert_int_equal(rp_image_write_png(in_dir("a.png"), rgb, 1, -1, NULL, 0), RP_E_ARG);
    assert_int_equal(rp_image_write_png(in_dir("a.png"), rgb, 65537, 1, NULL, 0), RP_E_ARG);
    assert_int_equal(rp_image_write_png(in_dir("a.png"), NULL, 1, 1, NULL, 0), RP_E_ARG);
    assert_int_equal(rp_image_write_png(in_dir("a.png"), rgb, 1, 1, "x\xFFy", 0), RP_E_ARG);
    assert_logged("byte 1");
    memset(text, 'x', n_long);
    assert_int_equal(rp_image_write_png(in_dir("a.png"), rgb, 1, 1, text, 0), RP_E_ARG);
    assert_int_equal(rp_image_write_png(in_dir("no/a.png"), rgb, 1, 1, NULL, 0), RP_E_IO);
    assert_int_equal(access(in_dir("a.png"), F_OK), -1);

    text[n_long - 1] = '\0'; /* the longest that is allowed is also read */
    assert_int_equal(rp_image_write_png(in_dir("a.png"), rgb, 1, 1, text, 0), RP_OK);
    assert_int_equal(rp_image_read_settings(in_dir("a.png"), &back), RP_OK);
    assert_string_equal(back, text);
    free(back);
    free(text);
    assert_int_equal(rp_image_write_png(in_dir("a.png"), rgb, 1, 1, NULL, 0), RP_E_EXISTS);
    assert_int_equal(rp_image_write_png(in_dir("a.png"), rgb, 1, 1, NULL, 1), RP_OK);
}

static void a_full_disk_is_an_error_with_its_cause(void **state)
{
    (void)state;
    const int side = 256; /* noise: does not compress, so that libpng writes early and often */
    uint8_t *const rgb = malloc((size_t)side * side * 3);
    uint32_t seed = 1;

    for (size_t i = 0; i < (size_t)side * side * 3; i++) {
        seed = seed * 1664525u + 1013904223u;
        rgb[i] = (uint8_t)(seed >> 24);
    }
    if (mount("tmpfs", g_dir, "tmpfs", 0, "size=64k") != 0) {
        print_message("skipped: cannot mount a tmpfs of 64 KiB: %s\n", strerror(errno));
        free(rgb);
        skip();
    }
    const rp_status st = rp_image_write_png(in_dir("a.png"), rgb, side, side, "{}", 0);
    char command[700];
    (void)snprintf(command, sizeof(command), "test -z \"$(ls -A '%s')\"", g_dir);
    const int empty = system(command) == 0;
    assert_int_equal(umount(g_dir), 0);
    free(rgb);
    assert_int_equal(st, RP_E_IO);
    assert_logged("No space left on device");
    assert_true(empty);
}

/* ----------------------------------------------------------------- read */

static void text_after_the_pixels_is_found(void **state)
{
    (void)state;
    size_t n = 0;
    uint8_t *bytes = make_png(NULL, &n);
    char *text = NULL;

    assert_int_equal(rp_image_parse_settings("x.png", bytes, n, &text), RP_E_FORMAT);
    assert_logged("x.png has no settings of rankpool inside");
    assert_null(text);
    n = insert_chunk(bytes, n, n - IEND_BYTES, "iTXt", "rankpool\0\0\0\0\0{\"a\":1}", 20);
    assert_int_equal(rp_image_parse_settings("x.png", bytes, n, &text), RP_OK);
    assert_string_equal(text, "{\"a\":1}");
    free(text);
    free(bytes);
}

static void odd_text_chunks_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *type, *data;
        size_t n_data;
        const char *say; /* beside our own chunk, or instead of it when it is the only one */
    } cases[] = {
        {"iTXt", "rankpool\0\0\0\0\0\xFF\xFE", 15, "not UTF-8"},
        {"tEXt", "rankpool\0\xFF", 10, "not UTF-8"},
        {"iTXt", "rankpool\0\0\0\0\0{\0}", 16, "not UTF-8"},
        {"iTXt", "rankpool\0\1\0\0\0{}", 15, "compressed"},
        {"zTXt", "rankpool\0\0{}", 12, "compressed"},
        {"iTXt", "rankpool", 9, "malformed"},
        {"iTXt", "rankpool\0\0\0", 11, "malformed"},
        {"iTXt", "rankpool\0\0\0en\0key", 17, "malformed"},
        {"iTXt", "rankpool", 8, "no settings"},
        {"iTXt", "rankpools\0\0\0\0\0{}", 16, "no settings"},
        {"iTXt", "Rankpool\0\0\0\0\0{}", 15, "no settings"},
        {"tEXt", "Comment\0hello", 13, "no settings"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t n = 0;
        uint8_t *bytes = make_png(NULL, &n);
        char *text = NULL;
        n = insert_chunk(bytes, n, AFTER_IHDR, cases[i].type, cases[i].data, cases[i].n_data);
        assert_int_equal(rp_image_parse_settings("x.png", bytes, n, &text), RP_E_FORMAT);
        assert_logged(cases[i].say);
        free(bytes);
    }

    size_t n = 0;
    uint8_t *bytes = make_png("{}", &n);
    char *text = NULL;
    n = insert_chunk(bytes, n, n - IEND_BYTES, "tEXt", "rankpool\0{}", 11);
    assert_int_equal(rp_image_parse_settings("x.png", bytes, n, &text), RP_E_FORMAT);
    assert_logged("more than one");
    free(bytes);
}

static void what_is_no_png_is_named(void **state)
{
    (void)state;
    char *text = NULL;
    FILE *f = fopen(in_dir("a.png"), "w");

    assert_non_null(f);
    assert_int_equal(rp_image_read_settings(in_dir("a.png"), &text), RP_E_FORMAT); /* empty */
    assert_logged("a.png is not a PNG");
    assert_true(fputs("GIF89a, in truth", f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rp_image_read_settings(in_dir("a.png"), &text), RP_E_FORMAT);
    assert_logged("a.png is not a PNG");
    assert_int_equal(rp_image_read_settings(in_dir("none.png"), &text), RP_E_IO);
    assert_logged("No such file");
    assert_int_equal(rp_image_read_settings(g_dir, &text), RP_E_IO);
    assert_int_equal(mkfifo(in_dir("pipe"), 0666), 0);
    assert_int_equal(rp_image_read_settings(in_dir("pipe"), &text), RP_E_IO);
    assert_null(text);
}

/* The text stands before the pixels, but a file that is cut behind it is still refused. */
static void every_cut_is_refused(void **state)
{
    (void)state;
    size_t n = 0;
    uint8_t *bytes = make_png("{\"a\":1}", &n);
    char *text = NULL;

    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *const exact = malloc(cut > 0 ? cut : 1);
        memcpy(exact, bytes, cut);
        if (rp_image_parse_settings("x.png", exact, cut, &text) != RP_E_FORMAT) {
            fail_msg("cut to %zu of %zu bytes it was taken", cut, n);
        }
        assert_logged(cut < 8 ? "x.png is not a PNG" : "x.png is a damaged PNG: it is cut short");
        free(exact);
    }
    assert_int_equal(rp_image_parse_settings("x.png", bytes, n, &text), RP_OK);
    free(text);
    free(bytes);
}

/* One flipped bit anywhere: all chunks have checksums. */
static void every_flipped_bit_is_noticed(void **state)
{
    (void)state;
    size_t n = 0;
    uint8_t *bytes = make_png("{\"a\":1}", &n);

    for (size_t i = 0; i < n * 8; i++) {
        char *text = NULL;
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
        if (rp_image_parse_settings("x.png", bytes, n, &text) != RP_E_FORMAT) {
            fail_msg("bit %zu of byte %zu of %zu was not noticed", i % 8, i / 8, n);
        }
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    free(bytes);
}

static void chunks_out_of_place_are_refused(void **state)
{
    (void)state;
    size_t n = 0;
    uint8_t *bytes = make_png("{}", &n);
    char *text = NULL;

    put_u32(bytes + AFTER_IHDR, 0x7FFFFFFF); /* a text of 2 GB */
    assert_int_equal(rp_image_parse_settings("x.png", bytes, n, &text), RP_E_FORMAT);
    assert_logged("damaged PNG: it is cut short");
    put_u32(bytes + AFTER_IHDR, 0xFFFFFFFF);
    assert_int_equal(rp_image_parse_settings("x.png", bytes, n, &text), RP_E_FORMAT);
    assert_logged("damaged PNG: a chunk has an impossible length");
    free(bytes);

    bytes = make_png("{}", &n);
    n = insert_chunk(bytes, n, 8, "tEXt", "Comment\0x", 9); /* before the header */
    assert_int_equal(rp_image_parse_settings("x.png", bytes, n, &text), RP_E_FORMAT);
    assert_logged("header is not in its place");
    free(bytes);

    bytes = make_png("{}", &n);
    n = insert_chunk(bytes, n, AFTER_IHDR, "IHDR", "1234567890123", 13); /* a second one */
    assert_int_equal(rp_image_parse_settings("x.png", bytes, n, &text), RP_E_FORMAT);
    assert_logged("header is not in its place");

    n = insert_chunk(bytes, AFTER_IHDR, AFTER_IHDR, "IEND", "", 0);
    assert_int_equal(rp_image_parse_settings("x.png", bytes, n, &text), RP_E_FORMAT);
    assert_logged("no pixels");
    free(bytes);
    assert_null(text);
}

static void long_texts_are_refused(void **state)
{
    (void)state;
    enum { LIMIT = 1 << 20 };
    static const char key[] = "rankpool\0\0\0\0"; /* and the literal's own NUL: 13 bytes */
    size_t n = 0;
    uint8_t *bytes = make_png(NULL, &n);
    char *const data = malloc(13 + LIMIT + 1);
    char *text = NULL;

    memset(data, 'x', 13 + LIMIT + 1);
    memcpy(data, key, 13);
    bytes = realloc(bytes, 4 * LIMIT);
    assert_non_null(bytes);
    for (size_t more = 0; more <= 1; more++) {
        const size_t n_all = insert_chunk(bytes, n, AFTER_IHDR, "iTXt", data, 13 + LIMIT + more);
        const rp_status st = rp_image_parse_settings("x.png", bytes, n_all, &text);
        assert_int_equal(st, more == 0 ? RP_OK : RP_E_FORMAT);
        free(text);
        text = NULL;
        free(bytes);
        bytes = realloc(make_png(NULL, &n), 4 * LIMIT);
        assert_non_null(bytes);
    }
    assert_logged("1048577 bytes");
    free(bytes);
    free(data);
}

/* --------------------------------------------------------------- sheets */

static void sheets_are_filled_row_by_row_and_white(void **state)
{
    (void)state;
    uint8_t one[2 * 1 * 3], two[2 * 1 * 3], three[2 * 1 * 3], back[4 * 2 * 3];
    const uint8_t *const rgb[] = {one, two, three};
    png_image image = {.version = PNG_IMAGE_VERSION};
    static const uint8_t want[4 * 2] = {1, 1, 2, 2, 3, 3, 255, 255};

    memset(one, 1, sizeof(one));
    memset(two, 2, sizeof(two));
    memset(three, 3, sizeof(three));
    assert_int_equal(rp_image_write_sheet(in_dir("s.png"), rgb, 3, 2, 1, 2, 0), RP_OK);
    assert_true(png_image_begin_read_from_file(&image, in_dir("s.png")) != 0);
    assert_int_equal(image.width, 4);
    assert_int_equal(image.height, 2);
    assert_true(png_image_finish_read(&image, NULL, back, 0, NULL) != 0);
    for (size_t i = 0; i < sizeof(back); i++) {
        assert_int_equal(back[i], want[i / 3]);
    }

    assert_int_equal(rp_image_write_sheet(in_dir("s.png"), rgb, 3, 2, 1, 9, 1), RP_OK);
    assert_true(png_image_begin_read_from_file(&image, in_dir("s.png")) != 0);
    assert_int_equal(image.width, 6);
    assert_int_equal(image.height, 1);
    png_image_free(&image);
    assert_int_equal(rp_image_write_sheet(in_dir("s.png"), rgb, 3, 2, 1, 9, 0), RP_E_EXISTS);
}

static void bad_sheets_are_refused(void **state)
{
    (void)state;
    const uint8_t px[3] = {0};
    const uint8_t *const rgb[] = {px};
    static const int bad[][4] = {
        {0, 1, 1, 1},  {1, 0, 1, 1},     {1, 1, 0, 1},
        {1, 1, 1, 0},  {1, 65537, 1, 1}, {INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX},
        {-1, 1, 1, 1}, {70000, 1, 1, 1},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(rp_image_write_sheet(in_dir("s.png"), rgb, bad[i][0], bad[i][1], bad[i][2],
                                              bad[i][3], 0),
                         RP_E_ARG);
    }
    assert_int_equal(access(in_dir("s.png"), F_OK), -1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(pixels_and_text_come_back),
        TEST(the_same_picture_gives_the_same_bytes),
        TEST(bad_pictures_are_refused),
        TEST(a_full_disk_is_an_error_with_its_cause),
        TEST(text_after_the_pixels_is_found),
        TEST(odd_text_chunks_are_refused),
        TEST(what_is_no_png_is_named),
        TEST(every_cut_is_refused),
        TEST(every_flipped_bit_is_noticed),
        TEST(chunks_out_of_place_are_refused),
        TEST(long_texts_are_refused),
        TEST(sheets_are_filled_row_by_row_and_white),
        TEST(bad_sheets_are_refused),
    };

    return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
