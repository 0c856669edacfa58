/*
 * outfile.c - files that appear whole or not at all.
 *
 * The stream is a cookie over write(2) instead of a plain FILE, because stdio forgets why an early
 * write failed: the cookie keeps the first errno for commit's message.
 */
#include "base/outfile.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define N_PENDING 8 /* files open at once that a signal can clean up; more still work */
#define N_TRIES   9 /* temporary names tried for one path */
#define PART_MOST (sizeof(".part-4194304.9") - 1)

struct rp_outfile {
    char *path, *temp;
    FILE *stream;
    int fd;
    int write_errno; /* the first failure of write(2), or 0 */
    int overwrite;
    int slot; /* in g_pending, or -1 */
};

/* A slot's path is written while it is CLAIMED, so that a handler sees LISTED paths whole. */
enum { FREE, CLAIMED, LISTED };

static struct {
    atomic_int state;
    char path[PATH_MAX];
} g_pending[N_PENDING];

static int pending_add(const char *path)
{
    if (strlen(path) >= PATH_MAX) {
        return -1;
    }
    for (int i = 0; i < N_PENDING; i++) {
        int expected = FREE;
        if (atomic_compare_exchange_strong(&g_pending[i].state, &expected, CLAIMED)) {
            (void)strcpy(g_pending[i].path, path);
            atomic_store(&g_pending[i].state, LISTED);
            return i;
        }
    }
    return -1;
}

static void pending_remove(int slot)
{
    if (slot >= 0) {
        atomic_store(&g_pending[slot].state, FREE);
    }
}

void rp_outfile_unlink_pending(void)
{
    const int saved = errno;

    for (int i = 0; i < N_PENDING; i++) {
        if (atomic_load(&g_pending[i].state) == LISTED) {
            (void)unlink(g_pending[i].path);
        }
    }
    errno = saved;
}

/* The folder that holds `path`, in new memory; NULL when out of memory. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL) {
        return strdup(".");
    }
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

static rp_status check_folder(const char *path)
{
    rp_status st = RP_OK;
    char *const dir = folder_of(path);
    struct stat about = {0};

    if (dir == NULL) {
        st = RP_FAIL(RP_E_NOMEM, "no memory for the name %s", path);
    } else if (stat(dir, &about) != 0) {
        st = errno == ENOENT
                 ? RP_FAIL(RP_E_IO, "cannot write %s: folder %s does not exist; create it first",
                           path, dir)
                 : RP_FAIL(RP_E_IO, "cannot write %s: folder %s: %s", path, dir, strerror(errno));
    } else if (!S_ISDIR(about.st_mode)) {
        st = RP_FAIL(RP_E_IO, "cannot write %s: %s is not a folder", path, dir);
    } else if (access(dir, W_OK | X_OK) != 0) {
        st = RP_FAIL(RP_E_IO, "cannot write %s: folder %s: %s", path, dir, strerror(errno));
    }
    free(dir);
    return st;
}

rp_status rp_outfile_check(const char *path, int overwrite)
{
    struct stat about = {0};
    const size_t n = strlen(path);

    if (n == 0) {
        return RP_FAIL(RP_E_IO, "cannot write a file without a name");
    }
    if (path[n - 1] == '/') {
        return RP_FAIL(RP_E_IO, "cannot write %s: it names a folder, not a file", path);
    }
    const char *slash = strrchr(path, '/');
    if (strlen(slash != NULL ? slash + 1 : path) + PART_MOST > NAME_MAX) {
        return RP_FAIL(RP_E_IO, "cannot write %.80s...: a name may have %d bytes", path,
                       (int)(NAME_MAX - PART_MOST));
    }
    if (lstat(path, &about) != 0) {
        /* ENOENT is the good case, or a missing folder, which check_folder names. */
        return errno == ENOENT || errno == ENOTDIR || errno == EACCES
                   ? check_folder(path)
                   : RP_FAIL(RP_E_IO, "cannot write %s: %s", path, strerror(errno));
    }
    if (S_ISDIR(about.st_mode)) {
        return RP_FAIL(RP_E_IO, "cannot write %s: it is a folder", path);
    }
    if (!overwrite) {
        return RP_FAIL(RP_E_EXISTS, "%s exists and is kept; --overwrite replaces it", path);
    }
    if (S_ISLNK(about.st_mode) && stat(path, &about) != 0) {
        return RP_FAIL(RP_E_IO, "cannot write %s: it is a link that leads nowhere", path);
    }
    /* A rename would put a plain file in the place of a device such as /dev/null. */
    if (!S_ISREG(about.st_mode)) {
        return RP_FAIL(RP_E_IO, "cannot write %s: it is not a regular file", path);
    }
    return check_folder(path);
}

static ssize_t cookie_write(void *cookie, const char *bytes, size_t n_bytes)
{
    rp_outfile *const file = cookie;
    size_t done = 0;

    while (done < n_bytes && file->write_errno == 0) {
        const ssize_t n = write(file->fd, bytes + done, n_bytes - done);
        if (n > 0) {
            done += (size_t)n;
        } else if (n == 0 || errno != EINTR) {
            file->write_errno = n == 0 ? EIO : errno;
        }
    }
    return (ssize_t)done; /* less than n_bytes sets the stream's error */
}

/* The file that a write reaches: an existing link is followed, so that it stays a link. */
static char *resolve(const char *path, int overwrite)
{
    struct stat about = {0};

    if (overwrite && lstat(path, &about) == 0 && S_ISLNK(about.st_mode)) {
        return realpath(path, NULL);
    }
    return strdup(path);
}

/* Another process may have the same pid (a container, another host), so a temporary file that is
 * there already is never touched: the next name is tried. */
static rp_status create_temp(rp_outfile *file)
{
    for (int i = 1; i <= N_TRIES; i++) {
        file->temp = i == 1 ? rp_mem_printf("%s.part-%ld", file->path, (long)getpid())
                            : rp_mem_printf("%s.part-%ld.%d", file->path, (long)getpid(), i);
        if (file->temp == NULL) {
            return RP_FAIL(RP_E_NOMEM, "no memory for the name %s", file->path);
        }
        file->fd = open(file->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file->fd >= 0) {
            file->slot = pending_add(file->temp);
            return RP_OK;
        }
        const int cause = errno;
        if (cause != EEXIST || i == N_TRIES) {
            const rp_status st = RP_FAIL(RP_E_IO, "cannot write %s: cannot create %s: %s",
                                         file->path, file->temp, strerror(cause));
            free(file->temp);
            file->temp = NULL; /* not ours to remove */
            return st;
        }
        free(file->temp);
    }
    return RP_E_IO; /* not reached */
}

rp_status rp_outfile_open(const char *path, int overwrite, rp_outfile **out)
{
    const cookie_io_functions_t io = {.write = cookie_write};
    rp_status st = RP_OK;
    rp_outfile *file = NULL;

    RP_TRY(rp_outfile_check(path, overwrite));
    file = calloc(1, sizeof(*file));
    if (file == NULL) {
        return RP_FAIL(RP_E_NOMEM, "no memory for writing %s", path);
    }
    file->fd = -1;
    file->slot = -1;
    file->overwrite = overwrite;
    file->path = resolve(path, overwrite);
    if (file->path == NULL) {
        st = RP_FAIL(RP_E_IO, "cannot write %s: %s", path, strerror(errno));
        goto out;
    }
    RP_TRY_OUT(create_temp(file));
    file->stream = fopencookie(file, "w", io);
    if (file->stream == NULL) {
        st = RP_FAIL(RP_E_NOMEM, "no memory for writing %s", path);
        goto out;
    }
    *out = file;
    file = NULL;

out:
    rp_outfile_abandon(file);
    return st;
}

FILE *rp_outfile_stream(rp_outfile *file)
{
    return file->stream;
}

/* Some file systems have no fsync; that is no failure of the write. */
static bool sync_failed(int fd)
{
    return fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP && errno != ENOSYS;
}

/* 0, or the errno of the first thing that failed. NFS reports a full disk no earlier than close. */
static int flush_to_disk(rp_outfile *file)
{
    const bool unflushed = fflush(file->stream) != 0 || ferror(file->stream);

    if (file->write_errno != 0) {
        return file->write_errno;
    }
    if (unflushed) {
        return EIO;
    }
    if (sync_failed(file->fd)) {
        return errno;
    }
    const int fd = file->fd;
    file->fd = -1;
    return close(fd) != 0 ? errno : 0;
}

/* Give the temporary file its name unless something has that name by now; 0 or an errno. File
 * systems differ in what they offer: NFS has no RENAME_NOREPLACE, FAT has no link(). */
static int publish_new(const char *temp, const char *path)
{
    struct stat about = {0};

    if (renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_NOREPLACE) == 0) {
        return 0;
    }
    if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) {
        return errno;
    }
    if (link(temp, path) == 0) {
        (void)unlink(temp);
        return 0;
    }
    if (errno != EPERM && errno != ENOSYS && errno != ENOTSUP) {
        return errno;
    }
    if (lstat(path, &about) == 0) {
        return EEXIST;
    }
    return rename(temp, path) != 0 ? errno : 0;
}

static void sync_folder(const char *path)
{
    char *const dir = folder_of(path);
    const int fd = dir != NULL ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    /* A folder that may be written but not read cannot be opened; the file itself is on the disk.
     */
    if (fd >= 0) {
        if (sync_failed(fd)) {
            RP_WARN("cannot flush folder %s: %s; %s may be lost if the machine stops now", dir,
                    strerror(errno), path);
        }
        (void)close(fd);
    }
    free(dir);
}

rp_status rp_outfile_commit(rp_outfile *file)
{
    rp_status st = RP_OK;
    int cause = flush_to_disk(file);

    if (cause == 0) {
        cause = file->overwrite ? (rename(file->temp, file->path) != 0 ? errno : 0)
                                : publish_new(file->temp, file->path);
    }
    if (cause == EEXIST && !file->overwrite) {
        st = RP_FAIL(RP_E_EXISTS, "%s appeared meanwhile and is kept; --overwrite replaces it",
                     file->path);
    } else if (cause != 0) {
        st = RP_FAIL(RP_E_IO, "cannot write %s: %s", file->path, strerror(cause));
    } else {
        free(file->temp); /* has its final name: nothing for abandon to remove */
        file->temp = NULL;
        sync_folder(file->path);
    }
    rp_outfile_abandon(file);
    return st;
}

void rp_outfile_abandon(rp_outfile *file)
{
    if (file == NULL) {
        return;
    }
    if (file->temp != NULL) {
        (void)unlink(file->temp);
    }
    pending_remove(file->slot);
    if (file->stream != NULL) {
        file->write_errno = EIO; /* what is still buffered is not wanted */
        (void)fclose(file->stream);
    }
    if (file->fd >= 0) {
        (void)close(file->fd);
    }
    free(file->temp);
    free(file->path);
    free(file);
}
