from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.helpers import QUICK, colours
from train.checkpoint import CHECKPOINT, Epoch, ResumeError, Run
from train.loop import train
from train.recipe import Recipe


@pytest.mark.parametrize(
    ("best", "done", "patience", "finished"),
    [(3, 4, 2, False), (3, 5, 2, False), (3, 6, 2, True), (3, 9, None, False), (0, 10, 99, True)],
)
def test_when_a_run_is_finished(
    best: int, done: int, patience: int | None, finished: bool, tmp_path: Path
) -> None:
    history = [Epoch(i, 1.0, 1.0, 0.5, 0.1, 1.0) for i in range(done)]
    recipe = Recipe(epochs=10, patience=patience)
    assert Run(recipe, tmp_path, history, best).finished is finished


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match=r"no checkpoint\.pt in .*; start without --resume"):
        train(QUICK, colours(), tmp_path, resume=True)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    torch.save({"recipe": Bomb(mark)}, tmp_path / CHECKPOINT)
    with pytest.raises(ResumeError, match="cannot be read"):
        train(QUICK, colours(), tmp_path, resume=True)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists(), "the bomb itself must work, or this test shows nothing"
