"""Runs pieces of work on one store in every order of their steps: a small model checker.

The work is the real code. Each piece runs in a thread of its own, only one of them at a time, and
gives way at the steps that `stepping` adds and wherever it would wait for a lock. All orders are
tried in which a piece is interrupted, while it could go on, at most ``bound`` times in total.
"""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

_current = threading.local()


class _Piece:
    """One piece of work, which goes on only when it is told to."""

    def __init__(self, work: Callable[[], object], back: threading.Semaphore) -> None:
        self._work = work
        self._back = back
        self._go = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.waiting = self.done = False
        self.result: object = None

    def step(self) -> None:
        """Let it go on to its next step."""
        self._go.release()
        assert self._back.acquire(timeout=60), "a piece of work neither goes on nor gives way"

    def pause(self, waiting: bool = False) -> None:
        """Called by its own thread."""
        self.waiting = waiting
        self._back.release()
        self._go.acquire()

    def _run(self) -> None:
        _current.piece = self
        self._go.acquire()
        try:
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001 - the caller judges it
            self.result = error
        self.done = True
        self._back.release()


@dataclass(frozen=True)
class _Choice:
    possible: list[str]
    chosen: str
    interruptions: int
    before: str | None

    def cost(self, other: str) -> int:
        return self.interruptions + (self.before in self.possible and other != self.before)


def stepping(patch: pytest.MonkeyPatch, owner: Any, name: str, *, after: bool = False) -> None:
    """Let pieces of work give way before calls of ``owner.name``, and ``after`` them as well."""
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        _give_way()
        result = original(*args, **kwargs)
        if after:
            _give_way()
        return result

    patch.setattr(owner, name, call)


def locks_give_way(patch: pytest.MonkeyPatch) -> None:
    """Let pieces of work give way where they would wait for a lock."""
    original = fcntl.flock

    def flock(handle: int, how: int) -> None:
        piece = getattr(_current, "piece", None)
        if piece is None or how & fcntl.LOCK_NB:
            original(handle, how)
            return
        while True:
            try:
                original(handle, how | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                piece.pause(waiting=True)

    patch.setattr(fcntl, "flock", flock)


def _give_way() -> None:
    piece = getattr(_current, "piece", None)
    if piece is not None:
        piece.pause()


def explore(
    prepare: Callable[[], Mapping[str, Callable[[], object]]],
    check: Callable[[Mapping[str, object]], None],
    bound: int,
) -> int:
    """Run the work in every order; return how many orders there are.

    ``prepare`` makes a store and returns what to do with it, by name; ``check`` is given what each
    returned or raised.
    """
    open_: list[list[str]] = [[]]
    orders = 0
    while open_:
        start = open_.pop()
        results, choices = _run(prepare(), start)
        orders += 1
        path = [choice.chosen for choice in choices]
        try:
            check(results)
        except AssertionError as error:
            raise AssertionError(f"in the order {path}: {results}") from error
        for number, choice in enumerate(choices[len(start) :], len(start)):
            open_ += [
                [*path[:number], other]
                for other in choice.possible
                if other != choice.chosen and choice.cost(other) <= bound
            ]
    return orders


def _run(
    work: Mapping[str, Callable[[], object]], start: list[str]
) -> tuple[dict[str, object], list[_Choice]]:
    back = threading.Semaphore(0)
    pieces = {name: _Piece(piece, back) for name, piece in work.items()}
    choices: list[_Choice] = []
    before, interruptions = None, 0
    while not all(piece.done for piece in pieces.values()):
        possible = [n for n, piece in pieces.items() if not piece.done and not piece.waiting]
        assert possible, f"a deadlock after {[choice.chosen for choice in choices]}"
        usual = before if before in possible else possible[0]
        chosen = start[len(choices)] if len(choices) < len(start) else usual
        assert chosen is not None
        choice = _Choice(possible, chosen, interruptions, before)
        interruptions = choice.cost(chosen)
        choices.append(choice)
        pieces[chosen].step()
        if not pieces[chosen].waiting:
            for name, piece in pieces.items():
                if name != chosen:
                    piece.waiting = False  # what it waits for may be free now
        before = chosen
    return {name: piece.result for name, piece in pieces.items()}, choices
