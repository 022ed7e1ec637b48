"""Fine-tuning as in the ViT paper (Dosovitskiy et al., 2021, appendix B.1.1 and table 4), on a data set or a folder.

python -m vit_jax.train --config=configs/finetune.py:model=B/16,dataset=cifar10 --workdir=runs/b16_cifar10
python -m vit_jax.train --config=configs/finetune.py:model=B/16,dataset=folder --workdir=runs/mine \
    --config.data.path=pictures          # pictures/{train,val,test}/<class>/*.jpg, or pictures/<class>/*.jpg
python -m vit_jax.train --config=configs/finetune.py:model=S/8,dataset=folder,init=runs/s8 --workdir=runs/mine ...

`mode` says what is trained: everything with SGD, as in the paper (full); the head alone (probe); everything with AdamW,
earlier layers more slowly (layer_decay); or the last blocks, the last norm and the head (last_2, or another number).
`model` is a published ViT, Swin-T, Swin-S, Swin-B or Swin-L (not with layer_decay or last_2), or that of `init`.
`dataset` is folder, cifar10, cifar100, oxford_iiit_pet (or pets), oxford_flowers102 (or flowers) or imagenet2012. The
splits and the number of steps of a folder follow from what is in it, and are printed (docs/finetune.md).

Starts from the published ImageNet-21k weights, downloaded once, or from `init` (or `--config.init`). At 384 pixels and
512 pictures per step, B/16 needs about 8 GPUs; with fewer, use `--config.accumulate=8` to split a step into 8 parts,
a smaller `--config.batch` with a smaller `--config.optim.lr`, or `--config.image_size=224`.

Expected, by the authors' own runs (google-research/vision_transformer, README): B/16 98.9 to 99.0 % on cifar10, 92.3 to
92.6 % on cifar100, 84.6 % on imagenet2012, in 7, 7 and 18 h on 8 V100. Not measured here.
"""

import re

from ml_collections import ConfigDict

from vit_jax.config import parse_arg

PAPER = "gs://vit_models/imagenet21k"
AUGREG = "gs://vit_models/augreg"  # Steiner et al., 2022: the small models, which the paper lacks.
WEIGHTS = {
    "Ti/16": f"{AUGREG}/Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0.npz",
    "S/32": f"{AUGREG}/S_32-i21k-300ep-lr_0.001-aug_none-wd_0.1-do_0.0-sd_0.0.npz",
    "S/16": f"{AUGREG}/S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0.npz",
    "B/32": f"{PAPER}/ViT-B_32.npz",
    "B/16": f"{PAPER}/ViT-B_16.npz",
    "L/32": f"{PAPER}/ViT-L_32.npz",
    "L/16": f"{PAPER}/ViT-L_16.npz",
    "H/14": f"{PAPER}/ViT-H_14.npz",
    # Liu et al., 2021, as timm has them; of 224 pixels.
    **{
        f"Swin-{size[0].upper()}": f"hf://timm/swin_{size}_patch4_window7_224.ms_in22k"
        for size in ("tiny", "small", "base", "large")
    },
}

# Source, splits to evaluate during and at the end of a run, steps from table 4, warm-up steps of the authors' code, and
# the percentage of the training set that the paper holds out to choose a learning rate on (appendix B.1.1).
DATASETS = {
    "folder": ("folder", "auto", "auto", "auto", "auto", None),
    "cifar10": ("tfds:cifar10", "test", None, "10_000st", "500st", 2),
    "cifar100": ("tfds:cifar100", "test", None, "10_000st", "500st", 2),
    "oxford_iiit_pet": ("tfds:oxford_iiit_pet", "test", None, "500st", "100st", 10),
    "oxford_flowers102": ("tfds:oxford_flowers102", "test", None, "500st", "100st", 10),
    "imagenet2012": ("tfds:imagenet2012", "validation", None, "20_000st", "500st", 1),
}
SHORT = {"pets": "oxford_iiit_pet", "flowers": "oxford_flowers102"}

# Learning rates to try. Of the whole model: table 4; the others: around our defaults, not from a paper.
GRIDS = {
    "full": (0.001, 0.003, 0.01, 0.03),
    "probe": (0.01, 0.03, 0.1, 0.3),
    "layer_decay": (1e-4, 3e-4, 1e-3),
    "last": (0.001, 0.003, 0.01, 0.03),
}
IMAGENET = (0.003, 0.01, 0.03, 0.06)


def parse(arg):
    """Return the argument, with the number of blocks in `last`."""
    arg = parse_arg(arg, model="B/16", dataset="folder", init="", mode="full")
    arg.dataset = SHORT.get(arg.dataset, arg.dataset)
    if arg.dataset not in DATASETS:
        raise ValueError(f"dataset={arg.dataset}: must be one of {', '.join([*DATASETS, *SHORT])}")
    match = re.fullmatch(r"(full|probe|layer_decay|last)(?:_(\d+))?", arg.mode)
    if not match or (match[1] == "last") != (match[2] is not None):
        raise ValueError(f"mode={arg.mode}: must be full, probe, layer_decay or last_N, such as last_2")
    arg.mode, arg.last = match[1], match[2] and int(match[2])
    return arg


def get_config(arg=None):
    arg = parse(arg)
    source, val, test, total, warmup, _ = DATASETS[arg.dataset]
    c = ConfigDict()
    c.init = arg.init or WEIGHTS.get(arg.model, "")
    c.seed, c.batch, c.image_size = 0, 512, 224 if arg.model.startswith("Swin-") else 384
    c.total, c.warmup = total, warmup
    c.log_every, c.eval_every, c.save_every = "10st", "10%", "10%"
    c.model = dict(name=arg.model)
    c.data = dict(name=source, val=val, test=test, crop="random_resized", crop_scale=(0.05, 1.0))
    # Small pictures are used whole, as by the authors; others are center-cropped, as in their later code.
    c.data.crop_fraction = 1.0 if arg.dataset.startswith("cifar") else 384 / 448
    c.augment = dict(flip=True)
    c.optim = dict(name="sgd", momentum=0.9, momentum_dtype="bfloat16", lr=0.01, weight_decay=0.0, clip=1.0)
    if arg.mode == "probe":
        # Nothing but the new head can be harmed by a large rate.
        c.optim.lr, c.optim.lr_mults = 0.1, ((r"head/.*", 1.0), (r".*", 0.0))
    elif arg.mode == "layer_decay":
        # As for BEiT-L (Bao et al., 2022, and the authors' commands): 1e-3 at 1,024 pictures per step.
        c.optim = dict(name="adamw", lr=5e-4, weight_decay=0.05, layer_decay=0.75, clip=1.0)
        c.model.drop_path = 0.1
    elif arg.mode == "last":
        c.optim.last_blocks = arg.last
    return c


def sweep(arg=None):
    """The paper's grid, evaluated on a held-out part of the training set; another for other modes."""
    arg = parse(arg)
    paper = IMAGENET if arg.dataset == "imagenet2012" and arg.mode in ("full", "last") else GRIDS[arg.mode]
    held_out = DATASETS[arg.dataset][-1]
    for lr in paper:
        # A folder's `val` is held out as it is.
        parts = (
            {"data.train": f"train[:{100 - held_out}%]", "data.val": f"train[{100 - held_out}%:]"} if held_out else {}
        )
        yield {"optim.lr": lr} | parts
