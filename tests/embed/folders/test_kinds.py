from __future__ import annotations

from embed.folders.kinds import Skipped, count_kinds, in_words, of_ending


def test_kinds_are_counted_by_their_files() -> None:
    skipped = [Skipped(".mov", "?"), Skipped("links", "?"), Skipped(".mov", "?")]
    assert count_kinds([*skipped, Skipped("in @eaDir", "?", 7)]) == {
        "in @eaDir": 7,
        ".mov": 2,
        "links": 1,
    }
    assert count_kinds([]) == {}


def test_kinds_in_words() -> None:
    assert in_words({".mov": 5000, "links": 2}) == ".mov 5,000, links 2"
    many = {f".{n:03d}x": 100 - n for n in range(20)}
    assert in_words(many).endswith(f".011x 89, others {sum(range(81, 89)):,}")


def test_endings() -> None:
    for name in (
        "a.jpg",
        "A.JFIF",
        "b.jpe",
        "c.heic",
        "d.HIF",
        "e.avif",
        "f.jp2",
        "g.ico",
        "h.Pgm",
    ):
        assert of_ending(name) is None, name
    words = {
        "a.NEF": (".nef", "camera RAW"),
        "a.psd": (".psd", "paint program"),
        "a.svg": (".svg", "drawing"),
        "a.pdf": (".pdf", "document"),
        "a.mp4": (".mp4", "video"),
        "a.zip": (".zip", "packed file"),
        "a.jpg.xmp": (".xmp", "sidecar"),
        "a.jpg.part": (".part", "not complete"),
        "labels.csv": (".csv", "name it with --data"),
        "a.unheard": (".unheard", ".unheard is not the ending of a picture"),
        "a.JPG\n": ("other endings", "does not end like"),
        "a.001": ("other endings", "does not end like"),
        "a.": ("other endings", "does not end like"),
        "jpg": ("no ending", "no ending such as .jpg"),
    }
    for name, (kind, reason) in words.items():
        found = of_ending(name)
        assert found is not None and found.kind == kind and reason in found.reason, name
