"""Logging: the formats, and that they apply to every logger."""

from __future__ import annotations

import json
import logging

import pytest

from search_api import logs


def test_every_message_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = logging.getLogger("test")
    logs.event(log, "a\nb", path="/x\n/y z", status=200)
    (record,) = caplog.records
    text = logs.TextFormatter().format(record)
    assert "\n" not in text
    assert text.endswith('info    a b path="/x\\n/y z" status=200')
    assert "\n" not in logs.JsonFormatter().format(record)


def test_configure_covers_all_loggers(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logs.configure("json")
        logging.getLogger("a.library").warning("something odd")
    finally:
        root.handlers[:], root.level = before
    # A thread of another test's server may log meanwhile.
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (line,) = [line for line in lines if line["logger"] == "a.library"]
    assert line["level"] == "warning"
