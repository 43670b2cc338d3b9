"""Adding, changing and deleting single pictures while the service is searched.

When a method returns, its change is durable and visible to the next search.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from embed.encoder import PictureEncoder
from embed.pictures import RGB, Opened, PictureError, PictureLimits, turn
from index.blobs.naming import PREFIX
from index.conditions import Filter
from index.contract import (
    KEEP,
    NO_ID,
    Blobs,
    Catalogue,
    Change,
    ModelChangedError,
    StoreBusyError,
    UnknownIdError,
)
from index.payload import nfc
from index.records import Payload, Record
from search_api.service.storage.identity import Identity, Place, Wanted, identify, with_place
from search_api.service.storage.quotas import StorageQuotas
from search_api.text import printable, shortened

_ATTEMPTS = 5

Status = Literal["added", "replaced", "updated", "unchanged"]
"""What became of a picture: ``updated`` is the same picture with another label or payload."""


class KeyExistsError(Exception):
    """Another picture is stored under the key, or was added from the place.

    Attributes:
        id: of the stored picture.
    """

    def __init__(self, key: str, id_: int) -> None:
        self.id = id_
        super().__init__(f"{key!r} is stored already with other content, as picture {id_}")


class Stored(int):
    """The id of a stored picture, with its ``key`` and what became of it."""

    status: Status
    key: str | None

    def __new__(cls, id_: int, status: Status, key: str | None) -> Stored:
        """The result for one picture."""
        made = super().__new__(cls, id_)
        made.status, made.key = status, key
        return made


@dataclass(frozen=True)
class Upload:
    """A picture to add.

    What is not given is kept where the picture is stored already.

    Attributes:
        data: the encoded picture.
        key: the caller's name for the picture. With neither key nor place, it is always a new one.
        label: class name; None for none.
        split: ``train``, ``val``, ``test``; None for none.
        payload: other fields to store with it, merged into those that are stored by its keys.
        filename: the file's name where it came from, or None.
        place: where the file is, which then decides its key.
        default_label: label of a picture that is not stored yet and is given none.
        default_split: its split, likewise.
    """

    data: bytes
    key: str | None = None
    label: Change = KEEP
    split: Change = KEEP
    payload: Payload = field(default_factory=dict)
    filename: str | None = None
    place: Place | None = None
    default_label: str | None = None
    default_split: str | None = None


@dataclass
class _Work:
    """One picture on its way into the store; done when it has a ``result``."""

    upload: Upload
    content: str
    identity: Identity = field(default_factory=lambda: Identity(""))
    picture: RGB | None = None
    facts: Payload = field(default_factory=dict)
    result: Stored | PictureError | KeyExistsError | None = None

    @property
    def fails(self) -> bool:
        """Whether it cannot be stored."""
        return isinstance(self.result, Exception)

    def wanted(self) -> Wanted:
        """What it is identified by."""
        return Wanted(self.content, self.upload.key, self.upload.place)

    def finish(self, id_: int, status: Status) -> None:
        """Record the outcome."""
        self.result = Stored(id_, status, self.identity.key)

    def record(self) -> Record:
        """What to store of a new or replaced picture."""
        upload, before = self.upload, self.identity.entry
        facts = with_place(self.facts, upload.place)
        if before is None:
            label, split, payload = upload.default_label, upload.default_split, facts
        else:
            label, split = before.label, before.split
            payload = {k: v for k, v in before.payload.items() if k != "exif"} | facts
        return Record(
            self.identity.source,
            split if upload.split is KEEP else upload.split,
            label if upload.label is KEEP else upload.label,
            {**payload, **upload.payload},
            self.content,
            "added",
            size=len(upload.data),
        )

    def changes(self) -> bool:
        """Whether a stored picture with the same content gets another label, split or payload."""
        upload, entry = self.upload, self.identity.entry
        assert entry is not None
        return (
            any(
                change is not KEEP and (None if change is None else nfc(change)) != kept
                for change, kept in ((upload.label, entry.label), (upload.split, entry.split))
            )
            or {**entry.payload, **upload.payload} != entry.payload
        )


@dataclass(frozen=True)
class Ingest:
    """Writes single pictures into one store.

    Attributes:
        catalogue: the store's catalogue.
        blobs: where the encoded pictures are stored.
        limits: bounds on each picture.
        encoder: returns the encoder in use.
        quotas: refuses what would exceed the store's quotas.
        gps_place: store where photographs were taken, if they say so.
    """

    catalogue: Catalogue
    blobs: Blobs
    limits: PictureLimits
    encoder: Callable[[], PictureEncoder]
    quotas: StorageQuotas
    gps_place: bool = False

    def add(
        self, uploads: Sequence[Upload], *, replace: bool = False
    ) -> list[Stored | PictureError | KeyExistsError]:
        """Store pictures; return for each its id, or the reason why it is not stored.

        A picture that is stored already, with the same content under its key or from its place, is
        left as it is, apart from the label and payload that it is given. Another content needs
        ``replace``. The new pictures are stored together; if this raises, none is.

        Raises:
            IndexInputError: a payload, key, label or split cannot be stored, or a key occurs twice.
            QuotaError: they would exceed the quota of added pictures.
            NoSpaceError: the disk has too little free space.
            StoreBusyError: others keep changing the same pictures.
        """
        self.quotas.check_room(sum(len(upload.data) for upload in uploads), upload=True)
        works = [_Work(upload, _content(upload.data)) for upload in uploads]
        encoder = self.encoder()
        self._identify(works, encoder, replace)
        new = [work.record() for work in works if work.result is None and work.picture is not None]
        self.catalogue.check_quota(new, self.quotas.added)
        # A sweep must not remove the bytes as unused before an entry refers to them.
        with self.blobs.holding():
            for work in works:
                # Also those that are stored already: their bytes may be damaged.
                if not work.fails:
                    self.blobs.put(work.upload.data)
            self._store(works, encoder, replace)
        return [work.result for work in works if work.result is not None]

    def _identify(self, works: Sequence[_Work], encoder: PictureEncoder, replace: bool) -> None:
        """Find out which pictures these are, and decode those that are to be embedded."""
        for work, identity in zip(
            works, identify(self.catalogue, [work.wanted() for work in works]), strict=True
        ):
            work.identity = identity
            entry = identity.entry
            if identity.same:
                continue
            try:
                if work.picture is None:
                    work.picture, work.facts = self._picture(work.upload, encoder)
            except PictureError as error:
                work.result = error
                continue
            if entry is not None and not replace:
                work.result = KeyExistsError(identity.key or identity.source, entry.id)

    def _picture(self, upload: Upload, encoder: PictureEncoder) -> tuple[RGB, Payload]:
        """The picture fitted to the encoder, and what its file says of itself as payload."""
        with turn():
            opened = Opened(upload.data, self.limits)
            picture, facts = opened.decode_with_facts(encoder.preprocess)
            return picture, facts.payload(_name(upload), len(upload.data), self.gps_place)

    def _store(self, works: Sequence[_Work], encoder: PictureEncoder, replace: bool) -> None:
        """Write all that have no result yet, as they were identified.

        Each write succeeds only if what is stored is still as it was then; otherwise another
        process was first, and the picture is identified again.
        """
        for left in reversed(range(_ATTEMPTS)):
            waiting = [work for work in works if work.result is None]
            try:
                self._change([work for work in waiting if work.identity.same])
                self._embed([work for work in waiting if not work.identity.same], encoder)
            except ModelChangedError:
                if not left:
                    raise
                if encoder is not (encoder := self.encoder()):
                    # The other model may take a picture of another size.
                    for work in waiting:
                        work.picture = None
            if not (waiting := [work for work in works if work.result is None]):
                return
            self._identify(waiting, encoder, replace)
        raise StoreBusyError("others keep changing the same pictures; try again")

    def _change(self, works: Sequence[_Work]) -> None:
        """Give pictures that are stored already the label and payload that came with them."""
        for work in works:
            entry, upload = work.identity.entry, work.upload
            assert entry is not None
            if not work.changes():
                work.finish(entry.id, "unchanged")
            elif self.catalogue.update(
                [entry.id],
                label=upload.label,
                split=upload.split,
                payload=upload.payload or None,
                expected=[entry],
            ):
                work.finish(entry.id, "updated")

    def _embed(self, works: Sequence[_Work], encoder: PictureEncoder) -> None:
        """Embed and store new and replaced pictures."""
        pictures = [work.picture for work in works if work.picture is not None]
        if not pictures:
            return
        ids = self.catalogue.upsert(
            [work.record() for work in works],
            encoder.encode(pictures).embeddings,
            encoder.digest,
            self.quotas.added,
            expected=[work.identity.entry for work in works],
        )
        for work, id_ in zip(works, ids, strict=True):
            if id_ != NO_ID:
                work.finish(id_, "added" if work.identity.entry is None else "replaced")

    def update(
        self,
        image_id: int,
        *,
        label: Change = KEEP,
        split: Change = KEEP,
        payload: Payload | None = None,
        replace_payload: bool = False,
    ) -> None:
        """Change an entry's fields; see `Catalogue.update`.

        Raises:
            UnknownIdError: no such picture.
            IndexInputError: a value cannot be stored.
            NoSpaceError: the disk has too little free space.
        """
        self.quotas.check_room()
        self.catalogue.update(
            [image_id],
            label=label,
            split=split,
            payload=payload,
            replace_payload=replace_payload,
            by_hand=True,
        )

    def delete(self, image_id: int) -> None:
        """Delete a picture. A corpus picture stays deleted when the index is rebuilt.

        Raises:
            UnknownIdError: no such picture.
        """
        if not self.catalogue.delete([image_id], tombstone=True):
            raise UnknownIdError([image_id], "the catalogue")

    def delete_many(self, ids: Sequence[int] | None, where: Filter | None) -> int:
        """Delete these ids or, with None, all that match ``where``; return how many existed."""
        if ids is not None:
            return self.catalogue.delete(ids, tombstone=True)
        return 0 if where is None else len(self.catalogue.delete_where(where))


def _name(upload: Upload) -> str | None:
    """The name of its file, without the folders that some programs send."""
    name = re.split(r"[/\\]", upload.filename or "")[-1].replace("\0", "")
    return shortened(printable(name)) or None


def _content(data: bytes) -> str:
    """The name of the bytes in the store, which identifies the content."""
    return PREFIX + hashlib.sha256(data).hexdigest()
