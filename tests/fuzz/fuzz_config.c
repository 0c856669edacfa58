/* fuzz_config.c - bytes as a config file, asked for everything that a model asks for. */
#include "base/log.h"
#include "weights/config.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void ignore_line(void *arg, rp_log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    static const char *const keys[] = {"i", "r", "b", "t", "a", "o", "hidden_size", "a.b"};
    rp_config *config = NULL;
    int64_t ints[4] = {0};

    rp_set_log(ignore_line, NULL);
    if (rp_config_parse("fuzz", (const char *)bytes, n_bytes, &config) != RP_OK) {
        assert(config == NULL);
        return 0;
    }
    for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
        const int64_t whole = rp_config_int(config, keys[k], -5, 1000000, 7);
        const double real = rp_config_real(config, keys[k], -1e6, 1e6, 0);
        assert(whole >= -5 && whole <= 1000000);
        assert(real >= -1e6 && real <= 1e6);
        (void)rp_config_bool(config, keys[k], true);
        assert(strlen(rp_config_text(config, keys[k], "")) <= n_bytes);
        assert(rp_config_ints(config, keys[k], -4, 0, 9, ints) <= 4);
        assert(rp_config_ints(config, keys[k], 2, 0, 9, ints) <= 2);
        (void)rp_config_text_at(config, keys[k], 1);
        (void)rp_config_has(config, keys[k]);
    }
    (void)rp_config_finish(config);
    (void)rp_config_fingerprint(config);
    rp_config_close(config);
    return 0;
}
