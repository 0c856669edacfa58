/*
 * job_device.h - a rank's backend and device: chosen, opened, compared with those of the other
 * ranks.
 */
#ifndef RP_JOB_DEVICE_H
#define RP_JOB_DEVICE_H

#include "job/job_resident.h"
#include "job/job_settings.h"

/*
 * Collective. Opens pool->backend: --backend, or the best that works on this machine. A rank takes
 * the device of its number on its host, modulo those that it sees, and binds (job_bind.h) before it
 * opens it. All ranks leave with the same status: RP_E_UNSUP when one has no device, when two have
 * the same one and
 * --allow-shared-gpu is off, or when they would not compute the same bits.
 */
rp_status rp_device_open(const rp_settings *settings, rankpool *pool);

/* Which of the devices that it sees a rank takes. Under --gpus-per-task each sees one and takes
 * number 0, under --gpus-per-node all ranks of a host see all. Pure. */
int rp_device_index(int local_rank, int n_devices);

#endif
