// strided.h: arrays of any strides, read and written a run of elements at a time, in C order.
//
// Nothing is copied as a whole: a run goes through a small buffer, or through none where the array
// is contiguous.
#pragma once
#include <stdint.h>
#include <string.h>

namespace lp {

// An array by its elements in C order: shape and strides (bytes; 0 and below are fine).
class Strided {
 public:
  Strided(void* data, int item, int ndim, const int64_t* shape, const int64_t* strides)
      : data_(static_cast<uint8_t*>(data)), item_(item), size_(1) {
    for (int i = 0; i < ndim; ++i) {
      size_ *= shape[i];
      if (shape[i] == 1) continue;
      if (count_ > 0 && dims_[count_ - 1].stride == shape[i] * strides[i]) {
        dims_[count_ - 1] = {dims_[count_ - 1].size * shape[i], strides[i]};
      } else {
        dims_[count_++] = {shape[i], strides[i]};
      }
    }
    if (count_ == 0) dims_[count_++] = {1, item};
  }

  int64_t size() const { return size_; }
  int item() const { return item_; }
  // Elements follow each other at multiples of their own size, so that a kernel may walk them.
  bool is_plain() const {
    return count_ == 1 && dims_[0].stride == item_ &&
           reinterpret_cast<uintptr_t>(data_) % static_cast<uintptr_t>(item_) == 0;
  }
  // Of a plain array.
  uint8_t* at(int64_t index) const { return data_ + index * item_; }

  void read(int64_t begin, int64_t count, void* buffer) const {
    by_item<true>(begin, count, buffer);
  }
  void write(int64_t begin, int64_t count, const void* buffer) const {
    by_item<false>(begin, count, const_cast<void*>(buffer));
  }

 private:
  static constexpr int MAX_DIMS = 64;  // NumPy's
  struct Dim {
    int64_t size, stride;
  };

  template <bool READ>
  void by_item(int64_t begin, int64_t count, void* buffer) const {
    switch (item_) {
      case 1:
        return walk<READ, 1>(begin, count, buffer);
      case 2:
        return walk<READ, 2>(begin, count, buffer);
      case 4:
        return walk<READ, 4>(begin, count, buffer);
      default:
        return walk<READ, 8>(begin, count, buffer);
    }
  }

  template <bool READ, int ITEM>
  void walk(int64_t begin, int64_t count, void* buffer) const {
    uint8_t* p = static_cast<uint8_t*>(buffer);
    const Dim& last = dims_[count_ - 1];
    while (count > 0) {
      int64_t rest = begin;
      uint8_t* place = data_;
      for (int i = count_; i-- > 0;) {
        place += rest % dims_[i].size * dims_[i].stride;
        rest /= dims_[i].size;
      }
      const int64_t left = last.size - begin % last.size;
      const int64_t run = count < left ? count : left;
      if (last.stride == ITEM) {
        READ ? memcpy(p, place, static_cast<size_t>(run * ITEM))
             : memcpy(place, p, static_cast<size_t>(run * ITEM));
      } else {
        for (int64_t i = 0; i < run; ++i) {
          uint8_t* element = place + i * last.stride;
          READ ? memcpy(p + i * ITEM, element, ITEM) : memcpy(element, p + i * ITEM, ITEM);
        }
      }
      p += run * ITEM;
      begin += run;
      count -= run;
    }
  }

  uint8_t* data_;
  int item_;
  int64_t size_;
  int count_ = 0;
  Dim dims_[MAX_DIMS];
};

}  // namespace lp
