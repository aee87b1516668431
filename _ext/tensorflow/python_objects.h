// python_objects.h: Python objects held by what is destroyed without the GIL.
//
// TensorFlow destroys kernels while it holds locks of its own, and threads that have the GIL wait
// for these: waiting for the GIL there could be a deadlock. So the objects are kept until somebody
// comes by who has it.
#pragma once

#include <Python.h>

#include <mutex>
#include <utility>
#include <vector>

namespace lp::tensorflow {

inline bool is_python_running() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsInitialized() && !Py_IsFinalizing();
#else
  return Py_IsInitialized() && !_Py_IsFinalizing();
#endif
}

struct Released {
  std::mutex mutex;
  std::vector<PyObject*> objects;
};

// Never destroyed: kernels may outlive static objects.
inline Released& released() {
  static auto* const all = new Released;
  return *all;
}

// Needs the GIL.
inline void release_now() {
  std::vector<PyObject*> taken;
  {
    const std::lock_guard<std::mutex> lock(released().mutex);
    if (released().objects.empty()) return;
    taken = std::exchange(released().objects, {});
  }
  for (PyObject* object : taken) Py_DECREF(object);
}

inline int release_pending(void*) {
  release_now();
  return 0;
}

// Needs no GIL.
inline void release_later(void* object) {
  if (!is_python_running()) return;
  {
    const std::lock_guard<std::mutex> lock(released().mutex);
    released().objects.push_back(static_cast<PyObject*>(object));
  }
  // In the main thread, soon; where the queue is full, the next computation does it.
  Py_AddPendingCall(release_pending, nullptr);
}

}  // namespace lp::tensorflow
