"""The studies: every run of their sweeps is a valid config, at every scale, and builds at the smallest."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import step_flops
from vit_jax.config import make_plan
from vit_jax.config.files import load_sweep
from vit_jax.errors import InputError
from vit_jax.models import abstract_model
from vit_jax.models.variants import resolve
from vit_jax.sweeps.plan import Base, as_texts, plan_runs

STUDIES = Path(__file__).parent.parent / "configs" / "studies"


def runs_of(spec):
    path, colon, arg = spec.partition(":")
    spec = f"{STUDIES / path}.py{colon}{arg}"
    return plan_runs(Base(spec, {}), map(as_texts, load_sweep(spec)))


@pytest.mark.parametrize(
    ("name", "numbers", "seeds"),
    [
        # 4 models on 4 fractions; 3 families of 3, 2 and 1 lengths; 10 kinds and places.
        ("data_scale", {"laptop": 48, "gpu": 48, "pod": 16}, 3),
        ("compute_scale", {"laptop": 54, "gpu": 72, "pod": 24}, 3),
        ("positions", {"laptop": 30, "gpu": 30, "pod": 10}, 3),
    ],
)
def test_every_run_of_a_study_is_a_config_that_builds(name, numbers, seeds):
    for scale, number in numbers.items():
        runs = runs_of(f"{name}:scale={scale}")
        assert len(runs) == number
        assert len({run.config.seed for run in runs}) == (1 if scale == "pod" else seeds)
        for config in {run.config.model: run.config for run in runs}.values():
            resolved = resolve(config.model)
            if scale == "laptop" and resolved.depth in (None, 3):
                abstract_model(**config.model_facts(10))
        assert {(run.config.image_size, run.config.data.name) for run in runs} == {
            {"laptop": (32, "folder"), "gpu": (224, "tfds:imagenet2012"), "pod": (224, "records")}[scale]
        }


def test_fractions_are_nested_and_have_as_many_updates():
    runs = runs_of("data_scale")
    assert {run.config.data.fraction for run in runs} == {0.0625, 0.16, 0.4, 1.0}
    assert len({(run.config.total, run.config.batch, run.config.data.fraction_seed) for run in runs}) == 1
    assert {dict(run.config.evaluations())["few"].train for run in runs} == {"train[90%:92%]"}


def test_roads_cost_as_many_operations():
    runs = runs_of("roads")
    assert len(runs) == 2 * 3 * 6
    cost = {model: step_flops(config) for model, config in {run.config.model: run.config for run in runs}.items()}
    spent = [make_plan(run.config, 45_000).total * cost[run.config.model] for run in runs if run.config.seed == 0]
    # As far as whole updates allow.
    np.testing.assert_allclose(spent, np.repeat((2.2e12, 8.8e12), 6), rtol=0.005)


def test_every_size_of_a_resolution_starts_from_every_run(tmp_path):
    for runs in ("", f":runs={tmp_path}"):
        with pytest.raises(InputError, match="must be the folder of a sweep of configs/studies/positions.py"):
            runs_of(f"resolution{runs}")
    for seed, (position, at) in enumerate((("learned", "stem"), ("none", "stem"), ("learned", "blocks"))):
        folder = tmp_path / (position if at == "stem" else at)
        folder.mkdir()
        values = {"config": {"model": {"position": position, "position_at": at}, "seed": seed}}
        (folder / "run.json").write_text(json.dumps(values))
    runs = runs_of(f"resolution:runs={tmp_path}")
    found = {(r.config.model.position, r.config.seed, r.config.image_size, r.config.total, r.config.init) for r in runs}
    assert found == {
        (position, seed, size, total, str(tmp_path / position))
        for seed, position in enumerate(("learned", "none"))
        for size in (16, 32, 64)
        for total in ("1st", "150st")
    }
    assert all(run.config.warmup == "1st" for run in runs if run.config.total == "1st")
    for scale, model in (("gpu", "S/16"), ("pod", "B/16")):
        runs = runs_of(f"resolution:scale={scale},runs={tmp_path}")
        assert len(runs) == 2 * 5 * 2
        assert {run.config.model.name for run in runs} == {model}


def test_every_pre_training_is_fine_tuned_as_from_scratch_is(tmp_path):
    spec = f"{STUDIES.parent / 'pretrain.py'}:epochs=15"
    first = plan_runs(Base(spec, {}), map(as_texts, load_sweep(spec)))
    found = [(run.config.task, run.config.total) for run in first]
    assert found == [("mae", "15ep"), ("masked_patches", "5ep"), ("next_patch", "5ep")]
    with pytest.raises(InputError, match="must be the folder of a sweep of configs/pretrain.py"):
        runs_of("labels")
    for run in first:
        (tmp_path / run.name).mkdir()
        (tmp_path / run.name / "run.json").touch()
    runs = runs_of(f"labels:runs={tmp_path}")
    assert len(runs) == 4 * 2 * 3
    assert {run.config.init for run in runs} == {None, *(str(tmp_path / run.name) for run in first)}
    assert {run.config.model for run in runs} == {first[0].config.model}
    same = dict(init=None, seed=0, data=runs[0].config.data)
    assert len({dataclasses.replace(run.config, **same) for run in runs}) == 1


@pytest.mark.parametrize("name", ["data_scale", "compute_scale", "positions", "resolution"])
def test_an_unknown_scale_or_model_is_told_in_one_line(name):
    with pytest.raises(InputError, match="config argument scale='desk': choose one of laptop, gpu, pod") as caught:
        runs_of(f"{name}:scale=desk")
    assert "\n" not in str(caught.value)
    if name.endswith("_scale"):
        with pytest.raises(InputError, match="model=S/16: at scale=laptop it must be one of 48/4"):
            runs_of(f"{name}:model=S/16")


@pytest.mark.parametrize("name", ["data_scale", "compute_scale"])
def test_each_family_has_its_rate(name):
    rates = {(run.config.model.name.startswith("BiT-"), run.config.optim.lr) for run in runs_of(name)}
    assert rates == {(True, 3e-3), (False, 1e-3)}
