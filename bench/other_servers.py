"""Other servers over the same collection: `python -m bench.other_servers KIND MODEL FOLDER COLLECTION PORT`."""

from __future__ import annotations

import sys
from typing import Any

import chromadb
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

KINDS = ("one at a time", "Chroma's function")


class Query(BaseModel):
    text: str
    k: int = 10


def one_at_a_time(model: str, collection: Any) -> FastAPI:
    """A server after SkyPilot's image vector-database example: it encodes and queries on the event loop, with the
    defaults of torch."""
    import open_clip
    import torch

    network, _, _ = open_clip.create_model_and_transforms(model)
    network.eval()
    tokenizer = open_clip.get_tokenizer(model)
    app = FastAPI()

    @app.post("/search")
    async def search(query: Query) -> list[dict[str, Any]]:
        with torch.no_grad():
            features = network.encode_text(tokenizer([query.text]))
            features /= features.norm(dim=-1, keepdim=True)
        results = collection.query(
            query_embeddings=features.numpy().tolist(), n_results=query.k, include=["metadatas", "distances"]
        )
        return _results(results)

    return app


def chroma_function(model: str, collection: Any) -> FastAPI:
    """A server that queries Chroma with its own function for OpenCLIP, in FastAPI's threads."""
    from chromadb.utils.embedding_functions import OpenCLIPEmbeddingFunction

    function = OpenCLIPEmbeddingFunction(model, None)  # the folder contains the weights
    function._model.eval()
    app = FastAPI()

    @app.post("/search")
    def search(query: Query) -> list[dict[str, Any]]:
        results = collection.query(
            query_embeddings=function([query.text]), n_results=query.k, include=["metadatas", "distances"]
        )
        return _results(results)

    return app


def _results(results: Any) -> list[dict[str, Any]]:
    return [
        {"id": id, "score": 1 - distance, "metadata": metadata}
        for id, distance, metadata in zip(
            results["ids"][0], results["distances"][0], results["metadatas"][0], strict=True
        )
    ]


def main(kind: str, model: str, folder: str, name: str, port: str) -> None:
    collection = chromadb.PersistentClient(folder).get_collection(name, embedding_function=None)
    create_app = one_at_a_time if kind == "one at a time" else chroma_function
    uvicorn.run(create_app(model, collection), host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
