"""The plain way from photographs to embeddings, for `benchmarks.ingest`: Pillow, torchvision, timm.

Files are decoded whole by Pillow, scaled by torchvision as the photo encoder is served (the whole
picture, bicubic), and embedded by timm's network, eagerly, in float32. As a service, one FastAPI
handler with FAISS's IndexFlatIP:

    python -m benchmarks.peers.photographs EMBEDDINGS.npy PORT
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, File, UploadFile
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.photo_runtime import plain_network
from embed.imported.photo_encoder import SOURCE

BATCH = 16
SIDE = 224


class Plain:
    """The network and its preprocessing."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.network, theirs, random = plain_network(SOURCE)
        if random:
            raise SystemExit("the photo encoder's weights are not installed")
        normalise = theirs.transforms[-1]  # type: ignore[attr-defined]
        bicubic = transforms.InterpolationMode.BICUBIC
        self.resize = transforms.Resize((SIDE, SIDE), bicubic)
        self.to_input = transforms.Compose([transforms.ToTensor(), normalise])

    def input(self, data: bytes) -> torch.Tensor:
        """A file as the network's input ``(3, 224, 224)``."""
        found: torch.Tensor = self.to_input(self.resize(decoded(data)))
        return found

    def features(self, batch: torch.Tensor) -> NDArray[np.float32]:
        """Of length one, float32 ``(n, 1280)``."""
        with torch.inference_mode():
            maps = self.network.forward_features(batch)  # type: ignore[operator]
            found = self.network.forward_head(maps, pre_logits=True)  # type: ignore[operator]
            x: NDArray[np.float32] = torch.nn.functional.normalize(found).numpy()
        return x


def decoded(data: bytes) -> Image.Image:
    """All pixels of a file."""
    return Image.open(io.BytesIO(data)).convert("RGB")


class Files(Dataset[torch.Tensor]):
    """What a DataLoader reads in its worker processes."""

    def __init__(self, plain: Plain, paths: Sequence[Path]) -> None:
        self.plain, self.paths = plain, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.plain.input(self.paths[row].read_bytes())


def embed(plain: Plain, paths: Sequence[Path], workers: int = 0) -> NDArray[np.float32]:
    """Embeddings of files, in batches; with ``workers``, these processes read and decode."""
    loader = DataLoader(Files(plain, paths), BATCH, num_workers=workers)
    return np.concatenate([plain.features(batch) for batch in loader])


def serve(stored: Path, port: int) -> None:
    """Answer searches by upload with the names of what is most similar."""
    plain, xb, app = Plain(torch.get_num_threads()), np.load(stored), FastAPI()
    index = faiss.IndexFlatIP(xb.shape[1])
    index.add(xb)

    def search(image: UploadFile = File()) -> dict[str, object]:
        xq = plain.features(plain.input(image.file.read())[None])
        scores, rows = index.search(xq, 12)
        return {"ids": rows[0].tolist(), "scores": scores[0].tolist()}

    app.post("/v1/search")(search)
    app.get("/livez")(lambda: {"status": "ok"})
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
