"""Buckets and queues in front of the signature check."""

from __future__ import annotations

import pytest

from nodes.config import Admission
from nodes.core.types import Request
from nodes.replica.admission import KEYS_MAX, SOURCE_REQUESTS_MAX, Intake, RateLimits, TokenBucket, Waiting

SECOND_US = 1_000_000
GATEWAY = b"g" * 32
KNOWN, STRANGER = b"k" * 32, b"s" * 32


def limits(**values: int) -> RateLimits:
    return RateLimits(Admission(**values), [GATEWAY])


def waiting(source: str, number: int) -> Waiting:
    return Waiting(Request(b"", number.to_bytes(32, "big"), b"", 1, 1, 1, 0, 0, b""), b"connection", source)


def test_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(10, 5, 0)
    assert [bucket.take(0) for _ in range(6)] == [True] * 5 + [False]
    assert bucket.wait_ms() == 100
    assert not bucket.take(99_999)
    assert bucket.take(100_000)
    assert [bucket.take(100 * SECOND_US) for _ in range(6)] == [True] * 5 + [False], "no more than the burst is saved"


def test_bucket_is_not_fooled_by_a_clock_that_stands_still() -> None:
    bucket = TokenBucket(1, 1, 1000)
    assert bucket.take(1000)
    assert not bucket.take(500)


def test_bucket_in_debt_recovers_at_its_rate() -> None:
    bucket = TokenBucket(10, 10, 0)
    bucket.spend(20)
    assert not bucket.take(SECOND_US)
    assert bucket.take(SECOND_US + 100_000)


def test_unknown_keys_share_one_bucket_and_known_keys_have_their_own() -> None:
    rates = limits(unknown_rate_per_s=1, unknown_burst=2, rate_per_s=1, burst=3)
    strangers = [bytes([number]) * 32 for number in range(5)]
    assert [rates.verification("x", key, 0) == 0 for key in strangers] == [True, True, False, False, False]
    rates.good_signature(KNOWN, 0)
    assert [rates.verification("x", KNOWN, 0) == 0 for _ in range(4)] == [True, True, True, False]


def test_gateway_answers_for_unknown_keys_with_its_own_bucket() -> None:
    rates = limits(unknown_rate_per_s=1, unknown_burst=1, gateway_rate_per_s=1, gateway_burst=50)
    assert rates.is_gateway(GATEWAY.hex())
    assert all(rates.verification(GATEWAY.hex(), bytes([number]) * 32, 0) == 0 for number in range(50))
    assert rates.verification(GATEWAY.hex(), STRANGER, 0) > 0
    assert rates.verification("x", STRANGER, 0) == 0, "the bucket of the unknown has not been touched"


def test_questions_are_counted_for_each_source() -> None:
    rates = limits(rate_per_s=1, burst=2)
    assert [rates.question("one", 0) == 0 for _ in range(3)] == [True, True, False]
    assert rates.question("two", 0) == 0


def test_known_keys_are_bounded_and_the_idle_ones_go_first() -> None:
    rates = limits()
    rates.good_signature(KNOWN, 0)
    for number in range(KEYS_MAX - 1):
        rates.good_signature(number.to_bytes(32, "big"), 0)
    rates.good_signature(KNOWN, 0)
    rates.good_signature(STRANGER, 0)
    assert rates.known_keys == KEYS_MAX
    assert (0).to_bytes(32, "big") not in rates._clients
    assert KNOWN in rates._clients


def test_sources_take_turns_whatever_one_of_them_sends() -> None:
    intake = Intake(limits())
    for number in range(100):
        assert intake.put(waiting("loud", number))
    assert intake.put(waiting("quiet", 1000))
    first = intake.take(4)
    assert [one.source for one in first] == ["loud", "quiet", "loud", "loud"]
    assert len(intake) == 97


def test_queue_of_a_source_is_bounded_and_others_still_have_room() -> None:
    intake = Intake(limits())
    accepted = sum(intake.put(waiting("loud", number)) for number in range(SOURCE_REQUESTS_MAX + 10))
    assert accepted == SOURCE_REQUESTS_MAX
    assert intake.put(waiting("quiet", 0))
    assert intake.put(waiting(GATEWAY.hex(), 0))


@pytest.mark.parametrize("count", [0, 1, 7])
def test_intake_returns_everything_once_and_in_order(count: int) -> None:
    intake = Intake(limits())
    for number in range(count):
        intake.put(waiting("one", number))
    taken = intake.take(100)
    assert [int.from_bytes(one.request.digest, "big") for one in taken] == list(range(count))
    assert intake.take(100) == []
    assert len(intake) == 0
