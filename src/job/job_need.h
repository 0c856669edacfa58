/* job_need.h - not enough device memory: for which network, what each part takes, what would fit.
 */
#ifndef RP_JOB_NEED_H
#define RP_JOB_NEED_H

#include "job/job_room.h"

#include <stddef.h>

/*
 * rp_room_run(), and where memory is too short all the same, rp_need_explain()'s line as the error.
 *   job  what is to be done in the end, h 0 for a picture of the model's own size
 */
rp_status rp_need_run(rp_pipeline *pipeline, rp_room_use use, const rp_denoiser_job *job,
                      int n_images, rp_room_fn work, void *arg);

/*
 * One line about why p's device is too small for `use` in such a job, instead of the one in
 * text[n_bytes], which stays when a network's config cannot be read. It counts all networks of p:
 * the transformer's weights are always there, and beside them, in turn, its buffers, the text
 * encoder and the VAE, where p has them. Scratch is what the device's ops have asked for until now,
 * and counts as taken.
 *
 * What would fit is told for precisions that the device computes in, and leaves room for the
 * scratch of an earlier job or, as long as there was none, for as much as the backend says.
 *
 * Text encoder and VAE leave p, and the denoiser gives back what it computes in.
 */
void rp_need_explain(rp_pipeline *pipeline, rp_room_use use, const rp_denoiser_job *job,
                     int n_images, char *text, size_t n_bytes);

#endif
