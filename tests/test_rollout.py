"""Attention rollout: equal to its definition in NumPy, drawn beside the picture."""

import jax
import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.test_bad_input import refusal
from vit_jax import predict
from vit_jax.config import Model
from vit_jax.errors import BAD_PICTURES, Stop
from vit_jax.models import abstract_model
from vit_jax.prediction.overlays import draw
from vit_jax.prediction.rollout import rollout

SIZES = dict(width=16, depth=3, num_heads=2, mlp_dim=32)


@pytest.mark.parametrize(
    ("options", "prefix", "reads"),
    [
        (dict(pool="token"), 1, [0]),
        (dict(pool="gap", registers=2), 2, range(2, 8)),
        (dict(pool="map"), 0, range(6)),
        (dict(pool="gap", class_token=True), 1, range(1, 7)),
    ],
)
def test_rollout_is_the_product_of_what_the_blocks_pass_on(options, prefix, reads):
    config = Model(name="Ti/8", **SIZES, **options)
    model = abstract_model(config=config, num_classes=3, image_size=(16, 24), channels=3)
    tokens = prefix + 6
    scores = 3 * np.random.default_rng(0).standard_normal((3, 2, 2, tokens, tokens)).astype(np.float32)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    heat = jax.jit(lambda weights: rollout(list(weights), model, (16, 24)))(weights)
    for i in range(2):
        product = np.eye(tokens)
        for block in weights[:, i].astype(np.float64):
            passed = block.mean(axis=0) + np.eye(tokens)
            product = passed / passed.sum(axis=-1, keepdims=True) @ product
        expected = product[list(reads)].mean(axis=0)[prefix:].reshape(2, 3)
        np.testing.assert_allclose(heat[i], expected, rtol=1e-5)


def test_each_picture_is_drawn_beside_its_heat_map(tmp_path):
    model = vit_jax.create_model("Ti/8", num_classes=3, image_size=16, **SIZES)
    vit_jax.save(model, tmp_path / "model.npz")
    pictures = [tmp_path / "a" / "x.png", tmp_path / "none.png", tmp_path / "b" / "x.png", tmp_path / "b" / "é y.png"]
    for i, path in enumerate(pictures):
        path.parent.mkdir(exist_ok=True)
        if i != 1:
            Image.new("RGB", (16, 16), (40 * i, 100, 200)).save(path)
    with pytest.raises(Stop) as caught:
        predict.main([f"--model={tmp_path}/model.npz", f"--attention={tmp_path}/maps/new", *map(str, pictures)])
    assert caught.value.code == BAD_PICTURES
    drawn = sorted((tmp_path / "maps" / "new").iterdir())
    assert [path.name for path in drawn] == ["000000-x.png", "000002-x.png", "000003-_y.png"]
    pixels = np.asarray(Image.open(drawn[1]))
    assert pixels.shape == (224, 448, 3)
    assert (pixels[:, :224] == (80, 100, 200)).all()


def test_the_heat_map_is_brightest_where_attention_is():
    heat = np.zeros((4, 4), np.float32)
    heat[1, 2] = 1
    drawn = draw(np.full((64, 64, 1), 100, np.uint8), heat)
    left, right = drawn[:, :256], drawn[:, 256:]
    assert (left == 100).all()
    place = np.unravel_index(right.sum(-1, dtype=int).argmax(), (256, 256))
    assert (np.array(place) // 64).tolist() == [1, 2]
    flat = draw(np.full((8, 8, 3), 100, np.uint8), np.ones((2, 2), np.float32))
    assert (flat == flat[:1]).all()


def test_a_resnet_has_no_attention(tmp_path, capfd):
    model = vit_jax.create_model("BiT-custom", num_classes=2, image_size=32, resnet=(1,), resnet_width=32)
    vit_jax.save(model, tmp_path / "model.npz")
    Image.new("RGB", (16, 16)).save(tmp_path / "x.png")
    arguments = [f"--model={tmp_path}/model.npz", f"--attention={tmp_path}/maps", f"{tmp_path}/x.png"]
    assert "is a ResNet, which has no attention; take a ViT or hybrid" in refusal(capfd, predict.main, *arguments)
