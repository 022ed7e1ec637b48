"""A small ViT from scratch on scikit-learn's digits (1,437 to train, 360 to test), in a minute or two on a CPU.

python -m vit_jax.train --config=configs/digits.py --workdir=runs/digits
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, epochs=50)
    c = ConfigDict()
    c.seed, c.batch, c.image_size, c.channels = 0, 64, 8, 1
    c.total, c.warmup = f"{arg.epochs}ep", "5%"
    c.log_every, c.eval_every, c.save_every = "100st", "10%", "20%"
    c.label_smoothing = 0.1
    c.model = dict(name="nano/2", depth=4, num_heads=4, pool="gap", position="sincos2d", drop_path=0.1)
    c.data = dict(name="digits")
    c.augment = dict(mixup=0.4)  # No flip: mirrored digits are not digits.
    c.optim = dict(name="muon", lr=3e-3, weight_decay=0.05)
    return c
