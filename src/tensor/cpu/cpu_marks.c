/* cpu_marks.c - time marks of the CPU backend: ops are done when they return, so the clock will do.
 */
#include "tensor/cpu/cpu.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>

rp_status rp_cpu_marks_reserve(void *self, int n)
{
    rp_cpu *cpu = self;
    void *mem = NULL;

    if (n <= cpu->n_marks) {
        return RP_OK;
    }
    RP_TRY(rp_mem_new((size_t)n, sizeof(*cpu->marks), "time marks", &mem));
    free(cpu->marks);
    cpu->marks = mem;
    cpu->n_marks = n;
    return RP_OK;
}

void rp_cpu_mark(void *self, int index)
{
    rp_cpu *cpu = self;

    if (index >= 0 && index < cpu->n_marks) {
        cpu->marks[index] = rp_clock_now();
    }
}

rp_status rp_cpu_marks_read(void *self, int n, double *ms_out)
{
    const rp_cpu *cpu = self;

    if (n > cpu->n_marks) {
        return RP_FAIL(RP_E_ARG, "%d time marks are read, %d are reserved", n, cpu->n_marks);
    }
    for (int i = 0; i < n; i++) {
        ms_out[i] = 1e3 * (cpu->marks[i] - cpu->marks[0]);
    }
    return RP_OK;
}
