"""The program of the worker process; see `search_api.jobs.worker_process`."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_api import logs

log = logging.getLogger(__name__)

_NICE = 10
_ORPHAN_SECONDS = 5.0


def _listen(stopping: threading.Event) -> None:
    for line in sys.stdin:
        if line.strip() == "stop":
            stopping.set()
    stopping.set()
    time.sleep(_ORPHAN_SECONDS)
    os._exit(1)


def main() -> None:
    """Read the task, do it, write progress and the result."""
    request = json.loads(sys.stdin.readline())
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # keep output of libraries out of the messages
    os.nice(_NICE)
    logs.configure(request["log_format"])
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    threading.Thread(target=_listen, args=(stopping,), daemon=True).start()

    def send(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    def progress(stage: str, done: int, total: int) -> None:
        send({"progress": [stage, done, total]})

    def skip(reasons: Mapping[str, str]) -> None:
        if reasons:
            send({"skip": dict(reasons)})

    # Slow to import, so only once the server can stop this process.
    from embed.folders.options import FolderOptions
    from embed.pictures import PictureLimits
    from index.contract import CancelledError, JobControl, StoreBusyError
    from index.memory import limit_data
    from search_api.jobs.tasks import Task, perform
    from search_api.service.engine import open_engine
    from search_api.settings import Quotas, StoreLocation

    data, bundle = (
        None if request[name] is None else Path(request[name]) for name in ("data", "bundle")
    )
    location = StoreLocation.from_dict(request["location"])
    task = Task(**request["task"])

    def choosing(stage: str, done: int, total: int) -> None:
        progress(stage, done, total)
        if stopping.is_set():
            raise CancelledError(
                "stopped before a picture was embedded; the next build begins again"
            )

    control = JobControl(progress, stopping.is_set, skip, request["job"])
    try:
        picture, quotas = PictureLimits(**request["picture"]), Quotas(**request["quotas"])
        folder_options = FolderOptions.from_dict(request["folder_options"])
        with open_engine(
            data,
            location,
            bundle,
            picture,
            quotas=quotas,
            folder_options=folder_options,
            building=data is not None,
            progress=choosing if task.first else None,
        ) as engine:
            limit_data(request["memory"])
            send({"result": perform(engine, task, control)})
    except CancelledError as error:
        send({"cancelled": str(error)})
    except StoreBusyError as error:
        send({"busy": str(error), "job": error.job})
    except BrokenPipeError:
        pass  # the server is gone
    except MemoryError:
        log.exception("job %s failed", request["job"])
        allowed = request["memory"] / 1e9
        send(
            {
                "failed": f"the job needed more than the {allowed:.1f} GB of memory that it may "
                "allocate; choose another kind of index, or raise --job-memory-share"
            }
        )
    except Exception as error:
        log.exception("job %s failed", request["job"])
        send({"failed": str(error)})
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
