"""What a client raises."""

from __future__ import annotations

from typing import Any

import httpx2


class ProblemError(Exception):
    """The server answered with an error.

    Attributes:
        status: HTTP status.
        type: the kind of problem, for programs, such as ``urn:lookalike:problem:unknown-id``.
        title: the status in words.
        detail: one sentence for people.
        instance: the path that was requested.
        request_id: identifies the request in the server's log.
        members: all members of the answer; some kinds have more than those above.
    """

    def __init__(self, status: int, members: dict[str, Any]) -> None:
        self.status = status
        self.type = str(members.get("type", "about:blank"))
        self.title = str(members.get("title", ""))
        self.detail = str(members.get("detail", self.title))
        self.instance = str(members.get("instance", ""))
        self.request_id = str(members.get("request_id", ""))
        self.members = members
        super().__init__(f"{status} {self.title}: {self.detail}")

    @staticmethod
    def of(response: httpx2.Response) -> ProblemError:
        """The error that ``response`` describes; its body must have been read."""
        try:
            members = response.json()
        except ValueError:
            members = None
        if not isinstance(members, dict):
            # Probably from a proxy in between.
            members = {"title": response.reason_phrase, "detail": response.text[:200].strip()}
        return ProblemError(response.status_code, members)


class UnreachableError(Exception):
    """The server did not answer, or what answered is not Lookalike."""

    def __init__(self, url: str, why: object) -> None:
        super().__init__(
            f"{url} cannot be reached ({why}); check the address and that the server is running"
        )
        self.url = url
