"""Whatever happens to events, processes and answers, the store becomes what StackOne is.

A small profile runs always. BROKER_CONVERGENCE_EXAMPLES=1000 plays that many plays of 50 steps, other ones each time.
"""

import os

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.convergence.machine import Convergence
from tests.convergence.stage import Stage

_EXAMPLES = int(os.environ.get("BROKER_CONVERGENCE_EXAMPLES", "0"))


@pytest.mark.both_databases
@pytest.mark.timeout(0 if _EXAMPLES else 120)
def test_the_store_becomes_what_stackone_is(database_url: str) -> None:
    stage = Stage(database_url)
    play = type("Play", (Convergence,), {"stage": stage})
    try:
        run_state_machine_as_test(
            play,
            settings=settings(
                max_examples=_EXAMPLES or 6,
                stateful_step_count=50 if _EXAMPLES else 25,
                database=None,
                derandomize=not _EXAMPLES,
                print_blob=True,
            ),
        )
    finally:
        stage.close()
