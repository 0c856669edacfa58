/* job_build.h - which build this is, and what it has. */
#ifndef RP_JOB_BUILD_H
#define RP_JOB_BUILD_H

#include <stdint.h>

#define RP_BUILD_ID_BYTES 20

/* The linker's build id of the object this code is in: equal for equal builds. Zeros if there is
 * none. */
void rp_build_id(uint8_t id[RP_BUILD_ID_BYTES]);

#endif
