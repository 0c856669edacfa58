/* cli_jobs.c - read and check all lines of a batch. */
#include "cli/cli_jobs.h"

#include "cli/cli_log.h"

#include <errno.h>
#include <limits.h>
#include <search.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A file that a line writes, for finding two lines that write the same. */
typedef struct {
    long line;
    char path[]; /* below the folder */
} owned_name;

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const owned_name *)a)->path, ((const owned_name *)b)->path);
}

/* ------------------------------------------------------------------ outputs */

/* Below the folder and nowhere else: relative, no "..", and written in one way only, so that equal
 * files have equal names. */
static rp_status check_plain(const char *key, const char *path)
{
    bool ok = path[0] != '\0' && path[0] != '/';

    for (const char *part = path; ok && part != NULL;) {
        const size_t n = strcspn(part, "/");
        ok = n > 0 && !(n == 1 && part[0] == '.') && !(n == 2 && part[0] == '.' && part[1] == '.');
        part = part[n] == '/' ? part + n + 1 : NULL;
    }
    if (!ok) {
        rp_cli_error(
            "key '%s': '%.80s' is not allowed: a name below the output folder, not absolute, "
            "without '.' and '..'",
            key, path);
        return RP_E_ARG;
    }
    const size_t n = strlen(path);
    if (strcmp(key, "out") == 0 && (n < 5 || strcmp(path + n - 4, ".png") != 0)) {
        rp_cli_error("key 'out': '%.80s' is not allowed: a picture's name ends in .png", path);
        return RP_E_ARG;
    }
    return RP_OK;
}

static rp_status claim_name(rp_cli_jobs *jobs, long line, const char *path)
{
    owned_name *mine = malloc(sizeof(*mine) + strlen(path) + 1);

    if (mine == NULL) {
        return RP_E_NOMEM;
    }
    mine->line = line;
    (void)strcpy(mine->path, path);
    owned_name **found = tsearch(mine, &jobs->names, compare_names);
    if (found == NULL) {
        free(mine);
        return RP_E_NOMEM;
    }
    if (*found == mine) {
        return RP_OK;
    }
    free(mine);
    if ((*found)->line == line) {
        rp_cli_error("two files of this line have the same name %s", path);
    } else {
        rp_cli_error("same output as line %ld: %s", (*found)->line, path);
    }
    return RP_E_ARG;
}

/* Picture i of a job: "a.png", or of several a-0000.png, a-0001.png ... (the row of "out" says so).
 * The caller has checked that 16 bytes more than out fit. */
static void picture_name(const char *out, int i, int n_images, char name[PATH_MAX])
{
    const int stem = (int)strlen(out) - 4; /* check_plain saw the .png */

    if (n_images == 1) {
        (void)snprintf(name, PATH_MAX, "%s", out);
    } else {
        (void)snprintf(name, PATH_MAX, "%.*s-%04d.png", stem, out, i);
    }
}

static int n_images_of(const rp_cli_job *job)
{
    return atoi(rp_settings_get(job->settings, "images"));
}

static rp_status claim_pictures(rp_cli_jobs *jobs, const rp_cli_job *job, const char *out)
{
    const int n_images = n_images_of(job);
    char name[PATH_MAX];
    rp_status st = RP_OK;

    for (int i = 0; i < n_images && st == RP_OK; i++) {
        picture_name(out, i, n_images, name);
        st = claim_name(jobs, job->line, name);
    }
    return st;
}

/* A folder of that name is none: the job says so. */
static bool is_file(const char *path)
{
    struct stat about;

    return stat(path, &about) == 0 && !S_ISDIR(about.st_mode);
}

bool rp_cli_job_is_made(const rp_cli_job *job)
{
    static const char *const others[] = {"latents-out", "report", "trace"};
    const int n_images = n_images_of(job);
    bool made = true;
    char name[PATH_MAX];

    for (int i = 0; i < n_images && made; i++) {
        picture_name(rp_settings_get(job->settings, "out"), i, n_images, name);
        made = is_file(name);
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]) && made; i++) {
        const char *path = rp_settings_get(job->settings, others[i]);
        made = path[0] == '\0' || is_file(path);
    }
    return made;
}

/* Put the output `key` of the job below the folder; an empty one is not written. */
static rp_status place_output(rp_cli_jobs *jobs, rp_cli_job *job, const char *key,
                              const char *folder)
{
    const char *path = rp_settings_get(job->settings, key);
    char placed[PATH_MAX];

    if (path[0] == '\0' && strcmp(key, "out") != 0) {
        return RP_OK;
    }
    rp_status st = check_plain(key, path);
    if (st == RP_OK && strlen(folder) + strlen(path) + 16 > sizeof(placed)) {
        rp_cli_error("key '%s': the name has %zu bytes, too long for a path", key, strlen(path));
        st = RP_E_ARG;
    }
    if (st != RP_OK) {
        return st;
    }
    if (strcmp(key, "out") == 0) {
        st = claim_pictures(jobs, job, path);
    } else {
        st = claim_name(jobs, job->line, path);
    }
    if (st == RP_OK) {
        (void)snprintf(placed, sizeof(placed), "%s/%s", folder, path);
        st = rp_settings_set(job->settings, key, placed);
    }
    return st;
}

/* -------------------------------------------------------------------- lines */

/* Beside the picture, under a name that no picture has. */
static rp_status name_checkpoint(rp_cli_job *job)
{
    char name[PATH_MAX];
    const int n =
        snprintf(name, sizeof(name), "%s.checkpoint", rp_settings_get(job->settings, "out"));

    /* a name too long is refused as that of the picture */
    return n >= PATH_MAX ? RP_OK : rp_settings_set(job->settings, "checkpoint", name);
}

static rp_status fill_job(rp_cli_jobs *jobs, rp_cli_job *job, const char *text, const char *folder)
{
    static const char *const outputs[] = {"out", "latents-out", "report", "trace", "checkpoint"};
    char number[32];

    (void)snprintf(number, sizeof(number), "%04ld.png", job->line);
    rp_status st = rp_settings_set(job->settings, "out", number);
    if (st == RP_OK) {
        st = rp_settings_set_json(job->settings, text);
    }
    if (st == RP_OK && rp_settings_get(job->settings, "checkpoint")[0] == '\0') {
        st = name_checkpoint(job);
    }
    for (size_t i = 0; i < sizeof(outputs) / sizeof(outputs[0]) && st == RP_OK; i++) {
        st = place_output(jobs, job, outputs[i], folder);
    }
    return st;
}

static rp_cli_job *add_job(rp_cli_jobs *jobs)
{
    if (jobs->n == jobs->room) {
        const size_t room = jobs->room == 0 ? 64 : jobs->room * 2;
        rp_cli_job *more = realloc(jobs->jobs, room * sizeof(*more));
        if (more == NULL) {
            return NULL;
        }
        jobs->jobs = more;
        jobs->room = room;
    }
    jobs->jobs[jobs->n] = (rp_cli_job){0};
    return &jobs->jobs[jobs->n++];
}

/* text[n_bytes] without its newline. A bad line is reported and no error of this function. */
static rp_status read_line(rp_cli_jobs *jobs, long number, char *text, size_t n_bytes,
                           const rp_settings *defaults, const char *folder)
{
    const char *start = text + strspn(text, " \t\r");

    if ((*start == '\0' && strlen(text) == n_bytes) || *start == '#') {
        return RP_OK;
    }
    rp_cli_job *job = add_job(jobs);
    if (job == NULL) {
        return RP_E_NOMEM;
    }
    job->line = number;
    job->settings = rp_settings_copy(defaults);
    if (job->settings == NULL) {
        return RP_E_NOMEM;
    }
    rp_cli_log_line(jobs->file, number);
    rp_status st = RP_OK;
    if (strlen(text) != n_bytes) {
        rp_cli_error("the line has a NUL byte at byte %zu", strlen(text));
        st = RP_E_FORMAT;
    } else {
        st = fill_job(jobs, job, start, folder);
    }
    rp_cli_log_line(NULL, 0);
    if (st == RP_OK) {
        job->state = RP_CLI_JOB_READY;
    } else {
        rp_settings_free(job->settings);
        job->settings = NULL;
    }
    return st == RP_E_NOMEM ? st : RP_OK;
}

static rp_status read_lines(rp_cli_jobs *jobs, FILE *stream, const rp_settings *defaults,
                            const char *folder)
{
    rp_status st = RP_OK;
    char *text = NULL;
    size_t room = 0;
    ssize_t n = 0;

    for (long number = 1; st == RP_OK && (n = getline(&text, &room, stream)) >= 0; number++) {
        while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r')) {
            text[--n] = '\0';
        }
        st = read_line(jobs, number, text, (size_t)n, defaults, folder);
    }
    if (st == RP_OK && ferror(stream)) {
        rp_cli_error("cannot read %s: %s", jobs->file, strerror(errno));
        st = RP_E_IO;
    }
    if (st == RP_E_NOMEM) {
        rp_cli_error("no memory for the %zu jobs of %s", jobs->n, jobs->file);
    }
    free(text);
    return st;
}

rp_status rp_cli_jobs_init(rp_cli_jobs *jobs, const char *path, const rp_settings *defaults,
                           const char *folder)
{
    const bool is_stdin = strcmp(path, "-") == 0;
    FILE *stream = is_stdin ? stdin : fopen(path, "r");

    *jobs = (rp_cli_jobs){.file = is_stdin ? "(standard input)" : path};
    if (stream == NULL) {
        rp_cli_error("cannot open the batch %s: %s", path, strerror(errno));
        return RP_E_IO;
    }
    rp_status st = read_lines(jobs, stream, defaults, folder);
    if (!is_stdin) {
        (void)fclose(stream);
    }
    if (st == RP_OK && jobs->n == 0) {
        rp_cli_error("no job in %s: one JSON object a line, as {\"prompt\": \"sun\"}", jobs->file);
        st = RP_E_ARG;
    }
    return st;
}

void rp_cli_jobs_fini(rp_cli_jobs *jobs)
{
    for (size_t i = 0; i < jobs->n; i++) {
        rp_settings_free(jobs->jobs[i].settings);
    }
    free(jobs->jobs);
    tdestroy(jobs->names, free);
    *jobs = (rp_cli_jobs){0};
}
