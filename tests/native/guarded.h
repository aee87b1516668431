// guarded.h: memory between two pages that may not be touched, flush against one of them.
//
// A read or write one element before the first or after the last (plus the slack that kernels.h
// grants) stops the program; case.cpp then names the case that was running.
#pragma once
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <stdexcept>

namespace lp::check {

enum class Against { END, BEGIN };  // which guard page the elements touch
// False: the guard pages may be read and written (--open-guards).
inline bool guards_are_closed = true;

template <class T>
class Guarded {
 public:
  // `count` elements; `slack` more may be read after them.
  Guarded(int64_t count, Against side, int64_t slack = 0) : count_(count) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = static_cast<size_t>(count + slack) * sizeof(T);
    const size_t inside = (bytes + page - 1) / page * page;
    length_ = inside + 2 * page;
    const int outside = guards_are_closed ? PROT_NONE : PROT_READ | PROT_WRITE;
    void* pages = mmap(nullptr, length_, outside, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) throw std::runtime_error("mmap failed");
    pages_ = static_cast<uint8_t*>(pages);
    if (inside > 0 && mprotect(pages_ + page, inside, PROT_READ | PROT_WRITE) != 0) {
      throw std::runtime_error("mprotect failed");
    }
    uint8_t* first = side == Against::BEGIN ? pages_ + page : pages_ + page + inside - bytes;
    memset(first, 0xA5, bytes);
    data_ = reinterpret_cast<T*>(first);
  }
  ~Guarded() { munmap(pages_, length_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  T* data() const { return data_; }
  int64_t size() const { return count_; }
  int64_t bytes() const { return count_ * static_cast<int64_t>(sizeof(T)); }
  T& operator[](int64_t i) const { return data_[i]; }
  void copy_from(const T* values) const {
    if (count_ > 0) memcpy(data_, values, static_cast<size_t>(bytes()));
  }

 private:
  uint8_t* pages_;
  size_t length_;
  T* data_;
  int64_t count_;
};

}  // namespace lp::check
