"""Adding, changing and deleting single pictures while searches go on.

What a method has done when it returns is durable, and in the answer to the next search.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from embed.encoder import PictureEncoder
from embed.pictures import RGB, PictureError, PictureLimits, decode
from index.catalogue import KEEP, Keep, ModelChangedError, Record
from index.filters import Filter
from index.neighbours import UnknownIdError
from index.payload import Payload
from index.stores import Pictures, RecordOfAll

_ATTEMPTS = 5


@dataclass(frozen=True)
class Upload:
    """A picture to add.

    Attributes:
        data: the encoded picture.
        key: the caller's own name for it; adding the same key again replaces the picture. None
            for a picture that is always new.
        label: class name, or None.
        split: ``train``, ``val``, ``test``, or None.
        payload: whatever else to store with it.
    """

    data: bytes
    key: str | None = None
    label: str | None = None
    split: str | None = None
    payload: Payload = field(default_factory=dict)


@dataclass(frozen=True)
class Writer:
    """Writes into one store.

    Attributes:
        catalogue: the record.
        blobs: where the bytes go.
        limits: bounds of each picture.
        encoder: gives the encoder that serves now.
    """

    catalogue: RecordOfAll
    blobs: Pictures
    limits: PictureLimits
    encoder: Callable[[], PictureEncoder]

    def add(self, uploads: Sequence[Upload]) -> list[int | PictureError]:
        """Store pictures; return for each its id, or why it cannot be used.

        The usable ones are stored together or, where this raises, none of them.

        Raises:
            IndexInputError: a payload, key, label or split that cannot be stored, a key given
                twice.
        """
        results: list[int | PictureError] = []
        good: list[tuple[int, RGB]] = []
        for row, upload in enumerate(uploads):
            try:
                picture = decode(upload.data, self.limits, at_least=self.encoder().input_size)
                good.append((row, self.encoder().fit(picture)))
                results.append(-1)
            except PictureError as error:
                results.append(error)
        if good:
            # Until the bytes are named by an entry they must not be swept away as unused.
            with self.blobs.adding():
                records = [self._record(uploads[row]) for row, _ in good]
                ids = self._upsert(records, [picture for _, picture in good])
            for (row, _), id_ in zip(good, ids, strict=True):
                results[row] = id_
        return results

    def _record(self, upload: Upload) -> Record:
        source = f"key:{upload.key}" if upload.key is not None else f"added:{uuid.uuid4().hex}"
        name = self.blobs.put(upload.data)
        return Record(source, upload.split, upload.label, upload.payload, name, "added")

    def _upsert(self, records: Sequence[Record], pictures: Sequence[RGB]) -> list[int]:
        for _ in range(_ATTEMPTS - 1):
            encoder = self.encoder()
            try:
                embeddings = encoder.encode(pictures).embeddings
                return self.catalogue.upsert(records, embeddings, encoder.digest)
            except ModelChangedError:
                continue  # the service has gone over to another model meanwhile
        encoder = self.encoder()
        embeddings = encoder.encode(pictures).embeddings
        return self.catalogue.upsert(records, embeddings, encoder.digest)

    def update(
        self,
        image_id: int,
        *,
        label: str | Keep | None = KEEP,
        split: str | Keep | None = KEEP,
        payload: Payload | None = None,
        replace_payload: bool = False,
    ) -> None:
        """Change an entry's fields; see `Catalogue.update`.

        Raises:
            UnknownIdError: no such picture.
            IndexInputError: a value that cannot be stored.
        """
        self.catalogue.update(
            [image_id],
            label=label,
            split=split,
            payload=payload,
            replace_payload=replace_payload,
            by_hand=True,
        )

    def delete(self, image_id: int) -> None:
        """Delete one picture; one of the corpus stays deleted when the index is rebuilt.

        Raises:
            UnknownIdError: no such picture.
        """
        if not self.catalogue.delete([image_id], remember=True):
            raise UnknownIdError([image_id], "the catalogue")

    def delete_many(self, ids: Sequence[int] | None, where: Filter | None) -> int:
        """Delete these ids, or all that match; return how many there were."""
        if ids is not None:
            return self.catalogue.delete(ids, remember=True)
        return 0 if where is None else len(self.catalogue.delete_where(where))
