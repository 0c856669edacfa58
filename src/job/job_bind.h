/*
 * job_bind.h - a rank's place on its node: cores, memory, threads.
 */
#ifndef RP_JOB_BIND_H
#define RP_JOB_BIND_H

#include "job/job_resident.h"
#include "job/job_settings.h"

/*
 * Collective. Fills pool->topo, pool->place and pool->n_threads, and binds this process to its
 * place
 * (--bind): all ranks of a node compute one plan (topo/topo_plan.h) from their masks and devices.
 * Once, before there are threads, device memory or connections, so that these come to lie where the
 * rank runs. pci   of this rank's device, "" for none All ranks leave with the same status:
 * RP_E_UNSUP when the machine cannot be read, RP_E_NOMEM.
 */
rp_status rp_bind(const rp_settings *settings, const char *pci, rankpool *pool);

#endif
