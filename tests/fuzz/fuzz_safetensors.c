/* fuzz_safetensors.c - bytes as a safetensors file: refused, or every tensor can be read whole. */
#include "base/log.h"
#include "weights/safetensors.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

/* Reads element by element, so that a wrong size, address or alignment shows under the sanitizers.
 */
static uint64_t sum_of(const rp_tensor *tensor)
{
    const size_t n = (size_t)rp_tensor_elems(tensor);
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        switch (rp_dtype_bytes(tensor->dtype)) {
        case 4:
            sum += ((const uint32_t *)tensor->data)[i];
            break;
        case 2:
            sum += ((const uint16_t *)tensor->data)[i];
            break;
        default:
            sum += ((const uint8_t *)tensor->data)[i];
        }
    }
    return sum;
}

static void ignore_line(void *arg, rp_log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    rp_safetensors *file = NULL;
    volatile uint64_t sum = 0;

    rp_set_log(ignore_line, NULL);
    if (rp_safetensors_open_bytes("fuzz", bytes, n_bytes, &file) != RP_OK) {
        assert(file == NULL);
        return 0;
    }
    for (size_t i = 0; i < rp_safetensors_count(file); i++) {
        rp_tensor tensor = {0}, found = {0};
        int known = 0;
        const char *const name = rp_safetensors_at(file, i, &tensor, &known);
        assert(strlen(rp_safetensors_type(file, i)) > 0);
        assert((rp_safetensors_find(file, name, &found) == RP_OK) == (known != 0));
        if (known) {
            assert(found.data == tensor.data);
            sum += sum_of(&tensor);
        }
    }
    assert(rp_safetensors_bytes(file) <= n_bytes);
    sum += rp_safetensors_fingerprint(file);
    (void)rp_safetensors_metadata(file, "format");
    rp_safetensors_close(file);
    return 0;
}
