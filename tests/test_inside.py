"""Looking inside a model: filters, positions and attention distance equal their definitions, and the command."""

import csv
import json

import inside
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import vit_jax
from tests.drawn import activations_of, drawn_model
from tests.test_bad_input import refusal
from vit_jax.config import Config
from vit_jax.data.rows import decode_as
from vit_jax.errors import BAD_PICTURES, InputError, Stop
from vit_jax.inside.distance import attention_distance, patch_distances
from vit_jax.inside.filters import first_kernel, principal_components
from vit_jax.inside.positions import position_similarity, relative_bias, similarity_by_place
from vit_jax.weights.opened import Opened, open_model

BIT = dict(name="BiT-custom", resnet=(1,), resnet_width=32)


def softmax(scores):
    powers = np.exp(scores)
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("prefix", [0, 3])
def test_attention_distance_is_the_weighted_mean_over_patches(prefix):
    grid, patch = (2, 3), 8
    tokens = prefix + 6
    weights = softmax(2 * np.random.default_rng(0).standard_normal((2, 3, tokens, tokens)))
    places = [(8 * row, 8 * column) for row in range(2) for column in range(3)]
    expected = np.zeros((2, 3))
    for picture in range(2):
        for head in range(3):
            for query, (y, x) in enumerate(places):
                row = weights[picture, head, prefix + query, prefix:]
                far = [((y - b) ** 2 + (x - a) ** 2) ** 0.5 for b, a in places]
                expected[picture, head] += sum(w * d for w, d in zip(row, far, strict=True)) / sum(row) / 6
    found = attention_distance(jnp.asarray(weights, jnp.float32), grid, patch)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_attention_distance_of_known_cases():
    tokens = 1 + 9
    identity = np.eye(tokens, dtype=np.float32)
    uniform = np.full((tokens, tokens), 1 / tokens, np.float32)
    # Each column of patches attends to the next, and around: one step from two of them, two from the last.
    next_one = np.zeros((tokens, tokens), np.float32)
    for row, column in np.ndindex(3, 3):
        next_one[1 + 3 * row + column, 1 + 3 * row + (column + 1) % 3] = 1
    found = attention_distance(jnp.stack([identity, uniform, next_one])[None], (3, 3), 4)[0]
    np.testing.assert_allclose(found, [0, patch_distances((3, 3), 4).mean(), 4 * 4 / 3], rtol=1e-6)
    # In a row of n patches two drawn at random are (n^2 - 1) / 3n apart.
    assert patch_distances((1, 7), 4).mean() == pytest.approx(4 * 48 / 21)


def test_queries_that_attend_to_no_patch_are_left_out():
    weights = np.zeros((1, 2, 3, 3), np.float32)
    weights[:, :, :, 0] = 1
    weights[0, 0, 1] = [0, 0, 1]
    distance = attention_distance(jnp.asarray(weights), (1, 2), 16)[0]
    np.testing.assert_array_equal(distance, [16, np.nan])


def test_principal_components_are_those_of_the_covariance():
    kernel = np.random.default_rng(0).standard_normal((2, 3, 3, 40)) * np.linspace(1, 3, 18).reshape(2, 3, 3, 1) + 5
    found = principal_components(kernel, number=7)
    rows = found.filters.reshape(7, 18)
    np.testing.assert_allclose(rows @ rows.T, np.eye(7), atol=1e-12)
    assert (rows.max(axis=1) == np.abs(rows).max(axis=1)).all()
    # Without an SVD: the eigenvectors of the covariance, from the greatest eigenvalue on.
    values, vectors = np.linalg.eigh(np.cov(kernel.reshape(18, 40)))
    np.testing.assert_allclose(found.shares, values[:-8:-1] / values.sum(), rtol=1e-10)
    np.testing.assert_allclose(np.abs(rows @ vectors[:, :-8:-1]), np.eye(7), atol=1e-8)


def test_there_are_no_more_components_than_filters_or_weights():
    kernel = np.random.default_rng(0).standard_normal((2, 2, 3, 5))
    assert len(principal_components(kernel).shares) == 5
    assert principal_components(kernel).shares.sum() == pytest.approx(1)
    assert not principal_components(np.ones((2, 2, 1, 9))).shares.any()


def test_the_first_kernel_is_what_meets_the_pixels():
    vit = drawn_model()
    kind, kernel = first_kernel(vit)
    assert kind == "patch embedding"
    np.testing.assert_array_equal(kernel, vit.embedding.kernel[...])
    for options in (BIT, dict(name="custom/4", resnet=(), resnet_width=32, width=32, depth=1, num_heads=2, mlp_dim=32)):
        model = drawn_model(**options)
        root = model.resnet.root if options is BIT else model.embedding.resnet.root
        # Large beside the epsilons, which differ.
        root.kernel = nnx.Param(100 * root.kernel[...])
        kind, kernel = first_kernel(model)
        assert kind == "root of the ResNet"
        assert kernel.shape == (7, 7, 3, 32)
        # However the stride falls: four bright pixels side by side meet every weight once.
        pixels = np.zeros((1, 24, 24, 3), np.float32)
        pixels[0, 12:14, 12:14, 1] = 1
        seen = jax.jit(root)(pixels)
        np.testing.assert_allclose(seen.sum(axis=(0, 1, 2)), kernel[:, :, 1].sum(axis=(0, 1)), rtol=1e-4, atol=1e-4)


def test_similarity_of_a_known_table():
    model = drawn_model(name="custom/16", image_size=(16, 48), width=4, depth=1, num_heads=2, mlp_dim=4, registers=1)
    table = np.array([[[1, 0, 0, 0], [2, 2, 0, 0], [-3, 0, 0, 0]]], np.float32)
    model.position.grid = nnx.Param(jnp.asarray(table))
    half = 0.5**0.5
    expected = np.array([[1, half, -1], [half, 1, -half], [-1, -half, 1]])
    similarity = position_similarity(model)
    np.testing.assert_allclose(similarity.reshape(3, 3), expected, atol=1e-12)
    assert similarity.shape == (1, 1, 3, 1, 3)
    means = similarity_by_place(similarity)
    assert means == {"neighbours": [pytest.approx(0, abs=1e-12)], "same row or column": [pytest.approx(-1)]}
    model.position.grid = nnx.Param(jnp.zeros((1, 3, 4)))
    assert not position_similarity(model).any()


def test_similarity_of_blocks_of_their_own():
    model = drawn_model(position="learned2d", position_at="blocks", image_size=(32, 48))
    similarity = position_similarity(model)
    assert similarity.shape == (2, 2, 3, 2, 3)
    assert not np.allclose(similarity[0], similarity[1])
    np.testing.assert_allclose(np.einsum("lrcrc->lrc", similarity), 1)
    means = similarity_by_place(similarity)
    assert list(means) == ["neighbours", "same row or column", "elsewhere"]
    pairs = [similarity[1, row, column, 1 - row, other] for row in (0, 1) for column in range(3) for other in range(3)]
    elsewhere = [pair for i, pair in enumerate(pairs) if i // 3 % 3 != i % 3]
    assert means["elsewhere"][1] == pytest.approx(np.mean(elsewhere))


def test_relative_bias_is_by_the_offset_of_the_key():
    model = drawn_model(position="relative", image_size=(32, 48), pool="gap")
    bias = relative_bias(model)
    assert bias.shape == (1, 2, 3, 5)
    added = np.asarray(model.position((2, 3))).reshape(2, 2, 3, 2, 3)
    # The query in row 0, column 2 and the key in row 1, column 0: a row down, two columns to the left.
    np.testing.assert_allclose(added[:, 0, 2, 1, 0], bias[0, :, 1 + 1, 2 - 2])
    with pytest.raises(InputError, match="has no position embeddings but a relative bias"):
        position_similarity(model)


@pytest.mark.parametrize(
    ("options", "message"), [(BIT, "is a ResNet"), (dict(position="none"), "has no position embeddings: its position")]
)
def test_there_may_be_no_positions(options, message):
    for function in (position_similarity, relative_bias):
        with pytest.raises(InputError, match=message):
            function(drawn_model(**options))


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    """Weights of a small model, three pictures, and one that is cut short."""
    root = tmp_path_factory.mktemp("inside")
    model = drawn_model(image_size=32, depth=3)
    vit_jax.save(model, root / "model.npz")
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 90, 3), dtype=np.uint8)).save(root / f"{i}$.png")
    (root / "cut.png").write_bytes((root / "0$.png").read_bytes()[:500])
    return root


def test_the_command(where, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    pictures = [where / "0$.png", where / "cut.png", where / "1$.png", where / "none.png", where / "2$.png"]
    with pytest.raises(Stop) as caught:
        inside.main([f"{where}/model.npz", f"--out={out}", "--shown=2", "--image_size=32,64", *map(str, pictures)])
    assert caught.value.code == BAD_PICTURES
    assert str(caught.value).startswith(f"2 of the pictures can't be read: {where}/cut.png (")
    assert f"{where}/none.png (No such file or directory)" in str(caught.value)
    images = {"filters.png", "positions.png", "distance.png", "rollout.png"}
    assert {path.name for path in out.iterdir()} == images | {"inside.json", "inside.npz", "distance.csv"}
    for name in images:
        with Image.open(out / name) as image:
            assert image.format == "PNG"
            assert 895 <= image.width <= 905
    facts = json.loads((out / "inside.json").read_text())
    assert facts["image_size"] == [32, 64]
    assert facts["skipped"] == {}
    assert [each["path"] for each in facts["unread"]] == [f"{where}/cut.png", f"{where}/none.png"]
    assert facts["rollout"]["pictures"] == [f"{where}/0$.png", f"{where}/1$.png"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["filters.png", "positions.png", "distance.png", "rollout.png"]

    # The mean over the three pictures, of what the model itself says of each.
    opened = open_model(where / "model.npz", image_size=(32, 64))
    pixels = np.stack([decode_as(opened.config, where / f"{i}$.png") for i in range(3)])
    names = tuple(f"attention/{i}" for i in range(3))
    weights = activations_of(opened.model, pixels, names)
    each = np.stack([attention_distance(weights[name], (2, 4), 16) for name in names])
    with np.load(out / "inside.npz") as arrays:
        np.testing.assert_allclose(arrays["distance"], each.mean(axis=1), rtol=1e-4)
        np.testing.assert_allclose(arrays["distance_std"], each.std(axis=1), rtol=1e-2)
        assert arrays["similarity"].shape == (1, 2, 4, 2, 4)
        assert arrays["filters"].shape == (28, 16, 16, 3)
    np.testing.assert_allclose(facts["distance"]["mean"], each.mean(axis=1), rtol=1e-4)
    rows = list(csv.DictReader((out / "distance.csv").read_text().splitlines()))
    assert [(row["block"], row["head"]) for row in rows] == [(str(i), str(j)) for i in range(3) for j in range(2)]
    np.testing.assert_allclose([float(row["pixels"]) for row in rows], each.mean(axis=1).ravel(), rtol=1e-4)


def test_without_pictures_what_needs_none_is_drawn(where, tmp_path, capsys):
    inside.main([f"{where}/model.npz", f"--out={tmp_path}"])
    written = {"filters.png", "positions.png", "inside.json", "inside.npz"}
    assert {path.name for path in tmp_path.iterdir()} == written
    *_, distance, rollout = capsys.readouterr().out.splitlines()
    assert distance == "distance: skipped: needs PICTURES, and none are given"
    assert rollout == "rollout: skipped: needs PICTURES, and none are given"


@pytest.mark.parametrize(
    ("options", "drawn"),
    [
        (BIT, ["filters.png"]),
        (dict(position="none"), ["filters.png"]),
        (dict(position="relative", pool="gap"), ["filters.png", "positions.png"]),
        (dict(position_at="blocks", channels=1), ["filters.png", "positions_0.png", "positions_1.png"]),
    ],
)
def test_models_of_every_kind(options, drawn, tmp_path, monkeypatch, capsys):
    model = drawn_model(**options)
    config = Config(image_size=model.image_size, channels=model.channels, model=model.config)
    # No weight file holds all of these.
    monkeypatch.setattr(inside, "open_model", lambda *_, **__: Opened(model, config, None, "", False))
    inside.main(["model.npz", f"--out={tmp_path}"])
    assert sorted(path.name for path in tmp_path.glob("*.png")) == drawn
    assert ("positions: skipped: " in capsys.readouterr().out) == (len(drawn) == 1)


def test_mistakes_end_in_one_line(where, tmp_path, capfd):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    weights, out = f"{where}/model.npz", f"--out={tmp_path}/out"
    for arguments, message in (
        (["none.npz", out], "none.npz"),
        ([weights, f"--out={tmp_path}/file"], "file: can't be made: File exists"),
        ([weights, out, tmp_path / "empty"], "empty: has no pictures"),
        ([weights, out, "--only=distance"], "--only=distance: needs PICTURES, and none are given"),
        ([weights, out, "--only=filter"], "there is no 'filter'; choose of filters, positions, distance, rollout"),
        ([weights, out, "--set=depth"], "depth must be KEY=VALUE"),
        ([weights, out, "--shown=0"], "0 is less than 1"),
    ):
        assert message in refusal(capfd, inside.main, *arguments)
    vit_jax.save(drawn_model(**BIT), tmp_path / "bit.npz")
    error = refusal(capfd, inside.main, tmp_path / "bit.npz", where / "0$.png", out, "--only=filters,rollout")
    assert "--only=rollout: 'BiT-custom' is a ResNet, which has no attention" in error
    with pytest.raises(Stop) as caught:
        inside.main([weights, f"{where}/cut.png", out, "--only=distance"])
    assert caught.value.code == BAD_PICTURES
    assert "distance: skipped: none of the pictures can be read" in capfd.readouterr().out
