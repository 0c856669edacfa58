/*
 * check.h - the only two macros that hide a control flow.
 *
 *   RP_TRY(call)      return the status of a call that failed
 *   RP_TRY_OUT(call)  set `st` and go to `out`, where the function cleans up
 *
 * The callee has logged the error; these pass it on in silence.
 */
#ifndef RP_CHECK_H
#define RP_CHECK_H

#include <rankpool/status.h>

#define RP_TRY(call)                                                                               \
    do {                                                                                           \
        const rp_status try_st_ = (call);                                                          \
        if (try_st_ != RP_OK) {                                                                    \
            return try_st_;                                                                        \
        }                                                                                          \
    } while (0)

#define RP_TRY_OUT(call)                                                                           \
    do {                                                                                           \
        st = (call);                                                                               \
        if (st != RP_OK) {                                                                         \
            goto out;                                                                              \
        }                                                                                          \
    } while (0)

#endif
