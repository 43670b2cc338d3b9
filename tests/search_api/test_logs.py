"""Logging: the formats, and that they apply to every logger."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator

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


@contextlib.contextmanager
def in_json() -> Iterator[None]:
    """The log as a server's, in JSON."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, threading.excepthook, sys.unraisablehook
    assert not logs.in_json()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logs.configure("json")
            assert logs.in_json()
            yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:], root.level, threading.excepthook, sys.unraisablehook = before


def test_what_python_writes_by_itself_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    class Odd:
        def __del__(self) -> None:
            raise ValueError("two\nlines")

    def fail() -> None:
        raise KeyError("nobody handles it")

    with in_json():
        warnings.warn("a library's\nown chatter", stacklevel=1)
        thread = threading.Thread(target=fail, name="odd")
        thread.start()
        thread.join()
        Odd()
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (warning,) = [line for line in said if line["logger"] == "py.warnings"]
    assert "a library's\nown chatter" in warning["message"]
    errors = [line for line in said if line["logger"] == "python"]
    assert errors[0]["message"] == "odd ended with an error"
    assert "KeyError: 'nobody handles it'" in errors[0]["exception"]
    assert "ValueError: two" in errors[1]["exception"]


def test_configure_covers_all_loggers(capsys: pytest.CaptureFixture[str]) -> None:
    with in_json():
        logging.getLogger("a.library").warning("something odd")
    # A thread of another test's server may log meanwhile.
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (line,) = [line for line in lines if line["logger"] == "a.library"]
    assert line["level"] == "warning"
