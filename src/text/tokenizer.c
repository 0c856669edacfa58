/*
 * tokenizer.c - text to token ids, as the Hugging Face tokenizer of the folder would.
 *
 *     text -> cut at added tokens ("<eos>") -> each part through SentencePiece -> <bos> ids <eos>
 *
 * Added tokens are found from the left, the longest first where several begin at the same byte
 * (github.com/huggingface/tokenizers, added_vocabulary.rs).
 */
#include "text/tokenizer.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "text/tok_proto.h"
#include "text/tok_sentencepiece.h"
#include "weights/json.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#define MAX_MODEL_BYTES  ((size_t)64 << 20)
#define MAX_CONFIG_BYTES ((size_t)16 << 20)
#define MAX_TEXT_BYTES   ((size_t)16 << 20)
#define MAX_ID           (1 << 24)

typedef struct {
    char *content;
    size_t n_bytes;
    int32_t id;
} added_token;

struct rp_tokenizer {
    rp_tok_sentencepiece *pieces;
    added_token *added; /* sorted by first byte, then the longest first */
    int n_added;
    int first[257];   /* added[first[b]] .. added[first[b + 1]] begin with byte b */
    int32_t bos, eos; /* -1: not added */
    int vocab;
    uint64_t fingerprint;
};

/* ------------------------------------------------------------- the config */

static int compare_added(const void *a, const void *b)
{
    const added_token *x = a, *y = b;
    const unsigned char bx = (unsigned char)x->content[0], by = (unsigned char)y->content[0];

    if (bx != by) {
        return bx < by ? -1 : 1;
    }
    if (x->n_bytes != y->n_bytes) {
        return x->n_bytes > y->n_bytes ? -1 : 1;
    }
    return strcmp(x->content, y->content);
}

static bool is_true(const cJSON *object, const char *key)
{
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(object, key)) != 0;
}

/* One row of added_tokens_decoder: "5": {"content": "<start_of_turn>", "normalized": false, ...}.
 */
static rp_status read_added(const char *path, const cJSON *row, added_token *out)
{
    const cJSON *content = cJSON_GetObjectItemCaseSensitive(row, "content");
    char *end = NULL;
    const long id = strtol(row->string, &end, 10);

    if (row->string[0] < '0' || row->string[0] > '9' || *end != '\0' || id >= MAX_ID) {
        return RP_FAIL(RP_E_FORMAT, "%s: added_tokens_decoder has id \"%s\"; allowed: 0 to %d",
                       path, row->string, MAX_ID - 1);
    }
    if (!cJSON_IsString(content) || content->valuestring[0] == '\0') {
        return RP_FAIL(RP_E_FORMAT, "%s: added token %ld has no content (text)", path, id);
    }
    static const char *const flags[] = {"normalized", "lstrip", "rstrip", "single_word"};
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (is_true(row, flags[i])) {
            return RP_FAIL(RP_E_UNSUP,
                           "%s: added token \"%s\" has %s true; only false is supported", path,
                           content->valuestring, flags[i]);
        }
    }
    out->content = strdup(content->valuestring);
    if (out->content == NULL) {
        return RP_FAIL(RP_E_NOMEM, "%s: out of memory", path);
    }
    out->n_bytes = strlen(out->content);
    out->id = (int32_t)id;
    return RP_OK;
}

/* After sorting: where each first byte begins, and that no token is there twice. */
static rp_status index_added(const char *path, rp_tokenizer *tokenizer)
{
    int at = 0;

    for (int byte = 0; byte <= 256; byte++) {
        while (at < tokenizer->n_added && (unsigned char)tokenizer->added[at].content[0] < byte) {
            at++;
        }
        tokenizer->first[byte] = at;
    }
    for (int i = 1; i < tokenizer->n_added; i++) {
        if (strcmp(tokenizer->added[i - 1].content, tokenizer->added[i].content) == 0) {
            return RP_FAIL(RP_E_FORMAT, "%s: added token \"%s\" has two ids, %d and %d", path,
                           tokenizer->added[i].content, tokenizer->added[i - 1].id,
                           tokenizer->added[i].id);
        }
    }
    return RP_OK;
}

static rp_status read_all_added(const char *path, const cJSON *config, rp_tokenizer *tokenizer)
{
    const cJSON *table = cJSON_GetObjectItemCaseSensitive(config, "added_tokens_decoder");
    const cJSON *row = NULL;

    if (table != NULL && !cJSON_IsNull(table) && !cJSON_IsObject(table)) {
        return RP_FAIL(RP_E_FORMAT, "%s: added_tokens_decoder is not an object", path);
    }
    const int n_rows = cJSON_IsObject(table) ? cJSON_GetArraySize(table) : 0;
    void *rows = NULL;

    RP_TRY(rp_mem_new((size_t)n_rows, sizeof(*tokenizer->added), "added tokens", &rows));
    tokenizer->added = rows;
    if (n_rows > 0) {
        cJSON_ArrayForEach(row, table)
        {
            RP_TRY(read_added(path, row, &tokenizer->added[tokenizer->n_added]));
            if (tokenizer->added[tokenizer->n_added].id >= tokenizer->vocab) {
                tokenizer->vocab = tokenizer->added[tokenizer->n_added].id + 1;
            }
            tokenizer->n_added++;
        }
        qsort(tokenizer->added, (size_t)n_rows, sizeof(*tokenizer->added), compare_added);
    }
    return index_added(path, tokenizer);
}

/* Id of a token's text: an added token's, else the piece's; -1 when there is none. */
static int32_t find_token(const rp_tokenizer *tokenizer, const char *content)
{
    for (int i = 0; i < tokenizer->n_added; i++) {
        if (strcmp(tokenizer->added[i].content, content) == 0) {
            return tokenizer->added[i].id;
        }
    }
    return rp_tok_sentencepiece_find(tokenizer->pieces, content);
}

/* "bos_token": "<bos>" or {"content": "<bos>"}, with "add_bos_token": true | false. */
static rp_status read_end_token(const char *path, const cJSON *config, const char *switch_key,
                                bool fallback, const char *token_key, const rp_tokenizer *tokenizer,
                                int32_t *id_out)
{
    const cJSON *on = cJSON_GetObjectItemCaseSensitive(config, switch_key);
    const cJSON *token = cJSON_GetObjectItemCaseSensitive(config, token_key);
    const bool absent = on == NULL || cJSON_IsNull(on);

    if (!absent && !cJSON_IsBool(on)) {
        return RP_FAIL(RP_E_FORMAT, "%s: %s is neither true nor false", path, switch_key);
    }
    if (absent ? !fallback : !cJSON_IsTrue(on)) {
        *id_out = -1;
        return RP_OK;
    }
    if (cJSON_IsObject(token)) {
        token = cJSON_GetObjectItemCaseSensitive(token, "content");
    }
    if (!cJSON_IsString(token)) {
        return RP_FAIL(RP_E_FORMAT, "%s: %s is on, but %s is no text", path, switch_key, token_key);
    }
    *id_out = find_token(tokenizer, token->valuestring);
    if (*id_out < 0) {
        return RP_FAIL(RP_E_FORMAT, "%s: %s \"%s\" is not in the vocabulary", path, token_key,
                       token->valuestring);
    }
    return RP_OK;
}

/* Tokenizers of other families treat spaces and special tokens in other ways. */
static rp_status check_class(const char *path, const cJSON *config)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(config, "tokenizer_class");

    if (cJSON_IsString(name) && strcmp(name->valuestring, "GemmaTokenizer") != 0 &&
        strcmp(name->valuestring, "GemmaTokenizerFast") != 0) {
        return RP_FAIL(RP_E_UNSUP,
                       "%s: tokenizer_class is %s; supported: GemmaTokenizer, "
                       "GemmaTokenizerFast",
                       path, name->valuestring);
    }
    return RP_OK;
}

static rp_status read_config(const char *path, rp_tokenizer *tokenizer)
{
    rp_status st = RP_OK;
    char *text = NULL;
    cJSON *config = NULL;
    size_t n_bytes = 0;

    RP_TRY_OUT(rp_json_read(path, MAX_CONFIG_BYTES, &text, &n_bytes));
    RP_TRY_OUT(rp_json_parse(path, text, n_bytes, &rp_json_default, &config));
    if (!cJSON_IsObject(config)) {
        st = RP_FAIL(RP_E_FORMAT, "%s is not a JSON object", path);
        goto out;
    }
    RP_TRY_OUT(check_class(path, config));
    RP_TRY_OUT(read_all_added(path, config, tokenizer));
    RP_TRY_OUT(read_end_token(path, config, "add_bos_token", true, "bos_token", tokenizer,
                              &tokenizer->bos));
    RP_TRY_OUT(read_end_token(path, config, "add_eos_token", false, "eos_token", tokenizer,
                              &tokenizer->eos));
    tokenizer->fingerprint = XXH64(text, n_bytes, tokenizer->fingerprint);

out:
    cJSON_Delete(config);
    free(text);
    return st;
}

/* -------------------------------------------------------------- the model */

/* Many repositories carry only the converted tokenizer.json. */
static rp_status check_present(const char *dir, const char *path)
{
    rp_status st = RP_OK;

    if (access(path, F_OK) != 0) {
        char *json = rp_mem_printf("%s/tokenizer.json", dir);
        if (json != NULL && access(json, F_OK) == 0) {
            st = RP_FAIL(
                RP_E_IO,
                "%s is missing (tokenizer.json alone is not enough): copy tokenizer.model, the "
                "SentencePiece file, from the text encoder's original repository",
                path);
        }
        free(json);
    }
    return st;
}

static rp_status read_model(const char *dir, const char *path, rp_tokenizer *tokenizer)
{
    rp_status st = RP_OK;
    char *bytes = NULL;
    size_t n_bytes = 0;

    RP_TRY_OUT(check_present(dir, path));
    RP_TRY_OUT(rp_json_read(path, MAX_MODEL_BYTES, &bytes, &n_bytes));
    RP_TRY_OUT(rp_tok_proto_check(path, bytes, n_bytes));
    RP_TRY_OUT(rp_tok_sentencepiece_open(path, bytes, n_bytes, &tokenizer->pieces));
    tokenizer->vocab = rp_tok_sentencepiece_count(tokenizer->pieces);
    tokenizer->fingerprint = XXH64(bytes, n_bytes, 0);

out:
    free(bytes);
    return st;
}

rp_status rp_tokenizer_open(const char *dir, rp_tokenizer **out)
{
    rp_status st = RP_OK;
    rp_tokenizer *tokenizer = NULL;
    void *memory = NULL;
    char *model_path = rp_mem_printf("%s/tokenizer.model", dir);
    char *config_path = rp_mem_printf("%s/tokenizer_config.json", dir);

    if (model_path == NULL || config_path == NULL) {
        st = RP_FAIL(RP_E_NOMEM, "tokenizer %s: out of memory", dir);
        goto out;
    }
    RP_TRY_OUT(rp_mem_new(1, sizeof(*tokenizer), "tokenizer", &memory));
    tokenizer = memory;
    RP_TRY_OUT(read_model(dir, model_path, tokenizer));
    RP_TRY_OUT(read_config(config_path, tokenizer));
    *out = tokenizer;
    tokenizer = NULL;

out:
    rp_tokenizer_close(tokenizer);
    free(config_path);
    free(model_path);
    return st;
}

void rp_tokenizer_close(rp_tokenizer *tokenizer)
{
    if (tokenizer != NULL) {
        for (int i = 0; i < tokenizer->n_added; i++) {
            free(tokenizer->added[i].content);
        }
        free(tokenizer->added);
        rp_tok_sentencepiece_close(tokenizer->pieces);
        free(tokenizer);
    }
}

int rp_tokenizer_vocab(const rp_tokenizer *tokenizer)
{
    return tokenizer->vocab;
}

uint64_t rp_tokenizer_fingerprint(const rp_tokenizer *tokenizer)
{
    return tokenizer->fingerprint;
}

/* -------------------------------------------------------------- encoding */

/* Takes ids as they come and notes where in the text the first one that no longer fits begins. */
typedef struct {
    int32_t *ids;
    int limit, n, n_all;
    size_t part; /* offset of the part that SentencePiece sees */
    size_t cut;  /* SIZE_MAX: nothing was cut */
} sink;

static void take(void *arg, int32_t id, size_t offset)
{
    sink *s = arg;

    if (s->n < s->limit) {
        s->ids[s->n++] = id;
    } else if (s->cut == SIZE_MAX) {
        s->cut = s->part + offset;
    }
    s->n_all++;
}

/* The added token that begins at `text`, or NULL. */
static const added_token *match(const rp_tokenizer *tokenizer, const char *text)
{
    const int byte = (unsigned char)*text;

    for (int i = tokenizer->first[byte]; i < tokenizer->first[byte + 1]; i++) {
        const added_token *token = &tokenizer->added[i];
        if (strncmp(text, token->content, token->n_bytes) == 0) {
            return token;
        }
    }
    return NULL;
}

static rp_status take_part(const rp_tokenizer *tokenizer, const char *text, size_t begin,
                           size_t end, sink *s)
{
    s->part = begin;
    return begin == end
               ? RP_OK
               : rp_tok_sentencepiece_encode(tokenizer->pieces, text + begin, end - begin, take, s);
}

static rp_status take_text(const rp_tokenizer *tokenizer, const char *text, size_t n_bytes, sink *s)
{
    size_t begin = 0, at = 0;

    while (at < n_bytes) {
        const added_token *token = match(tokenizer, text + at);
        if (token == NULL) {
            at++;
            continue;
        }
        RP_TRY(take_part(tokenizer, text, begin, at, s));
        s->part = at;
        take(s, token->id, 0);
        at += token->n_bytes;
        begin = at;
    }
    return take_part(tokenizer, text, begin, n_bytes, s);
}

rp_status rp_tokenizer_encode(const rp_tokenizer *tokenizer, const char *text, int32_t *ids,
                              int max, int *n_out, int *n_all_out, char **cut_out)
{
    const int n_eos = tokenizer->eos >= 0 ? 1 : 0;
    const size_t n_bytes = strlen(text);
    const long bad = rp_text_bad_utf8(text);
    char *cut = NULL;

    if (bad >= 0) {
        return RP_FAIL(RP_E_ARG, "text is not UTF-8: byte %ld is 0x%02x", bad,
                       (unsigned)(unsigned char)text[bad]);
    }
    if (n_bytes > MAX_TEXT_BYTES) {
        return RP_FAIL(RP_E_ARG, "text of %zu bytes; allowed: up to %zu", n_bytes, MAX_TEXT_BYTES);
    }
    /* <eos> keeps its place when text is cut */
    sink s = {.ids = ids, .limit = max > n_eos ? max - n_eos : 0, .cut = SIZE_MAX};
    if (tokenizer->bos >= 0) {
        take(&s, tokenizer->bos, 0);
    }
    RP_TRY(take_text(tokenizer, text, n_bytes, &s));
    s.limit = max;
    if (tokenizer->eos >= 0) {
        s.part = n_bytes;
        take(&s, tokenizer->eos, 0);
    }
    if (cut_out != NULL) {
        cut = strdup(s.cut == SIZE_MAX ? "" : text + s.cut);
        if (cut == NULL) {
            return RP_FAIL(RP_E_NOMEM, "text of %zu bytes: out of memory", n_bytes);
        }
        *cut_out = cut;
    }
    *n_out = s.n;
    if (n_all_out != NULL) {
        *n_all_out = s.n_all;
    }
    return RP_OK;
}
