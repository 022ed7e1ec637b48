"""Today's families as timm writes them: outputs are the owner's, at its size and at another, and files come back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests.drawn import drawn_model
from tests.golden import DATA, relative, same_model
from vit_jax.errors import InputError
from vit_jax.models.rotary import make_rotation, rotate
from vit_jax.weights.files import read_arrays

# Written by tests/data/make_today.py.
TODAY = DATA / "today"
EXPECTED = np.load(TODAY / "expected.npz")
CASES = sorted({tuple(name.split("/")[:2]) for name in EXPECTED.files if not name.startswith("images/")})
FOLDERS = sorted({folder for folder, _ in CASES})


@pytest.mark.parametrize(("folder", "size"), CASES)
def test_tokens_and_outputs_are_the_owners(folder, size):
    height, width = map(int, size.split("x"))
    antialiased = folder.startswith("timm_") or folder == "hf_dinov2_reg"
    resample = "bicubic" if antialiased else "bicubic_sharp"
    model = vit_jax.load(TODAY / folder, image_size=(height, width), resample=resample)
    images = EXPECTED[f"images/{size}"]
    outputs = "pooled" if model.head is None else "logits"
    found = jax.jit(lambda images: model.activations(images, "tokens", outputs))(images)
    assert relative(found["tokens"], EXPECTED[f"{folder}/{size}/tokens"]) < 2e-5
    assert relative(found[outputs], EXPECTED[f"{folder}/{size}/outputs"]) < 2e-5


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_is_written_as_it_was(folder, tmp_path):
    model = vit_jax.load(TODAY / folder)
    vit_jax.save(model, tmp_path / "x", folder.split("_")[0].replace("hf", "huggingface"))
    ours, theirs = (read_arrays(path / "model.safetensors") for path in (tmp_path / "x", TODAY / folder))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert np.array_equal(ours[name], theirs[name]), name
    same_model(vit_jax.load(tmp_path / "x"), model)


@pytest.mark.parametrize("folder", ["timm_dinov3", "timm_eva02_norm", "timm_clip"])
def test_a_lone_file_is_read_as_it_was_written(folder, tmp_path):
    model = vit_jax.load(TODAY / folder)
    vit_jax.save(model, tmp_path / "x.safetensors")
    same_model(vit_jax.load(tmp_path / "x.safetensors"), model)


def test_features_take_the_place_of_a_head():
    model = vit_jax.load(TODAY / "timm_dinov3")
    assert (model.num_classes, model.head, model.label_names) == (0, None, None)
    with pytest.raises(InputError, match="has no head; take its features, or load it with num_classes="):
        model(EXPECTED["images/64x64"])
    model = vit_jax.load(TODAY / "timm_dinov3", num_classes=3)
    assert model.head.kernel.shape == (16, 3)


ROTARY = dict(rope=100.0, position="none")


def test_rotary_scores_depend_on_offsets_alone():
    config = drawn_model(rope=10_000.0, rope_unit="patch").config
    x = jax.random.normal(jax.random.key(0), (2, 1, 1, config.num_heads, config.width // config.num_heads))
    tokens = [jnp.broadcast_to(one, (1, 17, *one.shape[2:])) for one in x]
    query, key = (rotate(one, make_rotation(config, (4, 4)))[0, 1:].reshape(4, 4, *x.shape[3:]) for one in tokens)
    scores = jnp.einsum("ijhd,klhd->hijkl", query, key)
    np.testing.assert_allclose(scores[:, 0, 1, 2, 2], scores[:, 1, 2, 3, 3], rtol=1e-5)
    assert abs(scores[:, 0, 1, 2, 2] - scores[:, 0, 1, 2, 3]).max() > 1e-3


def test_rotary_coordinates_move_only_with_a_key():
    still, moving = drawn_model(**ROTARY), drawn_model(**ROTARY, rope_shift=0.1, rope_jitter=1.5, rope_rescale=2.0)
    images = np.random.default_rng(0).uniform(-1, 1, (2, *still.image_size, 3)).astype(np.float32)
    assert np.array_equal(still(images), moving(images))
    assert np.array_equal(still(images), still(images, key=jax.random.key(0)))
    drawn = [np.asarray(moving(images, key=jax.random.key(i))) for i in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1])
    assert relative(drawn[0], still(images)) > 1e-4
    assert relative(drawn[0], drawn[2]) > 1e-4


def test_kept_patches_keep_their_rotation():
    model = drawn_model(**ROTARY)
    images = np.random.default_rng(0).uniform(-1, 1, (2, *model.image_size, 3)).astype(np.float32)
    patches = 16
    orders = np.stack([np.random.default_rng(i).permutation(patches) for i in range(2)])
    tokens, shuffled = model.encode(images), model.encode(images, keep=jnp.asarray(orders))
    prefix = tokens.shape[1] - patches
    for i, order in enumerate(orders):
        assert relative(shuffled[i, prefix:], tokens[i, prefix:][order]) < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rope": 100.0, "num_heads": 8, "width": 16}, "model.rope needs heads of a multiple of 4 channels, not 2"),
        ({"rope": -1.0}, "model.rope=-1.0: must be"),
        ({"rope_jitter": 2.0}, "model.rope_jitter: means nothing without model.rope"),
        ({"rope": 100.0, "rope_grid": (4, 4)}, "model.rope_grid: means nothing with model.rope_unit='picture'"),
        ({"rope": 100.0, "rope_jitter": 0.5}, "model.rope_jitter=0.5: must be"),
        ({"patch_bias": False, "resnet": (), "resnet_width": 64}, "model.patch_bias=False: only patches that are"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        drawn_model(**options)
