"""Every config, with every argument it documents, builds an experiment that matches its paper."""

import runpy
from pathlib import Path

import jax
import pytest

from vit_jax import tree
from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import MeshShape
from vit_jax.config.files import load_config
from vit_jax.errors import InputError
from vit_jax.experiment import build_experiment
from vit_jax.optim.rates import learning_rates, trained_names, weight_decays

CONFIGS = Path(__file__).parent.parent / "configs"
PICTURES = {
    "digits": 1437,
    "cifar": 50_000,
    "cifar90": 45_000,
    "pets": 3680,
    "imagenet": 1_281_167,
    "imagenet99": 1_268_355,
}
CLASSES = {"digits": 10, "cifar": 10, "cifar90": 10, "pets": 37, "imagenet": 1000, "imagenet99": 1000, "21k": 21_843}
PICTURES["21k"] = 14_197_122 * 99 // 100

# Config, training set, batch, steps, warm-up, peak learning rate, weight decay of a kernel per step at the peak.
CASES = [
    ("digits", "digits", 64, 1123, 57, 3e-3, 1.5e-4),
    ("digits:epochs=2", "digits", 64, 45, 3, 3e-3, 1.5e-4),
    ("cifar10", "cifar", 256, 39_063, 1954, 1e-3, 5e-5),
    ("cifar10:model=nano/4,epochs=10", "cifar", 64, 7813, 391, 2e-3, 1e-4),
    ("cifar10:model=CCT-2/3x2,epochs=10", "cifar", 64, 7813, 391, 2e-3, 1e-4),
    # Hassani et al. (2021): the script of their repository's `examples`.
    ("compact", "cifar", 128, 78_125, 1954, 5e-4, 1.5e-5),
    ("compact:model=ViT-Lite-7/4", "cifar", 64, 156_250, 7813, 5e-4, 1.5e-5),
    ("multi_label", "cifar", 64, 78_125, 3907, 1e-3, 5e-5),
    # Beyer et al. (2022): "wd" 1e-4, which their code multiplies by the schedule, not by the peak.
    ("imagenet1k", "imagenet99", 1024, 111_477, 10_000, 1e-3, 1e-4),
    ("imagenet1k:model=B/16,epochs=300", "imagenet99", 1024, 371_589, 10_000, 1e-3, 1e-4),
    # Steiner et al. (2022), likewise.
    *[
        (f"imagenet21k:model={model}", "21k", 4096, 1_029_430, 10_000, 1e-3, 1e-4)
        for model in ("Ti/16", "S/32", "S/16", "B/32", "B/16", "L/16")
    ],
    # Dosovitskiy et al. (2021), table 3: decays of 0.3 and 0.03, multiplied by the learning rate.
    ("vit_paper:dataset=imagenet2012", "imagenet99", 4096, 92_898, 10_000, 3e-3, 9e-4),
    ("vit_paper:model=L/16,dataset=imagenet21k", "21k", 4096, 308_829, 10_000, 1e-3, 3e-5),
    ("vit_paper:model=R50+B/16", "21k", 4096, 308_829, 10_000, 1e-3, 3e-5),
    # Table 4.
    ("finetune", "pets", 512, 500, 100, 1e-2, 0),
    ("finetune:model=S/8,dataset=folder,init=runs/s8", "pets", 512, 500, 100, 1e-2, 0),
    ("finetune:model=B/16,dataset=cifar10", "cifar", 512, 10_000, 500, 1e-2, 0),
    ("finetune:model=Ti/16,dataset=cifar100", "cifar", 512, 10_000, 500, 1e-2, 0),
    ("finetune:model=Swin-T,dataset=cifar10", "cifar", 512, 10_000, 500, 1e-2, 0),
    ("finetune:model=B/32,dataset=oxford_iiit_pet", "pets", 512, 500, 100, 1e-2, 0),
    ("finetune:dataset=oxford_flowers102", "pets", 512, 500, 100, 1e-2, 0),
    ("finetune:model=L/16,dataset=imagenet2012", "imagenet", 512, 20_000, 500, 1e-2, 0),
    # A folder, by the BiT-HyperRule.
    ("finetune:dataset=folder", "cifar", 512, 10_000, 500, 1e-2, 0),
    ("finetune:dataset=folder", "imagenet", 512, 20_000, 500, 1e-2, 0),
    ("pretrain", "cifar90", 128, 14_063, 704, 1e-3, 5e-5),
    ("pretrain:task=masked_patches", "cifar90", 128, 14_063, 704, 1e-3, 5e-5),
    # He et al. (2022), table 8; rate and warm-up of Dosovitskiy et al. (2021), B.1.2; all of next_patch is ours.
    ("pretrain:dataset=imagenet2012,model=L/16", "imagenet99", 4096, 247_726, 12_387, 2.4e-3, 1.2e-4),
    ("pretrain:dataset=folder,model=S/16", "pets", 256, 11_500, 575, 1.5e-4, 7.5e-6),
    ("pretrain:task=masked_patches,dataset=imagenet2012", "imagenet99", 4096, 247_726, 10_000, 2e-4, 1e-5),
    ("pretrain:task=next_patch,dataset=imagenet2012", "imagenet99", 4096, 247_726, 14_864, 1e-3, 5e-5),
    # Bao et al. (2022): 1e-3 and 0.05 at twice the batch.
    ("finetune:mode=layer_decay", "pets", 512, 500, 100, 5e-4, 5e-4 * 0.05),
]


def load(name):
    path, colon, arg = name.partition(":")
    return load_config(f"{CONFIGS / path}.py{colon}{arg}")


def test_every_config_is_here():
    assert {case[0].split(":")[0] for case in CASES} == {path.stem for path in CONFIGS.glob("*.py")}


@pytest.mark.parametrize(("name", "pictures", "batch", "steps", "warmup", "peak", "decay"), CASES, ids=str)
def test_plan_and_parameters_are_the_papers(name, pictures, batch, steps, warmup, peak, decay):
    config = load(name)
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    experiment = build_experiment(config, mesh, CLASSES[pictures], PICTURES[pictures])
    plan, params = experiment.plan, experiment.shapes.params
    assert (config.batch, plan.total, plan.warmup) == (batch, steps, warmup)
    rates = [float(experiment.schedule(step)) for step in (0, warmup, steps)]
    assert rates == pytest.approx([0, peak, 0], abs=1e-9)
    decays = weight_decays(config.optim, params)
    assert trained_names(config.optim, params) == decays.keys() == tree.flatten(params).keys()
    wanted = {name: decay if name.endswith("/kernel") else 0 for name in decays}
    assert {name: peak * value for name, value in decays.items()} == pytest.approx(wanted)


def test_models_are_the_papers():
    # Patches, blocks, norm, hidden layer, head.
    parts = (295_296, 12 * 1_774_464, 768, 384 * 385, 385 * 1000)
    assert tree.count(shapes("imagenet1k", 1000)) == sum(parts)
    paper = shapes("vit_paper", 21_843)
    assert paper["pre_logits"]["kernel"].shape == (768, 768)
    assert "pre_logits" not in shapes("imagenet21k", 21_843)
    tuned = load("finetune:model=B/16,dataset=cifar10")
    assert (tuned.image_size, tuned.optim.name, tuned.optim.momentum, tuned.optim.clip) == (384, "sgd", 0.9, 1.0)
    assert tuned.init == "gs://vit_models/imagenet21k/ViT-B_16.npz"
    assert load("finetune:model=S/8,init=runs/s8").init == "runs/s8"
    swin = load("finetune:model=Swin-B")
    assert (swin.image_size, swin.init) == (224, "hf://timm/swin_base_patch4_window7_224.ms_in22k")


def shapes(name, classes):
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    return build_experiment(load(name), mesh, classes, 10_000).shapes.params


@pytest.mark.parametrize(
    ("mode", "trained"),
    [
        ("full", {"embedding", "cls", "position", "blocks", "norm", "head"}),
        ("layer_decay", {"embedding", "cls", "position", "blocks", "norm", "head"}),
        ("last_2", {"blocks", "norm", "head"}),
        ("last_0", {"norm", "head"}),
        ("probe", {"head"}),
    ],
)
def test_a_mode_says_what_is_trained(mode, trained):
    config = load(f"finetune:model=Ti/16,mode={mode}")
    params = shapes(f"finetune:model=Ti/16,mode={mode}", 10)
    assert {name.split("/")[0] for name in trained_names(config.optim, params)} == trained
    rates = learning_rates(config.optim, params)
    wanted = {"last_2": (0,) * 10 + (1, 1), "layer_decay": tuple(0.75 ** (12 - i) for i in range(12)), "full": 1}
    assert rates["blocks/norm1/scale"] == pytest.approx(wanted.get(mode, 0))


GRID = (0.001, 0.003, 0.01, 0.03)


@pytest.mark.parametrize(
    ("arg", "rates", "train"),
    [
        ("dataset=cifar10", GRID, "train[:98%]"),
        ("dataset=cifar100", GRID, "train[:98%]"),
        ("dataset=pets", GRID, "train[:90%]"),
        ("dataset=oxford_flowers102", GRID, "train[:90%]"),
        ("dataset=imagenet2012", (0.003, 0.01, 0.03, 0.06), "train[:99%]"),
        ("dataset=folder", GRID, None),
        ("dataset=flowers,mode=probe", (0.01, 0.03, 0.1, 0.3), "train[:90%]"),
    ],
)
def test_grids_of_fine_tuning_are_the_papers(arg, rates, train):
    """Table 4, and the parts held out for it in appendix B.1.1."""
    runs = list(runpy.run_path(CONFIGS / "finetune.py")["sweep"](arg))
    assert [run["optim.lr"] for run in runs] == list(rates)
    for run in runs:
        config = load_config(f"{CONFIGS / 'finetune.py'}:{arg}", {key: str(value) for key, value in run.items()})
        assert config.data.train == (train or "train")
        assert config.data.val == (train.replace("[:", "[").replace("%]", "%:]") if train else "auto")
        assert config.data.test == (None if train else "auto")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("finetune:dataset=cifar", "dataset=cifar: must be one of folder, cifar10"),
        ("vit_paper:dataset=jft", "dataset=jft: must be"),
        ("finetune:modell=B/16", "'modell' is unknown; did you mean 'model'"),
        ("finetune:mode=last", "mode=last: must be full, probe, layer_decay or last_N, such as last_2"),
        ("finetune:mode=probe_2", "mode=probe_2: must be"),
    ],
)
def test_arguments_that_are_unknown_are_told_in_one_line(name, message):
    with pytest.raises(InputError, match=message) as caught:
        load(name)
    assert "\n" not in str(caught.value)
