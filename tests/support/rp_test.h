/*
 * rp_test.h - what the tests share: cmocka in the include order it needs, tensor comparison, a
 * temporary folder.
 */
#ifndef RP_TEST_H
#define RP_TEST_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <rankpool/rankpool.h>

/* Relative L2 error |got - want| / |want|; a NaN in got gives infinity. */
double rpt_rel_l2(const float *got, const float *want, size_t n);

/* Fails with the name, the error and the first big difference when rpt_rel_l2 > tolerance. */
void rpt_assert_close(const char *name, const float *got, const float *want, size_t n, double tolerance);

/* Deterministic values, about normal(0, 1). */
void rpt_fill(float *out, size_t n, unsigned seed);

/* A fresh folder under $TMPDIR; removed with all it holds by rpt_rmdir (which frees the name too). */
char *rpt_mkdir(void);
void rpt_rmdir(char *dir);

/* Collect log lines instead of printing them: from now on, the newest line is rpt_log_last(). */
void rpt_log_collect(void);
const char *rpt_log_last(void);
void rpt_log_clear(void);

#endif
