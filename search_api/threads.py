"""Limits on the threads of the numerical libraries and on the allocator's memory pools.

Several requests are processed at a time. If each of them used every core, the cores would be
oversubscribed, and idle library threads, which spin while they wait, would slow the busy ones down.
"""

from __future__ import annotations

import ctypes
import platform

import faiss
import threadpoolctl

from embed.runtime.protocol import WORKERS, available_cores

_M_ARENA_MAX = -8
_ARENAS = 2


def limit_arenas() -> None:
    """Let all threads allocate from two memory pools; call this before starting any thread.

    By default glibc creates up to eight per core, and each retains memory freed between two live
    allocations: under tens of thousands of damaged pictures a server grew by more than a third.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def threads_per_worker() -> int:
    """How many library threads each worker may use."""
    return max(1, available_cores() // WORKERS)


def limit_blas_threads() -> None:
    """Limit NumPy's matrix products in the whole process; call this once, before serving."""
    threadpoolctl.threadpool_limits(threads_per_worker(), user_api="blas")


def limit_faiss_threads() -> None:
    """Limit FAISS in the calling thread: OpenMP keeps the number of threads per caller.

    Call it before each scan, because any thread may run one. It costs next to nothing.
    """
    faiss.omp_set_num_threads(threads_per_worker())
