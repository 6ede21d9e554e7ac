"""Clients that were made for other servers, unmodified, against the real programs, store and model."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from tests import index
from tests.conftest import DEMO_MODEL
from tests.programs import serving
from tests.searcher import clients
from tests.searcher.library import hashed
from tests.searcher.process import SearcherProcess, wait_for_text

CAT = "chelsea.png"
CUP = "with space/ü #1.png"
ROCKET = "rocket.jpg"
CAPTION = "Chelsea, a tabby cat"
KEY = "r/g:t"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos: a cat, a cup of coffee and a rocket."""
    spec = importlib.util.find_spec("skimage")
    assert spec
    assert spec.origin
    photos = Path(spec.origin).parent / "data"
    folder = tmp_path_factory.mktemp("clients") / "photos"
    (folder / CUP).parent.mkdir(parents=True)
    for photo, key in [("chelsea.png", CAT), ("coffee.png", CUP), ("rocket.jpg", ROCKET)]:
        shutil.copy(photos / photo, folder / key)
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": CAT, "caption": CAPTION}))
    return folder


@pytest.fixture(scope="module")
def searcher(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("home")
    index.fill(home, folder)
    with serving(home) as client:
        yield client


@pytest.fixture(scope="module")
def url(searcher: httpx.Client) -> str:
    return str(searcher.base_url).rstrip("/")


@pytest.fixture(scope="module")
def guarded_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a searcher that wants the key."""
    with SearcherProcess(tmp_path_factory.mktemp("guarded"), api_keys=hashed(KEY)) as process:
        process.finish()
        wait_for_text(process.url, "/readyz", '"ready"')
        yield process.url


def embed(searcher: httpx.Client, **inputs: Any) -> Any:
    """The vectors that /v1/embed gives."""
    return searcher.post("/v1/embed", json=inputs).raise_for_status().json()["vectors"]


def test_the_page_of_skypilots_example_finds_a_photo_and_shows_it(searcher: httpx.Client, folder: Path) -> None:
    """There is no client to install: these are the requests that its page sends."""
    assert searcher.get("/health").json() == {"status": "healthy", "collection_size": 3}
    for text, key in [("a cat", CAT), ("a cup of coffee", CUP)]:
        results = searcher.post("/search", json={"text": text, "n_results": 12}).json()
        assert [sorted(result) for result in results] == [["image_path", "similarity"]] * 3
        assert results[0]["image_path"] == key
        assert 1 > results[0]["similarity"] > results[1]["similarity"]
        response = searcher.get(f"/image/{quote(key)}")
        assert response.content == (folder / key).read_bytes()
        assert response.headers["content-type"] == "image/png"


@pytest.mark.parametrize("transport", ["legacy", "header"])
def test_roboflows_client_embeds_texts_and_images(
    searcher: httpx.Client, url: str, folder: Path, transport: str
) -> None:
    texts = ["a cat", "a cup of coffee"]
    files = [str(folder / CAT), str(folder / ROCKET)]
    one_text, two_texts, model, image, images = clients.roboflow(
        url,
        [
            ("get_clip_text_embeddings", {"text": "a cat"}),
            ("get_clip_text_embeddings", {"text": texts}),
            ("get_clip_text_embeddings", {"text": "a cat", "clip_version": DEMO_MODEL}),
            ("get_clip_image_embeddings", {"inference_input": files[0]}),
            ("get_clip_image_embeddings", {"inference_input": files}),
        ],
        key="a key of theirs",
        api_key_transport=transport,
    )
    text_vectors = embed(searcher, text=texts)
    file_vectors = embed(searcher, image=[base64.b64encode(Path(file).read_bytes()).decode() for file in files])
    assert set(one_text) == {"inference_id", "frame_id", "time", "embeddings"}
    assert one_text["time"] > 0
    np.testing.assert_allclose(two_texts["embeddings"], text_vectors, atol=1e-5)
    for response in (one_text, model):
        np.testing.assert_allclose(response["embeddings"], text_vectors[:1], atol=1e-5)
    np.testing.assert_allclose(image["embeddings"], file_vectors[:1], atol=1e-5)
    np.testing.assert_allclose([item["embeddings"][0] for item in images], file_vectors, atol=1e-5)


def test_roboflows_client_sends_several_images_at_once_and_waits_for_none(
    searcher: httpx.Client, url: str, folder: Path
) -> None:
    files = [str(folder / key) for key in (CAT, ROCKET, CUP)]
    images, text, comparison = clients.roboflow(
        url,
        [
            ("get_clip_image_embeddings_async", {"inference_input": files}),
            ("get_clip_text_embeddings_async", {"text": "a cat"}),
            ("clip_compare_async", {"subject": files[0], "prompt": ["a cat", "a rocket"]}),
        ],
        max_batch_size=2,
    )
    file_vectors = embed(searcher, image=[base64.b64encode(Path(file).read_bytes()).decode() for file in files])
    np.testing.assert_allclose([item["embeddings"][0] for item in images], file_vectors, atol=1e-5)
    np.testing.assert_allclose(text["embeddings"], embed(searcher, text=["a cat"]), atol=1e-5)
    assert comparison["similarity"][0] > comparison["similarity"][1]


def test_roboflows_client_compares(url: str, folder: Path) -> None:
    cat, rocket = (str(folder / key) for key in (CAT, ROCKET))
    texts, one_text, images, with_names = clients.roboflow(
        url,
        [
            ("clip_compare", {"subject": cat, "prompt": ["a cat", "a rocket"]}),
            ("clip_compare", {"subject": cat, "prompt": "a cat"}),
            (
                "clip_compare",
                {"subject": "a rocket", "subject_type": "text", "prompt": [cat, rocket], "prompt_type": "image"},
            ),
            ("clip_compare", {"subject": cat, "prompt": {"a pet": "a cat", "a craft": "a rocket"}}),
        ],
    )
    assert set(texts) == {"inference_id", "frame_id", "time", "similarity", "parent_id"}
    assert texts["similarity"][0] > texts["similarity"][1]
    assert one_text["similarity"] == pytest.approx(texts["similarity"][:1], abs=1e-5)
    assert images["similarity"][1] > images["similarity"][0]
    assert with_names["similarity"] == pytest.approx(
        dict(zip(["a pet", "a craft"], texts["similarity"], strict=True)), abs=1e-5
    )


def test_roboflows_client_is_told_what_is_wrong(url: str, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    model, image = clients.roboflow(
        url,
        [
            ("get_clip_text_embeddings", {"text": "a cat", "clip_version": "ViT-B-16"}),
            ("get_clip_image_embeddings", {"inference_input": str(tmp_path / "broken.png")}),
        ],
    )
    assert model["status"] == image["status"] == 422
    assert "clip_version_id: " in model["message"]
    assert "'ViT-B-16'" in model["message"]
    assert "image" in image["message"]


def test_each_client_brings_a_key(guarded_url: str) -> None:
    """As the password of the address, percent-encoded; Roboflow's also as a header, once it is told."""
    calls = [
        ("get_clip_text_embeddings", {"text": "a cat"}),
        ("get_clip_text_embeddings_async", {"text": "a cat"}),
        ("get_clip_image_embeddings", {"inference_input": "AAAA"}),
    ]
    for address, options in [
        (guarded_url.replace("://", f"://:{quote(KEY, safe='')}@"), {}),
        (guarded_url.replace("://", f"://:{quote(KEY, safe='')}@"), {"api": "v0"}),
        (guarded_url, {"key": KEY, "api_key_transport": "header"}),
    ]:
        text, second_text, image = clients.roboflow(address, calls, **options)
        assert len(text["embeddings"]) == len(second_text["embeddings"]) == 1
        assert image["status"] == 422
    for address, options in [(guarded_url.replace("://", "://:wrong@"), {}), (guarded_url, {"key": KEY})]:
        for response in clients.roboflow(address, calls, **options):
            assert response["status"] == 401
    for password, is_refused in [(quote(KEY, safe=""), False), ("wrong", True)]:
        address = guarded_url.replace("://", f"://:{password}@")
        (results,) = clients.clip_retrieval(
            {"url": f"{address}/knn-service", "indice_name": "photos"}, [{"text": "a cat"}]
        )
        assert (isinstance(results, dict) and results["status"] == 401) == is_refused
        assert is_refused or len(results) == 4


def test_clip_retrievals_client_finds_by_text_image_and_vector(searcher: httpx.Client, url: str, folder: Path) -> None:
    arguments = {"url": f"{url}/knn-service", "indice_name": "photos"}
    vector = embed(searcher, text=["a cat"])[0]
    by_text, by_image, by_vector = clients.clip_retrieval(
        arguments, [{"text": "a cat"}, {"image": str(folder / CUP)}, {"embedding_input": vector}]
    )
    first = by_text[0]
    assert first["caption"] == CAPTION
    assert first["image_path"] == str(folder / CAT)
    assert searcher.get(first["url"]).content == (folder / CAT).read_bytes()
    similarities = [result["similarity"] for result in by_text]
    assert len(similarities) == 3
    assert similarities == sorted(similarities, reverse=True)
    assert by_image[0]["image_path"] == str(folder / CUP)
    assert by_image[0]["similarity"] > 0.99
    assert by_image[0]["caption"] == ""
    assert [result["id"] for result in by_vector] == [result["id"] for result in by_text]
    for result in by_text:
        assert {"id", "similarity", "url", "caption", "image_path"} <= set(result)


def test_clip_retrievals_client_gets_as_many_as_it_asks_for(url: str) -> None:
    arguments = {"url": f"{url}/knn-service", "indice_name": "photos", "num_images": 2, "deduplicate": False}
    (results,) = clients.clip_retrieval(arguments, [{"text": "a cat"}])
    assert len(results) == 2


def test_clip_retrievals_client_gets_a_problem_where_it_expects_results(url: str) -> None:
    """It does not look at the status."""
    (response,) = clients.clip_retrieval({"url": f"{url}/knn-service", "indice_name": "laion5B"}, [{"text": "a cat"}])
    assert response["status"] == 404
    assert '"laion5B"' in response["detail"]
    assert "photos" in response["detail"]
