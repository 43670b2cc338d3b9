"""The log: one line per event, as JSON or text, with the id of the request that caused it."""

from __future__ import annotations

import json
import logging
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request being handled; set by the middleware."""

FORMATS = ("json", "text")
# ASCII only: nothing in a request can end the line or colour a terminal.
_encode = json.JSONEncoder(default=str).encode


def event(log: logging.Logger, message: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log ``message`` with ``fields``: members of the JSON, or ``name=value`` in text.

    Never pass a picture, a key or the body of a request.
    """
    if log.isEnabledFor(level):
        log.log(level, message, extra={"fields": fields})


def default_format() -> str:
    """``text`` on a terminal, ``json`` otherwise."""
    return "text" if sys.stderr.isatty() else "json"


def configure(format_: str | None = None) -> None:
    """Send all logging of the process, uvicorn's included, to stderr in one format.

    Args:
        format_: ``json`` or ``text``; None for text on a terminal and JSON otherwise.
    """
    format_ = format_ or default_format()
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if format_ == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("faiss").setLevel(logging.WARNING)  # which of its builds fits this CPU
    # What Python itself would write: warnings of libraries, and errors that nobody handles.
    logging.captureWarnings(True)
    threading.excepthook = _log_thread_error
    sys.unraisablehook = _log_unraisable
    # Do not collect what no line shows: see "Optimization" in Python's "Logging HOWTO".
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None


def in_json() -> bool:
    """Whether the process writes its log as JSON, so that nothing else belongs on stderr."""
    return any(isinstance(h.formatter, JsonFormatter) for h in logging.getLogger().handlers)


def _log_thread_error(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is None or isinstance(found.exc_value, SystemExit):
        return
    name = found.thread.name if found.thread else "a thread"
    logging.getLogger("python").error("%s ended with an error", name, exc_info=found.exc_value)


def _log_unraisable(found: sys.UnraisableHookArgs) -> None:
    what = found.err_msg or "an error was ignored"
    logging.getLogger("python").warning(
        "%s: %s", what, found.object.__class__.__name__, exc_info=found.exc_value
    )


def _members(record: logging.LogRecord) -> dict[str, Any]:
    members: dict[str, Any] = dict(getattr(record, "fields", {}))
    if "request_id" not in members and (of := request_id.get()) is not None:
        members["request_id"] = of
    return members


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``time``, ``level``, ``logger``, ``message``, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_members(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line)


class TextFormatter(logging.Formatter):
    """For people: time, level, message and ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage().replace("\n", " ").replace("\r", " ")
        words = [f"{_time(record)} {record.levelname.lower():<7} {message}"]
        for name, value in _members(record).items():
            text = str(value)
            plain = text.isascii() and text.isprintable() and " " not in text
            words.append(f"{name}={text if plain else json.dumps(text)}")
        line = " ".join(words)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line
