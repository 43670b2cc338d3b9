from __future__ import annotations

import dataclasses
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embed.bundle import Bundle
from embed.encoder import Encoder
from embed.pictures import RGB
from embed.runtime.protocol import Raw, RuntimeName
from tests.embed.helpers import noise


@pytest.fixture(scope="module", params=["torch", "openvino"])
def encoder(tiny_bundle: Bundle, request: pytest.FixtureRequest) -> Encoder:
    return Encoder(tiny_bundle, precision="float32", runtime=request.param)


def test_it_describes_itself(encoder: Encoder, tiny_bundle: Bundle) -> None:
    assert encoder.digest == tiny_bundle.digest
    assert encoder.classes == ("red", "green", "blue")
    assert encoder.dimension == 32
    assert encoder.input_size == 32
    assert encoder.precision == "float32"


def test_shapes_dtypes_and_length_one(encoder: Encoder, pictures: RGB) -> None:
    probabilities, embeddings = encoder.encode(pictures)
    assert probabilities.shape == (7, 3)
    assert embeddings.shape == (7, 32)
    assert probabilities.dtype == embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)


def test_embeddings_are_the_normalised_features(
    encoder: Encoder, tiny_bundle: Bundle, pictures: RGB
) -> None:
    with torch.no_grad():
        batch = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        features = tiny_bundle.network()(tiny_bundle.preprocess.normalise(batch)).features.numpy()
    expected = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(pictures).embeddings, expected, atol=1e-5)


def test_probabilities_use_the_temperature(encoder: Encoder, pictures: RGB) -> None:
    logits = encoder.raw(pictures).logits.astype(np.float64)
    expected = np.exp(logits / 1.5)
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(pictures).probabilities, expected, atol=1e-6)


def test_temperature_changes_confidence_but_neither_order_nor_embedding(
    encoder: Encoder, tiny_bundle: Bundle, pictures: RGB
) -> None:
    hot = Encoder(
        dataclasses.replace(tiny_bundle, temperature=0.1),
        precision="float32",
        runtime=encoder.runtime.name,  # type: ignore[arg-type]
    )
    first, second = encoder.encode(pictures), hot.encode(pictures)
    assert (second.probabilities.max(1) > first.probabilities.max(1)).all()
    assert (second.probabilities.argmax(1) == first.probabilities.argmax(1)).all()
    assert np.array_equal(first.embeddings, second.embeddings)


def test_a_picture_means_the_same_alone_and_in_a_batch(encoder: Encoder, pictures: RGB) -> None:
    together = encoder.encode(pictures)
    for i in range(7):
        alone = encoder.encode(pictures[i : i + 1])
        np.testing.assert_allclose(alone.embeddings[0], together.embeddings[i], atol=1e-5)
        np.testing.assert_allclose(alone.probabilities[0], together.probabilities[i], atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_batch_size_does_not_matter(
    tiny_bundle: Bundle, encoder: Encoder, pictures: RGB, batch_size: int
) -> None:
    other = Encoder(
        tiny_bundle,
        batch_size=batch_size,
        precision="float32",
        runtime=encoder.runtime.name,  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(
        other.encode(pictures).embeddings, encoder.encode(pictures).embeddings, atol=1e-5
    )
    np.testing.assert_allclose(other.raw(pictures).logits, encoder.raw(pictures).logits, atol=1e-5)


def test_pictures_of_several_sizes(encoder: Encoder, pictures: RGB) -> None:
    mixed = encoder.encode([pictures[0], noise(50, 40), pictures[1]])
    np.testing.assert_allclose(
        mixed.embeddings[[0, 2]], encoder.encode(pictures[:2]).embeddings, atol=1e-5
    )


def test_fit_is_what_encode_does_first(encoder: Encoder) -> None:
    picture = noise(50, 40)
    fitted = encoder.fit(picture)
    assert fitted.shape == (32, 32, 3)
    assert np.array_equal(encoder.encode([picture]).embeddings, encoder.encode([fitted]).embeddings)


def test_no_pictures(encoder: Encoder) -> None:
    probabilities, embeddings = encoder.encode([])
    assert probabilities.shape == (0, 3)
    assert embeddings.shape == (0, 32)


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_bfloat16_stays_close(
    tiny_bundle: Bundle, encoder: Encoder, pictures: RGB, runtime: RuntimeName
) -> None:
    fast = Encoder(tiny_bundle, precision="bfloat16", runtime=runtime).encode(pictures)
    exact = encoder.encode(pictures)
    assert fast.embeddings.dtype == np.float32
    assert (fast.embeddings * exact.embeddings).sum(1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(fast.embeddings, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(fast.probabilities, exact.probabilities, atol=0.01)


def test_auto_precision_is_one_of_the_two(tiny_bundle: Bundle) -> None:
    assert Encoder(tiny_bundle).precision in ("float32", "bfloat16")


def test_threads_get_their_own_results(encoder: Encoder) -> None:
    inputs = [noise(32, 32)[None] + np.uint8(i) for i in range(24)]
    expected = [encoder.encode(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(encoder.encode, inputs))
    for one, other in zip(found, expected, strict=True):
        # Another number of threads may round the last digit otherwise.
        np.testing.assert_allclose(one.embeddings, other.embeddings, atol=1e-6)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_each_worker_serves_one_thread_at_a_time(
    tiny_bundle: Bundle,
    pictures: RGB,
    monkeypatch: pytest.MonkeyPatch,
    runtime: RuntimeName,
) -> None:
    encoder = Encoder(tiny_bundle, runtime=runtime, threads=2)
    workers = encoder.runtime.workers
    assert workers == {"openvino": 2, "torch": 1}[runtime]
    run = encoder.runtime.run
    running: Counter[int | None] = Counter()
    most: Counter[int | None] = Counter()

    def counted(batch: NDArray[np.uint8], worker: int | None = None) -> Raw:
        running[worker] += 1
        most[worker] = max(most[worker], running[worker])
        time.sleep(0.002)  # time for another thread to interfere
        found = run(batch, worker)
        running[worker] -= 1
        return found

    monkeypatch.setattr(encoder.runtime, "run", counted)
    alone = encoder.encode(pictures)
    assert set(most) == ({None} if workers > 1 else {0})
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(encoder.encode, [pictures] * 16))
    assert set(most) - {None} == set(range(workers))
    assert set(most.values()) == {1}
    assert encoder.encode(pictures, spare=True).embeddings.shape == alone.embeddings.shape
    for each in found:
        np.testing.assert_allclose(each.embeddings, alone.embeddings, atol=1e-3)


def test_the_bundle_is_not_changed(tiny_bundle: Bundle, pictures: RGB) -> None:
    before = tiny_bundle.digest
    Encoder(tiny_bundle, precision="bfloat16").encode(pictures)
    assert tiny_bundle.digest == before


def test_batch_size_below_one_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="batch_size is 0; expected at least 1"):
        Encoder(tiny_bundle, batch_size=0)
