"""Weights that go straight to the devices of a mesh: the same to the bit, and never whole on the host."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import tracemalloc

import jax
import numpy as np
import pytest

import vit_jax
from tests.drawn import drawn_model, params_of
from tests.golden import DATA
from tests.quick import FLAGS
from tests.runs import free_port
from tests.test_bad_input import refusal
from tests.tiny import CONFIG, FILE
from vit_jax import train
from vit_jax.cluster.sharding import make_mesh, spec_of
from vit_jax.config import MeshShape, Model, Optim
from vit_jax.errors import InputError
from vit_jax.experiment import build_experiment
from vit_jax.runs.checkpoint import Checkpoints
from vit_jax.runs.directory import Facts, open_workdir
from vit_jax.weights.files import open_arrays, read_arrays, write_safetensors

MESHES = [MeshShape(data=1, fsdp=8), MeshShape(data=8), MeshShape(data=2, fsdp=2, tensor=2)]
BLOCKS = dict(width=256, depth=12, num_heads=4, mlp_dim=1024)
# The largest parameter, and of the file the largest array.
STACKED = 4 * 12 * 256 * 1024
ARRAY = STACKED // 12


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder of 38 MB in three files."""
    path = tmp_path_factory.mktemp("weights") / "parts"
    vit_jax.save(drawn_model(**BLOCKS, name="custom/2", image_size=8, channels=1, num_classes=10), path)
    arrays, places = read_arrays(path / "model.safetensors"), {}
    (path / "model.safetensors").unlink()
    for i in range(3):
        names, file = list(arrays)[i::3], f"model-0000{i + 1}-of-00003.safetensors"
        write_safetensors(path / file, {name: arrays[name] for name in names}, {"format": "pt"})
        places |= dict.fromkeys(names, file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory of a model whose positions are learned."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    model = Model(name="custom/16", width=32, depth=2, num_heads=2, mlp_dim=64)
    config = dataclasses.replace(CONFIG, model=model, image_size=64, channels=3)
    experiment = build_experiment(config, make_mesh(MeshShape(fsdp=4)), 10, 1000)
    open_workdir(workdir, Facts(config, tuple("0123456789")))
    checkpoints = Checkpoints(workdir, keep=1)
    checkpoints.save(experiment.init(jax.random.key(0)))
    checkpoints.close()
    return workdir


def assert_split(found, wanted, mesh):
    """Assert that parameters are those wanted, to the bit, and lie as the partition rules say."""
    assert found.keys() == wanted.keys()
    for name, array in found.items():
        assert array.sharding.spec == spec_of(name, array.shape, mesh), name
        assert array.sharding.mesh == mesh, name
        assert np.array_equal(array, wanted[name]), name


@pytest.mark.parametrize("shape", MESHES, ids=str)
@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("google_vit_token.npz", {}),
        ("bigvision_gap_scan.npz", {"patch": 8}),
        ("timm_reg4_gap_ls.safetensors", {"num_heads": 2, "image_size": (96, 64)}),
        ("timm_hybrid.safetensors", {"num_heads": 2, "num_classes": 3}),
        ("today/timm_eva02", {"image_size": (56, 84)}),
        ("today/hf_dinov2_giant", {"num_classes": 4}),
    ],
)
def test_a_mesh_gets_what_one_device_gets(file, options, shape):
    mesh = make_mesh(shape)
    model = vit_jax.load(DATA / file, mesh=mesh, **options)
    assert_split(params_of(model), params_of(vit_jax.load(DATA / file, **options)), mesh)


def test_a_run_goes_to_a_mesh_too(run):
    mesh, options = make_mesh(MESHES[0]), {"num_classes": 3, "image_size": (96, 64)}
    assert_split(params_of(vit_jax.load(run, mesh=mesh, **options)), params_of(vit_jax.load(run, **options)), mesh)


def test_what_a_file_lacks_is_drawn_and_placed(tmp_path):
    arrays = read_arrays(DATA / "timm_token.safetensors")
    del arrays["blocks.1.attn.proj.weight"]
    write_safetensors(tmp_path / "x.safetensors", arrays)
    options = {"num_heads": 2, "strict": False}
    with pytest.warns(UserWarning, match=r"missing \(1\): blocks.1.attn.proj.weight") as warned:
        whole = vit_jax.load(tmp_path / "x.safetensors", **options)
    assert warned[0].filename == __file__
    with pytest.warns(UserWarning, match="missing"):
        split = vit_jax.load(tmp_path / "x.safetensors", mesh=make_mesh(MESHES[0]), **options)
    assert_split(params_of(split), params_of(whole), make_mesh(MESHES[0]))


def test_what_is_no_place_is_refused():
    with pytest.raises(InputError, match="give one of them"):
        vit_jax.load(DATA / "google_vit_token.npz", host=True, mesh=make_mesh(MESHES[0]))
    with pytest.raises(InputError, match="mesh: lacks the axes fsdp, tensor; make it with"):
        vit_jax.load(DATA / "google_vit_token.npz", mesh=jax.make_mesh((8,), ("data",)))


def command(folder, init):
    """Return the arguments of a training run that starts from weights."""
    config = dataclasses.replace(CONFIG, init=str(init), batch=8, model=Model(name="custom/2"), optim=Optim(name="sgd"))
    (folder / "tiny.py").write_text(FILE.replace(repr(dataclasses.asdict(CONFIG)), repr(dataclasses.asdict(config))))
    mesh = ("--config.mesh.data=1", "--config.mesh.fsdp=8")
    return [f"--config={folder / 'tiny.py'}", f"--workdir={folder / 'run'}", *mesh]


def test_of_a_file_the_host_holds_what_check_says(parts, tmp_path, capfd):
    """NumPy's arrays are counted, and simulated devices' are not: as on a host whose devices have their own memory."""
    mesh = make_mesh(MESHES[0])
    vit_jax.load(parts, mesh=mesh)  # All that is imported is.
    tracemalloc.start()
    model = vit_jax.load(parts, mesh=mesh)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = sum(path.stat().st_size for path in parts.glob("*.safetensors"))
    train.main([*command(tmp_path, parts), "--check"])
    held = STACKED + ARRAY
    host = f"on the way to its devices, a host of 8 holds {held / 1e6:.1f} MB at a time"
    assert f"\n          {size / 1e6:.1f} MB in 3 files; {host}\n" in capfd.readouterr().out
    assert held <= peak < held + 1.5e6
    assert held < 0.4 * size < sum(array.nbytes for array in params_of(model).values())


def test_nothing_is_read_of_files_that_do_not_fit(parts, tmp_path, monkeypatch):
    monkeypatch.setattr("vit_jax.weights.files._read_floats", lambda *_: pytest.fail("an array was read"))
    with open_arrays(parts / "model-00001-of-00003.safetensors") as arrays:
        assert len(arrays["vit.embeddings.cls_token"]) == arrays["vit.embeddings.cls_token"].ndim - 2 == 1
    with pytest.raises(InputError, match="misshaped"):
        vit_jax.load(parts, mlp_dim=64)


def test_a_later_file_that_is_damaged_is_one_line_and_nothing_is_written(parts, tmp_path, capfd):
    for path in parts.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    last = tmp_path / "model-00003-of-00003.safetensors"
    start = command(tmp_path, tmp_path)
    whole = last.read_bytes()
    last.write_bytes(whole[:-100])
    assert f"{last}: not a whole .safetensors file" in refusal(capfd, train.main, *start)
    last.write_bytes(whole[:-4] + np.float32(np.nan).tobytes())
    for arguments in (start, [*start, "--check"]):
        assert re.search(rf"{last}: \S+ holds NaN or infinity", refusal(capfd, train.main, *arguments))
    assert not (tmp_path / "run").exists()
    assert last.stat().st_size == len(whole)


def test_of_two_hosts_each_holds_its_half(run):
    environment = os.environ | {"XLA_FLAGS": f"{FLAGS} --xla_force_host_platform_device_count=4"}
    environment |= {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    weights = DATA / "today" / "hf_vit"
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.hosts_weights", str(weights), str(run)],
            env=environment | {"JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for i in range(2)
    ]
    for process in running:
        output, error = process.communicate(timeout=120)
        assert process.returncode == 0, error.decode()
        assert output.decode().splitlines()[-1] == "0.5 0.5"
