"""How many threads the libraries take that compute beside Python.

Requests are worked on in a few lanes at a time. If each of these took all cores for its part, the
cores would be promised several times over, and the libraries' idle threads, which wait by turning,
would take them from those that work.
"""

from __future__ import annotations

import faiss
import threadpoolctl

from embed.runtime import LANES, available_cores


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
