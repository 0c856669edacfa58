/*
 * tok_sentencepiece.h - libsentencepiece behind a C interface; no exception crosses it.
 *
 * Only tokenizer.c includes this. What special tokens mean and where <bos> goes is decided there.
 */
#ifndef RP_TOK_SENTENCEPIECE_H
#define RP_TOK_SENTENCEPIECE_H

#include <rankpool/status.h>

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rp_tok_sentencepiece rp_tok_sentencepiece;

/* One piece of a text, in order: its id and the offset of its first byte. A character written as
 * several byte pieces has the character's offset in all of them. */
typedef void (*rp_tok_piece_fn)(void *arg, int32_t id, size_t offset);

/* From the bytes of a tokenizer.model; `name` is for messages. RP_E_FORMAT, RP_E_NOMEM, RP_E_UNSUP
 * (a text normalisation that the tokenizer of Gemma does not have), logged. */
rp_status rp_tok_sentencepiece_open(const char *name, const void *bytes, size_t n_bytes,
                                    rp_tok_sentencepiece **out);
void rp_tok_sentencepiece_close(rp_tok_sentencepiece *model); /* NULL is allowed */

int rp_tok_sentencepiece_count(const rp_tok_sentencepiece *model);

/* Id of a piece, -1 when there is none of that text. */
int rp_tok_sentencepiece_find(const rp_tok_sentencepiece *model, const char *piece);

/* Call `fn` for every piece of text [n_bytes], which must be UTF-8. RP_E_NOMEM, logged.
 * Thread-safe. */
rp_status rp_tok_sentencepiece_encode(const rp_tok_sentencepiece *model, const char *text,
                                      size_t n_bytes, rp_tok_piece_fn fn, void *arg);

#ifdef __cplusplus
}
#endif
#endif
