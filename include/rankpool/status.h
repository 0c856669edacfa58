/*
 * status.h - what a rankpool call can return.
 *
 * One row per status: the enum, rp_status_text() and the exit codes come from
 * this list. RP_OK is 0; every failure is negative.
 */
#ifndef RP_STATUS_H
#define RP_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#define RP_STATUS_MAP(X)                                                                           \
    X(OK, 0, "success")                                                                            \
    X(E_ARG, -1, "argument out of range or inconsistent")                                          \
    X(E_NOMEM, -2, "out of host memory")                                                           \
    X(E_IO, -3, "read or write failed")                                                            \
    X(E_FORMAT, -4, "file is not what it claims to be")                                            \
    X(E_UNSUP, -5, "not supported by this build, model or rank")                                   \
    X(E_MPI, -6, "MPI call failed")                                                                \
    X(E_PEER, -7, "another rank failed")                                                           \
    X(E_ABSENT, -8, "no entry of that name")                                                       \
    X(E_EXISTS, -9, "output exists and is kept")                                                   \
    X(E_MODEL, -10, "the model produced numbers that are not finite")                              \
    X(E_CANCEL, -11, "cancelled")                                                                  \
    X(E_CUDA, -12, "the GPU or one of its libraries failed")

typedef enum {
#define X(name, value, text) RP_##name = (value),
    RP_STATUS_MAP(X)
#undef X
} rp_status;

#ifdef __cplusplus
}
#endif
#endif
