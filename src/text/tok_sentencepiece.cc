/*
 * tok_sentencepiece.cc - libsentencepiece behind a C interface.
 */
#include "text/tok_sentencepiece.h"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <string>

#include <sentencepiece_processor.h>

extern "C" {
#include "base/log.h"
}

struct rp_tok_sentencepiece {
    sentencepiece::SentencePieceProcessor processor;
};

namespace
{

/* The only place where an exception becomes a status. */
template <typename Body> rp_status guarded(const char *what, Body body)
{
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return RP_FAIL(RP_E_NOMEM, "%s: out of memory", what);
    } catch (const std::exception &error) {
        return RP_FAIL(RP_E_FORMAT, "%s: %s", what, error.what());
    } catch (...) {
        return RP_FAIL(RP_E_FORMAT, "%s: unknown exception", what);
    }
}

} // namespace

rp_status rp_tok_sentencepiece_open(const char *name, const void *bytes, size_t n_bytes,
                                    rp_tok_sentencepiece **out)
{
    rp_tok_sentencepiece *model = nullptr;
    const rp_status st = guarded(name, [&] {
        model = new rp_tok_sentencepiece;
        const auto status = model->processor.LoadFromSerializedProto(
            absl::string_view(static_cast<const char *>(bytes), n_bytes));
        if (!status.ok()) {
            return RP_FAIL(RP_E_FORMAT, "%s is not a SentencePiece model: %s", name,
                           status.error_message());
        }
        if (model->processor.GetPieceSize() <= 0) {
            return RP_FAIL(RP_E_FORMAT, "%s has no pieces", name);
        }
        return RP_OK;
    });

    if (st != RP_OK) {
        delete model;
        return st;
    }
    *out = model;
    return RP_OK;
}

void rp_tok_sentencepiece_close(rp_tok_sentencepiece *model)
{
    delete model;
}

int rp_tok_sentencepiece_count(const rp_tok_sentencepiece *model)
{
    return model->processor.GetPieceSize();
}

int rp_tok_sentencepiece_find(const rp_tok_sentencepiece *model, const char *piece)
{
    const int id = model->processor.PieceToId(piece); /* the unknown piece's when there is none */

    return id >= 0 && model->processor.IdToPiece(id) == piece ? id : -1;
}

rp_status rp_tok_sentencepiece_encode(const rp_tok_sentencepiece *model, const char *text,
                                      size_t n_bytes, rp_tok_piece_fn fn, void *arg)
{
    return guarded("SentencePiece", [&] {
        sentencepiece::ImmutableSentencePieceText pieces;
        const auto status =
            model->processor.Encode(absl::string_view(text, n_bytes), pieces.mutable_proto());
        if (!status.ok()) {
            return RP_FAIL(RP_E_FORMAT, "SentencePiece: %s", status.error_message());
        }
        for (size_t i = 0; i < pieces.pieces_size(); i++) {
            const auto piece = pieces.pieces(static_cast<int>(i));
            fn(arg, static_cast<int32_t>(piece.id()), piece.begin());
        }
        return RP_OK;
    });
}
