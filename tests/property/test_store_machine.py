"""For every order of operations, syncs, checkpoints and crashes the pool shows what its model allows."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from support.store_machine import StoreMachine

TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
