"""Other roads than full attention over patches, at equal training FLOPs: patterns of attention, Swin, the hybrid.

python scripts/sweep.py configs/studies/roads.py --workdir=studies/roads --processes=2 \
    --config.data.path=DIR          # CIFAR-10 as DIR/{train,test}/<class>/*.png or *.jpg
python scripts/figures.py roads studies/roads/results.csv --out=roads.png

`road` is one of ROADS. All but the hybrid cut a picture of 32 pixels into 16 x 16 patches. What was
found: docs/studies/roads.md.
"""

from ml_collections import ConfigDict

from vit_jax.config import parse_arg

SIZE = dict(width=48, depth=4, mlp_dim=192, num_heads=3, pool="gap")
PATTERNS = ("full", "axial", "local:3", "strided:16")
ROADS = {pattern: dict(name="custom/2", attention_pattern=pattern, **SIZE) for pattern in PATTERNS} | {
    # As many parameters as the others. Its second map has 8 x 8 tokens of twice the width.
    "Swin": dict(name="Swin-custom", patch=2, width=32, num_heads=2, swin=(2, 2), window=4),
    "hybrid": dict(name="R5+custom/4", resnet=(1,), resnet_width=32, **SIZE),
}
# Training FLOPs of a picture, by which lengths follow: matrix products and convolutions, 2 for each multiply-add.
MFLOPS = {"full": 346.7, "axial": 181.5, "local:3": 239.3, "strided:16": 213.2, "Swin": 90.3, "hybrid": 66.7}
BUDGETS = (2.2e12, 8.8e12)
BATCH = 64


def parse(arg):
    """Return the argument."""
    return parse_arg(arg, road=tuple(ROADS))


def get_config(arg=None):
    arg = parse(arg)
    c = ConfigDict()
    c.seed, c.log_every, c.eval_every, c.save_every = 0, "2%", "25%", "25%"
    c.batch, c.image_size, c.total, c.warmup = BATCH, 32, length(arg.road, BUDGETS[-1]), "5%"
    c.model = dict(ROADS[arg.road])
    c.data = dict(name="folder", train="train[:90%]", val="train[90%:]", test="test", threads=2)
    c.data.crop_fraction = 1.0
    c.augment = dict(flip=True, shift=2)
    c.optim = dict(name="adamw", lr=1e-3, weight_decay=0.05)
    return c


def length(road, flops):
    """Return the updates that cost so many operations."""
    return f"{round(flops / (BATCH * MFLOPS[road] * 1e6))}st"


def sweep(arg=None):
    """Every road at each budget."""
    parse(arg)
    for seed in range(3):
        for flops in BUDGETS:
            for road in ROADS:
                yield {"config": f"road={road}", "total": length(road, flops), "seed": seed}
