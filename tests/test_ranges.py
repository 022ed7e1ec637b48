"""Every number in a config is refused below and above its declared range, and nothing nonsensical runs."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from tests.declared import inside, keys, outside
from tests.test_bad_input import refusal
from tests.tiny import FILE
from vit_jax import train
from vit_jax.config import Config
from vit_jax.config.coerce import annotations, coerce, describe
from vit_jax.config.ranges import Duration, Range
from vit_jax.errors import InputError, run_command

KEYS = {key: (wanted, default) for key, wanted, default in keys()}
RANGED = [key for key, (wanted, _) in KEYS.items() if outside(wanted)]


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "tiny.py"
    path.write_text(FILE)
    return path


def test_every_number_declares_its_range():
    numbers = [key for key, (_, default) in KEYS.items() if isinstance(default, (int, float)) and default is not True]
    numbers = [key for key in numbers if default_of(key) is not False]
    # The decoder's own list of choices refuses two or three channels.
    assert set(numbers) - set(RANGED) == {"channels"}
    assert len(RANGED) >= 45


def default_of(key):
    return KEYS[key][1]


@pytest.mark.parametrize("key", RANGED)
def test_below_and_above_the_range_is_refused_in_one_line(config_file, capfd, key):
    for value in outside(KEYS[key][0]):
        workdir = config_file.parent / "run"
        arguments = [f"--config={config_file}", f"--workdir={workdir}", f"--config.{key}={value!r}"]
        error = refusal(capfd, train.main, *arguments)
        # Durations are strings, and what looks like a number is read as one.
        assert error.startswith(f"error: config.{key}="), error
        assert ": must be " in error
        assert not workdir.exists()


def test_inside_the_range_is_taken():
    for key, (wanted, default) in KEYS.items():
        for value in [default, *inside(wanted)]:
            assert coerce(value, wanted, key) == value


@pytest.mark.parametrize(
    ("text", "inside", "outside", "words"),
    [
        ("[0, 1)", (0, 0.5), (-1e-9, 1), "in [0, 1)"),
        ("(0, inf)", (1e-300, 1e300), (0, -1, float("inf"), float("nan")), "above 0"),
        ("[1, inf)", (1, 2**80), (0,), "at least 1"),
        ("(-inf, inf)", (-1e300, 0), (float("-inf"), float("nan")), "that is finite"),
    ],
)
def test_ranges(text, inside, outside, words):
    assert all(value in Range(text) for value in inside)
    assert not any(value in Range(text) for value in outside)
    assert str(Range(text)) == words


def test_descriptions_name_what_is_allowed():
    described = {key: describe(wanted) for key, wanted in annotations(Config).items()}
    assert described["image_size"] == "int in [1, 8192] or (int in [1, 8192], int in [1, 8192])"
    assert described["ema"] == "float in (0, 1) or none"
    assert described["total"] == f"{Duration(percent=False)} or 'auto'"
    assert described["total"] == "a duration above 0: 100st (steps), 90ep (epochs) or 1_000ex (pictures) or 'auto'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # Formerly accepted silently.
        (["--config.optim.lr=-1"], "config.optim.lr=-1: must be float above 0"),
        (["--config.optim.weight_decay=-3"], "config.optim.weight_decay=-3: must be float at least 0"),
        (["--config.optim.b1=2"], "config.optim.b1=2: must be float in [0, 1)"),
        (["--config.optim.clip=-1"], "config.optim.clip=-1: must be float above 0 or none"),
        (["--config.model.dropout=1.5"], "config.model.dropout=1.5: must be float in [0, 1)"),
        (["--config.model.drop_path=-0.5"], "config.model.drop_path=-0.5: must be float in [0, 1)"),
        (["--config.warmup=200%"], "config.warmup='200%': must be a duration: 100st (steps)"),
        (["--config.total=0st"], "config.total='0st': must be a duration above 0: 100st (steps)"),
        (["--config.data.fraction=1e-9"], "config.data.fraction=1e-09: is 0 of 1,437 pictures, but there are 10"),
        (["--config.data.cache_mb=-1"], "config.data.cache_mb=-1: must be int at least 0"),
        # Formerly ended in a traceback.
        (["--config.data.threads=0"], "config.data.threads=0: must be int in [1, 1024]"),
        (["--config.seed=-1"], "config.seed=-1: must be int in [0, 4294967296)"),
        (["--config.channels=7"], "config.channels=7: choose one of 1, 3"),
        (["--config.image_size=40000"], "config.image_size=40000: must be int in [1, 8192]"),
        # Formerly gave a misleading message.
        (["--config.evaluators=clasification"], "'clasification': did you mean 'classification'?"),
        (["--config.evaluators=multi_label"], "'multi_label' does not support task 'classification'"),
        (["--config.evaluators.val.evry=1ep"], "config.evaluators.val.evry: no such key; did you mean 'every'?"),
        (["--config.evaluators.val.every=0ep"], "config.evaluators.val.every='0ep': must be a duration above 0"),
        (["--config.optim.lr=nan"], "config.optim.lr=nan: must be float above 0"),
        # Incompatible keys.
        (["--config.select=val/acuracy"], "config.select='val/acuracy': is not a metric of this run; did you"),
        (["--config.augment.shift=8"], "config.augment.shift=8: must be below image_size=8"),
        (["--config.data.crop_ratio=(2,1)"], "config.data.crop_ratio=(2.0, 1.0): must be (low, high)"),
        (["--config.task=multi_label"], "config.loss='softmax': task 'multi_label' needs config.loss='sigmoid'"),
        (
            ["--config.task=multi_label", "--config.loss=sigmoid"],
            "the task needs 'labels' for every picture, but the data has label",
        ),
        (
            ["--config.task=multi_label", "--config.loss=sigmoid", "--config.label_smoothing=0.1"],
            "config.label_smoothing=0.1: task 'multi_label' needs 0",
        ),
    ],
)
def test_nonsense_is_refused(config_file, capfd, arguments, message):
    workdir = config_file.parent / "run"
    assert message in refusal(capfd, train.main, f"--config={config_file}", f"--workdir={workdir}", *arguments)
    assert not workdir.exists()


# Sizes that take too long in a test, and keys that change the data or the number of steps.
FIXED = ("total", "batch", "seed", "image_size", "channels", "mesh.", "model.width", "model.depth", "model.mlp_dim")
DRAWN = [
    key
    for key, (wanted, _) in KEYS.items()
    if not key.startswith(FIXED) and (inside(wanted) or outside(wanted)) and key != "evaluators"
]


@st.composite
def overrides(draw):
    """Draw values for a few keys, most of them individually valid."""
    chosen = draw(st.lists(st.sampled_from(DRAWN), min_size=1, max_size=4, unique=True))
    values = {}
    for key in chosen:
        good, bad = inside(KEYS[key][0]), outside(KEYS[key][0])
        values[key] = draw(st.sampled_from(good if good and (not bad or draw(st.integers(0, 7))) else bad))
    return values


@given(overrides=overrides())
@settings(
    max_examples=int(os.environ.get("RANDOM_CONFIGS", 4)),
    derandomize="RANDOM_CONFIGS" not in os.environ,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
    database=None,
)
def test_a_random_config_is_refused_in_one_line_or_trains(config_file, overrides):
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        arguments = [f"--config.{key}={value!r}" for key, value in overrides.items()]
        arguments += ["--config.total=2st", f"--config={config_file}", f"--workdir={workdir}"]
        refused = ""
        try:
            train.main(arguments)
        except InputError as error:
            refused = str(error)
        event("refused" if refused else "trained")
        if refused:
            assert "\n" not in refused
            assert not workdir.exists()
            return
        assert json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 2


def test_a_config_that_does_not_fit_the_memory_is_told_in_one_line(capfd):
    def allocate():
        raise MemoryError("Unable to allocate 1 TiB")

    with pytest.raises(SystemExit) as caught:
        run_command(allocate)
    assert caught.value.code == 2
    error = capfd.readouterr().err
    assert error.startswith("error: out of memory (Unable to allocate 1 TiB); take a smaller batch")
    assert error.count("\n") == 1
