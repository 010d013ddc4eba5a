"""Who has to go: the oldest that is idle, looked for among a few."""

from collections import OrderedDict

from penstock.gateway.eviction import LOOKED_AT, oldest_idle


def test_the_oldest_that_is_idle_goes_and_those_before_it_count_as_the_youngest() -> None:
    kept = OrderedDict((number, number >= 2) for number in range(5))
    assert oldest_idle(kept, bool) == 2
    assert list(kept) == [2, 3, 4, 0, 1]


def test_of_many_in_use_only_a_few_are_looked_at() -> None:
    kept = OrderedDict((number, number == LOOKED_AT) for number in range(LOOKED_AT + 2))
    assert oldest_idle(kept, bool) is None
    assert oldest_idle(kept, bool) == LOOKED_AT
    assert oldest_idle(OrderedDict[int, bool](), bool) is None
