"""A ViT from scratch on CIFAR-10, from a folder of pictures: {train,test}/<class>/*.png or *.jpg.

On one core of a CPU, in about half an hour (measured: configs/README.md), a compact transformer or a plain ViT:
python -m vit_jax.train --config=configs/cifar10.py:model=CCT-2/3x2,epochs=10 --workdir=runs/cct \
    --config.data.path=DIR
python -m vit_jax.train --config=configs/cifar10.py:model=nano/4,epochs=6 --workdir=runs/nano --config.data.path=DIR
On a GPU: the same with --config=configs/cifar10.py, which trains Ti/4 for 200 epochs.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, model="Ti/4", epochs=200)
    short = arg.epochs <= 30  # Too few epochs to overfit: regularization would only slow training down.
    c = ConfigDict()
    c.seed, c.batch, c.image_size = 0, 64 if short else 256, 32
    c.total, c.warmup = f"{arg.epochs}ep", "5%"
    c.log_every, c.eval_every, c.save_every = "50st", "10%" if short else "1%", "10%" if short else "1%"
    c.label_smoothing = 0.1
    c.model = dict(name=arg.model, position="sincos2d", drop_path=0.0 if short else 0.1)
    c.model.pool = "seq" if arg.model.startswith("CCT-") else "gap"
    c.data = dict(name="folder", path="data/cifar10", train="train", val="test", crop_fraction=1.0)
    c.augment = dict(flip=True, shift=2 if short else 4, mixup=0.0 if short else 0.4)
    # Muon learns more from each picture: 0.762 after 3 epochs of CCT-2/3x2, where AdamW at 1e-3 has 0.654.
    c.optim = dict(name="muon", lr=2e-3) if short else dict(name="adamw", lr=1e-3)
    c.optim.weight_decay = 0.05
    return c
