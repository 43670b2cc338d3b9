import os
from pathlib import Path

import pytest

from index.contract import StoreBusyError
from index.local.lock import check_free, store_lock


def test_one_builder_at_a_time(tmp_path: Path) -> None:
    check_free(tmp_path)
    with store_lock(tmp_path, "job-1"):
        for attempt in (lambda: store_lock(tmp_path).__enter__(), lambda: check_free(tmp_path)):
            with pytest.raises(
                StoreBusyError, match=rf"\({os.getpid()}\) .*, job job-1; wait"
            ) as busy:
                attempt()
            assert busy.value.job == "job-1"
    check_free(tmp_path)
    with store_lock(tmp_path), pytest.raises(StoreBusyError) as busy:
        check_free(tmp_path)
    assert busy.value.job is None
