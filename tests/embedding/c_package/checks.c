/* What the tests ask of the table and no real package would: wrong arguments, and every function. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <lowprec.h>
#include <math.h>

static const lowprec_api* lp;

/* ---- refusals: a list of (what was tried, status, message) ---- */

static int tried(PyObject* list, const char* what, lowprec_status status) {
  PyObject* entry = Py_BuildValue("(sis)", what, (int)status, lp->last_error());
  int failed = entry == NULL || PyList_Append(list, entry) < 0;
  Py_XDECREF(entry);
  return failed;
}

#define TRY(call) \
  if (tried(list, #call, lp->call)) goto failed

#define CHANGED_GEMM(member, value)                                             \
  do {                                                                          \
    lowprec_gemm_desc changed = good;                                           \
    changed.member = value;                                                     \
    if (tried(list, #member " = " #value, lp->gemm(weights, &changed))) goto failed; \
  } while (0)

#define CHANGED_PACK(member, value)                                                    \
  do {                                                                                 \
    lowprec_weights_desc changed = pack;                                               \
    changed.member = value;                                                            \
    if (tried(list, "pack: " #member " = " #value, lp->pack_weights(&changed, &other))) \
      goto failed;                                                                     \
  } while (0)

static PyObject* refusals(PyObject* self, PyObject* unused) {
  static int8_t w[6] = {1, 2, 3, 4, 5, 6};
  static uint8_t a[8];
  static float scale[1] = {0.5f}, zero[1] = {0.0f}, real[8], y[16];
  static int32_t far_zero_point[1] = {128}, sums[4];
  uint8_t code;
  const char* name;
  const int64_t huge = INT64_MAX;
  lowprec_weights *weights = NULL, *other = NULL;
  lowprec_observer *observer = NULL, *narrow = NULL;
  lowprec_weights_desc pack;
  lowprec_gemm_desc good;
  lowprec_statistics statistics;
  lowprec_weights_info info;
  lowprec_parallel_for loop;
  PyObject* list = PyList_New(0);
  (void)self;
  (void)unused;
  if (list == NULL) return NULL;
  LOWPREC_INIT(&pack);
  pack.dtype = LOWPREC_S8;
  pack.k = 3;
  pack.n = 2;
  pack.stride_k = 2;
  pack.stride_n = 1;
  pack.data = w;
  pack.scales = scale;
  pack.scale_count = 1;
  if (lp->pack_weights(&pack, &weights) != LOWPREC_OK) goto failed;
  LOWPREC_INIT(&good);
  good.batches = 1;
  good.m = 2;
  good.a = a;
  good.a_dtype = LOWPREC_U8;
  good.a_scale = 0.5f;
  good.a_row_stride = 3;
  good.y = y;
  good.y_dtype = LOWPREC_F32;
  good.y_row_stride = 2;
  if (lp->gemm(weights, &good) != LOWPREC_OK) goto failed;
  if (lp->new_observer(16, &observer) != LOWPREC_OK) goto failed;
  if (lp->new_observer(32, &narrow) != LOWPREC_OK) goto failed;
  LOWPREC_INIT(&statistics);
  LOWPREC_INIT(&info);
  LOWPREC_INIT(&loop);

  TRY(isa(NULL));
  TRY(convert(LOWPREC_F32, NULL, LOWPREC_BF16, a, 4, 0));
  TRY(convert(LOWPREC_F32, real, LOWPREC_BF16, NULL, 4, 0));
  TRY(convert(LOWPREC_F32, real, LOWPREC_BF16, a, -1, 0));
  TRY(convert(LOWPREC_F32, real, LOWPREC_BF16, a, huge, 0));
  TRY(convert(LOWPREC_F32, real, LOWPREC_F32, y, 4, 0));
  TRY(convert(LOWPREC_BF16, real, LOWPREC_F16, y, 4, 0));
  TRY(convert(77, real, -3, y, 4, 0));
  TRY(quantize(NULL, LOWPREC_U8, a, 1, 4, scale, NULL));
  TRY(quantize(real, LOWPREC_U8, NULL, 1, 4, scale, NULL));
  TRY(quantize(real, LOWPREC_U8, a, 1, 4, NULL, NULL));
  TRY(quantize(real, LOWPREC_U8, a, 1, 4, zero, NULL));
  TRY(quantize(real, LOWPREC_F32, a, 1, 4, scale, NULL));
  TRY(quantize(real, LOWPREC_S8, a, 1, 4, scale, far_zero_point));
  TRY(quantize(real, LOWPREC_U8, a, -1, 4, scale, NULL));
  TRY(quantize(real, LOWPREC_U8, a, huge / 2, 4, scale, NULL));
  TRY(quantize(real, LOWPREC_U8, a, (int64_t)1 << 40, (int64_t)1 << 40, scale, NULL));
  TRY(dequantize(LOWPREC_U8, NULL, real, 1, 4, scale, NULL));
  TRY(dequantize(LOWPREC_BF16, a, real, 1, 4, scale, NULL));
  TRY(requantize(NULL, LOWPREC_U8, a, 1, 4, scale, NULL));
  TRY(requantize(sums, LOWPREC_U8, a, 1, 4, NULL, NULL));
  TRY(dynamic_quantize(NULL, a, 1, 4, real, &code));
  TRY(dynamic_quantize(real, a, 1, 4, NULL, &code));
  TRY(dynamic_quantize(real, a, 1, -4, real, &code));
  real[1] = NAN;
  TRY(dynamic_quantize(real, a, 1, 4, y, &code));
  real[1] = 0.0f;

  TRY(pack_weights(NULL, &other));
  TRY(pack_weights(&pack, NULL));
  CHANGED_PACK(struct_size, 0);
  CHANGED_PACK(struct_size, 8);
  CHANGED_PACK(struct_size, 100000);
  CHANGED_PACK(dtype, 0);
  CHANGED_PACK(dtype, LOWPREC_S32);
  CHANGED_PACK(k, -1);
  CHANGED_PACK(n, -1);
  CHANGED_PACK(k, INT64_MAX);
  CHANGED_PACK(n, (int64_t)1 << 55);
  CHANGED_PACK(stride_k, -2);
  CHANGED_PACK(stride_n, INT64_MAX);
  CHANGED_PACK(data, NULL);
  CHANGED_PACK(scale_count, 3);
  CHANGED_PACK(scale_count, 0);
  CHANGED_PACK(scales, zero);
  CHANGED_PACK(zero_points, far_zero_point);
  CHANGED_PACK(bias, sums);
  TRY(inspect_weights(NULL, &info));
  TRY(inspect_weights(weights, NULL));
  info.struct_size = 4;
  TRY(inspect_weights(weights, &info));

  TRY(gemm(NULL, &good));
  TRY(gemm(weights, NULL));
  CHANGED_GEMM(struct_size, 16);
  CHANGED_GEMM(batches, -1);
  CHANGED_GEMM(m, -1);
  CHANGED_GEMM(m, INT64_MAX);
  CHANGED_GEMM(batches, (int64_t)1 << 56);
  CHANGED_GEMM(a, NULL);
  CHANGED_GEMM(y, NULL);
  CHANGED_GEMM(a_dtype, LOWPREC_BF16);
  CHANGED_GEMM(a_row_stride, 2);
  CHANGED_GEMM(a_row_stride, -3);
  CHANGED_GEMM(a_row_stride, INT64_MAX);
  CHANGED_GEMM(a_batch_stride, -1);
  CHANGED_GEMM(y_row_stride, 1);
  CHANGED_GEMM(a_scale, 0.0f);
  CHANGED_GEMM(a_scale, NAN);
  CHANGED_GEMM(a_zero_point, 256);
  CHANGED_GEMM(y_dtype, LOWPREC_F16);
  CHANGED_GEMM(y_dtype, LOWPREC_U8); /* without a scale */
  CHANGED_GEMM(row_scales, zero);
  CHANGED_GEMM(activation, 3);
  CHANGED_GEMM(activation, 64); /* the kernels' own number of something else */
  CHANGED_GEMM(activation_a, NAN);
  CHANGED_GEMM(residual_dtype, LOWPREC_F32); /* but no residual */
  CHANGED_GEMM(residual_dtype, 99);

  TRY(new_observer(16, NULL));
  TRY(new_observer(15, &narrow));
  if (lp->new_observer(32, &narrow) != LOWPREC_OK) goto failed;
  TRY(new_observer(-1, &narrow));
  if (lp->new_observer(32, &narrow) != LOWPREC_OK) goto failed;
  TRY(observe(NULL, real, 4));
  TRY(observe(observer, NULL, 4));
  TRY(observe(observer, real, -4));
  TRY(merge_observer(observer, NULL));
  TRY(merge_observer(observer, observer));
  TRY(merge_observer(observer, narrow));
  TRY(read_statistics(observer, NULL));
  TRY(read_statistics(NULL, &statistics));
  TRY(read_histogram(observer, NULL, 16));
  TRY(read_histogram(observer, (int64_t*)y, 1));
  TRY(get_num_threads(NULL));
  TRY(set_num_threads(0));
  TRY(set_num_threads(-5));
  TRY(set_num_threads(1000000));
  TRY(use_parallel_for(&loop)); /* no function */
  lp->free_weights(weights);
  lp->free_weights(NULL);
  lp->free_observer(observer);
  lp->free_observer(narrow);
  lp->free_observer(NULL);
  if (lp->isa(&name) != LOWPREC_OK) goto failed;
  return list;
failed:
  Py_DECREF(list);
  if (!PyErr_Occurred()) PyErr_Format(PyExc_RuntimeError, "a right call failed: %s", lp->last_error());
  return NULL;
}

static PyObject* isa(PyObject* self, PyObject* unused) {
  const char* name = "";
  lowprec_status status = lp->isa(&name);
  (void)self;
  (void)unused;
  return Py_BuildValue("(is)", (int)status, status == LOWPREC_OK ? name : lp->last_error());
}

/* ---- every conversion: bytes in, bytes out ---- */

static PyObject* convert(PyObject* self, PyObject* args) {
  Py_buffer x;
  int from, to, out_size, in_size;
  PyObject* y;
  lowprec_status status;
  (void)self;
  if (!PyArg_ParseTuple(args, "y*iiii", &x, &from, &in_size, &to, &out_size)) return NULL;
  y = PyBytes_FromStringAndSize(NULL, x.len / in_size * out_size);
  status = lp->convert(from, x.buf, to, PyBytes_AS_STRING(y), x.len / in_size, 1);
  PyBuffer_Release(&x);
  if (status != LOWPREC_OK) PyErr_SetString(PyExc_ValueError, lp->last_error());
  if (status != LOWPREC_OK) Py_CLEAR(y);
  return y;
}

/* quantise (rows, n), back to floats, and requantise: three results. */
static PyObject* codes(PyObject* self, PyObject* args) {
  Py_buffer x, acc, scales, zero_points;
  int dtype, size;
  PyObject *q, *back, *again, *own, *own_scales, *own_zeros;
  int64_t rows, n;
  int bad = 0;
  (void)self;
  if (!PyArg_ParseTuple(args, "y*y*y*y*ii", &x, &acc, &scales, &zero_points, &dtype, &size)) {
    return NULL;
  }
  rows = scales.len / 4;
  n = x.len / 4 / rows;
  q = PyBytes_FromStringAndSize(NULL, rows * n * size);
  back = PyBytes_FromStringAndSize(NULL, rows * n * 4);
  again = PyBytes_FromStringAndSize(NULL, rows * n * size);
  own = PyBytes_FromStringAndSize(NULL, rows * n);
  own_scales = PyBytes_FromStringAndSize(NULL, rows * 4);
  own_zeros = PyBytes_FromStringAndSize(NULL, rows);
  bad |= lp->quantize((const float*)x.buf, dtype, PyBytes_AS_STRING(q), rows, n,
                      (const float*)scales.buf, (const int32_t*)zero_points.buf);
  bad |= lp->dequantize(dtype, PyBytes_AS_STRING(q), (float*)PyBytes_AS_STRING(back), rows, n,
                        (const float*)scales.buf, (const int32_t*)zero_points.buf);
  bad |= lp->requantize((const int32_t*)acc.buf, dtype, PyBytes_AS_STRING(again), rows, n,
                        (const float*)scales.buf, (const int32_t*)zero_points.buf);
  bad |= lp->dynamic_quantize((const float*)x.buf, (uint8_t*)PyBytes_AS_STRING(own), rows, n,
                              (float*)PyBytes_AS_STRING(own_scales),
                              (uint8_t*)PyBytes_AS_STRING(own_zeros));
  if (bad) return PyErr_Format(PyExc_ValueError, "%s", lp->last_error());
  return Py_BuildValue("(NNNNNN)", q, back, again, own, own_scales, own_zeros);
}

/* ---- observers: (count, nonfinite, minimum, maximum, origin * width, width, counts) ---- */

static PyObject* observed(PyObject* self, PyObject* args) {
  Py_buffer first, second;
  lowprec_observer *one = NULL, *two = NULL;
  lowprec_statistics s;
  PyObject* counts;
  int bad = 0;
  (void)self;
  if (!PyArg_ParseTuple(args, "y*y*", &first, &second)) return NULL;
  LOWPREC_INIT(&s);
  counts = PyBytes_FromStringAndSize(NULL, 64 * 8);
  bad |= lp->new_observer(64, &one);
  bad |= lp->new_observer(64, &two);
  bad |= lp->observe(one, (const float*)first.buf, first.len / 4);
  bad |= lp->observe(two, (const float*)second.buf, second.len / 4);
  bad |= lp->merge_observer(one, two);
  bad |= lp->read_statistics(one, &s);
  bad |= lp->read_histogram(one, (int64_t*)PyBytes_AS_STRING(counts), s.bins);
  lp->free_observer(one);
  lp->free_observer(two);
  PyBuffer_Release(&first);
  PyBuffer_Release(&second);
  if (bad) return PyErr_Format(PyExc_ValueError, "%s", lp->last_error());
  return Py_BuildValue("(LLffddN)", (long long)s.count, (long long)s.nonfinite, s.minimum,
                       s.maximum, (double)s.origin * s.width, s.width, counts);
}

/* ---- an embedder's own loop: (m, n) f32 from f32 times f32, and how many tasks it was given ---- */

static void backwards(void* self, void (*task)(void*, int64_t), void* context, int64_t tasks) {
  int64_t i;
  for (i = tasks; i-- > 0;) task(context, i);
  *(int64_t*)self += tasks;
}

static PyObject* own_loop(PyObject* self, PyObject* args) {
  Py_buffer a, b;
  long long m, k, n;
  int64_t tasks = 0;
  int bad = 0;
  lowprec_parallel_for loop;
  lowprec_weights_desc pack;
  lowprec_gemm_desc desc;
  lowprec_weights* weights = NULL;
  PyObject* y;
  (void)self;
  if (!PyArg_ParseTuple(args, "y*y*LLL", &a, &b, &m, &k, &n)) return NULL;
  y = PyBytes_FromStringAndSize(NULL, m * n * 4);
  LOWPREC_INIT(&loop);
  loop.run = backwards;
  loop.self = &tasks;
  loop.threads = 4;
  LOWPREC_INIT(&pack);
  pack.dtype = LOWPREC_F32;
  pack.k = k;
  pack.n = n;
  pack.stride_k = n;
  pack.stride_n = 1;
  pack.data = b.buf;
  LOWPREC_INIT(&desc);
  desc.batches = 1;
  desc.m = m;
  desc.a = a.buf;
  desc.a_dtype = desc.y_dtype = LOWPREC_F32;
  desc.a_row_stride = k;
  desc.y = PyBytes_AS_STRING(y);
  desc.y_row_stride = n;
  bad |= lp->pack_weights(&pack, &weights);
  bad |= lp->use_parallel_for(&loop);
  bad |= lp->gemm(weights, &desc);
  bad |= lp->use_parallel_for(NULL);
  lp->free_weights(weights);
  PyBuffer_Release(&a);
  PyBuffer_Release(&b);
  if (bad) return PyErr_Format(PyExc_ValueError, "%s", lp->last_error());
  return Py_BuildValue("(NL)", y, (long long)tasks);
}

static PyObject* num_threads(PyObject* self, PyObject* args) {
  int wanted;
  int32_t threads = 0;
  (void)self;
  if (!PyArg_ParseTuple(args, "i", &wanted)) return NULL;
  if (lp->set_num_threads(wanted) || lp->get_num_threads(&threads)) {
    return PyErr_Format(PyExc_ValueError, "%s", lp->last_error());
  }
  return PyLong_FromLong(threads);
}

static PyMethodDef methods[] = {{"refusals", refusals, METH_NOARGS, NULL},
                                {"isa", isa, METH_NOARGS, NULL},
                                {"convert", convert, METH_VARARGS, NULL},
                                {"codes", codes, METH_VARARGS, NULL},
                                {"observed", observed, METH_VARARGS, NULL},
                                {"own_loop", own_loop, METH_VARARGS, NULL},
                                {"num_threads", num_threads, METH_VARARGS, NULL},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "outside_checks", NULL, -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_outside_checks(void) {
  lp = lowprec_import();
  if (lp == NULL) return NULL;
  return PyModule_Create(&module);
}
