"""Another resolution than that of training: models evaluated, and fine-tuned for a little, at 0.5 to 2 times their own.

python scripts/sweep.py configs/studies/resolution.py:scale=laptop,runs=studies/positions \
    --workdir=studies/resolution --processes=2 --config.data.path=DIR       # CIFAR-10, as for positions.py
python scripts/figures.py resolution studies/resolution/results.csv --out=resolution.png

It starts from `runs`, those of positions.py at the same `scale` whose positions are learned, which are resampled for
other sizes, sine-cosine, which are computed for them, or none: each at every size, once without learning anything, and
once for a short time. `scale` is laptop (CIFAR-10 at 32 pixels), gpu (ImageNet-1k) or pod (ImageNet-21k).
Measured at scale=laptop: docs/studies/resolution.md.
"""

import json
from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import parse_arg

SIZES = {"laptop": (16, 32, 64), "gpu": (112, 160, 224, 336, 448), "pod": (112, 160, 224, 336, 448)}
# Of a single update with a warm-up of one, the rate is 0: the model stays as it is.
ALONE = {"total": "1st", "warmup": "1st"}
TUNED = {"laptop": {"total": "150st"}, "gpu": {"total": "5_000st"}, "pod": {"total": "5_000st"}}
POSITIONS = ("learned", "sincos2d", "none")


def parse(arg):
    """Return the argument."""
    return parse_arg(arg, scale=("laptop", "gpu", "pod"), runs="")


def get_config(arg=None):
    arg = parse(arg)
    c = ConfigDict()
    c.seed, c.warmup, c.log_every, c.eval_every, c.save_every = 0, "5%", "2%", "100%", "100%"
    c.total = TUNED[arg.scale]["total"]
    if arg.scale == "laptop":
        c.batch, c.image_size = 64, 32
        c.model = dict(name="custom/4", width=48, depth=3, mlp_dim=192, num_heads=3, pool="gap")
        c.data = dict(name="folder", train="train[:90%]", val="train[90%:]", test="test", threads=2)
        c.augment = dict(flip=True, shift=2)
        c.optim = dict(name="adamw", lr=3e-4, weight_decay=0.05)
    else:
        c.image_size = 224
        c.model = dict(name="S/16" if arg.scale == "gpu" else "B/16", pool="gap")
        if arg.scale == "gpu":
            c.batch = 1024
            c.data = dict(name="tfds:imagenet2012", train="train[:99%]", val="train[99%:]", test="validation")
            c.data.examples, c.data.classes = 1_268_355, 1_000
        else:
            c.batch = 4096
            c.data = dict(name="records", train="train[:99%]", val="train[99%:]")
            c.data.examples, c.data.classes = 14_055_151, 21_843
        c.data.crop, c.data.crop_scale = "random_resized", (0.05, 1.0)
        c.augment = dict(flip=True)
        c.optim = dict(name="adamw", lr=3e-4, weight_decay=0.1, momentum_dtype="bfloat16")
    # Every size shows the same part of a picture.
    c.data.crop_fraction = 1.0
    return c


def sweep(arg=None):
    """Each of `runs` at every size, without learning and for a short time."""
    arg = parse(arg)
    for path, config in _runs(arg.runs):
        kept = {"model.position": config["model"]["position"], "seed": config["seed"]}
        for size in SIZES[arg.scale]:
            for length in (ALONE, TUNED[arg.scale]):
                yield kept | {"image_size": size} | length | {"init": str(path.parent)}


def _runs(folder):
    found = ((path, json.loads(path.read_text())["config"]) for path in sorted(Path(folder).glob("*/run.json")))
    runs = [
        (path, config)
        for path, config in found
        if config["model"]["position"] in POSITIONS and config["model"]["position_at"] == "stem"
    ]
    if not folder or not runs:
        raise ValueError(f"runs={folder}: must be the folder of a sweep of configs/studies/positions.py")
    return runs
