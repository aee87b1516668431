// python_errors.h: the engine's exceptions as Python exceptions. Included by _core.pyx only.
#pragma once
#include <Python.h>

#include <new>

#include "engine/engine.h"

static PyObject* lp_unsupported_type = nullptr;
static PyObject* lp_engine_error_type = nullptr;

static void lp_set_error_types(PyObject* unsupported, PyObject* error) {
  Py_INCREF(unsupported);
  Py_INCREF(error);
  lp_unsupported_type = unsupported;
  lp_engine_error_type = error;
}

static void raise_engine_error() {
  try {
    throw;
  } catch (const lp::Unsupported& error) {
    PyErr_SetString(lp_unsupported_type, error.what());
  } catch (const lp::Error& error) {
    PyErr_SetString(lp_engine_error_type, error.what());
  } catch (const std::bad_alloc&) {
    PyErr_SetString(PyExc_MemoryError, "not enough memory for this input shape");
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
}
