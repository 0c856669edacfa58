/*
 * job_device.h - a rank's backend and device: chosen, opened, compared with those of the other ranks.
 */
#ifndef RP_JOB_DEVICE_H
#define RP_JOB_DEVICE_H

#include "job/job_resident.h"
#include "job/job_settings.h"

/*
 * Collective. Opens pool->backend: --backend, or the best that works on this machine. A rank takes the
 * device of its number on its host, modulo those that it sees, and binds to the cores near it. All ranks
 * leave with the same status: RP_E_UNSUP when one has no device, when two have the same one and
 * --allow-shared-gpu is off, or when they would not compute the same bits.
 */
rp_status rp_device_open(const rp_settings *settings, rankpool *pool);

#endif
