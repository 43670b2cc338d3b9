"""Labelled folders of photographs for benchmarks: splits, altered copies, contact sheets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from sklearn.model_selection import train_test_split

from embed.corpus import FolderCorpus, Item
from embed.pictures import RGB, decode, encode_jpeg

FEWEST = 4
"""A class with fewer pictures cannot be in both the queries and the gallery."""
THUMBNAIL, BORDER = 112, 4
"""Of a contact sheet, pixels."""


@dataclass(frozen=True)
class PictureSet:
    """Pictures of a labelled folder, divided into queries and a gallery that is searched.

    Attributes:
        corpus: the folder.
        queries: a quarter of the pictures of each class.
        gallery: the others.
        too_few: classes that were left out, with the number of their pictures.
    """

    corpus: FolderCorpus
    queries: tuple[Item, ...]
    gallery: tuple[Item, ...]
    too_few: dict[str, int]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.corpus.root.name

    @property
    def items(self) -> tuple[Item, ...]:
        """The queries, then the gallery."""
        return self.queries + self.gallery

    @property
    def labels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The classes' numbers for the queries and for the gallery."""
        _, numbers = np.unique([str(item.label) for item in self.items], return_inverse=True)
        numbers = numbers.astype(np.int64)
        return numbers[: len(self.queries)], numbers[len(self.queries) :]


def picture_set(folder: Path, most: int, seed: int = 0) -> PictureSet:
    """A stratified quarter of a folder's pictures as queries, the rest as the gallery.

    Args:
        folder: holds a folder of pictures for each class.
        most: pictures to use; more are reduced to a stratified draw.
        seed: of both draws.

    Raises:
        ValueError: fewer than two classes have ``FEWEST`` pictures.
    """
    corpus = FolderCorpus(folder)
    items = [item for item in corpus.items if item.label is not None]
    counts = Counter(str(item.label) for item in items)
    # Of a draw, too, enough pictures of a class must be left.
    needed = FEWEST * max(1.0, len(items) / most)
    too_few = {label: n for label, n in counts.items() if n < needed}
    items = [item for item in items if item.label not in too_few]
    if len(counts) - len(too_few) < 2:
        raise ValueError(
            f"{folder} has {len(counts) - len(too_few)} classes with {needed:.0f} pictures or more;"
            " expected at least two folders with so many"
        )
    if len(items) > most:
        items, _ = train_test_split(
            items, train_size=most, random_state=seed, stratify=[item.label for item in items]
        )
    gallery, queries = train_test_split(
        items, test_size=0.25, random_state=seed, stratify=[item.label for item in items]
    )
    return PictureSet(corpus, tuple(queries), tuple(gallery), too_few)


def _cropped(image: Image.Image, random: np.random.Generator) -> Image.Image:
    w, h = (round(0.8 * side) for side in image.size)
    left, top = random.integers(0, [image.width - w + 1, image.height - h + 1]).tolist()
    return image.crop((left, top, left + w, top + h))


def _third(image: Image.Image) -> Image.Image:
    size = [max(1, side // 3) for side in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.BICUBIC)


def _written_on(image: Image.Image) -> Image.Image:
    image = image.copy()
    font = ImageFont.load_default(max(10, image.width // 8))
    place = (0.08 * image.width, 0.4 * image.height)
    outline = max(1, image.width // 150)
    ImageDraw.Draw(image).text(
        place, "SAMPLE 2026", "white", font, stroke_width=outline, stroke_fill="black"
    )
    return image


ALTERATIONS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "crop": _cropped,
    "turn": lambda image, _: image.transpose(Image.Transpose.ROTATE_90),
    "mirror": lambda image, _: ImageOps.mirror(image),
    "grey": lambda image, _: image.convert("L").convert("RGB"),
    "jpeg": lambda image, _: Image.fromarray(decode(encode_jpeg(np.asarray(image), 40)), "RGB"),
    "resize": lambda image, _: _third(image),
    "border": lambda image, _: ImageOps.expand(image, round(0.08 * min(image.size)), "white"),
    "text": lambda image, _: _written_on(image),
}
"""Crop: 80 % of each side, anywhere; turn: by 90 degrees; jpeg: of quality 40; resize: to a third
of each side; border: white, 8 % of the shorter side; text: across the middle, an eighth of the
width high. (``train.evaluation.similarity.altered_copies`` alters small pictures, which keep their
shape.)"""


def altered(picture: RGB, seed: int) -> dict[str, RGB]:
    """A picture altered in each way, by name: uint8 ``(h, w, 3)``, other shapes than it had."""
    image = Image.fromarray(picture, "RGB")
    random = np.random.default_rng(seed)
    return {
        name: np.asarray(alter(image, random), dtype=np.uint8)
        for name, alter in ALTERATIONS.items()
    }


def contact_sheet(
    pictures: PictureSet, rows: Sequence[int], found: dict[str, NDArray[np.int64]], path: Path
) -> None:
    """Write a picture of queries and their neighbours, a row for each query and model.

    Args:
        pictures: the set.
        rows: of the queries to show.
        found: by model, the neighbours' rows in the gallery, int64 ``(len(rows), k)``, best first.
        path: of the file to write. Neighbours of the query's class have a green border, others a
            red one.
    """
    step, caption = THUMBNAIL + 2 * BORDER, 16
    columns = 1 + max(neighbours.shape[1] for neighbours in found.values())
    size = (columns * step, (step + caption) * len(rows) * len(found))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    top = 0
    for i, row in enumerate(rows):
        query = pictures.queries[row]
        for name, neighbours in found.items():
            draw.text((BORDER, top + 2), f"{query.label}: {name}", "black")
            shown = [(query, "grey")]
            for item in (pictures.gallery[j] for j in neighbours[i].tolist()):
                shown.append((item, "green" if item.label == query.label else "red"))
            for column, (item, colour) in enumerate(shown):
                image = Image.fromarray(pictures.corpus.read(item.source, THUMBNAIL), "RGB")
                image = ImageOps.pad(image, (THUMBNAIL, THUMBNAIL), color="white")
                sheet.paste(ImageOps.expand(image, BORDER, colour), (column * step, top + caption))
            top += step + caption
    sheet.save(path)
