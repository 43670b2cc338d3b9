"""Two servers, a store, and random sequences of everything that may happen to them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.torture.index.conftest import COUNTS
from tests.torture.index.stateful.machine import TwoServers

SETTINGS = settings(
    database=None,
    deadline=None,
    stateful_step_count=12,
    max_examples=15,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),  # shrinking takes minutes; the steps are in the report
    print_blob=False,
)


def test_both_servers_agree_with_the_model(counted: Callable[[str, str], None]) -> None:
    """Seeds follow from LOOKALIKE_TORTURE_SEED, so that parts of an hour differ."""
    sequences, end = 0, time.monotonic() + 60 * COUNTS.stateful_minutes
    number = 1000 * int(os.environ.get("LOOKALIKE_TORTURE_SEED", "0"))
    while True:
        machine = type(TwoServers)("TwoServers", (TwoServers,), {})
        run = SETTINGS
        if COUNTS.stateful_minutes:
            run = settings(SETTINGS, derandomize=False, stateful_step_count=25, max_examples=50)
            machine = seed(number)(machine)
        run_state_machine_as_test(machine, settings=run)
        sequences += run.max_examples
        number += 1
        if time.monotonic() >= end:
            break
    counted(
        f"{sequences} random sequences on two servers, {sum(TwoServers.steps.values())} steps",
        f"all as the model says: {dict(TwoServers.steps.most_common())}",
    )
