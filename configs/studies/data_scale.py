"""How much data each family needs (Dosovitskiy et al., 2021, figures 3 and 4): two ViTs, a hybrid and a BiT ResNet,
updated as often on each of some nested fractions of the training set.

python scripts/sweep.py configs/studies/data_scale.py:scale=laptop --workdir=studies/data_scale --processes=2 \
    --config.data.path=DIR          # CIFAR-10 as DIR/{train,test}/<class>/*.png or *.jpg
python scripts/figures.py data_scale studies/data_scale/results.csv --out=data_scale.png

`scale` is laptop (CIFAR-10 at 32 pixels), gpu (ImageNet-1k) or pod (ImageNet-21k); `model` is one of that scale's. At
its end, a run also fits linear classifiers to 5 and 10 pictures of each class that it was not trained on.
Measured at scale=laptop, in about an hour: docs/studies/data_scale.md.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_arg

SMALL = dict(pool="gap", position="learned")
MODELS = {
    # By width/patch, and with as many convolutions as the R says. All have an 8x8 grid of tokens or positions.
    "laptop": {
        "48/4": dict(name="custom/4", width=48, depth=3, mlp_dim=192, num_heads=3, **SMALL),
        "64/4": dict(name="custom/4", width=64, depth=4, mlp_dim=256, num_heads=2, **SMALL),
        "R5+64/4": dict(
            **dict(name="R5+custom/4", resnet=(1,), resnet_width=32),
            **dict(width=64, depth=4, mlp_dim=256, num_heads=2, **SMALL),
        ),
        "BiT-R8x1": dict(name="BiT-custom", resnet=(1, 1), resnet_width=64),
    },
    "gpu": {name: dict(name=name) for name in ("S/32", "S/16", "R26+S/32", "BiT-R50x1")},
    "pod": {name: dict(name=name) for name in ("B/32", "L/16", "R50+B/16", "BiT-R152x2")},
}
FRACTIONS = {
    "laptop": (0.0625, 0.16, 0.4, 1.0),  # Each 2.5 times the one before.
    "gpu": (0.04, 0.11, 0.33, 1.0),
    "pod": (0.04, 0.11, 0.33, 1.0),
}
SEEDS = {"laptop": 3, "gpu": 3, "pod": 1}


def parse(arg):
    """Return the argument; the model defaults to the first of the scale."""
    arg = parse_arg(arg, scale=("laptop", "gpu", "pod"), model="")
    models = MODELS[arg.scale]
    arg.model = arg.model or next(iter(models))
    if arg.model not in models:
        raise ValueError(f"model={arg.model}: at scale={arg.scale} it must be one of {', '.join(models)}")
    return arg


def get_config(arg=None):
    arg = parse(arg)
    c = ConfigDict()
    c.seed, c.log_every, c.eval_every, c.save_every = 0, "2%", "25%", "25%"
    c.model = dict(MODELS[arg.scale][arg.model])
    few = dict(evaluator="fewshot", shots=(5, 10), seeds=(0, 1, 2, 3, 4), every="100%")
    if arg.scale == "laptop":
        c.batch, c.image_size, c.total, c.warmup = 64, 32, "1_600st", "5%"
        c.data = dict(name="folder", train="train[:90%]", val="train[90%:]", test="test", threads=2)
        c.data.crop_fraction = 1.0
        few |= dict(train="train[90%:92%]", split="train[92%:]")
        c.augment = dict(flip=True, shift=2)
        # At 3e-3 a BiT learns faster, and a ViT or hybrid does not: docs/studies/data_scale.md.
        lr = 3e-3 if arg.model.startswith("BiT-") else 1e-3
        c.optim = dict(name="adamw", lr=lr, weight_decay=0.05)
    elif arg.scale == "gpu":
        c.batch, c.image_size, c.total, c.warmup = 1024, 224, "60_000st", "10_000st"
        # 5 % is what it takes to find 10 pictures of each class among those held out.
        c.data = dict(name="tfds:imagenet2012", train="train[:95%]", val="train[95%:]", test="validation")
        c.data.examples, c.data.classes = 1_217_109, 1_000
        few |= dict(train="train[95%:]", split="validation")
        c.optim = dict(name="adamw", lr=1e-3, weight_decay=0.1, momentum_dtype="bfloat16")
    else:
        c.batch, c.image_size, c.total, c.warmup = 4096, 224, "100_000st", "10_000st"
        c.data = dict(name="records", train="train[:99%]", val="train[99%:]")
        c.data.examples, c.data.classes = 14_055_151, 21_843
        # As in the paper, on ImageNet-1k: --config.evaluators.few.path=SETS.
        few |= dict(source="tfds:imagenet2012", train="train", split="validation")
        c.optim = dict(name="adamw", lr=1e-3, weight_decay=0.03, momentum_dtype="bfloat16")
    if arg.scale != "laptop":
        c.data.crop, c.data.crop_scale = "random_resized", (0.05, 1.0)
        c.augment = dict(flip=True)
    c.evaluators = {"val": {}, "few": few}
    return c


def sweep(arg=None):
    """Every model on every fraction; a smaller one is a part of a larger one."""
    scale = parse(arg).scale
    for seed in range(SEEDS[scale]):
        for fraction in FRACTIONS[scale]:
            for model in MODELS[scale]:
                yield {"config": f"model={model}", "data.fraction": fraction, "seed": seed}
