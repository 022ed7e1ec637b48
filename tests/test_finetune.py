"""Starting from weights: what is used, what model results, and that a run needs the weights only once."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import vit_jax
from tests.drawn import drawn_model, params_of
from tests.golden import DATA, FILES
from tests.runs import checkpoint
from tests.test_bad_input import refusal
from tests.test_configs import CONFIGS
from tests.tiny import CONFIG, FILE
from vit_jax import train, tree
from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import Augment, MeshShape, Model, Optim
from vit_jax.experiment import build_experiment
from vit_jax.runs.checkpoint import Checkpoints, load_params
from vit_jax.runs.directory import Facts, open_workdir, read_facts
from vit_jax.weights.initialise import start_from
from vit_jax.weights.placement import OnMesh, Placement

DIGITS = tuple(str(digit) for digit in range(10))
SIZES = dict(name="custom/2", width=32, depth=2, num_heads=2, mlp_dim=64)
# Only the training settings of the small experiment: the architecture comes from the weights.
BARE = dataclasses.replace(
    CONFIG,
    model=Model(name="custom/2", unroll=2),
    augment=Augment(),
    optim=Optim(name="sgd"),
    total="2st",
    save_every="1st",
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small model in each of two formats; timm's differs from a config's defaults."""
    folder = tmp_path_factory.mktemp("weights")
    vit_jax.save(drawn_model(image_size=8, channels=1, **SIZES), folder / "google.npz")
    odd = drawn_model(image_size=8, channels=1, **SIZES, pool="gap", registers=2, gelu="exact", norm_eps=1e-5)
    vit_jax.save(odd, folder / "timm.safetensors")
    return folder


@pytest.mark.parametrize("shape", [MeshShape(1, 8), MeshShape(8), MeshShape(2, 2, 2)])
@pytest.mark.parametrize("name", ["google.npz", "timm.safetensors"])
def test_state_is_that_of_the_weights_and_no_device_holds_more_than_its_part(weights, name, shape, tmp_path):
    config = dataclasses.replace(BARE, init=str(weights / name), image_size=(12, 8))
    config, found = start_from(config, DIGITS, tmp_path / "run", OnMesh(make_mesh(shape)))
    experiment = build_experiment(config, make_mesh(shape), 10, 1000)
    for array, wanted in zip(*map(jax.tree.leaves, (found.params, experiment.shapes.params)), strict=True):
        assert array.sharding == wanted.sharding
        part = array.sharding.shard_shape(array.shape)
        assert {shard.data.shape for shard in array.addressable_shards} == {part}
    state = experiment.start(found.params)
    assert all(array.is_deleted() for array in jax.tree.leaves(found.params))  # Its memory is the state's.
    assert (state.step, config.model.unroll) == (0, 2)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), experiment.shapes
    )
    wanted = params_of(vit_jax.load(weights / name, num_classes=10, image_size=(12, 8)))
    got = tree.flatten(state.params)
    assert got.keys() == wanted.keys()
    for key in got:
        assert np.array_equal(got[key], wanted[key]), key


def test_architecture_is_the_weights_and_training_is_the_configs(weights, tmp_path):
    config = dataclasses.replace(BARE, init=str(weights / "timm.safetensors"))
    started, found = start_from(config, DIGITS, tmp_path, Placement())
    model = started.model
    assert (model.pool, model.registers, model.gelu, model.norm_eps) == ("gap", 2, "exact", 1e-5)
    assert (model.name, model.width, model.depth, model.unroll) == ("custom/2", 32, 2, 2)
    assert found.report.endswith(
        "23 arrays taken, a new head for 10 classes; "
        "the model has their pool='gap', registers=2, gelu='exact', norm_eps=1e-05"
    )
    # Other settings are used if they fit the arrays.
    said = dataclasses.replace(config.model, **SIZES, norm_eps=1e-4)
    assert start_from(dataclasses.replace(config, model=said), DIGITS, tmp_path, Placement())[0].model.norm_eps == 1e-4


def run(folder, capfd, *arguments, init=None):
    """Run the command with the small experiment and some overrides, and return what it printed."""
    config = dataclasses.replace(BARE, init=None if init is None else str(init))
    (folder / "tiny.py").write_text(FILE.replace(repr(dataclasses.asdict(CONFIG)), repr(dataclasses.asdict(config))))
    train.main([f"--config={folder / 'tiny.py'}", f"--workdir={folder / 'run'}", *arguments])
    return capfd.readouterr().out


def params_in(workdir):
    config, label_names = read_facts(workdir)
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    return tree.flatten(load_params(workdir, config.model_facts(len(label_names)), mesh))


def test_run_needs_the_weights_once(weights, tmp_path, capfd):
    init = tmp_path / "w.safetensors"
    shutil.copy(weights / "timm.safetensors", init)
    assert "23 arrays taken, a new head" in run(tmp_path, capfd, init=init)
    workdir = tmp_path / "run"
    whole = params_in(workdir)
    recorded = json.loads((workdir / "run.json").read_text())["config"]
    assert (recorded["init"], recorded["model"]["width"], recorded["model"]["registers"]) == (str(init), 32, 2)
    init.unlink()
    # As if the run had been killed after its first checkpoint.
    shutil.rmtree(workdir / "checkpoints" / "2")
    printed = run(tmp_path, capfd, init=init)
    assert "steps 1 to 2" in printed
    assert "starting from" not in printed
    again = params_in(workdir)
    assert all(np.array_equal(again[name], whole[name]) for name in whole)
    assert vit_jax.load(workdir).config.registers == 2
    # Before its first checkpoint, the run starts over, which needs the weights.
    shutil.rmtree(workdir / "checkpoints")
    arguments = (f"--config={tmp_path / 'tiny.py'}", f"--workdir={workdir}")
    assert "config.init: " in refusal(capfd, train.main, *arguments)


def test_head_is_kept_for_the_same_classes_of_a_run_alone(tmp_path):
    first = dataclasses.replace(BARE, model=Model(**SIZES, representation=16))
    experiment = build_experiment(first, make_mesh(MeshShape(), jax.devices()[:1]), 10, 1000)
    open_workdir(tmp_path / "first", Facts(first, DIGITS))
    checkpoints = Checkpoints(tmp_path / "first", keep=1)
    checkpoints.save(experiment.init(jax.random.key(0)))
    checkpoints.close()
    params = params_in(tmp_path / "first")
    config = dataclasses.replace(BARE, init=str(tmp_path / "first"))
    kept, found = start_from(config, DIGITS, tmp_path / "second", Placement())
    assert kept.model.representation == 16
    assert all(np.array_equal(array, params[name]) for name, array in tree.flatten(found.params).items())
    assert found.report.endswith("the head too; the model has their representation=16")
    new, found = start_from(config, DIGITS[::-1], tmp_path / "second", Placement())
    assert new.model.representation is None
    assert "pre_logits" not in found.params
    assert not found.params["head"]["kernel"].any()
    assert found.params["head"]["kernel"].shape == (32, 10)


def test_a_resnet_is_started_from_too(tmp_path):
    file = DATA / FILES["bit"]
    config = dataclasses.replace(BARE, init=str(file), model=Model(name="BiT-custom"), channels=3, image_size=32)
    config, found = start_from(config, DIGITS, tmp_path, Placement())
    assert config.model.resnet == vit_jax.load(file).config.resnet
    assert found.params["head"]["kernel"].shape[1] == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.init={root}/googel.npz"], "googel.npz: does not exist; did you mean '{root}/google.npz'?"),
        (["--config.init={root}/cut.npz"], "cut.npz: not a whole .npz file"),
        (["--config.model.name=S/2"], "holds 'custom/2', not 'S/2' (width 32, not 384, depth 2, not 12"),
        (["--config.model.name=custom/4"], "holds 'custom/2', not 'custom/4' (patch 2, not 4)"),
        (["--config.model.depth=3"], "(depth 2, not 3); name the model so, or take other weights"),
        (["--config.model.registers=2"], "misshaped"),
        (["--config.model.position=sincos2d"], "unexpected (1): Transformer/posembed_input/pos_embedding"),
        (["--config.channels=3"], "takes 1 channels, not config.channels=3"),
        (["--config.image_size=9"], "image size 9x9 is not divisible by the patch size 2"),
    ],
)
def test_weights_that_do_not_fit_are_one_line_and_nothing_is_written(weights, arguments, message, tmp_path, capfd):
    (weights / "cut.npz").write_bytes((weights / "google.npz").read_bytes()[:5000])
    text = FILE.replace(repr(dataclasses.asdict(CONFIG)), repr(dataclasses.asdict(BARE)))
    (tmp_path / "tiny.py").write_text(text)
    arguments = [f"--config.init={weights}/google.npz", *(argument.format(root=weights) for argument in arguments)]
    error = refusal(capfd, train.main, f"--config={tmp_path / 'tiny.py'}", f"--workdir={tmp_path / 'run'}", *arguments)
    assert "config.init: " in error
    assert message.format(root=weights) in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("mode", "frozen_blocks"), [("probe", 2), ("last_1", 1)])
def test_what_a_mode_freezes_is_unchanged_to_the_bit(weights, mode, frozen_blocks, tmp_path):
    """The command and the config as people run them, with a decay that would show."""
    overrides = ["--config.data.name=digits", "--config.data.val=test", "--config.data.test=none", "--config.total=3st"]
    overrides += [
        "--config.image_size=8",
        "--config.channels=1",
        "--config.batch=64",
        "--config.optim.weight_decay=0.5",
    ]
    overrides += ["--config.eval_every=3st", "--config.ema=0.9"]
    config = f"{CONFIGS / 'finetune.py'}:model=custom/2,mode={mode},init={weights / 'google.npz'}"
    train.main([f"--config={config}", f"--workdir={tmp_path / 'run'}", *overrides])
    before = params_of(vit_jax.load(weights / "google.npz", num_classes=10))
    state = checkpoint(tmp_path / "run", 3)
    for name, array in before.items():
        for after in (state[f"params/{name}"], state[f"ema/{name}"]):
            if name.startswith("head/"):
                assert not np.array_equal(after, array), name
            elif name.startswith("blocks/"):
                assert after[:frozen_blocks].tobytes() == np.asarray(array)[:frozen_blocks].tobytes(), name
            else:
                moves = mode == "last_1" and name.startswith("norm/")
                assert (after.tobytes() == np.asarray(array).tobytes()) != moves, name
    moved = np.any(state["params/blocks/mlp/fc1/kernel"] != before["blocks/mlp/fc1/kernel"], axis=(1, 2))
    assert moved.tolist() == [False, mode == "last_1"]
