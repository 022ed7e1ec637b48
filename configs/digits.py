"""A small ViT on scikit-learn's handwritten digits (1,437 to train, 360 to test), from scratch.

python -m vit_jax.train --config=configs/digits.py --workdir=runs/digits
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_arg


def get_config(arg=None):
    parse_arg(arg)
    c = ConfigDict()
    c.seed, c.batch, c.image_size, c.channels = 0, 128, 8, 1
    c.total, c.warmup = "120ep", "5%"
    c.log_every, c.eval_every, c.save_every = "20st", "10%", "10%"
    c.label_smoothing = 0.1
    c.model = dict(name="Ti/2", width=96, depth=4, num_heads=4, mlp_dim=384, pool="gap", drop_path=0.1)
    c.data = dict(name="digits")
    c.augment = dict(shift=1, mixup=0.2)
    c.optim = dict(name="adamw", lr=2e-3, weight_decay=0.05)
    return c
