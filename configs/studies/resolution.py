"""Another resolution than that of training: a model evaluated, and fine-tuned for a little, at 0.5 to 2 times its own.

python scripts/sweep.py configs/studies/resolution.py:scale=laptop --workdir=studies/resolution --processes=2 \
    --config.data.path=DIR          # CIFAR-10 as DIR/{train,test}/<class>/*.png or *.jpg
python scripts/sweep.py configs/studies/resolution.py:scale=laptop,runs=studies/resolution \
    --workdir=studies/resolution_sizes --processes=2 --config.data.path=DIR
python scripts/figures.py resolution studies/resolution_sizes/results.csv --out=resolution.png

The first trains models with each kind of position: learned, which is resampled for other sizes; sine-cosine, which is
computed for them; none. The second starts from each of its `runs` at every size, once without learning anything, and
once for a short time. `scale` is laptop (CIFAR-10 at 32 pixels), gpu (ImageNet-1k) or pod (ImageNet-21k).
Not measured yet: docs/studies/resolution.md.
"""

import json
from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import parse_arg

SIZES = {"laptop": (16, 32, 48, 64), "gpu": (112, 160, 224, 336, 448), "pod": (112, 160, 224, 336, 448)}
# Updates of the second stage. Of a single update with a warm-up of one, the rate is 0: the model stays as it is.
ALONE = {"total": "1st", "warmup": "1st"}
TUNED = {"laptop": {"total": "150st"}, "gpu": {"total": "5_000st"}, "pod": {"total": "5_000st"}}
POSITIONS = ("learned", "sincos2d", "none")
SEEDS = {"laptop": 3, "gpu": 3, "pod": 1}


def parse(arg):
    """Return the argument."""
    return parse_arg(arg, scale=("laptop", "gpu", "pod"), runs="")


def get_config(arg=None):
    arg = parse(arg)
    c = ConfigDict()
    c.seed, c.log_every, c.eval_every, c.save_every = 0, "2%", "25%", "25%"
    if arg.scale == "laptop":
        c.batch, c.image_size, c.total, c.warmup = 64, 32, "1_600st", "5%"
        c.model = dict(name="custom/4", width=48, depth=3, mlp_dim=192, num_heads=3, pool="gap", unroll=3)
        c.data = dict(name="folder", train="train[:90%]", val="train[90%:]", test="test", threads=2)
        c.augment = dict(flip=True, shift=2)
        c.optim = dict(name="adamw", lr=1e-3, weight_decay=0.05)
    else:
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
    # Every size shows the same part of a picture.
    c.data.crop_fraction = 1.0
    if arg.runs:
        c.warmup, c.eval_every, c.save_every = "5%", "100%", "100%"
        c.optim.lr = 3e-4
    return c


def sweep(arg=None):
    """Every kind of position; of `runs`, each at every size, without learning and for a short time."""
    arg = parse(arg)
    if not arg.runs:
        for seed in range(SEEDS[arg.scale]):
            for position in POSITIONS:
                yield {"model.position": position, "seed": seed}
        return
    found = sorted(Path(arg.runs).glob("*/run.json"))
    if not found:
        raise ValueError(f"runs={arg.runs}: no run in it; first make the sweep without runs=")
    for path in found:
        config = json.loads(path.read_text())["config"]
        kept = {"model.position": config["model"]["position"], "seed": config["seed"]}
        for size in SIZES[arg.scale]:
            for length in (ALONE, TUNED[arg.scale]):
                yield kept | {"image_size": size} | length | {"init": str(path.parent)}
