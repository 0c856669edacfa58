/* job_need.h - not enough device memory for the denoiser: what each part takes, and what would fit.
 */
#ifndef RP_JOB_NEED_H
#define RP_JOB_NEED_H

#include "job/job_pipeline.h"

#include <stddef.h>

/*
 * One line about why `job` (h 0: a picture of the model's own size) does not fit p's device,
 * instead of the one in text[n_bytes], which stays when the model's config cannot be read. Scratch
 * is what the device's ops have asked for until now, and counts as taken. What would fit is told
 * for precisions that the device computes in, and leaves room for the scratch of an earlier job or,
 * as long as there was none, as much as the backend says. Releases what the denoiser computes in.
 */
void rp_need_explain(const rp_pipeline *p, const rp_denoiser_job *job, int n_images, char *text,
                     size_t n_bytes);

#endif
