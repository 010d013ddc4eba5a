"""What the process asks of its machine: as much as it gives."""

import resource
from typing import Any

import pytest

from penstock.machine import raise_descriptor_limit


def test_the_limit_of_descriptors_is_raised_as_far_as_it_goes() -> None:
    assert raise_descriptor_limit() > 0
    assert raise_descriptor_limit() == raise_descriptor_limit()


def test_a_limit_that_cannot_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError

    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptor_limit() == 10
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    assert raise_descriptor_limit() == 1_048_576
