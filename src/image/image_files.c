/*
 * image_files.c - several pictures to their files.
 *
 * Compressing takes most of the time and needs no file: threads do it, each the next picture that
 * nobody has. The caller writes them in order. Threads stay at most AHEAD pictures each before it,
 * so that not all of a large job wait in memory.
 */
#include "image/image_png.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#define AHEAD       2
#define MAX_THREADS 64

typedef struct {
    rp_png png;
    bool done, ok;
} made;

typedef struct {
    const rp_image_file *files;
    int n, w, h;
    made *made; /* [n] */

    pthread_mutex_t lock; /* of what follows, and of made[].done */
    pthread_cond_t changed;
    int next, limit; /* the next picture that nobody has; the first one that must wait */
    pthread_t threads[MAX_THREADS];
    int n_threads;
} team;

/* The next picture, or -1: all are taken. */
static int take(team *t)
{
    int i = -1;

    pthread_mutex_lock(&t->lock);
    while (t->next >= t->limit && t->next < t->n) {
        pthread_cond_wait(&t->changed, &t->lock);
    }
    if (t->next < t->n) {
        i = t->next++;
    }
    pthread_mutex_unlock(&t->lock);
    return i;
}

static void finish(team *t, int i)
{
    pthread_mutex_lock(&t->lock);
    t->made[i].done = true;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static void *compress(void *arg)
{
    team *const t = arg;

    for (int i = take(t); i >= 0; i = take(t)) {
        t->made[i].ok = rp_png_encode(&t->files[i], t->w, t->h, &t->made[i].png);
        finish(t, i);
    }
    return NULL;
}

/* Picture i is being written: those after it may be made. */
static void allow(team *t, int i)
{
    pthread_mutex_lock(&t->lock);
    t->limit = i + 1 + AHEAD * t->n_threads;
    pthread_cond_broadcast(&t->changed);
    while (!t->made[i].done) {
        pthread_cond_wait(&t->changed, &t->lock);
    }
    pthread_mutex_unlock(&t->lock);
}

/* As many as the system gives; without any the caller does it. Signals are the caller's business:
 * new threads take none. They begin when `allow` is called first. */
static void start(team *t, int n_threads)
{
    sigset_t all, before;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    while (t->n_threads < n_threads && t->n_threads < t->n && t->n_threads < MAX_THREADS &&
           pthread_create(&t->threads[t->n_threads], NULL, compress, t) == 0) {
        t->n_threads++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void drop(made *m)
{
    free(m->png.bytes);
    m->png = (rp_png){NULL};
}

/* No more pictures are begun, those that nobody has written are dropped; the caller goes on alone.
 */
static void stop(team *t)
{
    pthread_mutex_lock(&t->lock);
    t->next = t->n;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
    for (int i = 0; i < t->n_threads; i++) {
        pthread_join(t->threads[i], NULL);
    }
    t->n_threads = 0;
    for (int i = 0; i < t->n; i++) {
        drop(&t->made[i]);
    }
}

/* Picture i is made. Threads may take more memory than there is: then it is tried without them. */
static bool make(team *t, int i)
{
    made *const m = &t->made[i];

    if (t->n_threads > 0) {
        allow(t, i);
        if (m->ok) {
            return true;
        }
        stop(t);
    }
    return rp_png_encode(&t->files[i], t->w, t->h, &m->png);
}

static rp_status write_one(team *t, int i, int overwrite)
{
    made *const m = &t->made[i];

    if (!make(t, i)) {
        return RP_FAIL(RP_E_NOMEM, "cannot encode %s: %s", t->files[i].path, m->png.message);
    }
    const rp_status st = rp_png_write(&t->files[i], &m->png, overwrite);
    drop(m);
    return st;
}

rp_status rp_image_write_pngs(const rp_image_file *files, int n, int w, int h, int overwrite,
                              int n_threads)
{
    team t = {.files = files, .n = n, .w = w, .h = h};
    rp_status st = RP_OK;

    for (int i = 0; i < n; i++) {
        RP_TRY(rp_png_check(&files[i], w, h));
    }
    RP_TRY(rp_mem_new((size_t)n, sizeof(*t.made), "pictures", (void **)&t.made));
    pthread_mutex_init(&t.lock, NULL);
    pthread_cond_init(&t.changed, NULL);
    if (n > 1 && n_threads > 1) {
        start(&t, n_threads);
    }
    for (int i = 0; i < n && st == RP_OK; i++) {
        st = write_one(&t, i, overwrite);
    }
    stop(&t);
    pthread_cond_destroy(&t.changed);
    pthread_mutex_destroy(&t.lock);
    free(t.made);
    return st;
}

rp_status rp_image_write_png(const char *path, const uint8_t *rgb, int w, int h,
                             const char *settings, int overwrite)
{
    return rp_image_write_pngs(&(rp_image_file){path, rgb, settings}, 1, w, h, overwrite, 1);
}
