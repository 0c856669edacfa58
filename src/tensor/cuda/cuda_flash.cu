/*
 * cuda_flash.cu - launches of cuda_flash.cuh: which shapes, tensor maps.
 */
#include "tensor/cuda/cuda_flash.cuh"
#include "tensor/cuda/cuda_tensor_map.cuh"

typedef struct {
    CUtensorMap q, k, v, out;
} flash_maps;

static bool is_narrow(const rp_cuda_flash *f)
{
    return f->rows.data != NULL;
}

/* The inputs are rounded first. */
static bool is_narrow_in(const rp_cuda_flash *f)
{
    return f->in.q != NULL;
}

static rp_tensor_map heads_map(const void *data, int rows, int n_heads, int stride, int box_rows)
{
    return {data,   RP_BF16,  rows,     n_heads * HEAD_DIM,
            stride, box_rows, SUB_COLS, CU_TENSOR_MAP_SWIZZLE_64B};
}

static rp_tensor_map narrow_map(const void *data, int rows, int n_heads, int box_rows)
{
    const int width = n_heads * HEAD_DIM;

    return {data, RP_F8_E4M3, rows, width, width, box_rows, SUB_COLS, CU_TENSOR_MAP_SWIZZLE_32B};
}

static void describe_inputs(const rp_cuda_flash *f, rp_tensor_map *q, rp_tensor_map *k,
                            rp_tensor_map *v)
{
    const int n_keys = rp_cuda_flash_keys(f->n_kv);

    if (is_narrow_in(f)) {
        *q = narrow_map(f->in.q, f->n_q, f->n_heads, OWN_ROWS);
        *k = narrow_map(f->in.k, f->n_kv, f->n_kv_heads, PIECE);
        *v = {f->in.v,  RP_F8_E4M3, f->n_kv_heads * HEAD_DIM,  n_keys, n_keys,
              HEAD_DIM, PIECE,      CU_TENSOR_MAP_SWIZZLE_128B};
    } else {
        *q = heads_map(f->q, f->n_q, f->n_heads, f->q_stride, OWN_ROWS);
        *k = heads_map(f->k, f->n_kv, f->n_kv_heads, f->k_stride, PIECE);
        *v = heads_map(f->v, f->n_kv, f->n_kv_heads, f->v_stride, PIECE);
    }
}

static cudaError_t make_maps(const rp_cuda_flash *f, flash_maps *maps)
{
    const int width = f->n_heads * HEAD_DIM;
    rp_tensor_map q, k, v;
    const rp_tensor_map wide = heads_map(f->out, f->n_q, f->n_heads, f->out_stride, OWN_ROWS);
    const rp_tensor_map narrow = {f->rows.data, RP_F8_E4M3, f->n_q,   width,
                                  width,        OWN_ROWS,   HEAD_DIM, CU_TENSOR_MAP_SWIZZLE_NONE};
    PFN_cuTensorMapEncodeTiled_v12000 fn = NULL;
    const cudaError_t code = rp_find_encode(&fn);

    describe_inputs(f, &q, &k, &v);
    if (code != cudaSuccess) {
        return code;
    }
    const bool ok = rp_encode_map(fn, &maps->q, &q) && rp_encode_map(fn, &maps->k, &k) &&
                    rp_encode_map(fn, &maps->v, &v) &&
                    rp_encode_map(fn, &maps->out, is_narrow(f) ? &narrow : &wide);
    return ok ? cudaSuccess : cudaErrorInvalidValue;
}

template <flash_way WAY>
static cudaError_t launch(cudaStream_t stream, const flash_maps &maps, const flash_job &job)
{
    constexpr int bytes = flash_bytes<flash_elem<WAY>>::SHARED;
    int device = 0, n_sms = 0;
    const cudaError_t code =
        cudaFuncSetAttribute(flash<WAY>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);

    if (code != cudaSuccess) {
        return code;
    }
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&n_sms, cudaDevAttrMultiProcessorCount, device);
    const unsigned grid = (unsigned)(job.n_tiles < n_sms ? job.n_tiles : n_sms);
    flash<WAY><<<grid, N_THREADS, bytes, stream>>>(maps.q, maps.k, maps.v, maps.out, job);
    return cudaPeekAtLastError();
}

#if defined(RP_CUDA_SM90A)
static bool good_rows(const void *data, int stride, int n_heads)
{
    return data != NULL && rp_wide(data) && stride % 8 == 0 && stride >= n_heads * HEAD_DIM;
}

static bool good_out(const rp_cuda_flash *f)
{
    if (is_narrow(f)) {
        return rp_wide(f->rows.data) && f->rows.scale != NULL &&
               (is_narrow_in(f) || f->most != NULL);
    }
    return !is_narrow_in(f) && good_rows(f->out, f->out_stride, f->n_heads);
}
#endif

bool rp_cuda_flash_can(const rp_cuda_flash *f, int capability)
{
#if defined(RP_CUDA_SM90A)
    return capability == 90 && f->head_dim == HEAD_DIM && f->n_heads > 0 && f->n_kv_heads > 0 &&
           f->n_heads % f->n_kv_heads == 0 && f->n_q >= RP_CUDA_FLASH_QUERIES &&
           f->n_kv >= RP_CUDA_FLASH_KEYS && f->scale > 0 && good_out(f) &&
           good_rows(f->q, f->q_stride, f->n_heads) &&
           good_rows(f->k, f->k_stride, f->n_kv_heads) &&
           good_rows(f->v, f->v_stride, f->n_kv_heads);
#else
    (void)f;
    (void)capability;
    return false;
#endif
}

bool rp_cuda_flash_pays(const rp_cuda_flash *f)
{
    const size_t n_sms =
        132; /* of an H100 or H200: bits must not depend on how many this one has */
    const size_t n_blocks = rp_ceil_div((size_t)f->n_q, TILE_ROWS);
    const size_t n_tiles = n_blocks * (size_t)f->n_heads;
    const size_t rounds = rp_ceil_div(n_tiles, n_sms);

    return rounds == 1 || n_tiles * 10 >= rounds * n_sms * 6;
}

static flash_job job_of(const rp_cuda_flash *f)
{
    flash_job job = {};

    job.n_q = f->n_q;
    job.n_pieces = (int)rp_ceil_div((size_t)f->n_kv, PIECE);
    job.last = f->n_kv - (job.n_pieces - 1) * PIECE;
    job.n_blocks = (int)rp_ceil_div((size_t)f->n_q, TILE_ROWS);
    job.n_tiles = job.n_blocks * f->n_heads;
    job.group = f->n_heads / f->n_kv_heads;
    job.c = f->scale * 1.4426950408889634f;
    job.most = f->most;
    job.in_scale = f->in.scale;
    job.out_scale = f->rows.scale;
    return job;
}

cudaError_t rp_cuda_k_flash(cudaStream_t stream, const rp_cuda_flash *f)
{
    const flash_job job = job_of(f);
    flash_maps maps;
    const cudaError_t code = make_maps(f, &maps);

    if (code != cudaSuccess) {
        return code;
    }
    if (is_narrow_in(f)) {
        rp_cuda_k_flash_round(stream, f);
        return launch<FLASH_E4M3>(stream, maps, job);
    }
    if (!is_narrow(f)) {
        return launch<FLASH_BF16>(stream, maps, job);
    }
    const rp_cuda_part v = {f->v, NULL, f->n_kv, f->n_kv_heads * HEAD_DIM, f->v_stride};
    rp_cuda_k_largest(stream, &v, 1, RP_CUDA_FLASH_PIECES, f->most);
    return launch<FLASH_BF16_TO_E4M3>(stream, maps, job);
}
