"""Configs: types, overrides, durations and error messages."""

import dataclasses

import pytest

from vit_jax.config import Config, Data, MeshShape, Model, Optim, differences, from_dict, make_plan, parse_arg
from vit_jax.config.files import load_config, parse_overrides
from vit_jax.errors import InputError

FILE = """
from ml_collections import ConfigDict
from vit_jax.config import parse_arg
def get_config(arg=None):
    arg = parse_arg(arg, model="Ti/4", epochs=3, debug=False)
    c = ConfigDict()
    c.total = f"{arg.epochs}ep"
    c.model = dict(name=arg.model)
    c.batch = 4 if arg.debug else 16
    return c
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(FILE)
    return str(path)


def test_argument_and_overrides_take_their_types(path):
    overrides = {
        "optim.lr": "3",
        "image_size": "(32, 48)",
        "augment.flip": "true",
        "optim.clip": "none",
        "model.position": "none",
    }
    config = load_config(f"{path}:model=mu/4,epochs=7,debug", overrides)
    assert (config.model.name, config.total, config.batch) == ("mu/4", "7ep", 4)
    assert (config.optim.lr, config.image_size, config.augment.flip) == (3.0, (32, 48), True)
    assert (config.optim.clip, config.model.position) == (None, "none")
    assert from_dict(dataclasses.asdict(config)) == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"bach": "1"}, r"^config.bach: no such key; did you mean 'batch'\?$"),
        ({"optim.learning": "1"}, r"config.optim.learning: no such key"),
        ({"optim.name": "adamv"}, r"config.optim.name='adamv': did you mean 'adamw'\?"),
        ({"batch": "many"}, r"config.batch='many': must be int at least 1$"),
        ({"batch": "0"}, r"config.batch=0: must be int at least 1$"),
        ({"batch": "true"}, r"config.batch=True: must be int"),
        ({"total": "90"}, r"config.total='90'|config.total=90"),
        ({"warmup": "5 epochs"}, r"config.warmup='5 epochs': must be a duration: 100st \(steps\), 90ep"),
        ({"total": "10%"}, r"config.total='10%': must be a duration above 0: .* or 1_000ex \(pictures\) or 'auto'$"),
        ({"optim": "3"}, r"config.optim=3: is a section"),
        ({"batch.size": "3"}, r"config.batch.size: 'batch' is a value, not a section"),
        ({"optim.decay": "(('(', 1),)"}, r"config.optim.decay: '\(' is not a valid pattern"),
        (
            {"optim.lr_mults": "(('.*', -1),)"},
            r"config.optim.lr_mults=.*-1.*: must be tuple of \(str, float at least 0\)$",
        ),
        ({"optim.decay": ".*/kernel"}, r"config.optim.decay='\.\*/kernel': must be tuple"),
        ({"optim.layer_decay": "1.5"}, r"config.optim.layer_decay=1.5: must be float in \(0, 1\] or none$"),
        ({"optim.timescale": "1000"}, r"config.optim.timescale=1000: must be a duration above 0"),
        ({"ema": "1"}, r"config.ema=1: must be float in \(0, 1\) or none$"),
        ({"label_smoothing": "1"}, r"config.label_smoothing=1: must be float in \[0, 1\)$"),
        ({"accumulate": "0"}, r"config.accumulate=0: must be int at least 1"),
        ({"cooldown": "5"}, r"config.cooldown=5: must be a duration: 100st"),
        ({"image_size": "(1, 2, 3)"}, r"config.image_size=\(1, 2, 3\): must be int | tuple"),
    ],
)
def test_bad_override(path, overrides, message):
    with pytest.raises(InputError, match=message) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(arg=None):\n    return 1 / 0", r"small.py, line 2: ZeroDivisionError"),
        ("def get_config(:", r"small.py, line 1: SyntaxError"),
        ("x = 1", r"small.py: has no get_config\(arg\)"),
        (
            "def get_config(arg=None):\n    return 5",
            r"small.py: get_config\(\) returned 5; it must return an ml_collections",
        ),
    ],
)
def test_broken_file(path, text, message):
    with open(path, "w") as file:
        file.write(text)
    with pytest.raises(InputError, match=message):
        load_config(path)


def test_missing_file_and_unknown_argument(path):
    with pytest.raises(InputError, match=r"'configs/none.py' does not exist"):
        load_config("configs/none.py")
    with pytest.raises(InputError, match=r"argument 'modle' is unknown; did you mean 'model'"):
        load_config(f"{path}:modle=B/16")
    with pytest.raises(InputError, match=r"epochs='x': must be int"):
        load_config(f"{path}:epochs=x")


def test_overrides_of_the_command_line():
    assert parse_overrides(["--config.optim.lr=1=2"]) == {"optim.lr": "1=2"}
    with pytest.raises(InputError, match="'--bach=3' is unknown"):
        parse_overrides(["--bach=3"])
    with pytest.raises(InputError, match="write --config.batch=VALUE"):
        parse_overrides(["--config.batch"])


def test_argument_defaults_give_the_types():
    assert parse_arg("b=2.5", a="x", b=1.0, c=False) == parse_arg("a=x,b=2.5,c=false", a="", b=0.0, c=True)


def test_durations():
    optim = Optim(timescale="2_000ex")
    every = dict(log_every="250ex", eval_every="1ep", save_every="1_000st")
    plan = make_plan(Config(batch=100, total="10ep", warmup="5%", cooldown="2ep", optim=optim, **every), examples=1050)
    assert (plan.total, plan.warmup, plan.cooldown, plan.timescale) == (105, 6, 21, 20)
    assert (plan.log_every, plan.evaluations["val"], plan.save_every) == (3, 11, 1000)
    assert [step for step in range(1, 106) if plan.evaluates(step)] == [*range(11, 105, 11), 105]


def test_differences_name_what_decides_a_run_and_nothing_else():
    old = Config(seed=1)
    new = dataclasses.replace(old, seed=2, mesh=MeshShape(fsdp=2), data=Data(threads=3, path="elsewhere"))
    assert differences(old, new) == ["seed: 1 -> 2"]


def test_accumulation_is_free_to_change_where_nothing_is_drawn():
    def changed(model):
        old = Config(model=model)
        return differences(old, dataclasses.replace(old, accumulate=4, model=dataclasses.replace(model, remat="full")))

    assert changed(Model()) == []
    assert changed(Model(drop_path=0.1)) == ["accumulate: 1 -> 4"]


def test_a_config_argument_may_have_choices():
    def scale(arg):
        return parse_arg(arg, scale=("laptop", "pod"), model="").scale

    assert scale(None) == "laptop"
    assert scale("model=B/16,scale=pod") == "pod"
    with pytest.raises(InputError, match="config argument scale='laptp': did you mean 'laptop'"):
        scale("scale=laptp")
