/* test_text.c - UTF-8 and slips of the pen. */
#include "rp_test.h"

#include "base/text.h"

static void finds_the_first_byte_that_is_not_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        long want;
    } cases[] = {
        {"", -1},
        {"plain", -1},
        {"a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x8E\x88", -1}, /* ä, €, a balloon */
        {"\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF", -1},
        {"\xED\x9F\xBF\xEE\x80\x80", -1}, /* around the surrogates */
        {"ab\x80", 2},                    /* a continuation on its own */
        {"ab\xC3", 2},                    /* cut short */
        {"ab\xC3"
         "b",
         2},
        {"\xE2\x82", 0},
        {"x\xF0\x9F\x8E", 1},
        {"\xC0\x80", 0},         /* overlong NUL */
        {"\xC1\xBF", 0},         /* overlong */
        {"\xE0\x9F\xBF", 0},     /* overlong */
        {"\xF0\x8F\xBF\xBF", 0}, /* overlong */
        {"\xED\xA0\x80", 0},     /* surrogate */
        {"\xF4\x90\x80\x80", 0}, /* above U+10FFFF */
        {"\xF5\x80\x80\x80", 0},
        {"\xFF", 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const long got = rp_text_bad_utf8(cases[i].text);
        if (got != cases[i].want) {
            fail_msg("case %zu: got %ld, want %ld", i, got, cases[i].want);
        }
    }
}

static void finds_the_nearest_word(void **state)
{
    (void)state;
    static const char *const words[] = {"steps", "sampler", "seed", "guidance", "out"};
    static const struct {
        const char *word, *want; /* NULL: none is near */
    } cases[] = {
        {"guidence", "guidance"},
        {"guidnace", "guidance"},
        {"step", "steps"},
        {"sead", "seed"},
        {"smpler", "sampler"},
        {"ot", "out"},
        {"out", "out"},
        {"zzzzzzz", NULL},
        {"height", NULL},
        {"", NULL},
        {"abc", NULL},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *got = rp_text_nearest(cases[i].word, words, 5);
        if (cases[i].want == NULL) {
            assert_null(got);
        } else {
            assert_non_null(got);
            assert_string_equal(got, cases[i].want);
        }
    }
    assert_null(rp_text_nearest("out", words, 0));
}

static void the_distance_limit_is_one_and_a_third_of_the_length(void **state)
{
    (void)state;
    static const char *const six[] = {"abcdef"};

    assert_non_null(rp_text_nearest("xyzdef", six, 1)); /* 3 <= 1 + 6 / 3 */
    assert_null(rp_text_nearest("wxyzef", six, 1));     /* 4 */
}

static void long_words_are_near_to_nothing(void **state)
{
    (void)state;
    char word[5000];
    const char *const words[] = {word, "seed"};

    for (size_t i = 0; i < sizeof(word) - 1; i++) {
        word[i] = 'a';
    }
    word[sizeof(word) - 1] = '\0';
    assert_null(rp_text_nearest(word, words, 2));
    assert_string_equal(rp_text_nearest("seed", words, 2), "seed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_first_byte_that_is_not_utf8),
        cmocka_unit_test(finds_the_nearest_word),
        cmocka_unit_test(the_distance_limit_is_one_and_a_third_of_the_length),
        cmocka_unit_test(long_words_are_near_to_nothing),
    };

    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
