"""How much memory this process may use, in bytes."""

import os
import resource
from pathlib import Path

_CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")


def machine_memory() -> int:
    """The memory of the machine, or of the container if that has less."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        text = _CONTROL_GROUP.read_text(encoding="ascii").strip()
    except OSError:
        return whole
    return min(whole, int(text)) if text.isdecimal() else whole


def available_memory() -> int:
    """`machine_memory`, or the limit on this process's data (`limit_data`) if that is lower."""
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    whole = machine_memory()
    return whole if soft == resource.RLIM_INFINITY else min(whole, soft)


def limit_data(more: int) -> None:
    """Let this process allocate at most ``more`` bytes from now on; then allocating fails.

    Pages of files that are mapped for reading do not count, so an index of any size can be read.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _allocated() + more
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _allocated() -> int:
    """What counts towards RLIMIT_DATA now; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    sizes = [line.split()[1] for line in lines if line.startswith("VmData:")]
    return 1024 * int(sizes[0]) if sizes else 0
