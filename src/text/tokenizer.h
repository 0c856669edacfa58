/*
 * tokenizer.h - text to token ids, as the Hugging Face tokenizer of the folder would.
 *
 * Reads <dir>/tokenizer.model (SentencePiece) and <dir>/tokenizer_config.json (bos/eos, added
 * special tokens, which are cut out of the text before SentencePiece sees it).
 */
#ifndef RP_TOKENIZER_H
#define RP_TOKENIZER_H

#include <rankpool/status.h>

#include <stddef.h>
#include <stdint.h>

typedef struct rp_tokenizer rp_tokenizer;

/* RP_E_IO, RP_E_FORMAT, RP_E_NOMEM, RP_E_UNSUP (a class other than GemmaTokenizer, a vocabulary
 * that normalises text, added tokens that swallow spaces); logged. Release with rp_tokenizer_close.
 */
rp_status rp_tokenizer_open(const char *dir, rp_tokenizer **out);
void rp_tokenizer_close(rp_tokenizer *tokenizer); /* NULL is allowed */

/* Number of pieces and added tokens; ids are below it. */
int rp_tokenizer_vocab(const rp_tokenizer *tokenizer);
uint64_t rp_tokenizer_fingerprint(const rp_tokenizer *tokenizer);

/*
 * Ids of UTF-8 `text`, <bos> first and <eos> last when the config says so, at most `max` of them:
 * the first ones, but <eos> keeps its place. ids        [max]; n_out how many were written
 *   n_all_out  how many there would be without the limit, or NULL
 *   cut_out    the end of `text` that was cut, "" for none, or NULL; free with free()
 * RP_E_ARG: text is not UTF-8 (logged with the byte offset) or over 16 MiB. RP_E_NOMEM.
 * Thread-safe.
 */
rp_status rp_tokenizer_encode(const rp_tokenizer *tokenizer, const char *text, int32_t *ids,
                              int max, int *n_out, int *n_all_out, char **cut_out);

#endif
