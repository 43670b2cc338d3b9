"""Requests per second, latency and CPU time under load, next to a plain service.

    lookalike index build            # once
    python -m benchmarks.serving --data ../shared --var var

Needs wrk (`apt-get install wrk`). It starts `lookalike serve` and `peers/tutorial.py` one after
the other on 127.0.0.1, and loads each with 1, 8 and 64 connections that upload test pictures
without pause; server and load generator share the cores. Rounds alternate between the two, and
medians over the rounds are printed with ratios, peak memory, and the share of answers whose first
neighbour is the picture itself.

CPU time holds on a busy machine too, and is given for one request: ``total`` of the server and its
child processes; ``network`` and ``search``, which `benchmarks.stages` measures alone at the size of
the batches that occurred; and what is left, ``beyond``: HTTP, decoding, batching, the response.
``others`` is the share of the machine that neither the server nor wrk used.

Then one client sends a request after each of several pauses, while nothing else happens: the median
of these first answers, and that of the same client without pauses. ``idle`` is the CPU time of the
server without any request, as a share of one core.

With ``--rebuild 8`` eight clients load it without and with rebuilds that run in it meanwhile. The
model alone is the encoder in a loop over batches of 64, with no HTTP, no decoding and no search.

``--against CHECKOUT`` loads another checkout of this project in place of the plain service, from a
copy of the same store: for a change, the code before and after it in one paired run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import signal
import socket
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
from dataclasses import dataclass, field
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
    """Of all threads of a process and of its children, user and system."""
    parents, spent = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        child = int(folder.name)
        parents[child] = int(fields[1])
        # Of children that have ended, too.
        spent[child] = sum(map(int, fields[11:15]))
    ours = [child for child in spent if child == pid or parents[child] == pid]
    return sum(spent[child] for child in ours) / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """Of all cores, since the machine was started; stolen time included."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, *rest = map(int, fields)
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def batches() -> tuple[float, float]:
    """How many forward passes there were, and how many pictures; none without such a metric."""
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=5).read().decode()
    except urllib.error.HTTPError:
        return 0.0, 0.0
    found = dict(re.findall(r"^lookalike_batch_size_(count|sum) (\S+)$", text, re.MULTILINE))
    return float(found.get("count", 0)), float(found.get("sum", 0))


def load(pid: int, clients: int, seconds: int, script: Path, alone: dict) -> dict:
    """One measurement of ``/v1/search`` with its CPU time by stage; ``alone`` is of `stages`."""
    before = batches(), cpu_seconds(pid), busy_seconds(), _children_seconds(), time.monotonic()
    run = wrk("/v1/search?limit=12", clients, seconds, script)
    (passes, pictures), spent, busy, wrks, started = before
    elapsed = time.monotonic() - started
    wrks = _children_seconds() - wrks
    spent = cpu_seconds(pid) - spent
    after = batches()
    batch = max(1.0, (after[1] - pictures) / max(after[0] - passes, 1))
    total = 1000 * spent / max(run["per_s"] * seconds, 1)
    network, search = (_at(alone[stage], batch) for stage in ("network", "search"))
    return {
        **run,
        "batch": batch,
        "total": total,
        "network": network,
        "search": search,
        "beyond": total - network - search,
        "others": (busy_seconds() - busy - spent - wrks) / elapsed / (os.cpu_count() or 1),
    }


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _at(costs: dict[str, float], size: float) -> float:
    sizes = [int(n) for n in costs]
    return float(np.interp(np.log2(size), np.log2(sizes), list(costs.values())))


class Client:
    """One connection that sends one request after the other."""

    def __init__(self, bodies: list[bytes]) -> None:
        self._bodies, self._sent = bodies, 0
        self._socket = None

    def milliseconds(self) -> float:
        """Of one request, until its whole answer is there; a closed connection is opened before."""
        body = self._bodies[self._sent % len(self._bodies)]
        self._sent += 1
        head = (
            "POST /v1/search?limit=12 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type:"
            f" multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        if self._socket is None or self._closed():
            self._socket = socket.create_connection(("127.0.0.1", PORT), timeout=30)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        started = time.perf_counter()
        self._socket.sendall(head.encode() + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._received()
        head, _, rest = answer.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])
        while len(rest) < length:
            rest += self._received()
        taken = 1000 * (time.perf_counter() - started)
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(head.decode(errors="replace"))
        return taken

    def _received(self) -> bytes:
        part = self._socket.recv(2**16)
        if not part:
            raise SystemExit("the server has closed the connection")
        return part

    def _closed(self) -> bool:
        self._socket.setblocking(False)
        try:
            return self._socket.recv(1) == b""
        except BlockingIOError:
            return False
        finally:
            self._socket.settimeout(30)


def after_pauses(pid: int, bodies: list[bytes], pauses: list[float]) -> dict:
    """The warm median, and the median first answer after each pause, in milliseconds."""
    client = Client(bodies)
    for _ in range(50):
        client.milliseconds()
    found = {"warm": statistics.median(client.milliseconds() for _ in range(200))}
    for pause in pauses:
        times = []
        for _ in range(max(3, min(15, round(5 / pause)))):
            time.sleep(pause)
            times.append(client.milliseconds())
        found[f"after {pause:g} s"] = statistics.median(times)
    time.sleep(0.5)
    spent, started = cpu_seconds(pid), time.monotonic()
    time.sleep(2)
    found["idle"] = (cpu_seconds(pid) - spent) / (time.monotonic() - started)
    return found


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


@dataclass(frozen=True)
class Plan:
    """What is measured; the fields are the options of the command."""

    data: Path
    var: Path
    bundle: Path = PRETRAINED
    seconds: int = 10
    rounds: int = 3
    clients: tuple[int, ...] = (1, 8, 64)
    pauses: tuple[float, ...] = (0.2, 1, 4)
    rebuild: int = 0
    serve: str = ""
    against: Path | None = None

    @property
    def other(self) -> str:
        """What ours is compared with."""
        return "tutorial" if self.against is None else "before"


@dataclass
class Found:
    """Medians over the rounds by service and load, as `measure` returns them.

    Attributes:
        plan: what was measured.
        medians: by "ours" or the plan's ``other``, and then by what was asked: figures by name.
        alone: pictures per second of the model alone.
        rebuilt: the runs of `while_rebuilding`.
    """

    plan: Plan
    medians: dict[str, dict[str, dict[str, float]]]
    alone: float
    rebuilt: list[dict] = field(default_factory=list)

    def ratios(self) -> dict[str, float]:
        """How many times the other's requests per second ours answers, by load."""
        ours, other = self.medians["ours"], self.medians[self.plan.other]
        return {
            what: values["per_s"] / other[what]["per_s"]
            for what, values in ours.items()
            if "per_s" in values
        }


def measure(plan: Plan) -> Found:
    """Start each service in turn, load it, and return the medians."""
    corpus = open_corpus(plan.data)
    bundle = Bundle.load(plan.bundle)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Before this checkout opens the store, which may upgrade it.
        copy = shutil.copytree(plan.var, folder / "var") if plan.against is not None else None
        catalogue = SqliteCatalogue(plan.var / "catalogue.sqlite")
        ids, xb = catalogue.embeddings(bundle.digest)
        rows = np.random.default_rng(0).choice(len(ids), 256, replace=False)
        entries = catalogue.get(ids[rows])
        pictures = [corpus.read(entry.source) for entry in entries]
        bodies = [multipart(encode_png(picture)) for picture in pictures]
        for number, body in enumerate(bodies, 1):
            (folder / str(number)).write_bytes(body)
        script = folder / "post.lua"
        script.write_text(SCRIPT % (len(bodies), folder, BOUNDARY))
        stored = folder / "stored.npz"
        labels = [entry.label or "" for entry in catalogue.get(ids)]
        np.savez(stored, xb=xb, labels=np.array(labels))
        model = str(plan.bundle.resolve())
        options = ["serve", "--port", str(PORT), "--data", str(plan.data.resolve())]
        options += ["--bundle", model, *plan.serve.split(), "--var"]
        ours = [sys.executable, "-m", "search_api.cli", *options, str(plan.var.resolve())]
        peer = [sys.executable, str(Path(__file__).parent / "peers" / "tutorial.py")]
        other = [*peer, model, str(stored), str(PORT)] if copy is None else [*ours[:-1], str(copy)]
        paths = {"ours": f"/v1/images/{ids[0]}", "tutorial": "/v1/images/0"}
        paths["before"] = paths["ours"]
        costs = {"ours": _stages("--data", plan.data, "--var", plan.var, "--bundle", plan.bundle)}
        if copy is not None:
            own = ("--data", plan.data.resolve(), "--var", copy, "--bundle", plan.bundle.resolve())
            costs["before"] = _stages(*own, checkout=plan.against)
        else:
            costs["tutorial"] = _stages("--plain", stored, "--bundle", plan.bundle)
        found: dict[tuple[str, str], list[dict]] = {}
        alone, rebuilt = [], []
        for _ in range(plan.rounds):
            alone.append(model_alone(bundle, np.stack(pictures[:64]), plan.seconds / 2))
            for label, command in ((plan.other, other), ("ours", ours)):
                checkout = plan.against if label == "before" else None
                with server(command, checkout) as (pid, start):
                    wrk("/v1/search", 8, 2, script)  # warm up
                    for clients in plan.clients:
                        run = load(pid, clients, plan.seconds, script, costs[label])
                        found.setdefault((label, f"search, {clients} clients"), []).append(run)
                    for what, path in (("livez", "/livez"), ("metadata", paths[label])):
                        run = wrk(path, 8, max(plan.seconds // 3, 1))
                        found.setdefault((label, f"{what}, 8 clients"), []).append(run)
                    if plan.pauses:
                        paused = after_pauses(pid, bodies, list(plan.pauses))
                        found.setdefault((label, "pauses, 1 client"), []).append(paused)
                    if label == "ours" and plan.rebuild:
                        rebuilt += while_rebuilding(script, plan.rebuild, plan.seconds)
                    now, peak = memory(pid)
                    rest = {"start_s": start, "rss_mb": now, "peak_mb": peak}
                    if label == "ours":
                        rest["itself_first"] = first_is_itself(
                            bodies[:100], [e.id for e in entries[:100]]
                        )
                    found.setdefault((label, "process"), []).append(rest)
    medians: dict[str, dict[str, dict[str, float]]] = {}
    for (label, what), runs in found.items():
        medians.setdefault(label, {})[what] = {
            name: statistics.median(run[name] for run in runs) for name in runs[0]
        }
    return Found(plan, medians, statistics.median(alone), rebuilt)


def _stages(*arguments: object, checkout: Path | None = None) -> dict[str, dict[str, float]]:
    """What `benchmarks.stages` prints of ``checkout``, in a process with nothing else to do."""
    root = checkout or Path(__file__).parents[1]
    # -P, because modules next to it have the names of packages.
    stages = Path(__file__).with_name("stages.py")
    command = [sys.executable, "-P", str(stages), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(root.resolve())}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def show(found: Found) -> None:
    """Print everything."""
    plan = found.plan
    print(f"{os.cpu_count()} cores, {plan.rounds} rounds of {plan.seconds} s, medians")
    print(f"model alone, batches of 64: {found.alone:.0f} pictures/s")
    ratios = found.ratios()
    for what, values in found.medians["ours"].items():
        for label in (plan.other, "ours"):
            figures = found.medians[label][what].items()
            text = "  ".join(f"{name} {value:.2f}" for name, value in figures)
            print(f"{what:22} {label:9} {text}")
        if what in ratios:
            print(f"{'':22} ratio {ratios[what]:.2f}; p99/p50 {values['p99'] / values['p50']:.2f}")
    for what in dict.fromkeys(run["what"] for run in found.rebuilt):
        runs = [run for run in found.rebuilt if run["what"] == what]
        text = "  ".join(
            f"{name} {statistics.median(run[name] for run in runs):.2f}"
            for name in ("per_s", "p50", "p99", "bad")
        )
        ended = Counter(state for run in runs for state in run["jobs"])
        print(f"{plan.rebuild} clients, {what:18} {text}  jobs {dict(ended)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the corpus that is indexed")
    parser.add_argument("--var", type=Path, required=True, help="its store")
    parser.add_argument("--bundle", type=Path, default=PRETRAINED)
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=Plan.clients)
    parser.add_argument(
        "--pauses", type=float, nargs="*", default=Plan.pauses, help="before a request, in seconds"
    )
    parser.add_argument(
        "--rebuild", type=int, default=0, metavar="CLIENTS", help="load it during rebuilds, too"
    )
    parser.add_argument("--serve", default="", help="more options for lookalike serve")
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="another checkout, instead of the tutorial"
    )
    show(measure(Plan(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
