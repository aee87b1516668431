# How many threads work (threads.h), for lowprec.threads.

cdef extern from "threads.h" namespace "lp" nogil:
    const int C_MAX_THREADS "lp::MAX_THREADS"
    int c_num_threads "lp::num_threads"()
    void c_set_num_threads "lp::set_num_threads"(int)
    int64_t c_shared_calls "lp::shared_calls"()
    string c_thread_count_problem "lp::thread_count_problem"()

cdef extern from "thread_count.h" namespace "lp" nogil:
    double c_cgroup_cpus "lp::cgroup_cpus"(const string&)


class ThreadCountInvalid(ValueError):
    """LOWPREC_NUM_THREADS is not a number of threads."""


MAX_THREADS = C_MAX_THREADS


cdef int check_thread_count() except -1:
    """Raise ThreadCountInvalid where LOWPREC_NUM_THREADS is no number of threads."""
    cdef string problem = c_thread_count_problem()
    if not problem.empty():
        raise ThreadCountInvalid(problem.decode())
    return 0


def get_num_threads():
    """Return how many threads work at once, the caller included."""
    check_thread_count()
    return c_num_threads()


def set_num_threads(int threads):
    """Let `threads` threads (1 to MAX_THREADS) work at once from the next call on."""
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"{threads} is not a number of threads from 1 to {MAX_THREADS}")
    c_set_num_threads(threads)


def shared_calls():
    """Return how many calls the pool has shared out among several threads so far."""
    return c_shared_calls()


def cgroup_cpus(str root=""):
    """Return the processors' worth of time that control groups grant; 0.0 without a limit.

    `root` is put before /proc/self/cgroup, /proc/self/mountinfo and the mounts that they name.
    """
    return c_cgroup_cpus(root.encode())
