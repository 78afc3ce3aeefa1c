"""Buckets and queues in front of the signature check."""

from __future__ import annotations

import pytest

from nodes.config import Admission
from nodes.core.types import Request
from nodes.replica.admission import (
    BYTES_MAX,
    KEYS_MAX,
    PLACE_BYTES,
    REQUESTS_MAX,
    SOURCE_REQUESTS_MAX,
    Intake,
    RateLimits,
    SharedBucket,
    TokenBucket,
    Waiting,
)

SECOND_US = 1_000_000
GATEWAY = b"g" * 32
KNOWN, STRANGER = b"k" * 32, b"s" * 32


def limits(**values: int) -> RateLimits:
    return RateLimits(Admission(**values), [GATEWAY])


LARGE = bytes(65_000)


def waiting(source: str, number: int, record: bytes = b"") -> Waiting:
    return Waiting(Request(b"", number.to_bytes(32, "big"), b"", 1, 1, 1, 0, 0, record), b"connection", source)


def emptied(intake: Intake) -> list[Waiting]:
    """All that waits, in the order of service."""
    taken: list[Waiting] = []
    while len(intake):
        taken += intake.take(32)
    return taken


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
    rates = limits(unknown_rate_per_s=1, unknown_burst=4, rate_per_s=1, burst=3)
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
        assert not intake.put(waiting("loud", number))
    assert not intake.put(waiting("quiet", 1000))
    first = intake.take(4)
    assert [one.source for one in first] == ["loud", "quiet", "loud", "loud"]
    assert len(intake) == 97


def test_queue_of_a_source_is_bounded_and_others_still_have_room() -> None:
    intake = Intake(limits())
    accepted = sum(not intake.put(waiting("loud", number)) for number in range(SOURCE_REQUESTS_MAX + 10))
    assert accepted == SOURCE_REQUESTS_MAX
    assert not intake.put(waiting("quiet", 0))
    assert not intake.put(waiting(GATEWAY.hex(), 0))


@pytest.mark.parametrize("record", [b"", LARGE], ids=["small", "large"])
def test_flood_of_ten_sources_never_keeps_another_out(record: bytes) -> None:
    intake = Intake(limits())
    for number in range(10 * SOURCE_REQUESTS_MAX):
        intake.put(waiting(f"evil{number % 10}", number, record))
    for turn in range(100):
        intake.take(32)
        for number in range(64):
            intake.put(waiting(f"evil{number % 10}", number, record))
        lost = intake.put(waiting("honest", turn))
        assert all(one.source != "honest" for one in lost)
        assert len(intake) <= REQUESTS_MAX
        assert intake.waiting_bytes <= BYTES_MAX
    assert sum(one.source == "honest" for one in emptied(intake)) > 0


def test_full_intake_drops_the_newest_of_whoever_holds_most() -> None:
    intake = Intake(limits())
    for number in range(REQUESTS_MAX):
        assert not intake.put(waiting(f"s{number // 2000}" if number < 18_001 else f"t{number}", number))
    (lost,) = intake.put(waiting("new", 1))
    assert (lost.source, int.from_bytes(lost.request.digest, "big")) == ("s0", 1999)
    large = waiting("large", 2, LARGE)
    lost_places = intake.put(large)
    assert len(lost_places) == 20
    assert large not in lost_places
    assert len(intake) == REQUESTS_MAX - 19


def test_source_that_itself_holds_most_loses_what_it_brings() -> None:
    intake = Intake(limits())
    for number in range(REQUESTS_MAX):
        intake.put(waiting(f"s{number % 20}", number))
    newest = waiting("s3", 1)
    assert intake.put(newest) == [newest]
    places = REQUESTS_MAX * PLACE_BYTES
    assert places <= BYTES_MAX


def test_newcomer_loses_when_everybody_has_as_little_and_leaves_nothing_behind() -> None:
    intake = Intake(limits())
    for number in range(REQUESTS_MAX):
        assert not intake.put(waiting(f"s{number}", number))
    late = waiting("late", 0)
    assert intake.put(late) == [late]
    assert len(intake._queues) == REQUESTS_MAX
    assert len(emptied(intake)) == REQUESTS_MAX
    intake.take(1)
    assert (intake._queues, intake._by_load, intake.waiting_bytes) == ({}, {}, 0)


def test_gateway_has_the_share_of_several_sources() -> None:
    intake = Intake(limits())
    gateway = GATEWAY.hex()
    for number in range(12_000):
        intake.put(waiting(gateway, number))
    for number in range(8_000):
        intake.put(waiting(f"s{number % 4}", number))
    (lost,) = intake.put(waiting("new", 0))
    assert lost.source != gateway, "12,000 are fewer for eight than 2,000 for one"
    first = [one.source for one in intake.take(24)]
    assert first.count(gateway) > 12


def test_turns_are_shared_by_size_and_not_by_number() -> None:
    intake = Intake(limits())
    for number in range(400):
        intake.put(waiting("small", number))
        intake.put(waiting("large", number, LARGE))
    first: list[Waiting] = []
    while len(first) < 210:
        first += intake.take(32)
    assert 8 <= sum(one.source == "large" for one in first) <= 12
    assert len(emptied(intake)) + len(first) == 800


def test_source_cannot_empty_the_bucket_of_the_unknown_for_others() -> None:
    rates = limits(unknown_rate_per_s=10, unknown_burst=400)
    for evil in range(5):
        while rates.verification(f"evil{evil}", STRANGER, 0) == 0:
            pass
    assert rates.verification("honest", STRANGER, 0) == 0
    assert rates.verification("evil0", STRANGER, 0) > 0


def test_sources_that_flood_get_equal_parts_of_the_rate_and_a_newcomer_one_too() -> None:
    bucket = SharedBucket(100, 40, 0)
    got = {"a": 0, "b": 0, "late": 0}
    for ms in range(20_000):
        for source in ("a", "a", "a", "b", "late"):
            if source != "late" or ms >= 10_000:
                got[source] += bucket.take(source, ms * 1000)
    assert 1930 <= sum(got.values()) <= 2040, "the rate and one burst, no more"
    assert abs(got["a"] - got["b"]) < 40
    assert 300 <= got["late"] <= 360, "a third of its ten seconds"


def test_shared_bucket_remembers_no_more_sources_than_it_has_tokens() -> None:
    bucket = SharedBucket(100, 40, 0)
    taken = sum(bucket.take(f"s{number}", 0) for number in range(1000))
    assert taken == len(bucket) == 40
    assert bucket.wait_ms("s0") == 20
    assert bucket.take("new", 10_000)
    assert bucket.take("new", 60 * SECOND_US)
    assert len(bucket) == 1


@pytest.mark.parametrize("count", [0, 1, 7])
def test_intake_returns_everything_once_and_in_order(count: int) -> None:
    intake = Intake(limits())
    for number in range(count):
        intake.put(waiting("one", number))
    taken = intake.take(100)
    assert [int.from_bytes(one.request.digest, "big") for one in taken] == list(range(count))
    assert intake.take(100) == []
    assert len(intake) == 0
