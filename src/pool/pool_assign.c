/* pool_assign.c - units -> ranks, a pure function. */
#include "pool/pool.h"

static int longest_left(const rp_unit *units, int n_units, const int *rank_of)
{
    int best = -1;

    for (int i = 0; i < n_units; i++) {
        if (rank_of[i] < 0 && (best < 0 || units[i].cost > units[best].cost)) {
            best = i;
        }
    }
    return best;
}

/*
 * Longest processing time first (Graham 1969). Units of a wave are few, so the longest is searched
 * and not sorted for: nothing is allocated, and units of equal cost keep their order.
 */
void rp_pool_assign(const rp_unit *units, int n_units, const double *speed, int n_ranks,
                    int *rank_of)
{
    double load[n_ranks]; /* cost given to each rank so far; on the stack, 8 bytes a rank */

    for (int r = 0; r < n_ranks; r++) {
        load[r] = 0;
    }
    for (int i = 0; i < n_units; i++) {
        rank_of[i] = -1;
    }
    for (int k = 0; k < n_units; k++) {
        const int unit = longest_left(units, n_units, rank_of);
        int best = 0;
        double best_finish = 0;
        for (int r = 0; r < n_ranks; r++) {
            const double finish = (load[r] + units[unit].cost) / (speed != NULL ? speed[r] : 1.0);
            if (r == 0 || finish < best_finish) {
                best = r;
                best_finish = finish;
            }
        }
        rank_of[unit] = best;
        load[best] += units[unit].cost;
    }
}
