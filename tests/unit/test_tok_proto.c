/* test_tok_proto.c - messages by hand: what is well-formed, and which settings pass. */
#include "rp_test.h"

#include "text/tok_proto.h"

#include <stdlib.h>
#include <string.h>

/* From a copy of just these bytes, so that a sanitizer sees every read past them. */
static rp_status check(const char *bytes, size_t n_bytes)
{
    char *copy = malloc(n_bytes + 1);

    assert_non_null(copy);
    memcpy(copy, bytes, n_bytes);
    char *exact = realloc(copy, n_bytes > 0 ? n_bytes : 1);
    assert_non_null(exact);
    const rp_status st = rp_tok_proto_check("x.model", exact, n_bytes);
    free(exact);
    return st;
}

#define CHECK(text) check(text, sizeof(text) - 1)
/* normalizer_spec {add_dummy_prefix: false, remove_extra_whitespaces: false} */
#define GOOD "\x1a\x04\x18\x00\x20\x00"

static void other_fields_are_stepped_over(void **state)
{
    (void)state;

    assert_int_equal(CHECK(GOOD), RP_OK);
    assert_int_equal(CHECK("\x0a\x02hi\x11"
                           "12345678"
                           "\x15"
                           "1234"
                           "\x98\x06\x01" GOOD),
                     RP_OK);
    assert_int_equal(CHECK(GOOD "\x2a\x00"), RP_OK);         /* an empty denormalizer_spec */
    assert_int_equal(CHECK(GOOD "\x1a\x02\x12\x00"), RP_OK); /* an empty table */
}

static void normalisation_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n_bytes;
        const char *says;
    } rows[] = {
        {"", 0, "add_dummy_prefix"}, /* the schema's default is true */
        {"\x1a\x02\x20\x00", 4, "add_dummy_prefix"},
        {"\x1a\x02\x18\x00", 4, "remove_extra_whitespaces"},
        {GOOD "\x1a\x02\x18\x01", 10, "add_dummy_prefix"}, /* the last one counts */
        {GOOD "\x1a\x02\x28\x00", 10, "escape_whitespaces"},
        {GOOD "\x1a\x03\x12\x01x", 11, "precompiled_charsmap"},
        {GOOD "\x2a\x03\x12\x01x", 11, "precompiled_charsmap"},
    };

    rpt_log_collect();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        rpt_log_clear();
        assert_int_equal(check(rows[i].bytes, rows[i].n_bytes), RP_E_UNSUP);
        assert_non_null(strstr(rpt_log_last(), rows[i].says));
    }
    rp_set_log(NULL, NULL);
}

static void what_is_not_a_message_is_refused(void **state)
{
    (void)state;

    rpt_log_collect();
    assert_int_equal(CHECK(GOOD "\x0a"), RP_E_FORMAT);       /* no length */
    assert_int_equal(CHECK(GOOD "\x0a\x05hi"), RP_E_FORMAT); /* length past the end */
    assert_int_equal(CHECK(GOOD "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), RP_E_FORMAT);
    assert_int_equal(CHECK(GOOD "\x15"
                                "123"),
                     RP_E_FORMAT); /* 4 bytes */
    assert_int_equal(CHECK(GOOD "\x11"
                                "1234567"),
                     RP_E_FORMAT);                         /* 8 bytes */
    assert_int_equal(CHECK(GOOD "\x18\x80"), RP_E_FORMAT); /* number without an end */
    assert_int_equal(CHECK(GOOD "\x18\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), RP_E_FORMAT);
    assert_int_equal(CHECK(GOOD "\x0b"), RP_E_FORMAT);            /* group */
    assert_int_equal(CHECK(GOOD "\x02\x00"), RP_E_FORMAT);        /* field 0 */
    assert_int_equal(CHECK("\x1a\x03\x18\x00\x20"), RP_E_FORMAT); /* inside the spec */
    assert_int_equal(CHECK("\x1a\x05\x18\x00\x20\x00"), RP_E_FORMAT);
    rp_set_log(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_fields_are_stepped_over),
        cmocka_unit_test(normalisation_is_refused_by_name),
        cmocka_unit_test(what_is_not_a_message_is_refused),
    };
    return cmocka_run_group_tests_name("tok_proto", tests, NULL, NULL);
}
