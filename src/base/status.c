/* status.c - status texts from the one list. */
#include <rankpool/rankpool.h>

const char *rp_status_text(rp_status status)
{
    switch (status) {
#define X(name, value, text)                                                                       \
    case RP_##name:                                                                                \
        return text;
        RP_STATUS_MAP(X)
#undef X
    }
    return "unknown status";
}

const char *rp_version(void)
{
    return RP_VERSION;
}
