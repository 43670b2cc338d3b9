from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embed import pictures
from embed.decoding import workers
from embed.decoding.header import Header, read_header
from embed.decoding.limits import DecodersBusyError, PictureError, PictureLimits
from embed.decoding.workers import Decoders, turn
from tests.embed.helpers import encoded, noise, rgb_tags, tiff, zeros_deflated

LIMITS = PictureLimits()
PICTURE = noise(20, 30)
WEBP = encoded(PICTURE, "WEBP", lossless=True)

# Speaks the protocol and does as it is told by the picture's bytes.
ODD = """
import os, signal, socket, struct, sys, time
from embed.decoding.messages import *
channel = Channel(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
channel.send(READY, b"")
while (message := channel.receive()) is not None:
    what = bytes(message[2])
    if what == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == b"exit":
        sys.exit(3)
    if what == b"sleep":
        time.sleep(60)
    if what == b"half":
        channel.connection.sendall(b"\\x02")
        sys.exit(0)
    if what == b"short":
        channel.connection.sendall(struct.pack("<B?IQ", PIXELS, True, 12, 12) + b"[2, 2, null]")
        os.ftruncate(channel.shared, 11)
    if what.startswith(b"PIXELS"):
        _, shape, size = what.split(b"|")
        channel.send(PIXELS, shape, bytes(int(size)))
    if what.startswith(b"ERROR"):
        channel.send(ERROR, what[5:])
    if what == b"pid":
        channel.send(PIXELS, b"[1, 3, null]", os.getpid().to_bytes(9, "little"))
"""


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    made = Decoders(most=2)
    yield made
    made.close()


@pytest.fixture
def odd() -> Iterator[Decoders]:
    made = Decoders(1, (sys.executable, "-c", ODD))
    yield made
    made.close()


def decode(decoders: Decoders, data: bytes, limits: PictureLimits = LIMITS) -> np.ndarray:
    header = read_header(data) or Header("odd", 1, 1, 1)
    return decoders.decode(data, header, limits, None)[0]


def refused(decoders: Decoders, data: bytes, limits: PictureLimits = LIMITS) -> PictureError:
    with pytest.raises(PictureError) as caught:
        decode(decoders, data, limits)
    return caught.value


def process_of(decoders: Decoders) -> int:
    return int.from_bytes(decode(decoders, b"pid").tobytes(), "little")


def gone(pid: int) -> bool:
    """Whether a process has ended and its exit code was collected."""
    return not Path(f"/proc/{pid}").exists()


def until(true, seconds: float = 20) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_process_decodes_one_picture_after_another(decoders: Decoders) -> None:
    assert decoders.pids == []
    for _ in range(3):
        picture = decode(decoders, WEBP)
        assert np.array_equal(picture, PICTURE)
        picture[0, 0] = 0  # it is the caller's
    assert len(decoders.pids) == 1


def test_errors_say_the_same_as_in_this_process(decoders: Decoders) -> None:
    error = refused(decoders, WEBP[: len(WEBP) // 2])
    assert error.reason == "truncated"
    assert str(error).endswith("send the whole file")
    assert refused(decoders, b"RIFF\0\0\0\0WEBPVP9 " + bytes(40)).reason == "not-a-picture"
    assert np.array_equal(decode(decoders, WEBP), PICTURE)
    assert len(decoders.pids) == 1


def test_a_header_that_lies_meets_the_memory_limit(decoders: Decoders) -> None:
    """What an estimate overlooks: here, that anything has to be decoded at all."""
    tags = rgb_tags(64, 64) | {322: (4, [8192]), 323: (4, [8192])}
    few = PictureLimits(max_memory=100 * 2**20)
    for data, form, reason in (
        (encoded(Image.new("RGB", (7000, 7000)), "PNG"), "PNG", "too-costly"),
        # All that Pillow says of the failures of libwebp and libtiff is that there was one.
        (encoded(Image.new("RGB", (7000, 5000)), "WEBP"), "WEBP", "truncated"),
        (tiff(tags, [zeros_deflated(3 * 8192 * 8192)]), "TIFF", "truncated"),
    ):
        with pytest.raises(PictureError) as caught:
            decoders.decode(data, Header(form, 64, 64, 1), few, 16)
        assert caught.value.reason == reason, str(caught.value)
        assert decode(decoders, WEBP, few).shape == (20, 30, 3)
        assert decoders.decode(data, Header(form), LIMITS, 16)[0].ndim == 3
    assert len(decoders.pids) == 1


def test_a_decoder_that_takes_too_long_is_ended(decoders: Decoders) -> None:
    data = encoded(Image.new("RGB", (4000, 3000)), "TIFF", compression="tiff_lzw")
    decode(decoders, WEBP)
    (pid,) = decoders.pids
    error = refused(decoders, data, PictureLimits(max_seconds=0.01))
    assert error.reason == "too-costly"
    assert "longer than 0.01 seconds" in str(error)
    assert gone(pid)
    assert np.array_equal(decode(decoders, WEBP), PICTURE)


def test_a_killed_process_costs_one_picture(decoders: Decoders) -> None:
    data = encoded(Image.new("RGB", (7000, 7000)), "PNG")
    decode(decoders, WEBP)
    (pid,) = decoders.pids
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(refused, decoders, data)
        # In the middle: its memory has grown by a good part of the picture.
        until(lambda: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) > 100 * 256)
        os.kill(pid, signal.SIGKILL)
        error = result.result()
    assert error.reason == "too-costly"
    assert "was killed" in str(error)
    assert gone(pid)
    assert np.array_equal(decode(decoders, WEBP), PICTURE)


def test_a_process_that_ended_while_idle_is_replaced(decoders: Decoders) -> None:
    decode(decoders, WEBP)
    (pid,) = decoders.pids
    os.kill(pid, signal.SIGKILL)
    until(lambda: not decoders.pids)
    assert np.array_equal(decode(decoders, WEBP), PICTURE)
    assert gone(pid)
    assert len(decoders.pids) == 1


@pytest.mark.parametrize(
    ("data", "how"),
    [(b"crash", "signal 11"), (b"exit", "exit code 3"), (b"half", "exit code 0")],
)
def test_a_crash_gives_an_error_and_the_next_picture_another_process(
    odd: Decoders, data: bytes, how: str
) -> None:
    before = process_of(odd)
    error = refused(odd, data)
    assert error.reason == "undecodable"
    assert how in str(error)
    assert gone(before)
    assert process_of(odd) != before


@pytest.mark.parametrize(
    "reply",
    [
        b"PIXELS|[2, 2, null]|11",
        b"PIXELS|[2, 2, null]|13",
        b"PIXELS|[0, 2, null]|0",
        b"PIXELS|[-1, -4, null]|12",
        b"PIXELS|[2]|12",
        b"PIXELS|{}|12",
        b"PIXELS|[2, 2, {}]|12",
        b'PIXELS|[2, 2, {"width": "2"}]|12',
        b"PIXELS|nonsense|12",
        b"PIXELS|[99999, 99999, null]|12",
        b'ERROR["no-such-reason", "text"]',
        b'ERROR["truncated"]',
        b"ERROR\xff",
        b"short",
    ],
)
def test_what_a_worker_says_is_not_believed(odd: Decoders, reply: bytes) -> None:
    before = process_of(odd)
    assert refused(odd, reply).reason == "undecodable"
    assert gone(before)
    assert process_of(odd) != before


def test_a_worker_cannot_send_more_than_the_largest_picture(odd: Decoders) -> None:
    limits = PictureLimits(max_pixels=4)
    assert decode(odd, b"PIXELS|[2, 2, null]|12", limits).shape == (2, 2, 3)
    assert refused(odd, b"PIXELS|[2, 3, null]|18", limits).reason == "undecodable"


def test_waiting_has_an_end(odd: Decoders) -> None:
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(refused, odd, b"sleep", PictureLimits(max_seconds=2))
        until(lambda: odd._workers._value == 0)
        with pytest.raises(DecodersBusyError, match=r"busy for 0.05 seconds"):
            decode(odd, b"pid", PictureLimits(max_wait_seconds=0.05))
        with turn(patient=True):
            assert odd.decode(
                b"pid", Header("odd", 1, 1, 1), PictureLimits(max_wait_seconds=0.05), None
            )[0].shape == (1, 3, 3)
        assert slow.result().reason == "too-costly"


def test_a_program_that_does_not_start_says_why_and_nothing_else(
    capfd: pytest.CaptureFixture[str],
) -> None:
    program = (sys.executable, "-c", "print('odd'); import no_such_module")
    with pytest.raises(DecodersBusyError, match=r"No module named 'no_such_module'"):
        decode(Decoders(1, program), WEBP)
    assert capfd.readouterr() == ("", "")


def test_libraries_that_write_to_stderr_are_silent(
    decoders: Decoders, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = tiff(rgb_tags(64, 64, 5), [b"\x80\x00\x20garbage" * 30])
    with pytest.raises(OSError), Image.open(io.BytesIO(odd)) as image:
        image.load()
    assert "tempfile.tif: " in capfd.readouterr().err  # libtiff, in this process
    assert refused(decoders, odd).reason == "truncated"
    assert capfd.readouterr() == ("", "")


HEIC = encoded(PICTURE, "HEIF")
WITHOUT_HEIF = """
import sys
sys.modules["pillow_heif"] = None
from embed.decoding.worker_main import main
main()
"""


def test_without_its_library_heic_says_what_to_install() -> None:
    without = Decoders(1, (sys.executable, "-c", WITHOUT_HEIF))
    try:
        error = refused(without, HEIC)
        assert error.reason == "undecodable"
        assert "pillow-heif is not installed or does not load here; install it" in str(error)
        assert np.array_equal(decode(without, WEBP), PICTURE)
    finally:
        without.close()


def test_heic_is_known_to_workers_only(decoders: Decoders) -> None:
    assert decode(decoders, HEIC).shape == PICTURE.shape
    code = "import sys, embed.pictures; sys.exit('pillow_heif' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_program_that_does_not_start() -> None:
    for program in ((sys.executable, "-c", "pass"), ("/no/such/program",)):
        with pytest.raises(DecodersBusyError, match="cannot be started"):
            decode(Decoders(1, program), WEBP)


def test_a_large_picture_keeps_its_turn_to_the_end_of_the_block(decoders: Decoders) -> None:
    data = encoded(Image.new("L", (2000, 1100)), "TIFF")
    short = PictureLimits(max_wait_seconds=0.05)
    go_on, holding = threading.Event(), threading.Barrier(3)

    def hold() -> None:
        with turn():
            decode(decoders, data)
            decode(decoders, data)  # a block has one turn
            holding.wait(20)
            go_on.wait(20)

    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(hold) for _ in range(workers.LARGE_AT_ONCE)]
        holding.wait(20)
        with pytest.raises(DecodersBusyError):
            decode(decoders, data, short)
        assert decode(decoders, WEBP, short).shape == (20, 30, 3)  # small ones do not wait
        go_on.set()
        for one in held:
            one.result()
    assert decode(decoders, data, short).shape == (1100, 2000, 3)


def test_many_threads_share_few_processes(decoders: Decoders) -> None:
    data = [encoded(noise(20 + n, 30), "WEBP", lossless=True) for n in range(20)]
    with ThreadPoolExecutor(8) as pool:
        shapes = [picture.shape for picture in pool.map(lambda d: decode(decoders, d), data)]
    assert shapes == [(20 + n, 30, 3) for n in range(20)]
    assert len(decoders.pids) <= 2


def test_close_ends_the_processes(decoders: Decoders) -> None:
    decode(decoders, WEBP)
    (pid,) = decoders.pids
    decoders.close()
    assert gone(pid)
    assert np.array_equal(decode(decoders, WEBP), PICTURE)  # it starts another


PARENT = """
import sys, threading
from pathlib import Path
from embed import pictures
from embed.decoding.workers import decoders
pictures.decode(Path(sys.argv[1]).read_bytes())
print(*decoders.pids, flush=True)
if sys.argv[2]:
    print("busy", flush=True)
    pictures.decode(Path(sys.argv[2]).read_bytes())
    print("done", flush=True)
"""


def parent(tmp_path: Path, busy_with: bytes = b"") -> tuple[subprocess.Popen[str], int]:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(WEBP)
    large.write_bytes(busy_with)
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(small), str(large) if busy_with else ""],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    process, pid = parent(tmp_path)
    assert process.wait(20) == 0
    until(lambda: gone(pid))


def test_a_process_ends_when_its_parent_is_killed_while_it_decodes(tmp_path: Path) -> None:
    """At once: nobody is left who would enforce the deadline."""
    slow = encoded(Image.new("L", (7000, 7000)), "TIFF", compression="tiff_lzw")
    process, pid = parent(tmp_path, slow)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "busy\n"
        until(lambda: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) > 60 * 256)
        process.kill()
        process.wait(20)
        started = time.monotonic()
        until(lambda: gone(pid))
        assert time.monotonic() - started < 5
        assert "done" not in process.stdout.read()


def test_a_worker_has_none_of_the_keys_and_tokens(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_WRITE_KEYS", "secret-key")
    monkeypatch.setenv("MILVUS_TOKEN", "secret-token")
    decode(decoders, WEBP)
    (pid,) = decoders.pids
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"secret" not in environment


def test_a_worker_runs_nothing_from_the_current_folder(
    decoders: Decoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("embed", "numpy", "PIL"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(decode(decoders, WEBP), PICTURE)


def test_a_worker_loads_nothing_heavy_and_limits_itself(decoders: Decoders) -> None:
    decode(decoders, WEBP)
    (pid,) = decoders.pids
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "_imaging" in maps
    for heavy in ("torch", "openvino", "faiss", "scipy/", "sqlite", "ssl"):
        assert heavy not in maps
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert "Max core file size        0                    0" in limits
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    assert len(threads) == 1


def test_after_a_fork_each_process_has_its_own(decoders: Decoders) -> None:
    pictures.decode(WEBP)
    ours = workers.decoders.pids
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        try:
            same = np.array_equal(pictures.decode(WEBP), PICTURE)
            os.write(writable, json.dumps([same, workers.decoders.pids]).encode())
            workers.decoders.close()
        finally:
            os._exit(0)
    os.close(writable)
    os.waitpid(child, 0)
    same, theirs = json.loads(os.read(readable, 1000))
    os.close(readable)
    assert same and not set(ours) & set(theirs)
    assert np.array_equal(pictures.decode(WEBP), PICTURE)
    assert workers.decoders.pids == ours
