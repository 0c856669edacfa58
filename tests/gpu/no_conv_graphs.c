/*
 * no_conv_graphs.c - preloaded, it lets cuDNN offer nothing for a graph with a convolution in it.
 *
 * For racecheck (rows.sh): what cuDNN generates for such graphs on Hopper waits for ever on its
 * barriers there, also when it is excluded. Convolutions then go by cuDNN's older calls, which end.
 */
#define _GNU_SOURCE
#include <cudnn.h>

#include <dlfcn.h>
#include <stdbool.h>

#define PUBLIC __attribute__((visibility("default")))

typedef cudnnStatus_t (*set_fn)(cudnnBackendDescriptor_t, cudnnBackendAttributeName_t,
                                cudnnBackendAttributeType_t, int64_t, const void *);
typedef cudnnStatus_t (*get_fn)(cudnnBackendDescriptor_t, cudnnBackendAttributeName_t,
                                cudnnBackendAttributeType_t, int64_t, int64_t *, void *);

/* Graphs are made one after the other: described, then asked about. */
static bool g_has_conv;

PUBLIC cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                              cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t n,
                                              const void *values)
{
    set_fn next;

    *(void **)&next = dlsym(RTLD_NEXT, "cudnnBackendSetAttribute");
    g_has_conv = g_has_conv || name == CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X;
    return next(descriptor, name, type, n, values);
}

PUBLIC cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor,
                                              cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t n,
                                              int64_t *n_out, void *values)
{
    get_fn next;

    *(void **)&next = dlsym(RTLD_NEXT, "cudnnBackendGetAttribute");
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS && g_has_conv) {
        g_has_conv = false;
        return CUDNN_STATUS_NOT_SUPPORTED;
    }
    return next(descriptor, name, type, n, n_out, values);
}
