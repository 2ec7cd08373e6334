"""The allocator of card memory: first fit, merging, and what its errors say."""

import itertools

import numpy as np
import pytest

from deepseek.host.allocator import Allocator, OutOfMemoryError


def test_buffers_are_aligned_and_apart():
    allocator = Allocator(100, 1 << 16)
    buffers = [allocator.allocate(size) for size in (1, 256, 257, 4096)]
    assert [b.address % 256 for b in buffers] == [0] * 4
    assert buffers[0].address >= 100
    for left, right in itertools.pairwise(buffers):
        assert left.address + left.nbytes <= right.address


def test_first_fit_takes_the_first_hole():
    allocator = Allocator(0, 4096)
    first, second, third = (allocator.allocate(1024) for _ in range(3))
    allocator.free(first)
    allocator.free(third)
    assert allocator.allocate(512).address == first.address
    assert allocator.allocate(1024).address == third.address
    assert second.address == 1024


def test_random_traffic_against_a_map():
    random = np.random.default_rng(5)
    owner = np.zeros(1 << 14, np.int64)
    allocator = Allocator(0, owner.size)
    live = []
    for serial in range(1, 2000):
        if live and random.random() < 0.5:
            buffer = live.pop(int(random.integers(len(live))))
            allocator.free(buffer)
            owner[buffer.address : buffer.address + buffer.nbytes] = 0
        else:
            size = int(random.integers(1, 2000))
            try:
                buffer = allocator.allocate(size)
            except OutOfMemoryError as error:
                assert error.largest < size <= error.requested
                continue
            where = slice(buffer.address, buffer.address + size)
            assert not owner[where].any()
            owner[where] = serial
            live.append(buffer)
        used = sum(-(-b.nbytes // 256) * 256 for b in live)
        assert allocator.free_bytes == owner.size - used
    for buffer in live:
        allocator.free(buffer)
    assert allocator.largest_bytes == allocator.free_bytes == owner.size


@pytest.mark.parametrize(
    ("keep", "request_bytes", "advice"),
    [
        ((), 8192, "4096 in all: split the work"),
        ((0, 1, 2), 2048, "free buffers that are no longer needed"),
        ((1, 3), 2048, "memory is in pieces"),
    ],
)
def test_out_of_memory_says_what_and_what_to_do(keep, request_bytes, advice):
    allocator = Allocator(0, 4096)
    buffers = [allocator.allocate(1024) for _ in range(4)]
    for index, buffer in enumerate(buffers):
        if index not in keep:
            allocator.free(buffer)
    with pytest.raises(OutOfMemoryError) as caught:
        allocator.allocate(request_bytes, "the weights")
    message = str(caught.value)
    assert f"{request_bytes} bytes requested for the weights" in message
    assert f"{allocator.free_bytes} free" in message
    assert f"largest block {allocator.largest_bytes}" in message
    assert advice in message
    assert "\n" not in message


def test_freeing_twice_and_nothing():
    allocator = Allocator(0, 4096)
    buffer = allocator.allocate(16)
    allocator.free(buffer)
    with pytest.raises(ValueError, match="not allocated"):
        allocator.free(buffer)
    with pytest.raises(ValueError, match="nbytes must be at least 1, not 0"):
        allocator.allocate(0)
