"""Position embeddings (Dosovitskiy et al., 2021, appendix D.4 and table 8): which kind, and where they are added.

python scripts/sweep.py configs/studies/positions.py:scale=laptop --workdir=studies/positions --processes=2 \
    --config.data.path=DIR          # CIFAR-10 as DIR/{train,test}/<class>/*.png or *.jpg
python scripts/figures.py positions studies/positions/results.csv --out=positions.png

`scale` is laptop (CIFAR-10 at 32 pixels), gpu (ImageNet-1k) or pod (ImageNet-21k). Measured at
scale=laptop: docs/studies/positions.md.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_arg

# "learned" is the paper's 1-D, "learned2d" its 2-D. Sine-cosine, of Chen et al. (2021), isn't in the paper. A relative
# bias acts in every block anyway: "stem" shares it among them.
RUNS = (
    ("none", "stem"),
    *(("learned", at) for at in ("stem", "blocks", "blocks_shared")),
    *(("learned2d", at) for at in ("stem", "blocks", "blocks_shared")),
    *(("relative", at) for at in ("stem", "blocks")),
    ("sincos2d", "stem"),
)
SEEDS = {"laptop": 3, "gpu": 3, "pod": 1}


def parse(arg):
    """Return the argument."""
    return parse_arg(arg, scale=("laptop", "gpu", "pod"))


def get_config(arg=None):
    arg = parse(arg)
    c = ConfigDict()
    c.seed, c.log_every, c.eval_every, c.save_every = 0, "2%", "25%", "25%"
    if arg.scale == "laptop":
        c.batch, c.image_size, c.total, c.warmup = 64, 32, "1_600st", "5%"
        c.model = dict(name="custom/4", width=48, depth=3, mlp_dim=192, num_heads=3, pool="gap")
        c.data = dict(name="folder", train="train[:90%]", val="train[90%:]", test="test", threads=2)
        c.data.crop_fraction = 1.0
        c.augment = dict(flip=True, shift=2)
        c.optim = dict(name="adamw", lr=1e-3, weight_decay=0.05)
        return c
    c.image_size, c.warmup = 224, "10_000st"
    c.model = dict(name="S/16" if arg.scale == "gpu" else "B/16", pool="gap")
    if arg.scale == "gpu":
        c.batch, c.total = 1024, "60_000st"
        c.data = dict(name="tfds:imagenet2012", train="train[:99%]", val="train[99%:]", test="validation")
        c.data.examples, c.data.classes = 1_268_355, 1_000
    else:
        c.batch, c.total = 4096, "100_000st"
        c.data = dict(name="records", train="train[:99%]", val="train[99%:]")
        c.data.examples, c.data.classes = 14_055_151, 21_843
    c.data.crop, c.data.crop_scale = "random_resized", (0.05, 1.0)
    c.augment = dict(flip=True)
    c.optim = dict(name="adamw", lr=1e-3, weight_decay=0.1, momentum_dtype="bfloat16")
    return c


def sweep(arg=None):
    """Every kind at every place that it can be added at."""
    for seed in range(SEEDS[parse(arg).scale]):
        for position, at in RUNS:
            yield {"model.position": position, "model.position_at": at, "seed": seed}
