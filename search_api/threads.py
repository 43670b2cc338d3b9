"""How many threads the libraries take that compute beside Python, and memory for threads.

Requests are worked on in a few lanes at a time. If each of these took all cores for its part, the
cores would be promised several times over, and the libraries' idle threads, which wait by turning,
would take them from those that work.
"""

from __future__ import annotations

import ctypes
import platform

import faiss
import threadpoolctl

from embed.runtime import LANES, available_cores

_M_ARENA_MAX = -8
_ARENAS = 2


def bound_arenas() -> None:
    """Let all threads allocate from two pools of memory; to be called before there are threads.

    By default glibc makes up to eight a core, one thread after the other, and each keeps what was
    freed between two things in use: damaged pictures by the ten thousand let a server grow by more
    than a third of its size, in steps that never quite ended.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def share() -> int:
    """Threads of one lane."""
    return max(1, available_cores() // LANES)


def share_blas() -> None:
    """Bound NumPy's matrix products in the whole process; to be called once, when it serves."""
    threadpoolctl.threadpool_limits(share(), user_api="blas")


def take_share() -> None:
    """Bound FAISS in the calling thread: its number of threads belongs to the one that asks.

    To be called before each scan, as any thread may come to make one; it takes no time.
    """
    faiss.omp_set_num_threads(share())
