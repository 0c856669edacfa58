/*
 * outfile.h - files that appear whole or not at all.
 *
 * Bytes go to "<path>.part-<pid>" in the same folder; commit() flushes them to the disk and
 * renames. Whatever ends the program earlier leaves no file under the final name. (Where a file has
 * the temporary name already, ".part-<pid>.2" and so on are tried.) A link that is overwritten
 * stays a link: the file that it leads to is replaced. Devices and pipes are refused.
 */
#ifndef RP_OUTFILE_H
#define RP_OUTFILE_H

#include <rankpool/status.h>

#include <stdio.h>

typedef struct rp_outfile rp_outfile;

/* RP_E_EXISTS (the file is there and overwrite is 0; logged, says --overwrite), RP_E_IO (logged
 * with the cause). */
rp_status rp_outfile_open(const char *path, int overwrite, rp_outfile **out);

/* Where to write, front to back (no fseek); errors of stdio are found by commit. */
FILE *rp_outfile_stream(rp_outfile *file);

/* fflush, fsync, rename, fsync of the folder; then free. RP_E_IO (logged; the temporary file is
 * gone). Without overwrite a file that appeared meanwhile is kept: RP_E_EXISTS. */
rp_status rp_outfile_commit(rp_outfile *file);

/* Remove the temporary file and free; NULL is allowed. */
void rp_outfile_abandon(rp_outfile *file);

/* Could `path` be created? Checks existence (unless overwrite) and that its folder exists and is
 * writable, with the message that open would give; creates nothing. For refusing early. */
rp_status rp_outfile_check(const char *path, int overwrite);

/* Remove the temporary files of this process. Async-signal-safe: for a handler that ends the
 * process and before _exit; a file that is open then cannot be committed any more. */
void rp_outfile_unlink_pending(void);

#endif
