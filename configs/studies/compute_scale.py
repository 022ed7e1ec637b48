"""Accuracy against training compute (Dosovitskiy et al., 2021, figure 5): ViTs, hybrids and BiT ResNets of several
sizes, trained for several lengths.

python scripts/sweep.py configs/studies/compute_scale.py:scale=laptop --workdir=studies/compute_scale --processes=2 \
    --config.data.path=DIR          # CIFAR-10 as DIR/{train,test}/<class>/*.png or *.jpg
python scripts/figures.py compute_scale studies/compute_scale/results.csv --out=compute_scale.png

`scale` is laptop (CIFAR-10 at 32 pixels), gpu (ImageNet-1k) or pod (ImageNet-21k); `model` is one of that scale's. Each
length has a schedule of its own, so that no run is a part of another. Measured at scale=laptop, in
half an hour: docs/studies/compute_scale.md.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_arg

SMALL = {
    "48/4": dict(width=48, depth=3, mlp_dim=192, num_heads=3, pool="gap"),
    "64/4": dict(width=64, depth=4, mlp_dim=256, num_heads=2, pool="gap"),
    "nano/4": dict(width=96, depth=6, mlp_dim=384, num_heads=3, pool="gap"),
}
MODELS = {
    "laptop": {name: dict(name="custom/4", **size) for name, size in SMALL.items()}
    | {f"R5+{n}": dict(name="R5+custom/4", resnet=(1,), resnet_width=32, **size) for n, size in SMALL.items()}
    | {f"BiT-R8x{w / 64:g}": dict(name="BiT-custom", resnet=(1, 1), resnet_width=w) for w in (32, 64, 96)},
    "gpu": {
        name: dict(name=name)
        for name in ("S/32", "S/16", "B/16", "R+Ti/16", "R26+S/32", "R50+B/16", "BiT-R50x1", "BiT-R101x1", "BiT-R152x2")
    },
    "pod": {
        name: dict(name=name)
        for name in (
            "B/32",
            "B/16",
            "L/16",
            "R26+B/32",
            "R50+B/16",
            "R50+L/32",
            "BiT-R50x1",
            "BiT-R101x1",
            "BiT-R152x2",
        )
    },
}
# Updates of the smallest, the middle and the largest model of each family: the more a picture costs, the fewer lengths.
LENGTHS = {
    "laptop": ((150, 600, 2_400), (150, 600), (600,)),
    "gpu": ((10_000, 40_000, 160_000), (10_000, 40_000, 160_000), (40_000, 160_000)),
    "pod": ((25_000, 50_000, 100_000), (25_000, 50_000, 100_000), (50_000, 100_000)),
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
    c.seed, c.log_every, c.eval_every, c.save_every = 0, "2%", "50%", "50%"
    c.model = dict(MODELS[arg.scale][arg.model])
    if arg.scale == "laptop":
        c.batch, c.image_size, c.total, c.warmup = 64, 32, "600st", "5%"
        c.data = dict(name="folder", train="train[:90%]", val="train[90%:]", test="test", threads=2)
        c.data.crop_fraction = 1.0
        c.augment = dict(flip=True, shift=2)
        # At 3e-3 a BiT learns faster, and a ViT or hybrid does not: docs/studies/data_scale.md.
        lr = 3e-3 if arg.model.startswith("BiT-") else 1e-3
        c.optim = dict(name="adamw", lr=lr, weight_decay=0.05)
    else:
        c.image_size, c.warmup = 224, "5%"
        if arg.scale == "gpu":
            c.batch, c.total = 1024, "40_000st"
            c.data = dict(name="tfds:imagenet2012", train="train[:99%]", val="train[99%:]", test="validation")
            c.data.examples, c.data.classes = 1_268_355, 1_000
        else:
            c.batch, c.total = 4096, "50_000st"
            c.data = dict(name="records", train="train[:99%]", val="train[99%:]")
            c.data.examples, c.data.classes = 14_055_151, 21_843
        c.data.crop, c.data.crop_scale = "random_resized", (0.05, 1.0)
        c.augment = dict(flip=True)
        decay = 0.1 if arg.scale == "gpu" else 0.03
        c.optim = dict(name="adamw", lr=1e-3, weight_decay=decay, momentum_dtype="bfloat16")
    return c


def sweep(arg=None):
    """Every family, size and length."""
    scale = parse(arg).scale
    for seed in range(SEEDS[scale]):
        for i, model in enumerate(MODELS[scale]):
            for steps in LENGTHS[scale][i % 3]:
                yield {"config": f"model={model}", "total": f"{steps}st", "seed": seed}
