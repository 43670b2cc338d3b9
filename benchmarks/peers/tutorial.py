"""The baseline of `serving.py`: visual search as a tutorial would write it.

One FastAPI handler with Pillow, eager PyTorch in float32, FAISS's IndexFlatIP with default settings
and payloads in a dict. It uses the same weights and embeddings as the service that it is compared
with. It runs in its own process:

    python benchmarks/peers/tutorial.py BUNDLE EMBEDDINGS.npz PORT
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import faiss
import numpy as np
import torch
import torch.nn.functional as F
import uvicorn
from fastapi import FastAPI, File, UploadFile
from PIL import Image

from embed.bundle import Bundle

bundle = Bundle.load(Path(sys.argv[1]))
network = bundle.network()
stored = np.load(sys.argv[2])
index = faiss.IndexFlatIP(stored["xb"].shape[1])
index.add(stored["xb"])
payload = [{"id": int(i), "label": str(label)} for i, label in enumerate(stored["labels"])]
app = FastAPI()


@app.post("/v1/search")
def search(image: UploadFile = File(), limit: int = 12) -> dict:
    picture = Image.open(io.BytesIO(image.file.read())).convert("RGB").resize((32, 32))
    batch = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    with torch.no_grad():
        output = network(bundle.preprocess.normalise(batch))
        probabilities = F.softmax(output.logits, dim=1)[0]
        embedding = F.normalize(output.features, dim=1).numpy()
    scores, rows = index.search(embedding, limit)
    return {
        "prediction": {
            "class": bundle.classes[int(probabilities.argmax())],
            "probabilities": dict(zip(bundle.classes, probabilities.tolist(), strict=True)),
        },
        "points": [
            {**payload[row], "score": float(score)}
            for row, score in zip(rows[0], scores[0], strict=True)
        ],
    }


@app.get("/livez")
def livez() -> dict:
    return {"status": "ok"}


@app.get("/v1/images/{image_id}")
def image(image_id: int) -> dict:
    return payload[image_id]


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[3]), log_level="warning", access_log=False)
