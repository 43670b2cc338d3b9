"""Requests per second and latency under load, next to a plain service and the model alone.

    lookalike index build            # once
    python -m benchmarks.serving --data ../shared --var var

Needs wrk (`apt-get install wrk`). It starts `lookalike serve` and `peers/tutorial.py` one after
the other on 127.0.0.1, and loads each with 1, 8 and 64 connections that upload test pictures
without pause; server and load generator share the cores. Rounds alternate between the two, and
medians over the rounds are printed with ratios, peak memory, and the share of answers whose first
neighbour is the picture itself. ``cpu_ms`` is the server's CPU time for one request, which holds on
a busy machine too. With ``--rebuild 8`` eight clients load it without and with rebuilds that run in
it meanwhile. The model alone is the encoder in a loop over batches of 64, with no HTTP, no decoding
and no search.

``--against CHECKOUT`` loads another checkout of this project in place of the plain service, from a
copy of the same store: for a change, the code before and after it in one paired run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from embed.bundle import PRETRAINED, Bundle
from embed.corpus import open_corpus
from embed.encoder import Encoder
from embed.pictures import encode_png
from embed.private_cache import default_cache
from index.local.catalogue import SqliteCatalogue

PORT = 18_471
BOUNDARY = uuid.uuid4().hex
SCRIPT = """
local bodies = {}
for i = 1, %d do
  local f = io.open(string.format("%s/%%d", i), "rb"); bodies[i] = f:read("*a"); f:close()
end
local n = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=%s"
request = function()
  n = n %% #bodies + 1
  return wrk.format(nil, nil, nil, bodies[n])
end
"""


def multipart(data: bytes) -> bytes:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="q.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


@contextmanager
def server(command: list[str], checkout: Path | None = None):
    # Its worker processes look there, too, before what is installed.
    environment = (
        dict(os.environ) if checkout is None else {**os.environ, "PYTHONPATH": str(checkout)}
    )
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=checkout,
        env=environment,
    )
    started = time.monotonic()
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/livez", timeout=1).read()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() - started > 120:
                    raise SystemExit(f"{command} did not start") from None
                time.sleep(0.05)
        yield process.pid, time.monotonic() - started
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def wrk(path: str, connections: int, seconds: int, script: Path | None = None) -> dict:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s"]
    if script:
        command += ["-s", str(script)]
    text = subprocess.run(
        [*command, f"http://127.0.0.1:{PORT}{path}"], capture_output=True, text=True, check=True
    ).stdout
    unit = {"us": 0.001, "ms": 1.0, "s": 1000.0}

    def latency(percent: int) -> float:
        value, suffix = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", text).groups()
        return float(value) * unit[suffix]

    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return {
        "per_s": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),
        "p50": latency(50),
        "p99": latency(99),
        "bad": int(bad[1]) if bad else 0,
    }


def memory(pid: int) -> tuple[float, float]:
    status = Path(f"/proc/{pid}/status").read_text()
    now, peak = (int(re.search(rf"{key}:\s+(\d+)", status)[1]) / 1024 for key in ("VmRSS", "VmHWM"))
    return now, peak


def cpu_seconds(pid: int) -> float:
    """Of all threads of the process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def while_rebuilding(script: Path, clients: int, seconds: int) -> list[dict]:
    """Loads the service without a job, then while it rebuilds, and again without.

    Rebuilds follow each other for as long as a measurement takes: one that finds nothing new, and
    one that embeds everything again.
    """
    runs = []
    for what in ("no job", "rebuild", "rebuild, reembed", "no job again"):
        over, done = threading.Event(), []

        def jobs(what=what, over=over, done=done) -> None:
            while not over.is_set() and what.startswith("rebuild"):
                query = "?reembed=true" if what.endswith("reembed") else ""
                job = call("POST", f"/v1/index/rebuild{query}")["id"]
                while (state := call("GET", f"/v1/jobs/{job}"))["finished"] is None:
                    if over.is_set() and "reembed" in what:
                        call("DELETE", f"/v1/jobs/{job}")
                    time.sleep(0.2)
                done.append(state["state"])

        thread = threading.Thread(target=jobs)
        thread.start()
        time.sleep(3 if what.startswith("rebuild") else 0)  # until the job is at work
        run = wrk("/v1/search?limit=12", clients, seconds, script)
        over.set()
        thread.join()
        runs.append({"what": what, "jobs": done, **run})
    return runs


def call(method: str, path: str) -> dict:
    try:
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", method=method)
        return json.load(urllib.request.urlopen(request, timeout=60))
    except urllib.error.HTTPError as error:
        if error.code == 409:  # over in this moment
            return {}
        raise


def first_is_itself(bodies: list[bytes], ids: list[int]) -> float:
    right = 0
    for body, image_id in zip(bodies, ids, strict=True):
        request = urllib.request.Request(
            f"http://127.0.0.1:{PORT}/v1/search?limit=12",
            body,
            {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
        )
        points = json.load(urllib.request.urlopen(request))["points"]
        right += image_id in {p["id"] for p in points if p["score"] >= points[0]["score"] - 1e-4}
    return right / len(bodies)


def model_alone(bundle: Bundle, pictures: np.ndarray, seconds: float) -> float:
    encoder = Encoder(bundle, cache=default_cache())
    encoder.encode(pictures)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        encoder.encode(pictures)
        done += len(pictures)
    return done / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the corpus that is indexed")
    parser.add_argument("--var", type=Path, required=True, help="its store")
    parser.add_argument("--bundle", type=Path, default=PRETRAINED)
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument(
        "--rebuild", type=int, default=0, metavar="CLIENTS", help="load it during rebuilds, too"
    )
    parser.add_argument("--serve", default="", help="more options for lookalike serve")
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="another checkout, instead of the tutorial"
    )
    args = parser.parse_args()
    corpus = open_corpus(args.data)
    bundle = Bundle.load(args.bundle)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.against is not None:
            # Before this checkout opens the store, which may upgrade it.
            copy = shutil.copytree(args.var, folder / "var")
        catalogue = SqliteCatalogue(args.var / "catalogue.sqlite")
        ids, xb = catalogue.embeddings(bundle.digest)
        rows = np.random.default_rng(0).choice(len(ids), 256, replace=False)
        entries = catalogue.get(ids[rows])
        pictures = [corpus.read(entry.source) for entry in entries]
        bodies = [multipart(encode_png(picture)) for picture in pictures]
        for number, body in enumerate(bodies, 1):
            (folder / str(number)).write_bytes(body)
        script = folder / "post.lua"
        script.write_text(SCRIPT % (len(bodies), folder, BOUNDARY))
        labels = [entry.label or "" for entry in catalogue.get(ids)]
        np.savez(folder / "stored.npz", xb=xb, labels=np.array(labels))
        here = Path(__file__).parent
        options = ["serve", "--port", str(PORT), "--data", str(args.data.resolve())]
        options += ["--bundle", str(args.bundle.resolve()), *args.serve.split(), "--var"]
        ours = [sys.executable, "-m", "search_api.cli", *options, str(args.var.resolve())]
        paths = {"ours": f"/v1/images/{ids[0]}", "tutorial": "/v1/images/0"}
        other, peer = "tutorial", [sys.executable, str(here / "peers" / "tutorial.py")]
        peer += [str(args.bundle), str(folder / "stored.npz"), str(PORT)]
        if args.against is not None:
            other, peer = "before", [*ours[:-1], str(copy)]
            paths["before"] = paths["ours"]
        found: dict[tuple[str, str], list[dict]] = {}
        alone, rebuilt = [], []
        for _ in range(args.rounds):
            alone.append(model_alone(bundle, np.stack(pictures[:64]), args.seconds / 2))
            for label, command in ((other, peer), ("ours", ours)):
                checkout = args.against if label == "before" else None
                with server(command, checkout) as (pid, start):
                    wrk("/v1/search", 8, 2, script)  # warm up
                    for clients in args.clients:
                        spent = cpu_seconds(pid)
                        run = wrk("/v1/search?limit=12", clients, args.seconds, script)
                        # Of the whole run; hardly depends on what else the machine does.
                        answered = max(run["per_s"] * args.seconds, 1)
                        run["cpu_ms"] = 1000 * (cpu_seconds(pid) - spent) / answered
                        found.setdefault((label, f"search, {clients} clients"), []).append(run)
                    for what, path in (("livez", "/livez"), ("metadata", paths[label])):
                        run = wrk(path, 8, max(args.seconds // 3, 1))
                        found.setdefault((label, f"{what}, 8 clients"), []).append(run)
                    if label == "ours" and args.rebuild:
                        rebuilt += while_rebuilding(script, args.rebuild, args.seconds)
                    now, peak = memory(pid)
                    rest = {"start_s": start, "rss_mb": now, "peak_mb": peak}
                    if label == "ours":
                        rest["itself_first"] = first_is_itself(
                            bodies[:100], [e.id for e in entries[:100]]
                        )
                    found.setdefault((label, "process"), []).append(rest)
    medians = {
        key: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        for key, runs in found.items()
    }
    print(f"{os.cpu_count()} cores, {args.rounds} rounds of {args.seconds} s, medians")
    print(f"model alone, batches of 64: {statistics.median(alone):.0f} pictures/s")
    for what in dict.fromkeys(key[1] for key in medians):
        for label in (other, "ours"):
            values = medians[label, what]
            text = "  ".join(f"{name} {value:.2f}" for name, value in values.items())
            print(f"{what:22} {label:9} {text}")
        if "per_s" in values:
            ratio = values["per_s"] / medians[other, what]["per_s"]
            print(f"{'':22} ratio {ratio:.2f}; p99/p50 {values['p99'] / values['p50']:.2f}", end="")
            share = values["per_s"] / statistics.median(alone)
            print(f"; of the model alone {share:.2f}" if what.startswith("search") else "")
    for what in dict.fromkeys(run["what"] for run in rebuilt):
        runs = [run for run in rebuilt if run["what"] == what]
        text = "  ".join(
            f"{name} {statistics.median(run[name] for run in runs):.2f}"
            for name in ("per_s", "p50", "p99", "bad")
        )
        ended = Counter(state for run in runs for state in run["jobs"])
        print(f"{args.rebuild} clients, {what:18} {text}  jobs {dict(ended)}")


if __name__ == "__main__":
    main()
