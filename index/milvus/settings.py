"""Where a store in Milvus is. Imports no Milvus client, so settings need none."""

from __future__ import annotations

from dataclasses import dataclass, field

from index.contract import IndexInputError


@dataclass(frozen=True)
class MilvusSettings:
    """The location of a store.

    Attributes:
        uri: ``http://host:19530``, ``https://…``, or a file ending in ``.db`` for milvus-lite.
        token: ``user:password`` or an API key; empty for none. Never shown.
        prefix: the start of the names of the store's collections and aliases.
        flush: acknowledge a write only when it is in Milvus's storage, not just in its log.
    """

    uri: str
    token: str = field(default="", repr=False)
    prefix: str = "lookalike"
    flush: bool = True

    def __post_init__(self) -> None:
        if not self.uri.strip():
            raise IndexInputError(
                "the address of Milvus is empty; set MILVUS_URI, for example http://127.0.0.1:19530"
            )
        if not (self.prefix.isascii() and self.prefix.isidentifier() and len(self.prefix) <= 64):
            raise IndexInputError(
                f"the prefix is {self.prefix!r}; expected 1 to 64 letters, digits and underscores,"
                " a letter first"
            )
