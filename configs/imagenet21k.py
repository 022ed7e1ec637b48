"""Pre-training on ImageNet-21k: "How to train your ViT?", AugReg (Steiner et al., 2022), with the authors' settings.

python -m vit_jax.train --config=configs/imagenet21k.py:model=B/16 --workdir=runs/b16_i21k --config.data.path=RECORDS

RECORDS come from a folder by `scripts/prepare_data.py`: 21,843 classes, 14.2 M pictures; 300 epochs are a million
steps, for a pod. Expected, from the authors (big_vision, configs/transfer.py), for their B/32 after fine-tuning:
98.55 % on cifar10, 91.35 % on cifar100, 93.78 % on oxford_iiit_pet, 99.43 % on oxford_flowers102. Not measured here.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_arg

# Mixup, and the magnitude of two layers of RandAugment; the authors use 15 for L/16, but ours ends at 10.
AUGMENT = {
    "Ti/16": (0.0, None),
    "S/32": (0.0, None),
    "S/16": (0.0, 0),
    "B/32": (0.2, 10),
    "B/16": (0.2, 10),
    "L/16": (0.5, 10),
}


def get_config(arg=None):
    arg = parse_arg(arg, model="B/16", epochs=300)
    mixup, magnitude = AUGMENT.get(arg.model, AUGMENT["B/16"])
    c = ConfigDict()
    c.seed, c.batch, c.image_size = 0, 4096, 224
    c.total, c.warmup = f"{arg.epochs}ep", "10_000st"
    c.log_every, c.eval_every, c.save_every = "50st", "10_000st", "1_000st"
    # Each class against the rest, since a picture may show several; the bias starts with nearly all classes absent.
    c.loss = "sigmoid"
    c.model = dict(name=arg.model, head_bias=-10.0)
    c.data = dict(name="records", train="train[:99%]", val="train[99%:]")
    c.data.examples, c.data.classes = 14_055_151, 21_843  # For preflight checks without the data.
    c.data.crop, c.data.crop_scale, c.data.crop_fraction = "random_resized", (0.05, 1.0), 224 / 256
    c.augment = dict(flip=True, mixup=mixup)
    if magnitude is not None:  # 0 is not the same as none: some operations have no magnitude.
        c.augment.randaugment = (2, magnitude)
    # The authors' decay of 1e-4 is not multiplied by the learning rate, whose peak is 1e-3; ours is.
    c.optim = dict(name="adamw", lr=1e-3, weight_decay=1e-4 / 1e-3, clip=1.0, momentum_dtype="bfloat16")
    return c
