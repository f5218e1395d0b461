"""For every order of commits, releases, rewinds, checkpoints and crashes, the image of every instant is what was written."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from support.history_machine import HistoryMachine

TestHistory = HistoryMachine.TestCase
TestHistory.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
