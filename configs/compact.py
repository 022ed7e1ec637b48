"""Small ViTs on CIFAR-10 from scratch: ViT-Lite and CCT (Hassani et al., 2021).

python -m vit_jax.train --config=configs/compact.py --workdir=runs/cct2 --config.data.path=DIR
python -m vit_jax.train --config=configs/compact.py:model=ViT-Lite-7/4 --workdir=runs/lite --config.data.path=DIR

DIR has CIFAR-10 as {train,test}/<class>/*.png or *.jpg. The authors' script reaches 89.17 % with CCT-2/3x2 (0.284 M
parameters), 91.38 % with ViT-Lite-7/4 (3.717 M) and 94.78 % with CCT-7/3x1 (3.760 M), each in 200 epochs. Batch and
warm-up of ViT-Lite are those that they advise for a CCT of 6 or 7 blocks. Not the same here: they drop attention
weights at a rate of 0.1, change the learning rate once an epoch, decay biases and norms too, start from larger
positions, and have a block that adds its MLP to the second norm's output. Measured: the first hour (configs/README.md).
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, model="CCT-2/3x2", epochs=200)
    small = arg.model.startswith(("CCT-2/", "CCT-4/"))
    c = ConfigDict()
    c.seed, c.batch, c.image_size = 0, 128 if small else 64, 32
    c.total, c.warmup = f"{arg.epochs}ep", "5ep" if small else "10ep"
    c.log_every, c.eval_every, c.save_every = "100st", "1ep", "1ep"
    c.label_smoothing = 0.1
    c.model = dict(name=arg.model, drop_path=0.1, gelu="exact", norm_eps=1e-5)
    c.model.mean, c.model.std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    c.data = dict(name="folder", path="data/cifar10", train="train", val="test", crop_fraction=1.0)
    c.augment = dict(autoaugment=True, flip=True)
    c.optim = dict(name="adamw", lr=5e-4, weight_decay=0.03, clip=None)
    return c
