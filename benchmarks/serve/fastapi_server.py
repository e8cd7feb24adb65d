"""A typical hand-written server: sentence-transformers behind FastAPI. `MODEL` is the model directory."""

import os
from threading import Lock

from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

app = FastAPI()
model = SentenceTransformer(os.environ["MODEL"], device="cpu")
lock = Lock()


class Request(BaseModel):
    input: str | list[str]
    model: str = ""


@app.post("/v1/embeddings")
def embeddings(request: Request):
    texts = [request.input] if isinstance(request.input, str) else request.input
    with lock:
        vectors = model.encode(texts, normalize_embeddings=True).tolist()
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    return {"object": "list", "data": data, "model": request.model, "usage": {"prompt_tokens": 0, "total_tokens": 0}}
