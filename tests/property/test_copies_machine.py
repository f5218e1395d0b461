"""For every order of writes, copies of copies, establishes and crashes, every volume holds what a plain model says."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from support.copies_machine import CopiesMachine

TestCopies = CopiesMachine.TestCase
TestCopies.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
