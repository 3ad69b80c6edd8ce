"""The README's example, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.receiver import Receiver

README = Path(__file__).parents[2] / "README.md"


def test_the_example_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    url = "http://127.0.0.1:8080/hooks"
    assert url in example
    with Receiver() as receiver:
        exec(compile(example.replace(url, receiver.url()), str(README), "exec"), {})
        requests = receiver.wait(1)
    arrived = [event["action"] for request in requests for event in request.events]
    assert arrived == ["push", "delete"]
    assert requests[0].header("Authorization") == "Bearer secret"
    seen, delivered = capsys.readouterr().out.splitlines()
    assert seen == "['push', 'pull', 'delete']"
    assert delivered.startswith("2 delivered, 0 pending, <Endpoint 'ci' http://127.0.0.1:")
    assert "secret" not in delivered
