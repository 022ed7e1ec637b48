"""Pre-training without labels, on CIFAR-10, ImageNet-1k or a folder; docs/pretraining.md has what comes after.

python -m vit_jax.train --config=configs/pretrain.py:task=mae --workdir=runs/mae \
    --config.data.path=DIR          # CIFAR-10 as DIR/{train,test}/<class>/*.png or *.jpg
python -m vit_jax.train --config=configs/pretrain.py:task=mae,dataset=imagenet2012,model=L/16 --workdir=runs/mae \
    --config.data.path=SETS
python -m vit_jax.train --config=configs/pretrain.py:task=mae,dataset=folder,model=S/16 --workdir=runs/mae \
    --config.data.path=pictures         # pictures/*.jpg, or in folders for each split or class

`task` is mae (He et al., 2022: 800 epochs, of which 40 warm-up, batch 4,096, a rate of 1.5e-4 for each 256 pictures),
masked_patches (Dosovitskiy et al., 2021, appendix B.1.2: a rate of 2e-4, 10,000 steps warm-up, batch 4,096) or
next_patch (El-Nouby et al., 2024). The rest is that of mae; all settings of next_patch and of CIFAR-10, which has a
model for a laptop, are ours, and the batch of 256 of a folder. Measured: docs/studies/labels.md.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_arg

# What an epoch costs, in those of mae: nano/4 on one core of an AMD EPYC (Zen 4) trained on 407, 150 and 160 pictures a
# second.
COST = {"mae": 1, "masked_patches": 3, "next_patch": 3}


def parse(arg):
    """Return the argument."""
    return parse_arg(arg, task=tuple(COST), dataset=("cifar10", "imagenet2012", "folder"), model="", epochs=0)


def get_config(arg=None):
    arg = parse(arg)
    small = arg.dataset == "cifar10"
    c = ConfigDict()
    c.seed, c.task = 0, arg.task
    c.model = dict(name=arg.model or ("nano/4" if small else "B/16"), pool="gap", position="sincos2d")
    if small:
        c.batch, c.image_size, c.total, c.warmup = 128, 32, f"{arg.epochs or 40}ep", "5%"
        c.data = dict(name="folder", path="data/cifar10", train="train[:90%]", val="train[90%:]", crop_fraction=1.0)
        c.augment = dict(flip=True, shift=4)
        if arg.task == "mae":
            c.pretrain = dict(decoder_width=64, decoder_depth=2, decoder_heads=2)
        c.optim = dict(name="adamw", lr=1e-3, b2=0.95, weight_decay=0.05)
    else:
        c.image_size, c.total = 224, f"{arg.epochs or 800}ep"
        if arg.dataset == "folder":
            c.batch, c.warmup = 256, "5%"
            c.data = dict(name="folder", val="auto")
        else:
            c.batch = 4096
            c.warmup = {"mae": "40ep", "masked_patches": "10_000st", "next_patch": "6%"}[arg.task]
            c.data = dict(name="tfds:imagenet2012", train="train[:99%]", val="train[99%:]")
            c.data.examples, c.data.classes = 1_268_355, 1_000  # For preflight checks without the data.
        c.data.crop, c.data.crop_scale = "random_resized", (0.2, 1.0)
        c.augment = dict(flip=True)
        lr = {"mae": 1.5e-4 * c.batch / 256, "masked_patches": 2e-4, "next_patch": 1e-3}[arg.task]
        c.optim = dict(name="adamw", lr=lr, b2=0.95, weight_decay=0.05, momentum_dtype="bfloat16")
    c.log_every, c.eval_every, c.save_every = "50st", "10%", "10%"
    c.evaluators = {"val": {}}
    if arg.dataset != "folder":  # Which may have no labels.
        # How good the features are, without training on labels, beside the loss.
        c.evaluators.knn = dict(evaluator="knn", neighbours=(10, 20))
    return c


def sweep(arg=None):
    """Every task; on CIFAR-10 for about as long, `epochs` being those of mae."""
    arg = parse(arg)
    for task, cost in COST.items():
        epochs = round((arg.epochs or 45) / cost)
        yield {"config": f"task={task},epochs={epochs}" if arg.dataset == "cifar10" else f"task={task}"}
