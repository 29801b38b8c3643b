"""The calls that bench/mutations runs on mutants, on the kernels as they are: what finds a mutant is part of the tests."""

import pytest

from halfbyte.testing import schedule
from halfbyte.testing.kernel_calls import KERNEL_CALLS, OpCall, bits_of, launches, reason_against_work, work

CALLS = {call.id: call for calls in KERNEL_CALLS.values() for call in calls()}
RACING = [(0, False), (1, True), (2, False)]


@pytest.mark.parametrize("id", CALLS)
def test_the_call_and_its_bits_in_three_schedules(simt, id):
    call, first = CALLS[id], None
    for seed, run_to_barrier in RACING:
        with schedule(seed, run_to_barrier, races=True):
            simt.take_work()
            got = call.run(simt)
        assert not call.reason_against(got)
        assert not reason_against_work(call, simt.take_work())
        first = first or bits_of(got)
        assert bits_of(got) == first


def test_every_compiled_kernel_has_calls():
    from halfbyte.ops.native.architectures import CAPABILITIES

    assert set(KERNEL_CALLS) >= set(CAPABILITIES)
    assert all(sum(1 for _ in calls()) >= 5 for calls in KERNEL_CALLS.values())


def test_the_tables_of_launches_and_work_have_every_call():
    ids = {call.id for call in CALLS.values() if isinstance(call, OpCall)}
    assert set(launches.table()) == set(work.table()) == ids


def test_ids_are_unique():
    for calls in KERNEL_CALLS.values():
        ids = [call.id for call in calls()]
        assert len(set(ids)) == len(ids)
