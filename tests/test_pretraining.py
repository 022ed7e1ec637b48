"""Pre-training without labels: what is hidden, what is compared with what, and what becomes of the encoder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vit_jax
from tests.runs import records
from tests.tiny import CONFIG, FILE, MODEL, run_steps, step_flops
from vit_jax import train
from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import Augment, Config, MeshShape, Model, Pretrain
from vit_jax.errors import InputError
from vit_jax.models import build_model
from vit_jax.models.vit import ViT
from vit_jax.tasks import build_task
from vit_jax.tasks.masked_patches import colours_of, pixels_of
from vit_jax.tasks.pretraining import patchify, unpatchify

TASKS = ["masked_patches", "mae", "next_patch"]
DECODER = Pretrain(decoder_width=8, decoder_depth=1, decoder_heads=2)
SMALL = {"masked_patches": Pretrain(), "mae": DECODER, "next_patch": Pretrain()}
# 4 x 6 patches of 4 x 4 pixels.
TINY = Model(name="custom/4", width=16, depth=1, num_heads=2, mlp_dim=16, pool="gap", position="sincos2d")


def made(task, **changes):
    """Return the task of a config, its model, and pictures."""
    config = Config(task=task, image_size=(16, 24), batch=2, model=TINY, pretrain=SMALL[task])
    config = dataclasses.replace(config, **changes)
    task, model = build_task(config, 10), build_model(**config.model_facts(10), rngs=nnx.Rngs(0))
    return task, model, jax.random.uniform(jax.random.key(1), (2, 16, 24, 3), minval=-1)


def looked(task, model, images, key=0):
    return jax.jit(lambda images: task.look(model, images, jax.random.key(key), None))(images)


def test_patches_are_cut_row_by_row_and_put_together_again():
    images = jnp.arange(2 * 8 * 12 * 3.0).reshape(2, 8, 12, 3)
    patches = patchify(images, 4)
    np.testing.assert_array_equal(patches[1, 4], images[1, 4:, 4:8].reshape(-1))
    np.testing.assert_array_equal(unpatchify(patches, (2, 3), 4), images)


@pytest.mark.parametrize(
    ("task", "mask", "number"), [("masked_patches", None, 12), ("mae", None, 18), ("mae", 0.5, 12)]
)
def test_as_many_patches_are_hidden_as_the_share_says(task, mask, number):
    task, model, images = made(task, pretrain=dataclasses.replace(SMALL[task], mask=mask))
    _, hidden, _ = looked(task, model, images)
    assert hidden.sum(-1).tolist() == [number, number]
    assert (hidden[0] != hidden[1]).any()
    assert (hidden != looked(task, model, images, key=1)[1]).any()


def test_corrupted_patches_are_replaced_swapped_or_left(monkeypatch):
    task, model, images = made("masked_patches", pretrain=Pretrain(mask=20 / 24))
    given = []

    def encode(self, images, *, key, change):
        given.append(change(jnp.broadcast_to(jnp.arange(1.0, 25)[:, None], (2, 24, 16))))
        return jnp.zeros((2, 24, 16))

    monkeypatch.setattr(ViT, "encode", encode)
    model.pretraining.token = nnx.Param(jnp.full(16, -1.0))
    _, hidden, _ = task.look(model, images, jax.random.key(0), None)
    first = np.asarray(given[0][..., 0])
    assert (first == -1).sum(-1).tolist() == [16, 16]
    assert not ((first == -1) & ~np.asarray(hidden)).any()
    changed = (first != -1) & (first != np.arange(1, 25))
    assert (changed.sum(-1) <= 2).all()  # A patch may be swapped with itself.
    assert changed.any()
    assert not (changed & ~np.asarray(hidden)).any()


@pytest.mark.parametrize("side", [1, 4])
def test_colours_are_those_of_a_plain_loop(side):
    model = dataclasses.replace(TINY, patch=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 2, 8, 8, 3))
    normalised = (pixels / 255 - np.array(model.mean)) / np.array(model.std)
    found = colours_of(jnp.asarray(normalised, jnp.float32).reshape(1, 2, -1), model, 3, side)
    inner = 8 // side
    for patch, square in np.ndindex(2, side**2):
        top, left = (inner * x for x in divmod(square, side))
        mean = pixels[0, patch, top : top + inner, left : left + inner].mean((0, 1)) / 255
        red, green, blue = (min(int(x * 8), 7) for x in mean)
        assert found[0, patch, square] == red + 8 * green + 64 * blue
    np.testing.assert_array_equal(colours_of(pixels_of(found, model, 3), model, 3, side), found)


@pytest.mark.parametrize("task", ["mae", "next_patch"])
def test_the_loss_is_the_mean_square_over_hidden_patches_alone(task):
    task, model, images = made(task)
    outputs, hidden, rebuilt = looked(task, model, images)
    patches = np.asarray(patchify(images, 4))
    squares = (((np.asarray(rebuilt) - patches) ** 2) / (patches.var(-1, keepdims=True) + 1e-6)).mean(-1)
    wanted = [squares[i][np.asarray(hidden[i])].mean() for i in range(2)]
    np.testing.assert_allclose(outputs[:, 0], wanted, rtol=1e-4)


def test_what_the_encoder_does_not_see_it_does_not_use():
    task, model, images = made("mae")
    _, hidden, rebuilt = looked(task, model, images)
    over = unpatchify(jnp.where(hidden[:, :, None], 1.0, 0.0).repeat(48, axis=2), (4, 6), 4)
    # A constant more leaves a patch's deviation as it is, and moves its mean, which is not predicted.
    _, _, moved = looked(task, model, images + 0.5 * over)
    np.testing.assert_allclose(moved, rebuilt + 0.5 * hidden[:, :, None], atol=1e-5)


def test_a_later_patch_says_nothing_of_an_earlier_one():
    task, model, images = made("next_patch")
    _, _, rebuilt = looked(task, model, images)
    _, _, last = looked(task, model, images.at[:, -4:, -4:].add(0.1))
    np.testing.assert_allclose(last[:, 1:-1], rebuilt[:, 1:-1], atol=1e-6)  # The first is predicted by none.
    _, _, first = looked(task, model, images.at[:, :4, :4].multiply(-1))
    assert np.abs(first[:, 2:] - rebuilt[:, 2:]).max() > 1e-4


@pytest.mark.parametrize(
    ("model", "size", "decoder"), [("nano/4", 32, Pretrain(None, "color", 64, 2, 2)), ("L/16", 224, Pretrain())]
)
def test_a_step_of_mae_costs_less_than_half_of_a_full_one(model, size, decoder):
    config = Config(batch=8, image_size=size, model=Model(name=model, pool="gap", position="sincos2d"))
    mae = dataclasses.replace(config, task="mae", pretrain=decoder)
    assert step_flops(mae) <= 0.45 * step_flops(config)


@pytest.mark.parametrize(("task", "accumulate"), list(zip(TASKS, (1, 2, 1), strict=True)))
def test_losses_are_equal_on_eight_devices(task, accumulate):
    config = dataclasses.replace(CONFIG, task=task, pretrain=SMALL[task])
    config = dataclasses.replace(config, model=dataclasses.replace(MODEL, depth=1), accumulate=accumulate)
    alone, _ = run_steps(config, make_mesh(MeshShape(), jax.devices()[:1]), 2)
    np.testing.assert_allclose(run_steps(config, make_mesh(MeshShape(2, 2, 2)), 2)[0], alone, rtol=1e-5)


def test_an_encoder_is_loaded_and_fine_tuned_without_what_it_was_trained_with(tmp_path, capsys):
    (tmp_path / "tiny.py").write_text(FILE)
    file = f"--config={tmp_path / 'tiny.py'}"
    own = ["--config.pretrain.decoder_width=8", "--config.pretrain.decoder_heads=2"]
    own += ["--config.total=2st", "--config.eval_every=2st", "--config.evaluators=('reconstruction', 'knn')"]
    train.main([file, f"--workdir={tmp_path / 'mae'}", "--config.task=mae", *own])
    found = records(tmp_path / "mae")[-1]
    assert found["val/loss"] > 0
    assert "val/accuracy_10nn" in found
    assert (tmp_path / "mae/evaluation/val-reconstructions-2.png").read_bytes().startswith(b"\x89PNG")
    assert "trained without labels" in (tmp_path / "mae/README.md").read_text()
    model = vit_jax.load(tmp_path / "mae")
    assert (model.num_classes, model.pretraining, model.label_names) == (0, None, None)
    assert model.features(np.zeros((1, 8, 8, 1), np.uint8)).shape == (1, 32)
    with pytest.raises(InputError, match="'custom/2' has no head; take its features"):
        model(np.zeros((1, 8, 8, 1), np.uint8))
    tuning = [f"--config.init={tmp_path / 'mae'}", "--config.total=1st", "--config.evaluators={}"]
    train.main([file, f"--workdir={tmp_path / 'tuned'}", *tuning])
    assert "a new head for 10 classes; what task 'mae' put on it is left behind" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(task="mae", model=dataclasses.replace(TINY, position="relative")), "can't be 'relative'"),
        (
            dict(task="mae", pretrain=dataclasses.replace(DECODER, decoder_heads=3)),
            "decoder_width=8: must be at least 8",
        ),
        (dict(task="next_patch", model=dataclasses.replace(TINY, pool="token")), "would tell of later patches"),
        (dict(task="masked_patches", image_size=4), "a single patch"),
        (dict(task="mae", label_smoothing=0.1), "config.label_smoothing=0.1: task 'mae' reads no labels"),
        (dict(task="mae", augment=Augment(mixup=0.2)), "config.augment.mixup=0.2"),
        (dict(task="mae", loss="sigmoid"), "config.loss='sigmoid': task 'mae' reads no labels"),
        (dict(task="masked_patches", pretrain=DECODER), "config.pretrain.decoder_width=8 means nothing for task 'mask"),
        (dict(task="next_patch", pretrain=Pretrain(mask=0.5)), "config.pretrain.mask=0.5 means nothing for task 'next"),
        (dict(task="mae", model=Model(name="Swin-T")), "'mae' needs a pure ViT, not 'Swin-T'"),
        (dict(task="mae", model=Model(name="R50+B/16"), image_size=32), "needs a pure ViT, not 'R50"),
        (
            dict(task="masked_patches", pretrain=Pretrain(target="colors"), model=dataclasses.replace(TINY, patch=2)),
            "4 does not divide the patch 2",
        ),
    ],
)
def test_what_can_not_be_pre_trained_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        made(**changes)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_of_nothing_or_all_is_refused(share):
    with pytest.raises(InputError, match="config.pretrain.mask"):
        Pretrain(mask=share)
