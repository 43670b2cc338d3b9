"""What identifies the content of a corpus picture, and whether a corpus is the one indexed."""

from __future__ import annotations

import hashlib

import numpy as np

from embed.corpus import Corpus, CorpusError
from embed.pictures import RGB, PictureError, turn
from index.contract import Catalogue

PIXELS = "pixels:"


def content_name(
    corpus: Corpus, source: str, at_least: int, stored: str | None = None
) -> tuple[str, RGB | None]:
    """What identifies a picture's content, and its pixels if they were needed for that.

    ``file:`` and the SHA-256 of its file's bytes, whatever the model and the decoder. A picture in
    no file of its own, or one ``stored`` under its pixels, as earlier versions did, has its
    `pixels_hash`.

    Args:
        corpus: holds the picture.
        source: its name.
        at_least: as ``Corpus.read`` takes it; the pixels, and so their hash, depend on it.
        stored: what the picture was stored with, to be compared with the result.

    Raises:
        CorpusError: there is no such picture, or it cannot be read now.
        PictureError: it is not a usable picture.
    """
    data = None if stored is not None and stored.startswith(PIXELS) else corpus.content(source)
    if data is not None:
        return file_hash(data), None
    picture = corpus.read(source, at_least=at_least)
    return pixels_hash(picture), picture


def file_hash(data: bytes) -> str:
    """``file:`` and the SHA-256 of a file's bytes."""
    return f"file:{hashlib.sha256(data).hexdigest()}"


def pixels_hash(picture: RGB) -> str:
    """``pixels:`` and the SHA-256 of a picture's shape and values."""
    digest = hashlib.sha256(repr(picture.shape).encode())
    digest.update(np.ascontiguousarray(picture).data)
    return f"{PIXELS}{digest.hexdigest()}"


def same_pictures(catalogue: Catalogue, corpus: Corpus, at_least: int, sample: int = 100) -> float:
    """Which share of the stored corpus pictures has the same place and content in this corpus.

    0 to 1, estimated from at most ``sample`` of them, spread over the whole; those whose content
    was not recorded (by the first versions) are left out. 0 if none can be compared.

    Args:
        catalogue: holds the pictures of the store.
        corpus: where they may be now, for example a folder that was moved.
        at_least: the shorter side, in pixels, that the store's encoder needs.
        sample: how many pictures to read at most.

    Raises:
        CorpusError: the corpus cannot be read, or has no picture.
    """
    present = {item.source for item in corpus.scan().items}
    sources = sorted(catalogue.all_sources("corpus").items())
    step = max(1, len(sources) / sample)
    chosen = [sources[int(n * step)][1] for n in range(min(sample, len(sources)))]
    entries = [entry for entry in catalogue.find(chosen) if entry.content_hash]

    def same(source: str, stored: str) -> bool:
        if source not in present:
            return False
        try:
            with turn(patient=True):
                return content_name(corpus, source, at_least, stored)[0] == stored
        except (CorpusError, PictureError):
            return False

    found = sum(same(entry.source, entry.content_hash or "") for entry in entries)
    return found / len(entries) if entries else 0.0
