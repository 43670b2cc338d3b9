"""What a figure belongs to: model, revision, CPU, versions; and the stamp that says so."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from datetime import date
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = (
    *("benchmarks", "embed", "index", "search_api", "train", "requirements", "pyproject.toml"),
    ":(exclude)benchmarks/ratios.json",
)
"""What git calls what can change a figure; ratios are results themselves."""
_FIELDS = re.compile(
    r"model (?P<model>.+?); revision (?P<revision>.+?); CPU (?P<cpu>.+?);"
    r" threads (?P<threads>.+?); with (?P<versions>.+?); on (?P<date>\d{4}-\d\d-\d\d);"
    r" n = (?P<n>.+)"
)
OTHER_WORK = ", with other work"
_BUSY = 0.1
"""Share of the machine from which on other programs are mentioned."""
_DIGEST = re.compile(r"sha256:([0-9a-f]{8,64})")


class StampError(ValueError):
    """A stamp does not say what a figure belongs to."""


@cache
def digests() -> dict[str, str]:
    """The digests of the models that come with the installation, by name."""
    from embed.bundle import PRETRAINED, Bundle
    from embed.imported.photo_encoder import photo_bundle
    from embed.private_cache import default_cache

    found = {"model": Bundle.load(PRETRAINED).digest}
    if (folder := photo_bundle(default_cache())) is not None:
        found["photo encoder"] = Bundle.load(folder).digest
    return found


def cpu() -> str:
    """Name, instructions and number of the cores; machines that differ in it are not compared."""
    text = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*:\s*(.+)", text)
    flags = re.search(r"flags\s*:\s*(.+)", text)
    has = set(flags[1].split()) if flags else set()
    kinds = {"AMX": "amx_tile", "AVX-512": "avx512f", "AVX2": "avx2"}
    best = next((kind for kind, flag in kinds.items() if flag in has), "no AVX2")
    words = re.sub(r"\((R|TM)\)", "", name[1] if name else os.uname().machine).split()
    return f"{' '.join(words)} with {best}, {os.cpu_count()} cores"


def other_work(seconds: float = 0.5) -> str:
    """For the stamp, whether other programs use the machine; to be called before anything runs."""
    before = _ticks()
    time.sleep(seconds)
    used, total = (now - then for now, then in zip(_ticks(), before, strict=True))
    return OTHER_WORK if used > _BUSY * total else ""


def revision() -> str:
    """The last revision that changed the code, with "+ changes" if it differs from it now."""
    found = _git("log", "-1", "--abbrev=12", "--format=%h", "--", *CODE).strip()
    if not found:
        return "unknown"
    return f"{found} + changes" if _git("status", "--porcelain", "--", *CODE) else found


def key() -> str:
    """A name for models, revision with its changes, and CPU: what passed need not run again."""
    parts = [*digests().values(), revision(), cpu(), _git("diff", "HEAD", "--", *CODE)]
    new = _git("ls-files", "--others", "--exclude-standard", "--", *CODE).splitlines()
    parts += [(ROOT / name).read_text("utf-8", "replace") for name in new]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def stamp(
    models: Sequence[str], threads: str, packages: Sequence[str], n: str, other: str = ""
) -> str:
    """What figures belong to, in one line.

    The arguments are those of a `Result`, and what `other_work` said before.

    Raises:
        KeyError: a model is not installed.
    """
    known = digests()
    named = [f"{'' if name == 'model' else f'{name} '}{known[name][:15]}…" for name in models]
    versions = [f"Python {platform.python_version()}", *map(_version, packages)]
    return (
        f"model {', '.join(named) or 'none: the figures are the same for every model'};"
        f" revision {revision()}; CPU {cpu()}{other}; threads {threads};"
        f" with {', '.join(versions)}; on {date.today()}; n = {n}"
    )


def check(text: str, known: Sequence[str]) -> None:
    """Check what a stamp says of the model.

    Args:
        text: of the stamp, in one line.
        known: digests of the models that ship.

    Raises:
        StampError: it lacks something, or names a model that does not ship without saying why its
            figures were kept.
    """
    found = _FIELDS.fullmatch(text)
    if found is None:
        raise StampError(
            f"{text!r} is no stamp; expected `model …; revision …; CPU …; threads …; with …;"
            " on YYYY-MM-DD; n = …`"
        )
    model = found["model"]
    if model.startswith("none: ") or "kept because " in model:
        return
    named = _DIGEST.findall(model)
    if not named:
        raise StampError(f"{model!r} names no digest; say `none: …` if there is no model")
    old = [name for name in named if not any(one[7:].startswith(name) for one in known)]
    if old:
        raise StampError(
            f"sha256:{old[0]}… does not ship: run `make bench`, take the figures out, or say in"
            " the stamp that it is an earlier model, `kept because …`"
        )


def _ticks() -> tuple[int, int]:
    """Those of all cores that were used, and all of them, since the machine was started."""
    # user, nice, system, idle, iowait, irq, softirq, steal
    ticks = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
