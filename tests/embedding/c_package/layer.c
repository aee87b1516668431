/* A quantised linear layer on lowprec's maths core, reached through the capsule.
 *
 *     weights = outside_c.pack(w, k, n, scales, bias)       s8 (k, n), f32 (n), f32 (n)
 *     y = outside_c.layer(weights, x, x_scale, x_zero_point, y_scale, y_zero_point)
 *
 * x: f32 (m, k), C-contiguous. y: u8 (m, n) as bytes: relu(x * w + bias), quantised.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <lowprec.h>
#include <stdlib.h>

static const lowprec_api* lp;

static PyObject* raise_status(lowprec_status status) {
  PyErr_SetString(status == LOWPREC_OUT_OF_MEMORY ? PyExc_MemoryError : PyExc_ValueError,
                  lp->last_error());
  return NULL;
}

static void free_packed(PyObject* capsule) {
  lp->free_weights((lowprec_weights*)PyCapsule_GetPointer(capsule, "outside_c.weights"));
}

static PyObject* pack(PyObject* self, PyObject* args) {
  Py_buffer w, scales, bias;
  long long k, n;
  lowprec_weights_desc desc;
  lowprec_weights* weights = NULL;
  lowprec_status status;
  (void)self;
  if (!PyArg_ParseTuple(args, "y*LLy*y*", &w, &k, &n, &scales, &bias)) return NULL;
  LOWPREC_INIT(&desc);
  desc.dtype = LOWPREC_S8;
  desc.k = k;
  desc.n = n;
  desc.stride_k = n;
  desc.stride_n = 1;
  desc.data = w.buf;
  desc.scales = (const float*)scales.buf;
  desc.scale_count = scales.len / (Py_ssize_t)sizeof(float);
  desc.bias_dtype = LOWPREC_F32;
  desc.bias = bias.buf;
  desc.bias_count = bias.len / (Py_ssize_t)sizeof(float);
  status = w.len == k * n ? lp->pack_weights(&desc, &weights) : LOWPREC_OK;
  PyBuffer_Release(&w);
  PyBuffer_Release(&scales);
  PyBuffer_Release(&bias);
  if (status != LOWPREC_OK) return raise_status(status);
  if (weights == NULL) return PyErr_Format(PyExc_ValueError, "w does not hold k * n bytes");
  return PyCapsule_New(weights, "outside_c.weights", free_packed);
}

static PyObject* layer(PyObject* self, PyObject* args) {
  PyObject *capsule, *result = NULL;
  Py_buffer x;
  float x_scale, y_scale;
  int x_zero_point, y_zero_point;
  lowprec_weights_info shape;
  lowprec_gemm_desc desc;
  lowprec_status status;
  (void)self;
  if (!PyArg_ParseTuple(args, "Oy*fifi", &capsule, &x, &x_scale, &x_zero_point, &y_scale,
                        &y_zero_point)) {
    return NULL;
  }
  const lowprec_weights* weights =
      (const lowprec_weights*)PyCapsule_GetPointer(capsule, "outside_c.weights");
  LOWPREC_INIT(&shape);
  if (weights == NULL || lp->inspect_weights(weights, &shape) != LOWPREC_OK || shape.k == 0) {
    PyBuffer_Release(&x);
    return NULL;
  }
  const int64_t m = x.len / ((int64_t)sizeof(float) * shape.k);
  const int32_t zero_point = x_zero_point;
  uint8_t* codes = (uint8_t*)malloc((size_t)(m * shape.k + 1));
  result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(m * shape.n));
  if (codes == NULL || result == NULL) {
    Py_CLEAR(result);
    PyErr_NoMemory();
  } else {
    LOWPREC_INIT(&desc);
    desc.batches = 1;
    desc.m = m;
    desc.a = codes;
    desc.a_dtype = LOWPREC_U8;
    desc.a_scale = x_scale;
    desc.a_zero_point = zero_point;
    desc.a_row_stride = shape.k;
    desc.y = PyBytes_AS_STRING(result);
    desc.y_dtype = LOWPREC_U8;
    desc.y_scale = y_scale;
    desc.y_zero_point = y_zero_point;
    desc.y_row_stride = shape.n;
    desc.activation = LOWPREC_RELU;

    Py_BEGIN_ALLOW_THREADS /* nothing below needs Python */
    status = lp->quantize((const float*)x.buf, LOWPREC_U8, codes, 1, m * shape.k, &x_scale,
                          &zero_point);
    if (status == LOWPREC_OK) status = lp->gemm(weights, &desc);
    Py_END_ALLOW_THREADS
    if (status != LOWPREC_OK) {
      Py_CLEAR(result);
      raise_status(status);
    }
  }
  free(codes);
  PyBuffer_Release(&x);
  return result;
}

static PyMethodDef methods[] = {
    {"pack", pack, METH_VARARGS, "pack(w, k, n, scales, bias) -> weights"},
    {"layer", layer, METH_VARARGS,
     "layer(weights, x, x_scale, x_zero_point, y_scale, y_zero_point) -> bytes"},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "outside_c", NULL, -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_outside_c(void) {
  lp = lowprec_import();
  if (lp == NULL) return NULL;
  return PyModule_Create(&module);
}
