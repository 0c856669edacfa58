/*
 * test_outfile.c - files appear whole or not at all.
 *
 * renameat2, link, fsync and lstat of outfile.c are wrapped by the linker, so that file systems
 * which lack them can be played.
 */
#include "rp_test.h"

#include "base/outfile.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* ------------------------------------------------------ wrapped calls */

static int g_renameat2_errno, g_link_errno, g_fsync_errno;
static int g_n_links;

int __real_renameat2(int, const char *, int, const char *, unsigned);
int __wrap_renameat2(int, const char *, int, const char *, unsigned);
int __real_link(const char *, const char *);
int __wrap_link(const char *, const char *);
int __real_fsync(int);
int __wrap_fsync(int);

int __wrap_renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
    if (g_renameat2_errno != 0) {
        errno = g_renameat2_errno;
        return -1;
    }
    return __real_renameat2(a, from, b, to, flags);
}

int __wrap_link(const char *from, const char *to)
{
    g_n_links++;
    if (g_link_errno != 0) {
        errno = g_link_errno;
        return -1;
    }
    return __real_link(from, to);
}

int __wrap_fsync(int fd)
{
    if (g_fsync_errno != 0) {
        errno = g_fsync_errno;
        return -1;
    }
    return __real_fsync(fd);
}

/* ------------------------------------------------------------ helpers */

static char *g_dir;

static int set_up(void **state)
{
    (void)state;
    g_dir = rpt_mkdir();
    g_renameat2_errno = g_link_errno = g_fsync_errno = g_n_links = 0;
    rpt_log_collect();
    rpt_log_clear();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rpt_rmdir(g_dir);
    return 0;
}

/* Static: one at a time. */
static const char *in_dir(const char *name)
{
    static char path[600];

    (void)snprintf(path, sizeof(path), "%s/%s", g_dir, name);
    return path;
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void assert_holds(const char *path, const char *want)
{
    char text[64] = "";
    FILE *f = fopen(path, "r");

    assert_non_null(f);
    text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
    (void)fclose(f);
    assert_string_equal(text, want);
}

static int count_files(const char *path)
{
    DIR *dir = opendir(path);
    int n = 0;

    assert_non_null(dir);
    for (const struct dirent *d = readdir(dir); d != NULL; d = readdir(dir)) {
        n += d->d_name[0] != '.' ? 1 : 0;
    }
    (void)closedir(dir);
    return n;
}

static rp_status write_text(const char *path, const char *text, int overwrite)
{
    rp_outfile *file = NULL;
    const rp_status st = rp_outfile_open(path, overwrite, &file);

    if (st != RP_OK) {
        assert_null(file);
        return st;
    }
    assert_true(fputs(text, rp_outfile_stream(file)) >= 0);
    return rp_outfile_commit(file);
}

static void assert_logged(const char *part)
{
    if (strstr(rpt_log_last(), part) == NULL) {
        fail_msg("\"%s\" is not in \"%s\"", part, rpt_log_last());
    }
}

/* -------------------------------------------------------------- tests */

static void appears_at_commit_and_not_before(void **state)
{
    (void)state;
    rp_outfile *file = NULL;

    assert_int_equal(rp_outfile_open(in_dir("a.txt"), 0, &file), RP_OK);
    assert_true(fputs("hello", rp_outfile_stream(file)) >= 0);
    assert_int_equal(fflush(rp_outfile_stream(file)), 0);
    assert_int_equal(access(in_dir("a.txt"), F_OK), -1);

    char temp[64];
    (void)snprintf(temp, sizeof(temp), "a.txt.part-%ld", (long)getpid());
    assert_holds(in_dir(temp), "hello");

    assert_int_equal(rp_outfile_commit(file), RP_OK);
    assert_holds(in_dir("a.txt"), "hello");
    assert_int_equal(count_files(g_dir), 1);
    assert_string_equal(rpt_log_last(), "");
}

static void abandon_leaves_nothing(void **state)
{
    (void)state;
    rp_outfile *file = NULL;

    assert_int_equal(rp_outfile_open(in_dir("a.txt"), 0, &file), RP_OK);
    assert_true(fputs("hello", rp_outfile_stream(file)) >= 0);
    rp_outfile_abandon(file);
    rp_outfile_abandon(NULL);
    assert_int_equal(count_files(g_dir), 0);
}

static void an_existing_file_is_kept_unless_told(void **state)
{
    (void)state;
    put(in_dir("a.txt"), "old");
    assert_int_equal(write_text(in_dir("a.txt"), "new", 0), RP_E_EXISTS);
    assert_logged("--overwrite");
    assert_logged("a.txt");
    assert_int_equal(rp_outfile_check(in_dir("a.txt"), 0), RP_E_EXISTS);
    assert_holds(in_dir("a.txt"), "old");

    assert_int_equal(rp_outfile_check(in_dir("a.txt"), 1), RP_OK);
    assert_int_equal(write_text(in_dir("a.txt"), "new", 1), RP_OK);
    assert_holds(in_dir("a.txt"), "new");
    assert_int_equal(count_files(g_dir), 1);
}

static void abandoned_overwrite_keeps_the_old_file(void **state)
{
    (void)state;
    rp_outfile *file = NULL;

    put(in_dir("a.txt"), "old");
    assert_int_equal(rp_outfile_open(in_dir("a.txt"), 1, &file), RP_OK);
    assert_true(fputs("new", rp_outfile_stream(file)) >= 0);
    rp_outfile_abandon(file);
    assert_holds(in_dir("a.txt"), "old");
    assert_int_equal(count_files(g_dir), 1);
}

/* On file systems with RENAME_NOREPLACE, with link() only, and with neither. */
static void a_file_that_appeared_meanwhile_is_kept(void **state)
{
    (void)state;
    static const int modes[][2] = {{0, 0}, {EINVAL, 0}, {ENOSYS, EPERM}, {ENOTSUP, ENOTSUP}};

    for (size_t i = 0; i < 4; i++) {
        rp_outfile *file = NULL;
        g_renameat2_errno = modes[i][0];
        g_link_errno = modes[i][1];
        assert_int_equal(rp_outfile_open(in_dir("a.txt"), 0, &file), RP_OK);
        assert_true(fputs("ours", rp_outfile_stream(file)) >= 0);
        put(in_dir("a.txt"), "theirs");
        assert_int_equal(rp_outfile_commit(file), RP_E_EXISTS);
        assert_logged("--overwrite");
        assert_holds(in_dir("a.txt"), "theirs");
        assert_int_equal(count_files(g_dir), 1);
        assert_int_equal(unlink(in_dir("a.txt")), 0);

        assert_int_equal(write_text(in_dir("a.txt"), "ours", 0), RP_OK);
        assert_holds(in_dir("a.txt"), "ours");
        assert_int_equal(count_files(g_dir), 1);
        assert_int_equal(unlink(in_dir("a.txt")), 0);
    }
    assert_int_equal(g_n_links, 6);
}

static void a_rename_that_fails_leaves_nothing(void **state)
{
    (void)state;
    g_renameat2_errno = EIO;
    assert_int_equal(write_text(in_dir("a.txt"), "x", 0), RP_E_IO);
    assert_logged(strerror(EIO));
    assert_int_equal(count_files(g_dir), 0);
}

static void fsync_errors_count_where_there_is_an_fsync(void **state)
{
    (void)state;
    g_fsync_errno = ENOSPC;
    assert_int_equal(write_text(in_dir("a.txt"), "x", 0), RP_E_IO);
    assert_logged("No space left on device");
    assert_int_equal(count_files(g_dir), 0);

    g_fsync_errno = EINVAL;
    assert_int_equal(write_text(in_dir("a.txt"), "x", 0), RP_OK);
    assert_holds(in_dir("a.txt"), "x");
}

static void a_temporary_name_that_is_taken_is_left_alone(void **state)
{
    (void)state;
    char temp[64];

    (void)snprintf(temp, sizeof(temp), "a.txt.part-%ld", (long)getpid());
    put(in_dir(temp), "of another host");
    assert_int_equal(write_text(in_dir("a.txt"), "x", 0), RP_OK);
    assert_holds(in_dir("a.txt"), "x");
    assert_holds(in_dir(temp), "of another host");
    assert_int_equal(count_files(g_dir), 2);
}

static void bad_paths_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *name, *say;
    } cases[] = {
        {"no/such/x.png", "create it first"}, {"file/x.png", "is not a folder"},
        {"folder", "it is a folder"},         {"folder/", "names a folder"},
        {"loose", "leads nowhere"},           {"pipe", "not a regular file"},
    };

    put(in_dir("file"), "");
    assert_int_equal(mkdir(in_dir("folder"), 0777), 0);
    assert_int_equal(mkfifo(in_dir("pipe"), 0666), 0);
    assert_int_equal(symlink("nothing", in_dir("loose")), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rpt_log_clear();
        assert_int_equal(rp_outfile_check(in_dir(cases[i].name), 1), RP_E_IO);
        assert_logged(cases[i].say);
        rpt_log_clear();
        assert_int_equal(write_text(in_dir(cases[i].name), "x", 1), RP_E_IO);
        assert_logged(cases[i].say);
    }
    assert_int_equal(rp_outfile_check("", 0), RP_E_IO);
    assert_int_equal(rp_outfile_check("/dev/full", 1), RP_E_IO);
    assert_int_equal(rp_outfile_check(in_dir("loose"), 0), RP_E_EXISTS);
    assert_int_equal(count_files(g_dir), 4);
}

static void check_creates_nothing(void **state)
{
    (void)state;
    assert_int_equal(rp_outfile_check(in_dir("a.txt"), 0), RP_OK);
    assert_int_equal(rp_outfile_check("a-name-without-folder.txt", 0), RP_OK);
    assert_int_equal(count_files(g_dir), 0);
}

static void a_link_that_is_overwritten_stays_a_link(void **state)
{
    (void)state;
    struct stat about = {0};

    put(in_dir("target"), "old");
    assert_int_equal(symlink("target", in_dir("link")), 0);
    assert_int_equal(write_text(in_dir("link"), "new", 1), RP_OK);
    assert_int_equal(lstat(in_dir("link"), &about), 0);
    assert_true(S_ISLNK(about.st_mode));
    assert_holds(in_dir("target"), "new");
    assert_int_equal(count_files(g_dir), 2);
}

static void pending_files_are_removed_by_a_signal_handler(void **state)
{
    (void)state;
    rp_outfile *files[12] = {NULL};

    for (int i = 0; i < 12; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "f%d", i);
        assert_int_equal(rp_outfile_open(in_dir(name), 0, &files[i]), RP_OK);
    }
    assert_int_equal(count_files(g_dir), 12);
    rp_outfile_unlink_pending();
    assert_int_equal(count_files(g_dir), 4); /* room for 8 */
    for (int i = 0; i < 12; i++) {
        rp_outfile_abandon(files[i]);
    }
    assert_int_equal(count_files(g_dir), 0);

    /* A committed file is nobody's temporary file any more, and its place is free again. */
    assert_int_equal(write_text(in_dir("done"), "x", 0), RP_OK);
    rp_outfile_unlink_pending();
    assert_holds(in_dir("done"), "x");
}

/* A full disk: found by stdio early, or only by the last flush. */
static void a_full_disk_is_an_error_with_its_cause(void **state)
{
    (void)state;
    static const size_t sizes[] = {1u << 20, 70000, 66000};
    char *const bytes = calloc(1, sizes[0]);

    if (mount("tmpfs", g_dir, "tmpfs", 0, "size=64k") != 0) {
        print_message("skipped: cannot mount a tmpfs of 64 KiB: %s\n", strerror(errno));
        free(bytes);
        skip();
    }
    int bad = 0; /* asserts come after umount */
    for (size_t i = 0; i < 3; i++) {
        rp_outfile *file = NULL;
        rpt_log_clear();
        bad += rp_outfile_open(in_dir("a.bin"), 0, &file) != RP_OK;
        for (size_t done = 0; done < sizes[i]; done += 1000) {
            (void)fwrite(bytes, 1, 1000, rp_outfile_stream(file));
        }
        bad += rp_outfile_commit(file) != RP_E_IO;
        bad += strstr(rpt_log_last(), "No space left on device") == NULL;
        bad += strstr(rpt_log_last(), "a.bin") == NULL;
        bad += count_files(g_dir) != 0;
    }
    bad += write_text(in_dir("small"), "fits", 0) != RP_OK;
    assert_int_equal(umount(g_dir), 0);
    free(bytes);
    assert_int_equal(bad, 0);
}

static void a_read_only_folder_is_refused(void **state)
{
    (void)state;
    if (mount("tmpfs", g_dir, "tmpfs", MS_RDONLY, "size=64k") != 0) {
        print_message("skipped: cannot mount a read-only tmpfs: %s\n", strerror(errno));
        skip();
    }
    const rp_status st = rp_outfile_check(in_dir("a.txt"), 0);
    assert_int_equal(umount(g_dir), 0);
    assert_int_equal(st, RP_E_IO);
    assert_logged("Read-only file system");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(appears_at_commit_and_not_before),
        TEST(abandon_leaves_nothing),
        TEST(an_existing_file_is_kept_unless_told),
        TEST(abandoned_overwrite_keeps_the_old_file),
        TEST(a_file_that_appeared_meanwhile_is_kept),
        TEST(a_rename_that_fails_leaves_nothing),
        TEST(fsync_errors_count_where_there_is_an_fsync),
        TEST(a_temporary_name_that_is_taken_is_left_alone),
        TEST(bad_paths_are_named),
        TEST(check_creates_nothing),
        TEST(a_link_that_is_overwritten_stays_a_link),
        TEST(pending_files_are_removed_by_a_signal_handler),
        TEST(a_full_disk_is_an_error_with_its_cause),
        TEST(a_read_only_folder_is_refused),
    };

    return cmocka_run_group_tests_name("outfile", tests, NULL, NULL);
}
