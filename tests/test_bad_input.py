"""Bad input: one clear line on stderr, exit code 2, the run directory untouched."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.test_data import write_folder
from tests.tiny import FILE
from vit_jax import evaluate, predict, train
from vit_jax.errors import run_command


@pytest.fixture
def setting(tmp_path):
    """A config file, a folder of pictures, and a run directory that does not exist yet."""
    (tmp_path / "tiny.py").write_text(FILE)
    write_folder(tmp_path / "pictures")
    return tmp_path


def refusal(capfd, command, *arguments):
    """Return the one line of error with which a command ends."""
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: command([str(argument) for argument in arguments]))
    assert caught.value.code == 2
    error = capfd.readouterr().err.strip()
    assert error.count("\n") == 0, error
    assert error.startswith("error: ")
    return error


def snapshot(folder):
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


FOLDER = ("--config.data.name=folder", "--config.data.path={root}/pictures", "--config.channels=3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.bach=1"], "config.bach: no such key; did you mean 'batch'?"),
        (["--confg.batch=1"], "argument '--confg.batch=1' is unknown"),
        (["--config.batch=12"], "config.batch=12 is not divisible by the 8 devices"),
        (["--config.accumulate=3"], "config.batch=64 can't be cut into config.accumulate=3 equal parts on 8 devices"),
        (["--config.optim.lr_mults=(('hed/.*', 0),)"], "'hed/.*' matches the whole name of no parameter; the nearest"),
        (["--config.model.name=Ti/3"], "image size 8x8 is not divisible by the patch size 3"),
        (["--config.model.name=Tiny/2"], "model 'Tiny/2' is unknown"),
        (["--config.model.pool=none"], "config.model.pool='none' has logits for each token"),
        (["--config.data.name=folder"], "config.data.path is not set"),
        (["--config.data.name=folder", "--config.data.path={root}/none"], "/none/train' does not exist"),
        (
            ["--config.evaluators=('clasification',)"],
            "'clasification': did you mean 'classification'?",
        ),
        (["--config.mesh.fsdp=3"], "but there are 8"),
        (["--config.evaluators.zs.evaluator=zeroshot", "--config.select=none"], "zeroshot needs text=WHERE, the CLIP"),
    ],
)
def test_training_refuses(setting, capfd, arguments, message):
    arguments = [argument.format(root=setting) for argument in arguments]
    workdir = setting / "run"
    error = refusal(capfd, train.main, f"--config={setting}/tiny.py", f"--workdir={workdir}", *arguments)
    assert message in error
    assert not workdir.exists()


def empty_class(pictures):
    for path in pictures.glob("train/*/*"):
        path.unlink()


def unknown_class(pictures):
    (pictures / "test" / "bird").mkdir()


def corrupt(pictures):
    (pictures / "test" / "cat" / "1.jpg").write_bytes(b"\xff\xd8 no more")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty_class, "pictures/train' has no pictures"),
        (unknown_class, "split 'test' of 'folder': the data has 1 class ('bird') that the model lacks"),
        (corrupt, "test/cat/1.jpg' can't be read"),
    ],
)
def test_training_refuses_bad_pictures(setting, capfd, damage, message):
    damage(setting / "pictures")
    arguments = [argument.format(root=setting) for argument in FOLDER]
    workdir = setting / "run"
    assert message in refusal(capfd, train.main, f"--config={setting}/tiny.py", f"--workdir={workdir}", *arguments)
    assert not workdir.exists()


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_training_bears_a_few_bad_pictures(setting, capfd, cache_mb):
    (setting / "pictures" / "train" / "cat" / "1.jpg").write_bytes(b"no picture")
    corrupt(setting / "pictures")
    arguments = [argument.format(root=setting) for argument in FOLDER]
    arguments += ["--config.data.max_bad=0.2", f"--config.data.cache_mb={cache_mb}", "--config.total=2st"]
    arguments += ["--config.log_every=1st", "--config.batch=48", "--config.eval_every=1st"]
    train.main([f"--config={setting}/tiny.py", f"--workdir={setting}/run", *arguments])
    output = capfd.readouterr().out
    assert output.count("train/cat/1.jpg' can't be read: not a picture") == 1
    assert output.count("test/cat/1.jpg' can't be read: ") == 1
    lines = [json.loads(line) for line in (setting / "run" / "metrics.jsonl").read_text().splitlines()]
    # Eight epochs of six pictures per step, one of them bad; five pictures of the other split count.
    assert [line["data/bad"] for line in lines] == [8, 8]
    assert [line["val/count"] for line in lines] == [5, 5]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a single step; it must be left alone."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.py").write_text(FILE)
    train.main([f"--config={folder}/tiny.py", f"--workdir={folder}/run", "--config.total=1st"])
    return folder / "run"


def test_training_refuses_the_run_of_another_config_and_leaves_it_alone(trained, capfd):
    arguments = [f"--config={trained.parent}/tiny.py", f"--workdir={trained}", "--config.total=1st"]
    before = snapshot(trained)
    error = refusal(capfd, train.main, *arguments, "--config.seed=6", "--config.optim.lr=1.0")
    assert "holds a run of another config (seed: 5 -> 6; optim.lr: 0.01 -> 1.0); choose another workdir" in error
    assert snapshot(trained) == before


def test_training_refuses_to_go_on_with_other_classes(setting, capfd):
    arguments = [f"--config={setting}/tiny.py", f"--workdir={setting}/run", "--config.total=1st"]
    arguments += [*(argument.format(root=setting) for argument in FOLDER), "--config.evaluators={}"]
    train.main(arguments)
    capfd.readouterr()
    before = snapshot(setting / "run")
    for split in ("train", "test"):
        shutil.copytree(setting / "pictures" / split / "cat", setting / "pictures" / split / "cow")
    error = refusal(capfd, train.main, *arguments)
    assert "holds a run of another config (label names: 2 classes -> 3, or other names); choose another" in error
    assert snapshot(setting / "run") == before


def test_training_refuses_a_workdir_that_cannot_be_written(setting, capfd):
    (setting / "file").write_text("")
    for workdir in (setting / "file", setting / "file" / "run"):
        error = refusal(capfd, train.main, f"--config={setting}/tiny.py", f"--workdir={workdir}")
        assert f"workdir '{workdir}' can't be written: " in error
    assert (setting / "file").read_text() == ""


def test_missing_arguments_and_files(setting, capfd):
    assert "--workdir" in refusal(capfd, train.main, f"--config={setting}/tiny.py")
    assert "does not exist" in refusal(capfd, train.main, "--config=none.py", f"--workdir={setting}/run")
    assert "run: does not exist" in refusal(capfd, evaluate.main, f"--workdir={setting}/run")
    assert "without model.safetensors (nor run.json)" in refusal(capfd, predict.main, f"--model={setting}", "x.jpg")


def test_evaluate_refuses_what_it_cannot_read(trained, tmp_path, capfd):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    assert "can't change these keys of a run: seed" in refusal(
        capfd, evaluate.main, f"--workdir={workdir}", "--config.seed=9"
    )
    shutil.rmtree(workdir / "checkpoints")
    assert "has no checkpoint yet" in refusal(capfd, evaluate.main, f"--workdir={workdir}")


def test_the_command_itself_ends_with_code_2(setting):
    command = [sys.executable, "-m", "vit_jax.train", "--config=none.py", f"--workdir={setting}/run"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 2
    assert done.stderr == "error: config file 'none.py' does not exist; see configs/README.md for a list\n"
