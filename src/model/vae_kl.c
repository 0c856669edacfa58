/* vae_kl.c - the decoder of an AutoencoderKL: latents to a picture. */
#include "model/vae_kl.h"
#include "model/model_list.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "weights/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LATENT_SIZE = 4096 };

#define KL_EPS 1e-6f /* of all group norms, fixed in the class */

/* ------------------------------------------------------------ open, close */

static void kl_close(void *handle)
{
    rp_kl *self = handle;

    if (self == NULL) {
        return;
    }
    rp_buffer_free(&self->backend, &self->x);
    rp_buffer_free(&self->backend, &self->a);
    rp_buffer_free(&self->backend, &self->b);
    rp_buffer_free(&self->backend, &self->bytes);
    if (self->backend.ops != NULL) {
        self->backend.ops->release_host(self->backend.self, self->latents.mem);
        self->backend.ops->release_host(self->backend.self, self->out.mem);
    }
    rp_params_close(&self->params);
    free(self);
}

static rp_status kl_open(const rp_model_source *source, void **self_out)
{
    rp_status st = RP_OK;
    rp_config *file = NULL;
    rp_kl *self = NULL;
    void *mem = NULL;

    RP_TRY(rp_mem_new(1, sizeof(*self), "the VAE", &mem));
    self = mem;
    self->backend = source->backend;
    RP_TRY_OUT(rp_config_open(source->dir, "config.json", &file));
    RP_TRY_OUT(rp_kl_config_read(file, &self->config));
    RP_TRY_OUT(rp_params_open(source, &self->params));
    rp_kl_bind(self);
    RP_TRY_OUT(rp_params_finish(&self->params));

    self->fingerprint = rp_config_fingerprint(file) * 31 + rp_params_fingerprint(&self->params);
    *self_out = self;
    self = NULL;

out:
    rp_config_close(file);
    kl_close(self);
    return st;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Elements of the largest picture on the way, and of q, k and v in the middle. */
static size_t kl_most_elems(const rp_kl_config *c, int h, int w)
{
    const size_t area = (size_t)h * (size_t)w;
    size_t most = larger(area * 3 * (size_t)c->channels[0], area * (size_t)c->latent_channels);

    for (int i = 0; i < c->n_blocks; i++) {
        const size_t here = area << (2 * i);
        most = larger(most, here * (size_t)c->channels[i]);
        if (i > 0) {
            most = larger(most, here * (size_t)c->channels[i - 1]);
        }
    }
    return larger(most, (area << (2 * (c->n_blocks - 1))) * RP_KL_RGB);
}

static void kl_info(const void *handle, rp_vae_info *out)
{
    const rp_kl *self = handle;

    *out = (rp_vae_info){
        .latent_channels = self->config.latent_channels,
        .scale = 1 << (self->config.n_blocks - 1),
        .widest = kl_most_elems(&self->config, 1, 1),
        .bytes_read = self->params.n_read,
    };
}

static uint64_t kl_fingerprint(const void *handle)
{
    const rp_kl *self = handle;

    return self->fingerprint;
}

/* ----------------------------------------------------------------- decode */

static rp_status kl_grow_host(rp_kl *self, rp_kl_host *host, size_t n_bytes, const char *what)
{
    const rp_backend *b = &self->backend;

    if (n_bytes <= host->n_bytes) {
        return RP_OK;
    }
    b->ops->release_host(b->self, host->mem);
    *host = (rp_kl_host){0};
    RP_TRY(b->ops->alloc_host(b->self, n_bytes, what, &host->mem));
    host->n_bytes = n_bytes;
    return RP_OK;
}

/* Of a picture, [scale h, scale w, 3]. */
static size_t kl_picture_bytes(const rp_kl_config *c, int h, int w)
{
    return (((size_t)h * (size_t)w) << (2 * (c->n_blocks - 1))) * RP_KL_RGB;
}

static rp_status kl_need(const char *dir, rp_precision precision, int h, int w, rp_model_need *out)
{
    rp_kl self = {.params.random = true}; /* shapes only */
    rp_config *file = NULL;
    rp_status st = RP_OK;

    RP_TRY_OUT(rp_config_open(dir, "config.json", &file));
    RP_TRY_OUT(rp_kl_config_read(file, &self.config));
    rp_kl_bind(&self);
    RP_TRY_OUT(self.params.status);
    *out = (rp_model_need){
        .weights = rp_params_bytes(&self.params, precision),
        .buffers = 3 * kl_most_elems(&self.config, h, w) * (precision == RP_PRECISION_F32 ? 4 : 2) +
                   kl_picture_bytes(&self.config, h, w),
    };
out:
    rp_params_close(&self.params);
    rp_config_close(file);
    return st;
}

/* Nothing is allocated for a size not above one that was there before. */
static rp_status kl_grow(rp_kl *self, int h, int w)
{
    const rp_kl_config *c = &self->config;
    const size_t most = kl_most_elems(c, h, w);
    const size_t latent = (size_t)c->latent_channels * (size_t)h * (size_t)w;
    const size_t n_bytes = kl_picture_bytes(c, h, w);
    int widest = c->latent_channels;

    for (int i = 0; i < c->n_blocks; i++) {
        widest = c->channels[i] > widest ? c->channels[i] : widest;
    }
    RP_TRY(rp_buffer_grow_act(&self->backend, &self->x, most, "VAE picture"));
    RP_TRY(rp_buffer_grow_act(&self->backend, &self->a, most, "VAE picture"));
    RP_TRY(rp_buffer_grow_act(&self->backend, &self->b, most, "VAE picture"));
    RP_TRY(rp_buffer_grow(&self->backend, &self->bytes, (n_bytes + 3) / 4, "picture's bytes"));
    RP_TRY(kl_grow_host(self, &self->latents, latent * sizeof(float), "unscaled latents"));
    RP_TRY(kl_grow_host(self, &self->out, n_bytes, "picture's bytes"));
    return self->backend.ops->reserve(self->backend.self, 9 * widest, c->attend ? h * w : 1,
                                      c->channels[0]);
}

static void kl_swap(rp_buffer *p, rp_buffer *q)
{
    const rp_buffer was = *p;

    *p = *q;
    *q = was;
}

/* x -> x, through a */
static void kl_conv(rp_kl *self, int c_in, int c_out, int h, int w, int kernel, int upsample,
                    const rp_tensor *weight, const rp_tensor *bias)
{
    const rp_conv_shape shape = {
        .c_in = c_in, .c_out = c_out, .h = h, .w = w, .kernel = kernel, .upsample = upsample};

    self->backend.ops->conv2d(self->backend.self, &shape, self->x.data, weight, bias, NULL,
                              self->a.data);
    kl_swap(&self->x, &self->a);
}

/* x = skip(x) + conv2(silu(norm2(conv1(silu(norm1(x)))))) */
static void kl_run_resnet(rp_kl *self, const rp_kl_resnet *r, int h, int w)
{
    const rp_backend_ops *ops = self->backend.ops;
    void *const be = self->backend.self;
    const int groups = self->config.groups;
    const int area = h * w;
    rp_conv_shape shape = {
        .c_in = r->c_in, .c_out = r->c_out, .h = h, .w = w, .kernel = 3, .upsample = 1};

    ops->group_norm(be, self->x.data, r->c_in, area, groups, &r->norm1_w, &r->norm1_b, KL_EPS, true,
                    self->a.data);
    ops->conv2d(be, &shape, self->a.data, &r->conv1_w, &r->conv1_b, NULL, self->b.data);
    ops->group_norm(be, self->b.data, r->c_out, area, groups, &r->norm2_w, &r->norm2_b, KL_EPS,
                    true, self->b.data);
    if (r->c_in != r->c_out) {
        shape.kernel = 1;
        ops->conv2d(be, &shape, self->x.data, &r->skip_w, &r->skip_b, NULL, self->a.data);
        kl_swap(&self->x, &self->a);
    }
    shape.c_in = r->c_out;
    shape.kernel = 3;
    /* not in place, which the device would have to do in two passes */
    ops->conv2d(be, &shape, self->b.data, &r->conv2_w, &r->conv2_b, self->x.data, self->a.data);
    kl_swap(&self->x, &self->a);
}

/* [rows, cols] in p -> [cols, rows] in q */
static void kl_turn(rp_kl *self, const rp_buffer *p, int rows, int cols, const rp_buffer *q)
{
    self->backend.ops->transpose(self->backend.self, p->data, rows, cols, q->data);
}

/* x += to_out(attention(norm(x))), one head as wide as the picture has channels */
static void kl_run_attention(rp_kl *self, int area)
{
    const rp_backend_ops *ops = self->backend.ops;
    void *const be = self->backend.self;
    const rp_kl_attention *m = &self->attention;
    const int c = self->config.channels[0];
    const size_t n = (size_t)c * (size_t)area;
    const rp_tensor *const q_w[] = {&m->q_w};
    const rp_tensor *const k_w[] = {&m->k_w};
    const rp_tensor *const v_w[] = {&m->v_w};
    const rp_tensor *const o_w[] = {&m->o_w};
    float *const q = self->a.data; /* q, k, v [area, c] one after the other */
    float *const k = q + n;
    float *const v = k + n;
    float *const rows = self->b.data; /* [area, c] */
    const rp_attention_shape shape = {
        .n_q = area,
        .n_kv = area,
        .n_heads = 1,
        .n_kv_heads = 1,
        .head_dim = c,
        .q_stride = c,
        .k_stride = c,
        .v_stride = c,
        .out_stride = c,
        .scale = (float)(1.0 / sqrt(c)),
    };

    const bool by_rows = ops->picture_rows(be);

    ops->group_norm(be, self->x.data, c, area, self->config.groups, &m->norm_w, &m->norm_b, KL_EPS,
                    false, by_rows ? rows : q);
    if (!by_rows) {
        kl_turn(self, &self->a, c, area, &self->b);
    }
    ops->linear(be, rows, area, c, c, q_w, 1, &m->q_b, q);
    ops->linear(be, rows, area, c, c, k_w, 1, &m->k_b, k);
    ops->linear(be, rows, area, c, c, v_w, 1, &m->v_b, v);
    ops->attention(be, &shape, q, k, v, rows);
    ops->linear(be, rows, area, c, c, o_w, 1, &m->o_b, q);
    if (!by_rows) {
        kl_turn(self, &self->a, area, c, &self->b);
    }
    ops->add(be, self->x.data, by_rows ? q : rows, n);
}

/* Latents in x -> picture in x. */
static void kl_run(rp_kl *self, int h, int w)
{
    const rp_kl_config *c = &self->config;
    const int wide = c->channels[0];
    const int last = c->channels[c->n_blocks - 1];

    if (c->post_quant) {
        kl_conv(self, c->latent_channels, c->latent_channels, h, w, 1, 1, &self->post_w,
                &self->post_b);
    }
    kl_conv(self, c->latent_channels, wide, h, w, 3, 1, &self->in_w, &self->in_b);
    kl_run_resnet(self, &self->mid[0], h, w);
    if (c->attend) {
        kl_run_attention(self, h * w);
    }
    kl_run_resnet(self, &self->mid[1], h, w);

    for (int i = 0; i < c->n_blocks; i++) {
        for (int j = 0; j < c->n_resnets; j++) {
            kl_run_resnet(self, &self->block[i].resnet[j], h, w);
        }
        if (i < c->n_blocks - 1) {
            kl_conv(self, c->channels[i], c->channels[i], h, w, 3, 2, &self->block[i].up_w,
                    &self->block[i].up_b);
            h *= 2;
            w *= 2;
        }
    }
    self->backend.ops->group_norm(self->backend.self, self->x.data, last, h * w, c->groups,
                                  &self->norm_w, &self->norm_b, KL_EPS, true, self->x.data);
    kl_conv(self, last, RP_KL_RGB, h, w, 3, 1, &self->out_w, &self->out_b);
}

/* Latents -> x. The host scales them: they come from there, and it takes a tenth of a millisecond.
 */
static void kl_put(rp_kl *self, const float *latents, int h, int w)
{
    const rp_kl_config *c = &self->config;
    const size_t area = (size_t)h * (size_t)w, n = area * (size_t)c->latent_channels;
    float *const host = self->latents.mem;

    for (size_t i = 0; i < n; i++) {
        host[i] = latents[i] / c->scaling + c->shift;
    }
    self->backend.ops->put(self->backend.self, self->x.data, host, n * sizeof(float));
    if (self->backend.ops->picture_rows(self->backend.self)) {
        kl_turn(self, &self->x, c->latent_channels, (int)area, &self->a);
        kl_swap(&self->x, &self->a);
    }
}

/* Picture in x -> rgb, bytes, where they are wanted. */
static rp_status kl_get(rp_kl *self, size_t n_px, float *rgb, uint8_t *bytes)
{
    const rp_backend_ops *ops = self->backend.ops;
    void *const be = self->backend.self;
    uint8_t *const made = (uint8_t *)self->bytes.data;

    if (bytes != NULL) {
        ops->to_bytes(be, self->x.data, n_px, made);
        ops->get(be, self->out.mem, made, n_px * RP_KL_RGB);
    }
    if (rgb != NULL) {
        const bool by_rows = ops->picture_rows(be);
        if (by_rows) {
            kl_turn(self, &self->x, (int)n_px, RP_KL_RGB, &self->a);
        }
        ops->get(be, rgb, by_rows ? self->a.data : self->x.data, n_px * RP_KL_RGB * sizeof(float));
    }
    RP_TRY(ops->sync(be));
    if (bytes != NULL) {
        memcpy(bytes, self->out.mem, n_px * RP_KL_RGB);
    }
    return RP_OK;
}

static rp_status kl_decode(void *handle, const float *latents, int h, int w, float *rgb,
                           uint8_t *bytes)
{
    rp_kl *self = handle;

    if (h < 1 || w < 1 || h > MAX_LATENT_SIZE || w > MAX_LATENT_SIZE) {
        return RP_FAIL(RP_E_ARG, "latents of %d x %d: the VAE takes 1 to %d", h, w,
                       MAX_LATENT_SIZE);
    }
    RP_TRY(kl_grow(self, h, w));
    kl_put(self, latents, h, w);
    kl_run(self, h, w);
    return kl_get(self, ((size_t)h * (size_t)w) << (2 * (self->config.n_blocks - 1)), rgb, bytes);
}

const rp_vae_ops rp_vae_kl = {
    .class_name = "AutoencoderKL",
    .help = "convolutional autoencoder of latent diffusion, decoder only",
    .open = kl_open,
    .close = kl_close,
    .info = kl_info,
    .fingerprint = kl_fingerprint,
    .need = kl_need,
    .decode = kl_decode,
};
