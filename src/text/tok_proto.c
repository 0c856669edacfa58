/*
 * tok_proto.c - a look into the bytes of a tokenizer.model before libsentencepiece gets them.
 *
 * Encoding: protobuf.dev/programming-guides/encoding. A message is a row of (field number, wire
 * type) tags with their values; of a field that may stand once the last one counts.
 */
#include "text/tok_proto.h"

#include "base/check.h"
#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };
enum { MODEL_NORMALIZER = 3, MODEL_DENORMALIZER = 5 };
enum { SPEC_CHARSMAP = 2, SPEC_DUMMY_PREFIX = 3, SPEC_EXTRA_SPACES = 4, SPEC_ESCAPE = 5 };

typedef struct {
    const uint8_t *at, *end;
} span;

typedef struct {
    unsigned number, wire;
    uint64_t value; /* of a varint; length of bytes */
    span bytes;
} field;

static bool read_varint(span *in, uint64_t *out)
{
    uint64_t value = 0;

    for (int shift = 0; shift < 64 && in->at < in->end; shift += 7) {
        const uint8_t byte = *in->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *out = value;
            return true;
        }
    }
    return false;
}

static bool read_field(span *in, field *out)
{
    uint64_t tag, n;

    if (!read_varint(in, &tag) || tag >> 3 == 0 || tag > UINT32_MAX) {
        return false;
    }
    *out = (field){.number = (unsigned)(tag >> 3), .wire = (unsigned)(tag & 7)};
    switch (out->wire) {
    case WIRE_VARINT:
        return read_varint(in, &out->value);
    case WIRE_64:
        n = 8;
        break;
    case WIRE_32:
        n = 4;
        break;
    case WIRE_BYTES:
        if (!read_varint(in, &n)) {
            return false;
        }
        break;
    default:
        return false;
    }
    if (n > (uint64_t)(in->end - in->at)) {
        return false;
    }
    out->bytes = (span){in->at, in->at + n};
    out->value = n;
    in->at += n;
    return true;
}

/* What NormalizerSpec says; the defaults are the schema's. */
typedef struct {
    bool charsmap, dummy_prefix, extra_spaces_removed, escape;
} spec;

static bool read_spec(span in, spec *out)
{
    field f;

    while (in.at < in.end) {
        if (!read_field(&in, &f)) {
            return false;
        }
        if (f.number == SPEC_CHARSMAP && f.wire == WIRE_BYTES) {
            out->charsmap = out->charsmap || f.value > 0;
        } else if (f.wire == WIRE_VARINT) {
            bool *const flag = f.number == SPEC_DUMMY_PREFIX   ? &out->dummy_prefix
                               : f.number == SPEC_EXTRA_SPACES ? &out->extra_spaces_removed
                               : f.number == SPEC_ESCAPE       ? &out->escape
                                                               : NULL;
            if (flag != NULL) {
                *flag = f.value != 0;
            }
        }
    }
    return true;
}

rp_status rp_tok_proto_check(const char *name, const void *bytes, size_t n_bytes)
{
    span in = {bytes, (const uint8_t *)bytes + n_bytes};
    spec normal = {.dummy_prefix = true, .extra_spaces_removed = true, .escape = true};
    spec denormal = normal;
    field f;

    while (in.at < in.end) {
        bool good = read_field(&in, &f);
        if (good && f.number == MODEL_NORMALIZER && f.wire == WIRE_BYTES) {
            good = read_spec(f.bytes, &normal);
        } else if (good && f.number == MODEL_DENORMALIZER && f.wire == WIRE_BYTES) {
            good = read_spec(f.bytes, &denormal);
        }
        if (!good) {
            return RP_FAIL(RP_E_FORMAT,
                           "%s is not a SentencePiece model: damaged at byte %zu of %zu", name,
                           (size_t)(in.at - (const uint8_t *)bytes), n_bytes);
        }
    }
    if (normal.charsmap || denormal.charsmap || normal.dummy_prefix ||
        normal.extra_spaces_removed || !normal.escape) {
        return RP_FAIL(RP_E_UNSUP,
                       "%s normalises text (%s); supported are models that leave it as it is, like "
                       "Gemma's",
                       name,
                       normal.charsmap || denormal.charsmap ? "precompiled_charsmap"
                       : normal.dummy_prefix                ? "add_dummy_prefix"
                       : normal.extra_spaces_removed        ? "remove_extra_whitespaces"
                                                            : "escape_whitespaces off");
    }
    return RP_OK;
}
