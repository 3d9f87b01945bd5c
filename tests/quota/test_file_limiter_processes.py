"""Processes of one user that spend one token, as they come and go: the server never refuses a request."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.quota_processes import Processes
from tests.support.slow import RUN_SLOW


async def test_runs_back_to_back_go_on_where_the_last_one_ended(tmp_path: Path) -> None:
    runs = 3 if RUN_SLOW else 2
    result = await Processes(limiter="file", state=tmp_path).run_back_to_back(runs, 80)
    assert (result.returncodes, result.answered) == ([0] * runs, [80] * runs)
    assert result.statuses == {200: 80 * runs}


@pytest.mark.slow
async def test_six_processes_of_which_one_is_killed_and_one_is_stopped(tmp_path: Path) -> None:
    result = await Processes(limiter="file", state=tmp_path).kill_one_and_stop_one(6, windows=1)
    assert set(result.statuses) == {200}, result
    assert result.returncodes == [0] * 5
    steady = result.answered[1:]
    assert min(steady) >= 0.1 * sum(steady), "a process got much less than its share"
