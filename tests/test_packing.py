"""Pictures of many shapes: their grids, packed sequences, training, evaluation and prediction with them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from tests.drawn import TINY, drawn_model
from tests.golden import DATA
from tests.tiny import run_steps
from vit_jax import data
from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import Augment, Config, Data, MeshShape, Model, Optim
from vit_jax.data.crop import whole
from vit_jax.data.decode import decode
from vit_jax.data.rows import budgets, sequence
from vit_jax.errors import InputError
from vit_jax.evaluators import evaluate_model
from vit_jax.experiment import build_experiment
from vit_jax.models.packed import mirror
from vit_jax.packing import cut_patches, fit_grid, pack
from vit_jax.predict import predict
from vit_jax.weights import load, save

SHAPES = [(rows, columns) for rows in range(1, 6) for columns in range(2, 6)]
# What each picture of a small folder measures.
SIZES = [(40, 90), (90, 40), (64, 64), (33, 100), (120, 30), (50, 60), (61, 47), (16, 90), (70, 70), (20, 20)]
CONFIG = Config(
    seed=3,
    batch=16,
    image_size=32,
    total="4st",
    model=Model(name="Ti/8", width=32, depth=2, num_heads=2, mlp_dim=64, pool="gap"),
    data=Data(name="folder", train=".", val=".", resize="native", cache_mb=0),
    augment=Augment(flip=True),
    optim=Optim(lr=1e-3),
)
SIZED = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, patch=8))


def with_data(config, **changes):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    for i, (height, width) in enumerate(SIZES * 2):
        path = root / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return root


def test_grids_are_those_of_siglip_2():
    """Figures of `get_image_size_for_max_num_patches` in Transformers 5.24."""
    known = {
        (480, 640, 256): (14, 18),
        (375, 500, 196): (12, 16),
        (500, 333, 196): (17, 11),
        (1000, 10, 64): (64, 1),
    }
    assert {case: fit_grid(*case) for case in known} == known


@pytest.mark.parametrize("patches", [1, 5, 196])
def test_grids_fill_what_they_may(patches):
    for height, width in SIZES:
        rows, columns = fit_grid(height, width, patches)
        assert 1 <= rows * columns <= patches
        assert fit_grid(width, height, patches) == (columns, rows)
        assert fit_grid(3 * height, 3 * width, patches) == (rows, columns)


def shape_of(path):
    with Image.open(path) as picture:
        return picture.size[::-1]


def photographs(patch=16):
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (patch * rows, patch * columns, 3), dtype=np.uint8) for rows, columns in SHAPES]


@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        (slice(20), dict(registers=2, rope=100.0)),
        (slice(8, 11), dict(pool="gap", position="sincos2d")),
        (slice(8, 11), dict(pool="map", position="learned2d", resample="bicubic", pool_norm="after")),
        (slice(8, 11), dict(pool="token_gap", resample="bicubic_sharp", embedding_norm=True, representation=8)),
        (slice(8, 11), dict(pool="map", pool_prefix=True, class_token=True, rope=1e4, rope_unit="patch")),
    ],
    ids=["token", "gap", "map", "both", "map_prefix"],
)
def test_each_of_many_shapes_is_as_if_alone(shapes, options):
    model, pictures = drawn_model(**options), photographs()[shapes]
    packed, rows = pack(pictures, 16, 40)
    assert packed.patches.shape[0] < len(pictures)
    run = jax.jit(lambda pictures: model(pictures))
    together, alone = np.asarray(run(packed))[rows], np.concatenate([run(picture[None]) for picture in pictures])
    assert np.abs(together - alone).max() < 1e-5 * np.abs(alone).max()


def test_gradients_are_those_of_the_pictures_alone():
    model, pictures = drawn_model(**TINY | dict(depth=1, pool="map")), photographs()[8:10]
    packed, rows = pack(pictures, 16, 40)
    graph, params = nnx.split(model)

    def loss(params, pictures, rows):
        model = nnx.merge(graph, params)
        return sum((model(each)[place] ** 2).sum() for each, place in zip(pictures, rows, strict=True))

    gradient = jax.jit(jax.grad(loss))
    together = gradient(params, [packed], [rows])
    alone = gradient(params, [picture[None] for picture in pictures], [0] * len(pictures))
    # Of the whole: a gradient of zero, such as that of the keys' bias, has no digits of its own.
    largest = max(np.abs(each).max() for each in jax.tree.leaves(alone))
    for ours, wanted in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        assert np.abs(ours - wanted).max() <= 1e-5 * largest


def test_chosen_pictures_are_mirrored():
    pictures = photographs()
    packed, rows = pack(pictures, 16, 40)
    chosen = np.zeros(packed.grids.shape[:2], bool)
    chosen.reshape(-1)[rows[::2]] = True
    wanted, _ = pack([each[:, ::-1] if i % 2 == 0 else each for i, each in enumerate(pictures)], 16, 40)
    np.testing.assert_array_equal(mirror(packed, jnp.asarray(chosen)).patches, wanted.patches)


def test_what_cannot_be_packed():
    picture = np.zeros((32, 48, 3), np.uint8)
    for pictures, length, message in (
        ([], 8, "there are no pictures"),
        ([picture[:31]], 8, "picture 0 is 31x48, which the patch size 16 does not divide"),
        ([picture], 5, "picture 0 has 6 patches, but a sequence 5"),
    ):
        with pytest.raises(InputError, match=message):
            pack(pictures, 16, length)
    packed, _ = pack([picture], 16, 8)
    with pytest.raises(InputError, match=r"model.position='relative': can't be with pictures of many shapes"):
        drawn_model(position="relative")(packed)
    with pytest.raises(InputError, match="takes patches of 16 pixels, not 8"):
        drawn_model()(pack([picture], 8, 24)[0])
    with pytest.raises(InputError, match="there are pooled and logits alone"):
        drawn_model().activations(packed, "tokens")


def test_batches_hold_the_pictures_in_their_own_shapes(folder):
    config = with_data(SIZED, path=str(folder))
    source = data.open_train(config)
    batches = list(data.eval_batches(source, config, np.arange(16)))
    grids = np.concatenate([batch["grid"] for batch in batches])[:20]
    wanted = [shape_of(source[i][0]) for i in range(20)]
    assert [tuple(grid) for grid in grids.tolist()] == [fit_grid(*size, 16) for size in wanted]
    assert len(set(map(tuple, grids.tolist()))) > 5
    for image, grid, i in zip(batches[0]["image"], batches[0]["grid"], range(16), strict=True):
        pixels = decode(source[i][0], tuple((8 * grid).tolist()), 3, whole)
        np.testing.assert_array_equal(image[: grid.prod()], cut_patches(pixels, 8))
        assert not image[grid.prod() :].any()
    # Decoded once and kept in memory, they are the same.
    kept = data.prepare(source, with_data(config, cache_mb=64), train=True)
    for ours, streamed in zip(
        data.train_batches(kept, config, np.arange(16), 0, 3),
        data.train_batches(source, config, np.arange(16), 0, 3),
        strict=True,
    ):
        np.testing.assert_array_equal(ours["image"], streamed["image"])
        np.testing.assert_array_equal(ours["grid"], streamed["grid"])


def test_sequences_are_no_longer_than_they_need_be():
    lengths = {packing: sequence(with_data(SIZED, packing=packing)) for packing in (16, 24, 40)}
    assert lengths == {16: (1, 16), 24: (1, 16), 40: (2, 16)}
    assert sequence(SIZED) == (1, 16)
    assert sequence(with_data(SIZED, packing=40, pictures=4)) == (4, 10)


def test_sequences_do_not_depend_on_start_or_hosts(folder):
    config = with_data(SIZED, path=str(folder), packing=40, pictures=4, crop="random_resized")
    source = data.open_train(config)
    whole = list(data.train_batches(source, config, np.arange(16), 0, 4))
    later = next(data.train_batches(source, config, np.arange(16), 3, 4))
    hosts = [next(data.train_batches(source, config, np.arange(16)[part], 3, 4)) for part in (slice(8), slice(8, 16))]
    for name in ("image", "grid", "label"):
        np.testing.assert_array_equal(later[name], whole[3][name])
        np.testing.assert_array_equal(np.concatenate([host[name] for host in hosts]), whole[3][name])
    for step, batch in enumerate(whole):
        counts = batch["grid"].prod(axis=1).reshape(4, 4)
        assert (counts <= np.stack([budgets(config, step, first) for first in (0, 4, 8, 12)])).all()
        filled = batch["image"].reshape(4, 40, -1).any(axis=2)
        np.testing.assert_array_equal(filled.sum(axis=1), counts.sum(axis=1))
    assert len({tuple(budgets(config, step, 0)) for step in range(4)}) == 4


def test_devices_do_not_change_training(folder):
    packed = with_data(SIZED, path=str(folder), packing=40, pictures=4)
    config = dataclasses.replace(packed, mesh=MeshShape(data=2, fsdp=2))
    one, _ = run_steps(dataclasses.replace(config, mesh=MeshShape()), make_mesh(MeshShape(), jax.devices()[:1]), 2)
    four, _ = run_steps(config, make_mesh(config.mesh, jax.devices()[:4]), 2)
    np.testing.assert_allclose(one, four, rtol=1e-5)


def test_evaluation_and_prediction_see_the_whole_picture(folder, tmp_path):
    model, paths = drawn_model(num_classes=2), sorted(folder.rglob("*.png"))
    run, wanted = jax.jit(lambda pictures: jax.nn.softmax(model(pictures))), []
    for path in paths:
        rows, columns = fit_grid(*shape_of(path), 16)
        wanted.append(np.asarray(run(decode(path, (16 * rows, 16 * columns), 3, whole)[None]))[0])
    model.label_names = ("a", "b")
    save(model, tmp_path / "model")
    found = [dict(row.classes) for row in predict(tmp_path / "model", paths, resize="native")]
    np.testing.assert_allclose([[each["a"], each["b"]] for each in found], wanted, rtol=1e-5)
    where = Data(name="folder", path=str(folder), val=".", resize="native")
    accuracy = evaluate_model(model, ("a", "b"), where, batch=8).scalars["val/accuracy"]
    right = [path.parent.name == "ab"[np.argmax(each)] for path, each in zip(paths, wanted, strict=True)]
    assert accuracy == np.mean(right)


def test_a_resnet_is_refused_before_pictures_are_read(folder):
    weights = DATA / "timm_bit.safetensors"
    with pytest.raises(InputError, match="pictures of many shapes .* need a ViT"):
        next(predict(weights, [folder], resize="native"))
    where = Data(name="folder", path=str(folder), val=".", resize="native")
    with pytest.raises(InputError, match="pictures of many shapes .* need a ViT"):
        evaluate_model(load(weights), tuple("abcdefg"), where)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(packing=64, resize="crop"), "config.data.packing=64: packs pictures of many shapes"),
        (dict(pictures=4), "config.data.pictures=4: means nothing without config.data.packing"),
        (dict(crop="random"), "config.data.crop='random': crops have one shape"),
    ],
)
def test_bad_data_config(changes, message):
    with pytest.raises(InputError, match=message):
        with_data(CONFIG, **changes)


def test_bad_config():
    for changes, message in (
        (dict(augment=Augment(mixup=0.2)), "config.augment.mixup: needs pictures of one shape"),
        (dict(task="mae"), "config.task='mae': needs pictures of one shape"),
    ):
        with pytest.raises(InputError, match=message):
            dataclasses.replace(CONFIG, **changes)
    with pytest.raises(InputError, match="config.accumulate=2: packed sequences can't be cut"):
        dataclasses.replace(with_data(CONFIG, packing=16), accumulate=2)
    build = functools.partial(build_experiment, mesh=make_mesh(MeshShape()), num_classes=2, examples=20)
    for config, message in (
        (with_data(CONFIG, packing=8), "config.data.packing=8: shorter than a picture of 16 patches"),
        (with_data(CONFIG, packing=48), r"sequences of 3 pictures \(48 patches\) on 8 devices .* multiple of 24"),
        (with_data(CONFIG, packing=16, pictures=9), "config.data.pictures=9: too many for a sequence of 16 patches"),
        (dataclasses.replace(CONFIG, model=Model(name="BiT-R50x1")), "need a ViT"),
        (dataclasses.replace(CONFIG, model=Model(name="R26+Ti/32")), "model.resnet=.*pictures of many shapes"),
    ):
        with pytest.raises(InputError, match=message):
            build(config)
