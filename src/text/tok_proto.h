/*
 * tok_proto.h - a look into the bytes of a tokenizer.model before libsentencepiece gets them.
 *
 * The file is a protocol buffer (github.com/google/sentencepiece, src/sentencepiece_model.proto).
 * The library trusts the compiled normalisation table inside and reads out of bounds when it is
 * damaged. The tokenizer of Gemma normalises nothing, so a file with such a table is refused, as
 * are the settings that would add or remove spaces.
 */
#ifndef RP_TOK_PROTO_H
#define RP_TOK_PROTO_H

#include <rankpool/status.h>

#include <stddef.h>

/* RP_E_FORMAT: no well-formed message; RP_E_UNSUP: text would be normalised. Logged with `name`. */
rp_status rp_tok_proto_check(const char *name, const void *bytes, size_t n_bytes);

#endif
