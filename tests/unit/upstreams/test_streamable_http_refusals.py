"""What people are told of answers that are none."""

import pytest

from penstock.errors import ServerMisbehaved
from penstock.http.client import ResponseTooLarge
from penstock.upstreams.streamable_http_refusals import failed_request


@pytest.mark.parametrize(
    ("reason", "setting"),
    [
        ("an event is larger than 9 bytes", "limits.event_bytes"),
        ("the answer's head is larger than 9 bytes", "limits.response_header_bytes"),
        ("the answer's framing is larger than 9 bytes", "limits.response_header_bytes"),
        ("the answer's body is larger than 9 bytes", "limits.response_bytes"),
        ("the answer's decoded body is larger than 9 bytes", "limits.response_bytes"),
    ],
)
def test_what_is_too_large_names_the_setting_that_bounds_it(reason: str, setting: str) -> None:
    error = failed_request("web", ResponseTooLarge(reason))
    assert isinstance(error, ServerMisbehaved)
    assert error.message == f"server 'web': {reason}; ask it for less, or raise '{setting}'"
