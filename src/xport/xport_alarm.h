/*
 * xport_alarm.h - "I have failed", heard by ranks that wait for something else.
 *
 * A rank that waits for a GPU or a network cannot see that its peer gave up; it looks here between
 * two polls. Says nothing about why: the rank that rings has the text.
 */
#ifndef RP_XPORT_ALARM_H
#define RP_XPORT_ALARM_H

#include "ctrl/ctrl.h"

typedef struct rp_xport_alarm rp_xport_alarm;

/* Collective. RP_E_NOMEM, RP_E_MPI. */
rp_status rp_xport_alarm_open(rp_ctrl *ctrl, rp_xport_alarm **out);

/* Tell all others, without waiting; only the first call counts. */
void rp_xport_alarm_ring(rp_xport_alarm *alarm);

/* Has another rank rung? Stays true. Lets MPI make progress. */
bool rp_xport_alarm_heard(rp_xport_alarm *alarm);

/* Collective. NULL is allowed, on all ranks. */
void rp_xport_alarm_close(rp_xport_alarm *alarm);

#endif
