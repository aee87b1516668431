/* lowprec.h: lowprec's maths core for other extension modules. Plain C (C99) and C++.
 *
 * One table of function pointers stands behind one capsule of the module lowprec._ext._core;
 * nothing is linked. Needs Python.h and neither NumPy nor anything else:
 *
 *     #include <Python.h>
 *     #include <lowprec.h>          // folder: lowprec.get_include()
 *
 *     static const lowprec_api* lp;
 *     ...
 *     lp = lowprec_import();        // with the GIL, once, in the module's initialisation
 *     if (lp == NULL) return NULL;  // the Python error says why
 *
 * - Functions return a lowprec_status. Anything but LOWPREC_OK comes with one line of text from
 *   last_error(), of the calling thread, until its next failing call. No C++ exception, no Python
 *   error and no crash comes from wrong arguments: null, negative and overflowing ones are refused.
 * - No function needs the GIL, and all may be called from any thread. Handles do not change while
 *   they are used (weights), or lock themselves (observers); destroying one is up to its owner.
 * - The same numbers as lowprec.numerics, bit for bit, on every instruction set and with any number
 *   of threads. LOWPREC_ISA and LOWPREC_NUM_THREADS count here too.
 * - Arrays are contiguous unless a stride says otherwise; strides are in elements. Results may not
 *   share memory with operands.
 * - Structs begin with their own size, which the caller sets by LOWPREC_INIT: a later version of
 *   lowprec knows by it which members a caller compiled against this header has.
 */
#ifndef LOWPREC_H
#define LOWPREC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The table only grows within a major version: a caller needs the same major and, at least, the
 * minor version that it was compiled for. */
#define LOWPREC_API_MAJOR 1
#define LOWPREC_API_MINOR 0

#define LOWPREC_API_CAPSULE "lowprec._ext._core._C_API"

typedef enum lowprec_status {
  LOWPREC_OK = 0,
  LOWPREC_INVALID = 1,     /* a null, negative, overflowing or otherwise wrong argument */
  LOWPREC_UNSUPPORTED = 2, /* valid, but not done: the text says what is */
  LOWPREC_OUT_OF_MEMORY = 3,
  LOWPREC_UNAVAILABLE = 4, /* LOWPREC_ISA or LOWPREC_NUM_THREADS asks for what there is not */
  LOWPREC_INTERNAL = 5     /* a defect of lowprec */
} lowprec_status;

/* Element types: the values of ONNX's TensorProto.DataType. */
typedef enum lowprec_dtype {
  LOWPREC_NONE = 0,
  LOWPREC_F32 = 1,
  LOWPREC_U8 = 2,
  LOWPREC_S8 = 3,
  LOWPREC_U16 = 4,
  LOWPREC_S16 = 5,
  LOWPREC_S32 = 6,
  LOWPREC_F16 = 10,
  LOWPREC_BF16 = 16,
  LOWPREC_E4M3 = 17, /* float8_e4m3fn */
  LOWPREC_E5M2 = 19  /* float8_e5m2 */
} lowprec_dtype;

typedef enum lowprec_activation {
  LOWPREC_IDENTITY = 0,
  LOWPREC_RELU = 1,
  LOWPREC_CLIP = 2,         /* min(max(x, a), b) */
  LOWPREC_LEAKY_RELU = 8,   /* x < 0 ? a * x : x */
  LOWPREC_HARD_SIGMOID = 9, /* min(max(a * x + b, 0), 1) */
  LOWPREC_HARD_SWISH = 10,
  LOWPREC_SIGMOID = 11,
  LOWPREC_SILU = 12,
  LOWPREC_TANH = 13,
  LOWPREC_GELU = 21,
  LOWPREC_GELU_TANH = 22,
  LOWPREC_ELU = 24 /* x < 0 ? a * (exp(x) - 1) : x */
} lowprec_activation;

typedef struct lowprec_weights lowprec_weights;
typedef struct lowprec_observer lowprec_observer;

/* Weights (k, n): element (i, j) is data[i * stride_k + j * stride_n]. Lists hold `count` values: 1
 * for all output channels, or n; a null list has none. */
typedef struct lowprec_weights_desc {
  size_t struct_size;
  int32_t dtype;      /* U8, S8, F32, BF16 or F16 */
  int32_t bias_dtype; /* F32: real; S32: in units of a_scale * scale, codes only; NONE */
  int64_t k, n;
  int64_t stride_k, stride_n;
  const void* data;
  const int32_t* zero_points; /* of codes, within their dtype; null: 0 */
  int64_t zero_point_count;
  const float* scales; /* of codes: real units per code; null: only S32 results */
  int64_t scale_count;
  const void* bias;
  int64_t bias_count;
} lowprec_weights_desc;

typedef struct lowprec_weights_info {
  size_t struct_size;
  int32_t dtype;
  int32_t has_scales;
  int64_t k, n, packed_bytes;
} lowprec_weights_info;

/* y = activation(a * weights + bias + residual), of `batches` matrices (m, k).
 *
 * a of codes: U8 or S8, whatever the weights' codes. a F32 with weights of codes: each row is
 * quantised to U8 by its own range first. Otherwise a has the weights' dtype.
 * y S32: the sums of codes, with an S32 bias, without scales. y F32 or BF16: real. y U8 or S8:
 * codes by y_scale and y_zero_point, requantised with (a_scale * scale) / y_scale where nothing but
 * a relu is on top. See lowprec.numerics.linear. */
typedef struct lowprec_gemm_desc {
  size_t struct_size;
  int64_t batches, m;
  const void* a;
  int32_t a_dtype;
  int32_t a_zero_point;
  int64_t a_batch_stride, a_row_stride; /* at least k; a batch stride of 0 repeats a */
  float a_scale;
  float y_scale;
  void* y;
  int32_t y_dtype;
  int32_t y_zero_point;
  int64_t y_batch_stride, y_row_stride;
  const float* row_scales;        /* batches * m, for real results; null: a_scale */
  const int32_t* row_zero_points; /* batches * m; null: a_zero_point */
  int32_t activation;             /* lowprec_activation */
  float activation_a, activation_b;
  int32_t residual_dtype; /* F32, BF16, U8, S8; NONE: no residual */
  const void* residual;   /* (batches, m, n), contiguous */
  float residual_scale;
  int32_t residual_zero_point;
} lowprec_gemm_desc;

typedef struct lowprec_statistics {
  size_t struct_size;
  int64_t bins, count, nonfinite;
  float minimum, maximum; /* +inf and -inf before the first finite value */
  int64_t origin;         /* bin i begins at (origin + i) * width */
  double width;           /* a power of two */
} lowprec_statistics;

/* An embedder's own way to run things in parallel: run() calls task(context, i) once for each i in
 * [0, tasks), on any threads, and returns when all calls have returned. */
typedef struct lowprec_parallel_for {
  size_t struct_size;
  void (*run)(void* self, void (*task)(void* context, int64_t i), void* context, int64_t tasks);
  void* self;
  int32_t threads; /* how many calls can be under way at once */
} lowprec_parallel_for;

typedef struct lowprec_api {
  size_t struct_size;
  int32_t major, minor;

  const char* (*last_error)(void);
  /* The name of the instruction set in use: "scalar", "avx2", ... */
  lowprec_status (*isa)(const char** name);

  /* n elements. From F32 to BF16, F16, E4M3 or E5M2, and back. `saturate`: to the 8-bit types, what
   * is too large becomes the largest number rather than infinity (E4M3: NaN). */
  lowprec_status (*convert)(int32_t from, const void* x, int32_t to, void* y, int64_t n,
                            int32_t saturate);
  /* (rows, n) elements; row r has scales[r] and zero_points[r] (null: 0). Codes are U8, S8, U16,
   * S16 or S32. */
  lowprec_status (*quantize)(const float* x, int32_t dtype, void* q, int64_t rows, int64_t n,
                             const float* scales, const int32_t* zero_points);
  lowprec_status (*dequantize)(int32_t dtype, const void* q, float* x, int64_t rows, int64_t n,
                               const float* scales, const int32_t* zero_points);
  lowprec_status (*requantize)(const int32_t* acc, int32_t dtype, void* q, int64_t rows, int64_t n,
                               const float* multipliers, const int32_t* zero_points);
  /* U8 codes, each row by its own range, which goes to scales and zero_points (rows each). INVALID
   * where x holds NaN or infinity. */
  lowprec_status (*dynamic_quantize)(const float* x, uint8_t* q, int64_t rows, int64_t n,
                                     float* scales, uint8_t* zero_points);

  /* Nothing that the description points to is needed afterwards. */
  lowprec_status (*pack_weights)(const lowprec_weights_desc* desc, lowprec_weights** weights);
  void (*free_weights)(lowprec_weights* weights); /* null is fine */
  lowprec_status (*inspect_weights)(const lowprec_weights* weights, lowprec_weights_info* info);
  lowprec_status (*gemm)(const lowprec_weights* weights, const lowprec_gemm_desc* desc);

  /* Extremes and a histogram of a stream of f32, in constant memory: lowprec.numerics.Histogram.
   * 16 to 65536 bins. */
  lowprec_status (*new_observer)(int64_t bins, lowprec_observer** observer);
  void (*free_observer)(lowprec_observer* observer);
  lowprec_status (*observe)(lowprec_observer* observer, const float* x, int64_t n);
  lowprec_status (*merge_observer)(lowprec_observer* observer, const lowprec_observer* other);
  lowprec_status (*read_statistics)(const lowprec_observer* observer,
                                    lowprec_statistics* statistics);
  /* As many counts as the observer has bins. */
  lowprec_status (*read_histogram)(const lowprec_observer* observer, int64_t* counts, int64_t bins);

  /* How many threads work at once in this process, the caller included. */
  lowprec_status (*get_num_threads)(int32_t* threads);
  lowprec_status (*set_num_threads)(int32_t threads);
  /* What the calling thread asks of this table runs on `other`, which must outlive that, until the
   * next such call; null: on lowprec's own threads again. */
  lowprec_status (*use_parallel_for)(const lowprec_parallel_for* other);
} lowprec_api;

/* Fills a description with zeros and its size. */
#define LOWPREC_INIT(pointer) \
  (memset((pointer), 0, sizeof(*(pointer))), (void)((pointer)->struct_size = sizeof(*(pointer))))

#if defined(Py_PYTHON_H) && !defined(LOWPREC_NO_IMPORT)
/* The table, or NULL with a Python error. Needs the GIL. */
static inline const lowprec_api* lowprec_import(void) {
  const lowprec_api* api;
  /* PyCapsule_Import imports nothing but the first part of the name. */
  PyObject* module = PyImport_ImportModule("lowprec._ext._core");
  if (module == NULL) return NULL;
  api = (const lowprec_api*)PyCapsule_Import(LOWPREC_API_CAPSULE, 0);
  Py_DECREF(module);
  if (api == NULL) return NULL;
  if (api->major != LOWPREC_API_MAJOR || api->minor < LOWPREC_API_MINOR) {
    PyErr_Format(PyExc_ImportError,
                 "this module was compiled for version %d.%d of lowprec's C interface, but the "
                 "installed lowprec has %d.%d: rebuild the module, or install a lowprec that fits",
                 LOWPREC_API_MAJOR, LOWPREC_API_MINOR, (int)api->major, (int)api->minor);
    return NULL;
  }
  return api;
}
#endif

#ifdef __cplusplus
}
#endif

#endif
