/*
 * ctrl.h - control between ranks: small messages, agreement, abort. Never tensors of a step.
 *
 * Two implementations: solo (one rank, every call trivial) and MPI. A row of rp_ctrl_list each.
 *
 * Waiting never burns a core that another rank needs: calls test, yield, then sleep some
 * microseconds. A rank that has gone is noticed by a watch (TCP connection of every rank to rank 0,
 * keep-alive on, a thread that sleeps in poll): the survivors print which rank, host and pid has
 * gone and exit with RP_CTRL_EXIT_LOST within 5 seconds, whatever the launcher does.
 */
#ifndef RP_CTRL_H
#define RP_CTRL_H

#include <rankpool/status.h>

#include <stdbool.h>
#include <stddef.h>

#define RP_CTRL_EXIT_LOST     70 /* exit code after another rank has gone */
#define RP_CTRL_HOST_BYTES    64
#define RP_CTRL_TEXT_BYTES    512   /* of an error's text between ranks; longer ones are cut */
#define RP_CTRL_MESSAGE_BYTES 65536 /* most that rp_ctrl_send and rp_ctrl_reply take */

typedef struct rp_ctrl rp_ctrl;

/* Join: MPI when a launcher started several ranks (or `force_mpi`), else solo. RP_E_MPI, RP_E_UNSUP
 * (a launcher started several copies but this build has no MPI, or srun was not told --mpi=pmix;
 * says what to do). */
rp_status rp_ctrl_open(bool force_mpi, rp_ctrl **out);

/* Collective; MPI is finalized if rp_ctrl_open started it. NULL is allowed. */
void rp_ctrl_close(rp_ctrl *ctrl);

/* After a failure that cannot be agreed on: end all ranks now (MPI_Abort). Does not return for n
 * > 1. */
void rp_ctrl_abort(rp_ctrl *ctrl, int exit_code);

/* `fn` runs right before this process ends because another rank has gone (NULL: nothing): removes
 * unfinished files. Called from a thread of the control's own, while the main thread still runs. */
void rp_ctrl_on_lost(void (*fn)(void));

/* This process was told to end (a signal): ranks that go from now on are no news, nothing is
 * printed about them. May be called from a signal handler. */
void rp_ctrl_leaving(void);

int rp_ctrl_rank(const rp_ctrl *ctrl);
int rp_ctrl_n_ranks(const rp_ctrl *ctrl);
/* Ranks of this node, and this rank's number among them. */
int rp_ctrl_local_rank(const rp_ctrl *ctrl);
int rp_ctrl_n_local(const rp_ctrl *ctrl);
/* Equal for ranks of the same node, as MPI_Comm_split_type finds them; of any rank, known on all
 * ranks. */
int rp_ctrl_node(const rp_ctrl *ctrl, int rank);
/* Host name of any rank; known on all ranks. Borrowed. */
const char *rp_ctrl_host(const rp_ctrl *ctrl, int rank);
const char *rp_ctrl_kind(const rp_ctrl *ctrl); /* "solo", "mpi" */

/* Collective. rank 0's bytes to all. These three: RP_E_MPI, RP_E_ARG (over 2 GiB from each rank).
 */
rp_status rp_ctrl_bcast(rp_ctrl *ctrl, void *bytes, size_t n_bytes);
/* Collective. Every rank's n_bytes to rank 0, in rank order: all [n_ranks * n_bytes] (NULL
 * elsewhere). */
rp_status rp_ctrl_gather(rp_ctrl *ctrl, const void *mine, size_t n_bytes, void *all);
/* Collective. The same to every rank. */
rp_status rp_ctrl_allgather(rp_ctrl *ctrl, const void *mine, size_t n_bytes, void *all);

/*
 * Collective. All ranks give their status and leave with the same one: RP_OK if all are, else that
 * of the lowest failed rank; RP_E_PEER counts only where no rank says more. Rank 0 prints the held
 * error texts of the other ranks (base/log.h), once each, with host and rank; `what` begins the
 * line
 * ("opening the model").
 */
rp_status rp_ctrl_agree(rp_ctrl *ctrl, rp_status mine, const char *what);

/* Rank 0 -> rank `to`: one message; returns when the bytes may be reused. Others: receive the next
 * one, at most max_bytes, waiting as long as it takes. RP_E_ARG (no such rank, over
 * RP_CTRL_MESSAGE_BYTES), RP_E_MPI (also: a message longer than max_bytes; it is dropped). */
rp_status rp_ctrl_send(rp_ctrl *ctrl, int to, const void *bytes, size_t n_bytes);
rp_status rp_ctrl_recv(rp_ctrl *ctrl, void *bytes, size_t max_bytes, size_t *n_out);

/* Rank > 0 -> rank 0, and rank 0's receipt from one rank of exactly n_bytes (replies to a wave).
 * Errors as above. */
rp_status rp_ctrl_reply(rp_ctrl *ctrl, const void *bytes, size_t n_bytes);
rp_status rp_ctrl_wait_reply(rp_ctrl *ctrl, int from, void *bytes, size_t n_bytes);

/* The MPI_Comm of this control (a pointer to it), NULL for solo: for transports. Borrowed. */
const void *rp_ctrl_native(const rp_ctrl *ctrl);

#endif
