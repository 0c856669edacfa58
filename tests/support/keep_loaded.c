/*
 * keep_loaded.c - in programs with sanitizers no library is unloaded.
 *
 * What Open MPI leaks is known by the library that allocated it (lsan.supp). The check runs last,
 * when plug-ins that are gone have no name any more.
 */
#include <dlfcn.h>

__attribute__((visibility("default"))) int dlclose(void *library)
{
    (void)library;
    return 0;
}
