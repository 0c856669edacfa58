/* cli_predict_report.h - the report of a job (--report) as a job to predict. */
#ifndef RP_CLI_PREDICT_REPORT_H
#define RP_CLI_PREDICT_REPORT_H

#include "cli/cli_predict_model.h"

/*
 * Fills images, branches, unit_ms, waves, root_ms and bytes; the rest of *job stays. Times are best
 * taken from one rank: there the median unit counts, elsewhere the mean of what all ranks were
 * busy. RP_E_IO (cannot be read), RP_E_FORMAT (not such a report), RP_E_ARG (a job that is not all
 * of equal waves); all logged. *job is unchanged on error.
 */
rp_status rp_predict_read_report(const char *path, rp_predict_job *job);

#endif
