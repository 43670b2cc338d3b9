"""Where a store in Milvus is. Imports no Milvus client, so settings need none."""

from __future__ import annotations

from dataclasses import dataclass, field

from index.contract import IndexInputError


class Secret(str):
    """Text that no repr shows, alone or in what contains it, as logs and tracebacks print."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


@dataclass(frozen=True)
class MilvusSettings:
    """The location of a store.

    Attributes:
        uri: ``http://host:19530``, ``https://…``, or a file ending in ``.db`` for milvus-lite.
        token: ``user:password`` or an API key, a `Secret`; empty for none.
        prefix: the start of the names of the store's collections and aliases.
        flush: acknowledge a write only when it is in Milvus's storage, not just in its log.
    """

    uri: str
    token: str = field(default=Secret(""), repr=False)
    prefix: str = "lookalike"
    flush: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", Secret(self.token))
        if not self.uri.strip():
            raise IndexInputError(
                "the address of Milvus is empty; set MILVUS_URI, for example http://127.0.0.1:19530"
            )
        if not (self.prefix.isascii() and self.prefix.isidentifier() and len(self.prefix) <= 64):
            raise IndexInputError(
                f"the prefix is {self.prefix!r}; expected 1 to 64 letters, digits and underscores,"
                " a letter first"
            )
