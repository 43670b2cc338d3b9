"""API keys: what they allow, how they are read, and which addresses are local."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_api.keys import KeyFormatError, Keys, Level, is_loopback, read_keys

READ, WRITE = "reader-0123456789", "writer-0123456789"
KEYS = Keys.of([READ], [WRITE])


def test_levels() -> None:
    assert KEYS.level(READ) is Level.READ
    assert KEYS.level(WRITE) is Level.WRITE
    for wrong in ("", READ[:-1], READ + "0", READ.upper(), "ключ", "\x00"):
        assert KEYS.level(wrong) is Level.OPEN
    both = Keys.of([READ], [READ])
    assert both.level(READ) is Level.WRITE
    assert not Keys()
    assert READ not in repr(KEYS)


def test_all_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(b)
        return a == b

    monkeypatch.setattr("search_api.keys.hmac.compare_digest", compare)
    keys = Keys.of([READ, "another-key-to-read"], [WRITE, "another-key-to-write"])
    assert keys.level(READ) is Level.READ
    assert set(compared) == keys.read | keys.write


def test_keys_from_the_environment_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# for the shop\nread {READ}\n\nwrite  {WRITE}\n")
    keys = read_keys("first-key-to-read, second-key-to-read", "", file)
    assert keys.level("second-key-to-read") is Level.READ
    assert keys.level(READ) is Level.READ
    assert keys.level(WRITE) is Level.WRITE
    assert not read_keys("", " , ", None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no keys"),
        ("# only words\n", "no keys"),
        ("admin 0123456789abcdef", "line 1"),
        ("read 0123456789abcdef\nwrite", "line 2"),
        ("write short", "5 characters"),
        ("write 0123456789abcdefé", "ASCII"),
    ],
)
def test_bad_key_files(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(KeyFormatError, match=words) as caught:
        read_keys("", "", file)
    assert "0123456789abcdef" not in str(caught.value)


def test_missing_key_file(tmp_path: Path) -> None:
    with pytest.raises(KeyFormatError, match="cannot be read"):
        read_keys("", "", tmp_path / "none")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("example.com", False),
        ("", False),
    ],
)
def test_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("mode", "given", "warned"),
    [
        (0o600, False, False),
        (0o640, False, True),
        (0o604, False, True),
        (0o440, True, False),
        (0o444, True, True),
    ],
)
def test_a_file_that_others_can_read_is_reported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mode: int,
    given: bool,
    warned: bool,
) -> None:
    """systemd lets only the service read its credentials, whatever the group's bits say."""
    if given:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    file = tmp_path / "keys"
    file.write_text(f"read {READ}\n")
    file.chmod(mode)
    assert read_keys("", "", file).level(READ) is Level.READ
    found = [r.getMessage() for r in caplog.records]
    words = f"other users can read the key file {file} (mode {mode:04o}); run chmod 600 on it"
    assert found == ([words] if warned else [])
