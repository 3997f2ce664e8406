"""What this process may use of its machine: how many processors, and whether an accelerator may be there.

Answered without importing a library that runs models: each takes seconds.
"""

import os
import platform
import sys
from importlib.util import find_spec
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_ACCELERATORS = (Path("/dev/nvidiactl"), Path("/dev/kfd"))


def cpus() -> int:
    """The processors that this process may use: its affinity, cut by the container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(allowed, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        return allowed


def may_have_accelerator() -> bool:
    """Whether torch is installed and the machine looks as if torch could use more than its processors."""
    if find_spec("torch") is None:
        return False
    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    return apple or any(path.exists() for path in _ACCELERATORS)
