"""What pre-training without labels is worth: fine-tuned on 1 % and 10 % of the labels, against from scratch.

python scripts/sweep.py configs/pretrain.py:epochs=33 --workdir=studies/pretrained --processes=2 \
    --config.data.path=DIR --config.eval_every=100%     # CIFAR-10 as DIR/{train,test}/<class>/*.png or *.jpg
python scripts/sweep.py configs/studies/labels.py:runs=studies/pretrained --workdir=studies/labels --processes=2 \
    --config.data.path=DIR
python scripts/figures.py labels studies/labels/results.csv --out=labels.png

`runs` are those of the first sweep, one for each task; all fine-tuning is the same. Measured: docs/studies/labels.md.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vit_jax.config import parse_arg

FRACTIONS = (0.01, 0.1)


def get_config(arg=None):
    parse_arg(arg, runs="")
    c = ConfigDict()
    c.seed, c.batch, c.image_size, c.total, c.warmup = 0, 64, 32, "300st", "10%"
    c.log_every, c.eval_every, c.save_every = "2%", "100%", "100%"
    c.model = dict(name="nano/4", pool="gap", position="sincos2d")
    c.data = dict(name="folder", train="train[:90%]", val="train[90%:]", test="test", threads=2)
    c.data.crop_fraction = 1.0
    c.augment = dict(flip=True, shift=4)
    c.optim = dict(name="adamw", lr=1e-3, weight_decay=0.05)
    return c


def sweep(arg=None):
    """From scratch and from each of `runs`, on each part of the labels."""
    runs = parse_arg(arg, runs="").runs
    starts = sorted(str(path.parent) for path in Path(runs).glob("*/run.json"))
    if not runs or not starts:
        raise ValueError(f"runs={runs}: must be the folder of a sweep of configs/pretrain.py")
    for seed in range(3):
        for fraction in FRACTIONS:
            for start in (None, *starts):
                yield {"init": start, "data.fraction": fraction, "seed": seed}
