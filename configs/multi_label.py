"""A ViT from scratch on pictures with any number of labels each, listed in CSV files.

DIR/train.csv and DIR/test.csv have the columns path (relative to DIR) and label, such as "cat;dog":
python -m vit_jax.train --config=configs/multi_label.py:model=nano/4,epochs=10 --workdir=runs/pairs \
    --config.data.path=DIR --config.image_size="(32, 64)"
From pretrained weights: the same with --config.init=WEIGHTS, and their model (such as B/16) and image_size.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, model="S/16", epochs=100)
    c = ConfigDict()
    c.seed, c.batch, c.image_size = 0, 64, 224
    c.total, c.warmup = f"{arg.epochs}ep", "5%"
    c.log_every, c.eval_every, c.save_every = "50st", "10%", "10%"
    c.task, c.loss = "multi_label", "sigmoid"
    c.model = dict(name=arg.model, pool="gap", position="sincos2d")
    c.data = dict(name="csv", train="train", val="test")
    c.augment = dict(flip=True)
    c.optim = dict(name="adamw", lr=1e-3, weight_decay=0.05)
    return c
