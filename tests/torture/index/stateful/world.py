"""A store that two servers have open, its corpus, and the model that both must agree with."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from index.blobs.checking import check_pictures
from index.contract import BlobError, Vectors
from index.filters import parse_filter
from index.local.catalogue import SqliteCatalogue
from index.records import Entry
from search_api.service.engine import SearchEngine
from search_api.service.page import Page
from tests.torture.index.stateful.model import (
    ADDED,
    COLOURS,
    PNG,
    VECTORS,
    Disk,
    Picture,
    Refused,
    State,
    Step,
    effect,
)
from tests.torture.index.stateful.operations import (
    Outcome,
    attempt,
    attempt_and_die,
    open_engine,
    points,
)

_PAUSE_SECONDS = 0.3
"""How long the second of two racing operations may wait for the first before that goes on."""
_BLOCKED_SECONDS = 60
_BUSY = ("StoreBusyError", "ModelChangedError", "SnapshotBusyError")
Pictures: TypeAlias = tuple[Picture, ...]
CORPUS = {"0.png": (0, "a"), "1.png": (1, "b"), "2.png": (2, None), "test/3.png": (3, "b")}


class World:
    """Two servers, A (0) and B (1), on one store; every method ends with a check of both."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.var = base / "var"
        self.disk = Disk()
        self.state = State()
        self.last_id = 0
        self.damaged: set[str] = set()
        self.copies: list[tuple[Path, State, int, set[int]]] = []
        self.versions: dict[str, set[int]] = {}
        for source, (colour, label) in CORPUS.items():
            self.put_file(source, colour, label)
        self.servers = [open_engine(base)]
        self.servers.append(open_engine(base))
        self.run(Step("rebuild"), 0)
        uploads = [{"colour": 4, "key": "k0", "label": "a"}, {"colour": 5, "label": "c"}]
        self.run(Step("add", {"uploads": uploads}), 1)

    def close(self) -> None:
        """Close both servers."""
        for server in self.servers:
            server.close()

    # The corpus

    def put_file(self, source: str, colour: int, label: str | None = None) -> None:
        """Add, replace or relabel a picture of the corpus, of which the store is yet to hear."""
        path = self.base / "pictures" / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG[colour])
        self.disk.files[source] = (colour, label)
        self._write_labels()
        self.versions.setdefault(source, set()).add(colour)

    def remove_file(self, source: str) -> None:
        """Remove a picture of the corpus."""
        (self.base / "pictures" / source).unlink()
        del self.disk.files[source]
        self._write_labels()

    def _write_labels(self) -> None:
        labels = {source: label for source, (_, label) in self.disk.files.items()}
        (self.base / "labels.json").write_text(json.dumps(labels))

    # Operations

    def run(self, step: Step, server: int) -> Outcome:
        """Carry out an operation to its end."""
        after, (refusal,) = self._after(step)
        outcome = attempt(self.servers[server], step)
        self._judge(step, outcome, [refusal])
        self._settle([after], self._loosely(step))
        self._check_outcome(step, outcome)
        self.check()
        return outcome

    def kill(self, step: Step, point: int) -> Outcome:
        """Carry out an operation in a third server, which is killed at a point of it."""
        after, (refusal,) = self._after(step)
        outcome = attempt_and_die(self.base, step, point)
        if outcome.died:
            self._settle([self.state, after], self._loosely(step), step.gradual)
        else:
            self._judge(step, outcome, [refusal])
            self._settle([after], self._loosely(step))
            self._check_outcome(step, outcome)
        self._complete_switch()
        self.check()
        return outcome

    def race(self, first: Step, others: Sequence[Step], point: int) -> list[Outcome]:
        """Pause ``first`` on server A at a point of it, carry out the others on B, and resume.

        What is stored then must be as if ``first`` had come before, between or after the others.
        """
        steps, last = [first, *others], len(others)
        orders = [[*range(1, at + 1), 0, *range(at + 1, last + 1)] for at in range(last + 1)]
        results = [(order, *self._after(*(steps[i] for i in order))) for order in orders]
        outcomes = self._interleave(first, others, point)
        for number, (step, outcome) in enumerate(zip(steps, outcomes, strict=True)):
            allowed = [refusals[order.index(number)] for order, _, refusals in results]
            self._judge(step, outcome, [*allowed, *_BUSY])
        states = [state for _, state, _ in results]
        if any(outcome.refusal in _BUSY for outcome in outcomes):
            done = [s for s, o in zip(steps, outcomes, strict=True) if o.refusal not in _BUSY]
            states += [self._after(*done)[0], self._after(*done[::-1])[0]]
        gradual = any(step.gradual for step in steps)
        self._settle(states, any(map(self._loosely, steps)), gradual)
        for step, outcome in zip(steps, outcomes, strict=True):
            self._check_outcome(step, outcome, certain=False)
        self._complete_switch()
        self.check()
        return outcomes

    def reopen(self, *servers: int) -> None:
        """Close and start these servers again."""
        for server in servers:
            self.servers[server].close()
        for server in servers:
            self.servers[server] = open_engine(self.base)
        self._settle_opened()

    def _settle_opened(self) -> None:
        """Check; without a good index, opening has compacted, and so embedded what was missing."""
        self._settle([self.state, self._after(Step("compact"))[0]], True, True)
        self.check()

    def _interleave(self, first: Step, others: Sequence[Step], point: int) -> list[Outcome]:
        paused, resume = threading.Event(), threading.Event()
        outcomes: list[list[Outcome]] = [[], []]

        def work(server: int, steps: Sequence[Step]) -> None:
            for step in steps:
                outcomes[server].append(attempt(self.servers[server], step))
            if server == 0:
                paused.set()

        one = threading.Thread(target=work, args=(0, [first]), daemon=True)
        two = threading.Thread(target=work, args=(1, others), daemon=True)
        left = point

        def reached(_: str) -> None:
            nonlocal left
            if threading.current_thread() is one:
                left -= 1
                if left == -1:
                    paused.set()
                    resume.wait(_BLOCKED_SECONDS)

        with points(reached):
            one.start()
            assert paused.wait(_BLOCKED_SECONDS)
            two.start()
            two.join(_PAUSE_SECONDS)  # it may need a lock that the first holds
            resume.set()
            for thread in (one, two):
                thread.join(_BLOCKED_SECONDS)
        assert not one.is_alive() and not two.is_alive(), (first, others, "block each other")
        return outcomes[0] + outcomes[1]

    # Damage and backups

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        """No server runs in the block; both start after it."""
        self.close()
        yield
        self.servers = [open_engine(self.base), open_engine(self.base)]
        self._complete_switch()
        self._settle_opened()

    def damage(self, path: Path, where: float, truncate: bool) -> None:
        """Flip a bit of a file, or cut it off, at this share of its length."""
        data = bytearray(path.read_bytes())
        if not data:
            return
        at = int(where * len(data))
        if truncate:
            data = data[:at]
        else:
            data[at] ^= 1 << (at % 8)
        path.unlink()  # a new file: what is mapped or linked elsewhere stays
        path.write_bytes(data)

    def damage_index(self, number: int, where: float, truncate: bool) -> None:
        """Damage a file of a generation, or CURRENT, while no server runs; then start both."""
        with self._stopped():
            files = [self.var / "CURRENT", *sorted(self.var.glob("generations/[0-9]?????/*"))]
            path = files[number % len(files)]
            self.damage(path, where, truncate)
            folder = path.parent.name
            self.damaged.add("CURRENT" if path == files[0] else f"generation {int(folder)}")

    def damage_snapshot(self, name: str, where: float, truncate: bool) -> None:
        """Damage a file of a snapshot."""
        files = sorted((self.var / "snapshots" / name).iterdir())
        self.damage(files[int(where * 97) % len(files)], where, truncate)
        self.disk.broken.add(name)
        self.damaged.add(f"snapshot {name}")
        self.check()

    def damage_picture(self, number: int, where: float, truncate: bool) -> None:
        """Damage the bytes of an added picture."""
        paths = sorted((self.var / "pictures").glob("??/*"))
        if not paths:
            return
        path = paths[number % len(paths)]
        self.damage(path, where, truncate)
        self.disk.lost.update(colour for colour, png in enumerate(PNG) if _digest(png) == path.name)
        self.check()

    def lose_watermark(self, how: str) -> None:
        """Remove or empty the file of acknowledged commits while no server runs."""
        with self._stopped():
            path = self.var / "catalogue.sqlite-acknowledged"
            if how == "removed":
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(b"")

    def back_up(self) -> None:
        """Copy the catalogue and the bytes of pictures by hand, as a backup does."""
        with self._stopped():
            folder = self.base / f"copy-{len(self.copies)}"
            folder.mkdir()
            for path in self.var.glob("catalogue.sqlite*"):
                shutil.copy2(path, folder)
            if (self.var / "pictures").is_dir():
                shutil.copytree(self.var / "pictures", folder / "pictures")
            self.copies.append((folder, self.state, self.last_id, set(self.disk.lost)))

    def put_back(self, number: int) -> None:
        """Put an earlier copy back, as `docs/store.md` describes, and start both servers."""
        with self._stopped():
            folder, state, last_id, lost = self.copies[number % len(self.copies)]
            for path in self.var.glob("catalogue.sqlite*"):
                path.unlink()
            shutil.copytree(folder, self.var, dirs_exist_ok=True)
            (self.var / "catalogue.sqlite-acknowledged").unlink(missing_ok=True)
            self.state = replace(state, snapshots=self.state.snapshots)
            self.last_id = last_id
            self.disk.lost.update(lost)

    # Judging

    def _after(self, *steps: Step) -> tuple[State, list[str | None]]:
        """The state after the steps, one after the other, and the error that each must raise."""
        state, refusals = self.state, list[str | None]()
        for step in steps:
            try:
                state = effect(state, self.disk, step)
                refusals.append(None)
            except Refused as refused:
                refusals.append(str(refused))
        return state, refusals

    def _loosely(self, step: Step) -> bool:
        """Whether what was staged before a file changed or was damaged may come into use."""
        other = any(picture.model != self.state.model for picture in self.state.pictures)
        return step.name == "switch" or (step.gradual and other)

    def _judge(self, step: Step, outcome: Outcome, allowed: Iterable[str | None]) -> None:
        allowed = list(allowed)
        if outcome.refusal not in allowed:
            expected = [refusal or "success" for refusal in allowed]
            raise AssertionError(
                f"{step}: expected {expected}, got {outcome.refusal or 'success'}\n{outcome.trace}"
            )

    def _check_outcome(self, step: Step, outcome: Outcome, certain: bool = True) -> None:
        """What was acknowledged is so."""
        if outcome.refusal is not None or outcome.died:
            return
        if step.name == "add":
            assert all(isinstance(id_, int) for id_ in outcome.value), outcome.value
            colours = {picture.id: picture.colour for picture in self.state.pictures}
            for id_, upload in zip(outcome.value, step.args["uploads"], strict=True):
                assert not certain or colours[id_] == upload["colour"]
                self.disk.lost.discard(upload["colour"])
        if step.name.startswith("delete") and certain and outcome.value != 0:
            assert set(self.servers[0].catalogue.trash.last()) <= {
                picture.id for picture in self.state.trash
            }
        if step.name == "compact" and certain:
            assert not [*self.var.rglob(".tmp-*"), *self.var.rglob("*.tmp")]
        if step.name == "purge" and certain and not self.disk.broken:
            self._check_purged()
        if step.name == "remove":
            self.disk.broken.discard(step.args["name"])
            self.damaged.discard(f"snapshot {step.args['name']}")

    def _complete_switch(self) -> None:
        """What `AutoCompaction` does on a server that finds an interrupted switch of models."""
        for server in self.servers:
            model = server.catalogue.model()
            if server.served.current().manifest.model_digest != model:
                self._complete_on(server)

    def _complete_on(self, server: SearchEngine) -> None:
        compact = Step("compact")
        after, _ = self._after(compact)
        self._judge(compact, attempt(server, compact), [None])
        self._settle([after], True)

    def _settle(self, states: list[State], loosely: bool, gradual: bool = False) -> None:
        """Take over what is stored, if it is one of ``states``, or a mixture if ``gradual``."""
        seen = self.observe(self.servers[0])
        names = set(seen.snapshots)
        assert names in [set(state.snapshots) for state in states], names
        kept = {name: old for name, old in self.state.snapshots.items() if name in names}
        for name in names - kept.keys():
            kept[name] = self._read_snapshot(name)
            options = [state.snapshots[name] for state in states if name in state.snapshots]
            if gradual:
                options += [replace(each, trash=()) for each in (self.state, *states)]
            self._match(f"snapshot {name}", kept[name], options, loosely, gradual)
        self._match("store", seen, states, loosely, gradual)
        self.state = replace(seen, snapshots=kept)
        self.last_id = max([self.last_id, *(picture.id or 0 for picture in seen.pictures)])

    def _match(
        self, where: str, seen: State, states: list[State], loosely: bool, gradual: bool
    ) -> None:
        if any(self._equal(state, seen, loosely) for state in states):
            return
        if gradual and self._mixture(states, seen, loosely):
            return
        wanted = "\n\nor ".join(dict.fromkeys(_shown(state) for state in states))
        raise AssertionError(f"the {where} holds {_shown(seen)}\n\nexpected {wanted}")

    def _same(self, picture: Picture, seen: Picture, loosely: bool) -> bool:
        if loosely and seen.colour in self.versions.get(picture.source, ()):
            picture = replace(picture, colour=seen.colour)
        if loosely and not self.disk.readable(picture):
            picture = replace(picture, model=seen.model)
        return picture.is_seen_as(seen, self.last_id)

    def _equal(self, state: State, seen: State, loosely: bool) -> bool:
        facts = [(each.tombstones, each.model, each.corpus) for each in (state, seen)]
        return (
            facts[0] == facts[1]
            and self._alike(state.pictures, seen.pictures, loosely)
            and self._alike(state.trash, seen.trash, loosely)
        )

    def _alike(self, pictures: Pictures, seen: Pictures, loosely: bool) -> bool:
        left = list(seen)
        for picture in pictures:
            found = next((other for other in left if self._same(picture, other, loosely)), None)
            if found is None:
                return False
            left.remove(found)
        return not left

    def _mixture(self, states: list[State], seen: State, loosely: bool) -> bool:
        """Whether each picture, tombstone and so on is as in one of the states."""
        tombstones = [set(state.tombstones) for state in states]
        return (
            self._mixed([state.pictures for state in states], seen.pictures, loosely)
            and self._mixed([state.trash for state in states], seen.trash, loosely)
            and _between(tombstones, set(seen.tombstones))
            and seen.model in {state.model for state in states}
            and seen.corpus in {state.corpus for state in states}
        )

    def _mixed(self, lists: list[Pictures], seen: Pictures, loosely: bool) -> bool:
        whole = [picture for pictures in lists for picture in pictures]
        # A rebuild follows moves first, then labels, and then embeds what has changed.
        possible = whole + [
            replace(picture, source=source, label=other.label, split=other.split)
            for picture in whole
            for other in whole
            for source in {picture.source, other.source}
            if other.source == picture.source or (other.id == picture.id and picture.id is not None)
        ]
        names = [{p.source if p.id is None else p.id for p in pictures} for pictures in lists]
        present = {name for picture in seen for name in (picture.id, picture.source)}
        return set.intersection(*names) - {ADDED} <= present and all(
            any(self._same(picture, other, loosely) for picture in possible) for other in seen
        )

    # Observing

    def observe(self, server: SearchEngine) -> State:
        """What a server's catalogue holds."""
        catalogue = self.var / "catalogue.sqlite"
        with closing(sqlite3.connect(f"{catalogue.as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT id, model_digest, embedding FROM trash").fetchall()
        vectors = {id_: (digest, np.frombuffer(data, "<f4")) for id_, digest, data in rows}
        entries = (trashed.entry for trashed in server.catalogue.trash.page(-1, 10_000))
        trash = tuple(_picture(entry, *vectors[entry.id]) for entry in entries)
        names = server.store.snapshots.names()
        seen = _contents(server.catalogue)
        return replace(seen, snapshots=dict.fromkeys(names, State()), trash=trash)

    def _read_snapshot(self, name: str) -> State:
        copy = self.base / "snapshot"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.var / "snapshots" / name, copy)
        with SqliteCatalogue(copy / "catalogue.sqlite") as catalogue:
            assert catalogue.check() is None
            return _contents(catalogue)

    # Checking

    def check(self) -> None:
        """Both servers list, find and show what the model holds, and the store is sound."""
        for server in self.servers:
            self._check_listing(server)
            self._check_search(server)
            self._check_bytes(server)
        self._check_snapshots()
        self._verify()

    def _check_listing(self, server: SearchEngine) -> None:
        seen, wanted = self.observe(server), self.state
        assert {p.id: p for p in seen.pictures} == {p.id: p for p in wanted.pictures}
        assert {p.id: p for p in seen.trash} == {p.id: p for p in wanted.trash}
        assert (seen.tombstones, seen.model) == (wanted.tombstones, wanted.model)
        assert set(seen.snapshots) == set(wanted.snapshots)
        assert server.catalogue.count() == len(wanted.pictures)
        labels = [p.label for p in wanted.pictures if p.label is not None]
        assert server.catalogue.label_counts() == {name: labels.count(name) for name in labels}

    def _check_search(self, server: SearchEngine) -> None:
        state = server.served.current()
        index, model = state.index, state.manifest.model_digest
        assert model == self.state.model
        found = {p.id: p for p in self.state.pictures if p.model == model and p.id is not None}
        assert index.ids().tolist() == sorted(found), (index.ids().tolist(), sorted(found))
        assert index.count() == len(found)
        if not found:
            return
        ids = sorted(found)
        xb = VECTORS[model][[found[id_].colour for id_ in ids]]
        np.testing.assert_allclose(index.vectors(ids), xb, atol=1e-6)
        alike = {
            c: [i for i in ids if found[i].colour == c] for c in {p.colour for p in found.values()}
        }
        scores, near = index.search(xb, len(ids))
        for row, id_ in enumerate(ids):
            same = alike[found[id_].colour]
            assert near[row, : len(same)].tolist() == same, (id_, near[row].tolist(), same)
            np.testing.assert_allclose(scores[row, : len(same)], 1, atol=1e-5)
            assert (scores[row, len(same) :] < 0.999).all()
        # The whole way of a query, and one with a filter.
        picture = found[ids[-1]]
        points = server.search(PNG[picture.colour], Page(len(ids))).points
        assert {p.entry.id: p.entry.label for p in points} == {i: found[i].label for i in ids}
        assert [p.entry.id for p in points][: len(alike[picture.colour])] == alike[picture.colour]
        if picture.label is not None:
            where = parse_filter({"must": [{"key": "label", "match": {"value": picture.label}}]})
            points = server.search(PNG[picture.colour], Page(len(ids), filter=where)).points
            assert {p.entry.id for p in points} == {
                i for i in ids if found[i].label == picture.label
            }

    def _check_bytes(self, server: SearchEngine) -> None:
        for entry in server.catalogue.page(-1, 10_000):
            picture = next(p for p in self.state.pictures if p.id == entry.id)
            if not picture.added:
                if self.disk.files.get(picture.source, (None,))[0] != picture.colour:
                    continue
            elif picture.colour in self.disk.lost:
                try:
                    assert server.blobs.get(entry.content_hash or "") == PNG[picture.colour]
                except BlobError:
                    continue
            assert (server.picture(entry)[0, 0] == COLOURS[picture.colour]).all()

    def _check_purged(self) -> None:
        """Nothing is left of what neither the store nor a snapshot holds."""
        states = [self.state, *self.state.snapshots.values()]
        needed = {_digest(PNG[p.colour]) for s in states for p in (*s.pictures, *s.trash)}
        left = {path.name for path in self.var.glob("pictures/??/*")}
        assert left <= needed, left - needed

    def _check_snapshots(self) -> None:
        server = self.servers[0]
        for name, kept in self.state.snapshots.items():
            if name in self.disk.broken:
                continue
            assert server.store.snapshots.read(name).count == len(kept.pictures)
            for colour in {p.colour for p in kept.pictures if p.added} - self.disk.lost:
                digest = _digest(PNG[colour])
                assert server.blobs.get(f"sha256:{digest}") == PNG[colour], (name, colour)

    def _verify(self) -> None:
        """The check finds the damage that was done, and nothing else."""
        store = self.servers[1].store
        problems = {found.part: found.problem for found in store.verify() if found.problem}
        unknown = problems.keys() - self.damaged
        assert not unknown, {part: problems[part] for part in unknown}
        assert {f"snapshot {name}" for name in self.disk.broken} <= problems.keys()
        self.damaged &= problems.keys()
        states = [self.state]
        if not self.disk.broken:
            states += self.state.snapshots.values()
        needed = {p.colour for s in states for p in (*s.pictures, *s.trash) if p.added}
        damaged = {colour for colour in needed if not self._is_whole(colour)}
        assert damaged <= self.disk.lost
        wanted = {f"picture sha256:{_digest(PNG[colour])}" for colour in damaged}
        if self.disk.broken:
            wanted.add("pictures of snapshots")
        assert {found.part for found in check_pictures(store) if found.problem} == wanted

    def _is_whole(self, colour: int) -> bool:
        digest = _digest(PNG[colour])
        path = self.var / "pictures" / digest[:2] / digest
        return path.exists() and path.read_bytes() == PNG[colour]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _between(sets: list[set[Any]], seen: set[Any]) -> bool:
    return set.intersection(*sets) <= seen <= set.union(*sets)


def _shown(state: State) -> str:
    lines = [f"model {state.model}, tombstones {sorted(state.tombstones)}, {state.corpus}"]
    lines += sorted(map(str, state.pictures))
    return "\n  ".join(lines + [f"in the trash: {picture}" for picture in state.trash])


def _contents(catalogue: SqliteCatalogue) -> State:
    vectors = {}
    for digest in catalogue.model_digests():
        ids, xb = catalogue.embeddings(digest)
        vectors |= {id_: (digest, x) for id_, x in zip(ids.tolist(), xb, strict=True)}
    entries = catalogue.page(-1, 10_000)
    return State(
        tuple(_picture(entry, *vectors[entry.id]) for entry in entries),
        tombstones=frozenset(catalogue.tombstones()),
        model=catalogue.model(),
        corpus=catalogue.get_meta("corpus") is not None,
    )


def _picture(entry: Entry, model: str, x: Vectors) -> Picture:
    """An entry, with the colour that its embedding was made of."""
    known = VECTORS[model]
    assert x.shape == known.shape[1:], (entry.id, x.shape)
    colour = int(np.argmax(known @ x))
    np.testing.assert_allclose(x, known[colour], atol=1e-6)
    if entry.origin == "added":
        assert entry.content_hash == f"sha256:{_digest(PNG[colour])}", entry
    payload = {name: value for name, value in entry.payload.items() if name not in ("file", "exif")}
    fields = (entry.label, entry.split, payload, entry.edited)
    digest = (entry.content_hash or "").partition(":")[2]
    content = [_digest(png) for png in PNG].index(digest)
    return Picture(entry.id, entry.source, colour, model, *fields, content)
