"""Nearest neighbours: what scikit-learn finds by brute force, in blocks of a stated size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from tests.test_fewshot import clusters, evaluate
from vit_jax.config import Evaluation
from vit_jax.errors import InputError
from vit_jax.evaluators import knn

NEIGHBOURS = (1, 10, 20, 100, 200)


# Blocks that divide neither split, blocks that are smaller than k, and one block.
@pytest.mark.parametrize(("rows", "width"), [(17, 70), (64, 300), (2048, 16384)])
def test_votes_are_those_of_scikit_learn(monkeypatch, rows, width):
    monkeypatch.setattr(knn, "QUERIES", rows)
    monkeypatch.setattr(knn, "BANK", width)
    features, labels = clusters(60, 8, 24, spread=1.7)
    order = np.random.default_rng(1).permutation(len(features))
    features, labels = (features / features.std(0).clip(1e-3))[order], labels[order]
    features -= features.mean(0) - 0.1
    bank, queries = features[:350], features[350:]
    similarities, index = knn.nearest(queries, bank, 200)
    voted = knn.vote(similarities, labels[index], 8, NEIGHBOURS)
    accuracies = []
    for k in NEIGHBOURS:
        peer = KNeighborsClassifier(
            k, algorithm="brute", metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.07)
        ).fit(bank.astype(np.float64), labels[:350])
        np.testing.assert_array_equal(voted[k], peer.predict(queries.astype(np.float64)))
        accuracies.append((voted[k] == labels[350:]).mean())
    distances, found = peer.kneighbors(queries.astype(np.float64), 200)
    np.testing.assert_array_equal(index, found)
    np.testing.assert_allclose(similarities, 1 - distances, atol=1e-6)
    # The vote matters: it differs between numbers of neighbours, and is better than chance.
    assert len(set(accuracies)) > 2
    assert min(accuracies) > 0.3


def test_of_equals_the_first_counts_and_zeros_are_similar_to_nothing(monkeypatch):
    monkeypatch.setattr(knn, "BANK", 3)
    bank = np.array([[0, 1], [2, 0], [3, 0], [0, 0], [1, 0], [-1, 0]], np.float32)
    similarities, index = knn.nearest(np.array([[5, 0], [0, 0]], np.float32), bank, 4)
    assert index.tolist() == [[1, 2, 4, 0], [0, 1, 2, 3]]
    assert similarities.tolist() == [[1, 1, 1, 0], [0, 0, 0, 0]]
    # Classes 0 and 1 have a vote each.
    assert knn.vote(similarities, np.array([1, 0, 2, 0, 1, 1])[index], 3, (2,))[2].tolist() == [0, 0]


@pytest.mark.parametrize("width", [192, 768, 1024])
def test_a_device_holds_no_more_than_stated(width):
    float32 = jnp.float32
    found = jax.ShapeDtypeStruct((knn.QUERIES, 200), float32), jax.ShapeDtypeStruct((knn.QUERIES, 200), jnp.int32)
    blocks = (jax.ShapeDtypeStruct((rows, width), float32) for rows in (knn.QUERIES, knn.BANK))
    memory = knn._merge.lower(found, *blocks, 0, 0).compile().memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    # The blocks and their similarities are needed in any case.
    assert 4 * (knn.QUERIES * width + knn.BANK * width + knn.QUERIES * knn.BANK) < used <= knn.DEVICE_BYTES


def test_digits_by_their_neighbours():
    found = evaluate(Evaluation("knn", neighbours=(20, 5), features="tokens:gap"))
    assert set(found.scalars) == {"few/accuracy_5nn", "few/accuracy_20nn", "few/count"}
    assert found.scalars["few/accuracy_5nn"] > 0.8
    assert found.scalars["few/count"] == 360


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            dict(neighbours=(10, 20, 100, 2000)),
            r"neighbours=\(10, 20, 100, 2000\): split 'train' has only 1,437 pictures",
        ),
        (dict(neighbours=()), r"neighbours=\(\): name at least one"),
    ],
)
def test_what_can_not_start_says_so(keys, message):
    with pytest.raises(InputError, match=message):
        evaluate(Evaluation("knn", **keys))
