"""Adding, changing and deleting single pictures while the service is searched.

When a method returns, its change is durable and visible to the next search.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from embed.encoder import PictureEncoder
from embed.pictures import RGB, Opened, PictureError, PictureLimits, turn
from index.conditions import Filter, Match
from index.contract import (
    KEEP,
    Blobs,
    Catalogue,
    Change,
    ModelChangedError,
    UnknownIdError,
)
from index.payload import check_text, nfc, spellings
from index.records import Payload, Record
from search_api.service.storage.quotas import StorageQuotas
from search_api.text import printable, shortened

_ATTEMPTS = 5


@dataclass(frozen=True)
class Upload:
    """A picture to add.

    Attributes:
        data: the encoded picture.
        key: the caller's name for the picture; adding the same key again replaces it. None always
            adds a new picture.
        label: class name, or None.
        split: ``train``, ``val``, ``test``, or None.
        payload: other fields to store with it.
        filename: the file's name where it came from, or None.
    """

    data: bytes
    key: str | None = None
    label: str | None = None
    split: str | None = None
    payload: Payload = field(default_factory=dict)
    filename: str | None = None


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

    def add(self, uploads: Sequence[Upload]) -> list[int | PictureError]:
        """Store pictures; return for each its id, or the reason why it cannot be used.

        The usable pictures are stored together; if this raises, none is.

        Raises:
            IndexInputError: a payload, key, label or split cannot be stored, or a key occurs twice.
            QuotaError: they would exceed the quota of added pictures.
            NoSpaceError: the disk has too little free space.
        """
        self.quotas.check_room(sum(len(upload.data) for upload in uploads), upload=True)
        results: list[int | PictureError] = []
        good: list[tuple[int, RGB, Payload]] = []
        encoder = self.encoder()
        for row, upload in enumerate(uploads):
            try:
                good.append((row, *self._picture(upload, encoder)))
                results.append(-1)
            except PictureError as error:
                results.append(error)
        if good:
            records = [self._record(uploads[row], facts) for row, _, facts in good]
            self.catalogue.check_quota(records, self.quotas.added)
            # A sweep must not remove the bytes as unused before an entry refers to them.
            with self.blobs.holding():
                records = [
                    replace(record, content_hash=self.blobs.put(uploads[row].data))
                    for record, (row, *_) in zip(records, good, strict=True)
                ]
                usable = [uploads[row] for row, *_ in good]
                ids = self._store(records, usable, [picture for _, picture, _ in good], encoder)
            for (row, *_), id_ in zip(good, ids, strict=True):
                results[row] = id_
        return results

    def _picture(self, upload: Upload, encoder: PictureEncoder) -> tuple[RGB, Payload]:
        """The picture fitted to the encoder, and what its file says of itself as payload."""
        with turn():
            opened = Opened(upload.data, self.limits)
            picture, facts = opened.decode_with_facts(encoder.input_size)
            about = facts.payload(_name(upload), len(upload.data), self.gps_place)
            return encoder.fit(picture), about

    def _store(
        self,
        records: Sequence[Record],
        uploads: Sequence[Upload],
        pictures: Sequence[RGB],
        encoder: PictureEncoder,
    ) -> list[int]:
        quota = self.quotas.added
        for left in reversed(range(_ATTEMPTS)):
            embeddings = encoder.encode(pictures).embeddings
            try:
                return self.catalogue.upsert(records, embeddings, encoder.digest, quota)
            except ModelChangedError:
                if not left:
                    raise
            # The store switched models in between; the other may take a picture of another size.
            if encoder is not (encoder := self.encoder()):
                pictures = [self._picture(upload, encoder)[0] for upload in uploads]
        raise AssertionError

    def _record(self, upload: Upload, facts: Payload) -> Record:
        """The record of an added picture, without the name of its bytes."""
        source = f"added:{uuid.uuid4().hex}"
        if upload.key is not None:
            source = self._source(upload.key)
        size = len(upload.data)
        payload = {**facts, **upload.payload}
        return Record(source, upload.split, upload.label, payload, None, "added", size=size)

    def _source(self, key: str) -> str:
        """The source of the added picture with this key; keys that look alike are one key.

        It has composed characters, unless an earlier version has stored it with others.
        """
        known = spellings(f"key:{check_text(key, 'key')}")
        if len(known) == 1:
            return known[0]
        stored = self.catalogue.page(-1, 1, Filter((Match("source", known),)))
        return stored[0].source if stored else nfc(known[0])

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
