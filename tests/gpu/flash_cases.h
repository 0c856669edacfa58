/* flash_cases.h - what the tests of our own attention compute: shapes that fit no tile, scores that
 * grow and that dwarf each other. */
#ifndef RP_FLASH_CASES_H
#define RP_FLASH_CASES_H

#include "rp_test.h"

#include <stdint.h>
#include <string.h>

enum { HEAD_DIM = 96 };

/* How queries and keys are made. RANDOM: scores about normal(0, 1); GROWING: with the number of the
 * key, to about 80; PEAKED: about normal(0, 16); BELOW: all about -60, so that a key too many would
 * be the only one that counts; LAST: in some rows all depends on the last key. */
typedef enum { RANDOM, GROWING, PEAKED, BELOW, LAST } flash_kind;

typedef struct {
    int n_q, n_kv, n_heads, n_kv_heads;
    int gap; /* columns behind q, k and v, and behind out where it is written */
    flash_kind kind;
} flash_case;

static const flash_case flash_cases[] = {
    {1024, 512, 2, 1, 0, RANDOM},   {1025, 513, 3, 3, 8, RANDOM},   {1111, 777, 6, 2, 40, RANDOM},
    {4096, 4224, 3, 1, 0, RANDOM},  {1200, 672, 24, 8, 0, RANDOM},  {1153, 1025, 1, 1, 16, RANDOM},
    {1024, 1344, 2, 2, 8, GROWING}, {1111, 4001, 3, 1, 0, GROWING}, {1300, 777, 3, 1, 0, PEAKED},
    {1025, 2000, 2, 2, 8, PEAKED},  {1024, 513, 3, 1, 0, BELOW},    {1100, 673, 2, 1, 24, BELOW},
    {1100, 777, 3, 1, 0, LAST},     {1024, 769, 2, 2, 8, LAST},     {1217, 512, 2, 1, 0, LAST},
};

static float kept_by_bf16(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    bits &= 0xffff0000u;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static void change(float *x, int n, float times, float by)
{
    for (int i = 0; i < n; i++) {
        x[i] = x[i] * times + by;
    }
}

/* Row i, [q | k | v | gap], as the case wants it. */
static void make_row(const flash_case *c, float *q, int i)
{
    const int q_dim = c->n_heads * HEAD_DIM, kv_dim = c->n_kv_heads * HEAD_DIM;
    float *const k = q + q_dim;
    const float way = (float)i / (float)c->n_kv;

    if (c->kind == GROWING) {
        change(q, q_dim, 0.5f, 1.0f);
        change(k, kv_dim, 0.5f, 8.0f * way);
    } else if (c->kind == PEAKED) {
        change(q, q_dim, 4.0f, 0.0f);
        change(k, kv_dim, 4.0f, 0.0f);
    } else if (c->kind == BELOW) {
        change(q, q_dim, 0.25f, 2.0f);
        change(k, kv_dim, 0.25f, -3.0f);
    } else if (c->kind == LAST && i % 7 == 5) {
        change(q, q_dim, 0.0f, 3.0f);
    }
    if (c->kind == LAST && i == c->n_kv - 1) {
        change(k, kv_dim, 0.0f, 3.0f);
    }
    if (i % 64 == 9) {
        change(q, q_dim, 0.0f, 0.0f); /* all keys alike */
    }
}

/* host [n_in], rows `stride` apart: what bf16 keeps. */
static void make_rows(const flash_case *c, float *host, size_t n_in, size_t stride, unsigned seed)
{
    rpt_fill(host, n_in, seed);
    for (size_t i = 0; i < n_in / stride; i++) {
        make_row(c, host + i * stride, (int)i);
    }
    for (size_t i = 0; i < n_in; i++) {
        host[i] = kept_by_bf16(host[i]);
    }
}

#endif
