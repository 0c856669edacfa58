/* json.c - JSON from strangers: a strict walk over the text, cJSON's tree, a walk over the tree. */
#include "weights/json.h"

#include "base/check.h"
#include "base/log.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* cJSON reads numbers through a buffer of 64 bytes. */
#define MAX_NUMBER_BYTES 63

const rp_json_limits rp_json_default = {.max_depth = 64, .max_values = 1u << 20};

typedef struct {
    const char *begin, *at, *end;
    const rp_json_limits *limits;
    size_t n_values;
    int depth;
    const char *why; /* NULL while all is well; `at` is then the place */
} scan;

static bool scan_fail(scan *s, const char *why)
{
    if (s->why == NULL) {
        s->why = why;
    }
    return false;
}

/* The next byte, '\0' at the end (a NUL in the text is refused wherever it could be taken for one).
 */
static char peek(const scan *s)
{
    return s->at < s->end ? *s->at : '\0';
}

static void skip_space(scan *s)
{
    while (s->at < s->end &&
           (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r')) {
        s->at++;
    }
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool scan_escape(scan *s)
{
    int code = 0;

    s->at++; /* the backslash */
    if (peek(s) != '\0' && strchr("\"\\/bfnrt", peek(s)) != NULL) {
        s->at++;
        return true;
    }
    if (peek(s) != 'u' || s->end - s->at < 5) {
        return scan_fail(s, "bad escape in a string");
    }
    for (int i = 1; i <= 4; i++) {
        const char c = s->at[i];
        const char lower = (char)(c | 0x20);
        if (!is_digit(c) && (lower < 'a' || lower > 'f')) {
            return scan_fail(s, "bad \\u escape in a string");
        }
        code = code * 16 + (is_digit(c) ? c - '0' : lower - 'a' + 10);
    }
    if (code == 0) {
        return scan_fail(s, "a string with \\u0000");
    }
    s->at += 5;
    return true;
}

static bool scan_string(scan *s)
{
    s->at++; /* the opening quote */
    while (s->at < s->end && *s->at != '"') {
        if ((unsigned char)*s->at < 0x20) {
            return scan_fail(s, "a control character in a string");
        }
        if (*s->at != '\\') {
            s->at++;
        } else if (!scan_escape(s)) {
            return false;
        }
    }
    if (s->at >= s->end) {
        return scan_fail(s, "a string without an end");
    }
    s->at++;
    return true;
}

static bool scan_digits(scan *s)
{
    if (!is_digit(peek(s))) {
        return scan_fail(s, "not a number as JSON writes it");
    }
    while (is_digit(peek(s))) {
        s->at++;
    }
    return true;
}

static bool scan_number(scan *s)
{
    const char *const first = s->at;

    if (peek(s) == '-') {
        s->at++;
    }
    if (peek(s) == 'I') {
        return scan_fail(s, "Infinity is not JSON");
    }
    if (peek(s) == '0') {
        s->at++;
    } else if (!scan_digits(s)) {
        return false;
    }
    if (peek(s) == '.') {
        s->at++;
        if (!scan_digits(s)) {
            return false;
        }
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-') {
            s->at++;
        }
        if (!scan_digits(s)) {
            return false;
        }
    }
    if (s->at - first > MAX_NUMBER_BYTES) {
        s->at = first;
        return scan_fail(s, "a number of more than 63 characters");
    }
    return true;
}

static bool scan_word(scan *s, const char *word)
{
    const size_t n = strlen(word);

    if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n) != 0) {
        return scan_fail(s, "not a JSON value");
    }
    s->at += n;
    return true;
}

static bool scan_value(scan *s);

static bool scan_key(scan *s)
{
    if (peek(s) != '"') {
        return scan_fail(s, "a key in double quotes should be here");
    }
    if (!scan_string(s)) {
        return false;
    }
    skip_space(s);
    if (peek(s) != ':') {
        return scan_fail(s, "':' should be here");
    }
    s->at++;
    return true;
}

/* An object or an array, from its bracket on. */
static bool scan_container(scan *s)
{
    const bool is_object = *s->at == '{';
    const char close = is_object ? '}' : ']';

    if (++s->depth > s->limits->max_depth) {
        return scan_fail(s, "nested too deep");
    }
    s->at++;
    skip_space(s);
    if (peek(s) != close) {
        for (;;) {
            skip_space(s);
            if ((is_object && !scan_key(s)) || !scan_value(s)) {
                return false;
            }
            skip_space(s);
            if (peek(s) != ',') {
                break;
            }
            s->at++;
        }
        if (peek(s) != close) {
            return scan_fail(s,
                             is_object ? "',' or '}' should be here" : "',' or ']' should be here");
        }
    }
    s->at++;
    s->depth--;
    return true;
}

static bool scan_value(scan *s)
{
    skip_space(s);
    if (++s->n_values > s->limits->max_values) {
        return scan_fail(s, "too many values");
    }
    if (peek(s) == '-' || is_digit(peek(s))) {
        return scan_number(s);
    }
    switch (peek(s)) {
    case '{':
    case '[':
        return scan_container(s);
    case '"':
        return scan_string(s);
    case 't':
        return scan_word(s, "true");
    case 'f':
        return scan_word(s, "false");
    case 'n':
        return scan_word(s, "null");
    case 'N':
        return scan_fail(s, "NaN is not JSON");
    case 'I':
        return scan_fail(s, "Infinity is not JSON");
    default:
        return scan_fail(s, s->at < s->end ? "not a JSON value" : "the text ends too early");
    }
}

static rp_status refuse_at(const char *name, const scan *s)
{
    size_t line = 1, column = 1;

    for (const char *p = s->begin; p < s->at; p++) {
        column = *p == '\n' ? 1 : column + 1;
        line += *p == '\n' ? 1u : 0u;
    }
    return RP_FAIL(RP_E_FORMAT, "%s: line %zu, column %zu: %s", name, line, column, s->why);
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static rp_status check_unique(const char *name, const cJSON *object)
{
    rp_status st = RP_OK;
    const size_t n = (size_t)cJSON_GetArraySize(object);
    const char **keys = malloc((n + 1) * sizeof(*keys));
    size_t i = 0;

    if (keys == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for %zu keys of %s", n, name);
    }
    for (const cJSON *item = object->child; item != NULL; item = item->next) {
        keys[i++] = item->string;
    }
    qsort(keys, n, sizeof(*keys), compare_keys);
    for (i = 1; i < n && st == RP_OK; i++) {
        if (strcmp(keys[i - 1], keys[i]) == 0) {
            st = RP_FAIL(RP_E_FORMAT, "%s: the key \"%s\" comes twice", name, keys[i]);
        }
    }
    free(keys);
    return st;
}

/* Depth is bounded by the scan. */
static rp_status check_tree(const char *name, const cJSON *item)
{
    if ((item->string != NULL && rp_text_bad_utf8(item->string) >= 0) ||
        (cJSON_IsString(item) && rp_text_bad_utf8(item->valuestring) >= 0)) {
        return RP_FAIL(RP_E_FORMAT, "%s: a string that is not UTF-8", name);
    }
    if (cJSON_IsNumber(item) && !isfinite(item->valuedouble)) {
        return RP_FAIL(RP_E_FORMAT, "%s: a number too large for a double", name);
    }
    if (cJSON_IsObject(item)) {
        RP_TRY(check_unique(name, item));
    }
    for (const cJSON *child = item->child; child != NULL; child = child->next) {
        RP_TRY(check_tree(name, child));
    }
    return RP_OK;
}

rp_status rp_json_parse(const char *name, const char *text, size_t n_bytes,
                        const rp_json_limits *limits, cJSON **out)
{
    scan s = {.begin = text, .at = text, .end = text + n_bytes, .limits = limits};

    if (!scan_value(&s)) {
        return refuse_at(name, &s);
    }
    skip_space(&s);
    if (s.at != s.end) {
        (void)scan_fail(&s, "something comes after the JSON value");
        return refuse_at(name, &s);
    }
    cJSON *const tree = cJSON_ParseWithLength(text, n_bytes);
    if (tree == NULL) {
        /* What is left is a lone surrogate in an escape, or no memory. */
        return RP_FAIL(RP_E_FORMAT, "%s: a \\u escape that is no character, or no memory", name);
    }
    const rp_status st = check_tree(name, tree);
    if (st != RP_OK) {
        cJSON_Delete(tree);
        return st;
    }
    *out = tree;
    return RP_OK;
}

/* A read of exactly n bytes, or an errno; a file that shrinks meanwhile is EIO. */
static int read_whole(int fd, char *bytes, size_t n_bytes)
{
    size_t done = 0;

    while (done < n_bytes) {
        const ssize_t n = read(fd, bytes + done, n_bytes - done);
        if (n == 0) {
            return EIO;
        }
        if (n < 0 && errno != EINTR) {
            return errno;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

rp_status rp_json_read(const char *path, size_t max_bytes, char **text_out, size_t *n_bytes_out)
{
    rp_status st = RP_OK;
    char *text = NULL;
    struct stat about = {0};
    /* O_NONBLOCK: opening a pipe must not wait for its writer. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &about) != 0) {
        st = RP_FAIL(RP_E_IO, "cannot read %s: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(about.st_mode)) {
        st = RP_FAIL(RP_E_IO, "cannot read %s: it is not a regular file", path);
        goto out;
    }
    const size_t n_bytes = (size_t)about.st_size;
    if (n_bytes > max_bytes) {
        st = RP_FAIL(RP_E_IO, "cannot read %s: it has %zu bytes, at most %zu are allowed", path,
                     n_bytes, max_bytes);
        goto out;
    }
    text = malloc(n_bytes + 1);
    if (text == NULL) {
        st = RP_FAIL(RP_E_NOMEM, "no memory for %s: %zu bytes", path, n_bytes);
        goto out;
    }
    const int cause = read_whole(fd, text, n_bytes);
    if (cause != 0) {
        st = RP_FAIL(RP_E_IO, "cannot read %s: %s", path, strerror(cause));
        goto out;
    }
    text[n_bytes] = '\0';
    *text_out = text;
    *n_bytes_out = n_bytes;
    text = NULL;

out:
    free(text);
    if (fd >= 0) {
        (void)close(fd);
    }
    return st;
}

bool rp_json_int(const cJSON *item, int64_t min, int64_t max, int64_t *out)
{
    if (!cJSON_IsNumber(item) || item->valuedouble != floor(item->valuedouble) ||
        item->valuedouble < (double)min || item->valuedouble > (double)max ||
        fabs(item->valuedouble) > (double)RP_JSON_MAX_INT) {
        return false;
    }
    *out = (int64_t)item->valuedouble;
    return true;
}
