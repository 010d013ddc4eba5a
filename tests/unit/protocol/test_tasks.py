"""Tasks of the modern era, as far as the gateway looks at them."""

import json
from typing import Any

import pytest

from penstock.protocol.tasks import declares_tasks, is_task, is_unfinished, task_id_of

EXTENSION = "io.modelcontextprotocol/tasks"


@pytest.mark.parametrize(
    ("capabilities", "declared"),
    [
        ('{"extensions":{"io.modelcontextprotocol/tasks":{}}}', True),
        ('{"extensions":{"io.modelcontextprotocol\\/tasks":{"more":1}},"sampling":{}}', True),
        ('{"extensions":{"io.modelcontextprotocol/tasks":true}}', False),
        ('{"extensions":{"io.modelcontextprotocol/tasks":null}}', False),
        ('{"extensions":{"io.modelcontextprotocol/ui":{}}}', False),
        ('{"tasks":{"list":{}}}', False),
        ('{"extensions":[]}', False),
        ("{}", False),
        ("", False),
    ],
)
def test_who_declares_the_extension(capabilities: str, declared: bool) -> None:
    assert declares_tasks(capabilities.encode()) is declared


@pytest.mark.parametrize(
    ("result", "task", "unfinished"),
    [
        ({"resultType": "task", "taskId": "x"}, True, True),
        ({"resultType": "input_required"}, False, True),
        ({"resultType": "complete", "structuredContent": {"resultType": "task"}}, False, False),
        ({"resultType": "complete", "structuredContent": {"resultType": "input_required"}}, False, False),
        ({"content": ["task", "input_required"]}, False, False),
        ({"resultType": "other"}, False, False),
        (["task", "input_required"], False, False),
    ],
)
def test_what_is_no_result_yet(result: Any, task: bool, unfinished: bool) -> None:
    raw = json.dumps(result).encode()
    assert (is_task(raw), is_unfinished(raw)) == (task, unfinished)


@pytest.mark.parametrize(
    ("members", "task_id"),
    [('{"taskId":"a\\u0062"}', "ab"), ('{"taskId":7}', None), ('{"taskId":null}', None), ("{}", None), ("[]", None)],
)
def test_the_id_of_a_task(members: str, task_id: str | None) -> None:
    assert task_id_of(members.encode()) == task_id
