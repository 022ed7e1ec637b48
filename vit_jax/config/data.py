"""The config of the data and its augmentation."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from vit_jax.config.coerce import Section
from vit_jax.config.ranges import Count, Fraction, NonNegative, Positive, Range, Seed
from vit_jax.errors import InputError

# Excludes 0, which would leave nothing to train on.
Share = Annotated[float, Range("(0, 1]")]


@dataclass(frozen=True)
class Data(Section):
    """Where pictures come from, and how they are read and cropped.

    Attributes:
        name: a source from `vit_jax.data.SOURCES`, with its argument after a colon: "folder", "csv:DIR", "records:DIR",
            "jsonl:DIR", "tfds:NAME[/CONFIG][:VERSION]", "hf:PATH_OR_NAME[:CONFIG]", "digits", "synthetic".
        path: where the data is on this machine. For "folder", "csv", "jsonl", "records" and "hf" it overrides the
            argument in `name`; for "tfds" it is the directory that contains all prepared data sets.
        train, val, test: names of the splits (for "folder", its subfolders, or "." for a folder without any), or slices
            of them: "train[:99%]", "train[50_000:]". "tfds" slices in record order; all other sources slice each class
            in proportion. `val` is evaluated during training, `test` once, at the end, with the weights that
            `Config.select` selects; None: there is none. "auto" for `val` and `test` takes the splits that are there
            (val, validation or valid; test) and, if there is none for `val`, holds out a tenth of `train`.
        balance: how an epoch draws its pictures: each once ("none"), or as many of every class ("classes"), so that
            those of a rare class repeat, each as often as the others.
        image_key, label_key: the features ("tfds") or columns ("hf") with the picture and its class; "csv" and "jsonl"
            use only `label_key`.
        fraction, fraction_seed: fraction of the training split to train on, the same for every class. With the same
            seed, a smaller fraction is a subset of a larger one.
        threads: reader threads per process; affects speed, never the batches.
        cache_mb: a split whose decoded pictures fit in this many MiB is decoded once and kept in memory.
        crop: how training pictures are cropped: "central", as in evaluation; "random", the same size at a random
            position; "random_resized", a random area and aspect ratio (Szegedy et al., 2015), resized to the input.
        crop_scale, crop_ratio: range of the "random_resized" crop's area over the picture's, and of its width over its
            height.
        crop_fraction: size of the central and random crops, relative to the largest crop with the model's aspect
            ratio. A central crop keeps a picture that already has the model's size whole.
        resize: how evaluation and prediction fit a picture to the model's size: its central crop ("crop"), all of it
            with bars of the mean color ("pad"), all of it with its aspect ratio changed ("stretch"), or all of it as it
            is ("native"): scaled, up or down, to at most as many patches as `image_size` has, in about its own aspect
            ratio, whatever that is (Tschannen et al., 2025). In training, "native" fits what is cropped likewise.
        packing: patches in each sequence of a training batch, at most, with "native" pictures: several share one, and
            each attends to itself alone (Dehghani et al., 2023, NaViT). None: each is a sequence of its own.
        pictures: that share such a sequence; None: as many as always fit. Where there are more, each gets a random
            part of the sequence, in proportion to draws between 1/2 and 3/2: training at many resolutions, for the
            cost of their mean.
        filter: interpolation when pictures are evaluated, predicted or cropped centrally; antialiased.
        max_bad: fraction of a split's pictures that may be unreadable before a run stops; training replaces each with
            the next one.
        examples, classes: number of training pictures and of classes; `vit_jax.preflight.check` uses them on machines
            without the data.
    """

    where: ClassVar[str] = "config.data"

    name: str = "folder"
    path: str | None = None
    train: str = "train"
    val: str = "test"
    test: str | None = None
    balance: Literal["none", "classes"] = "none"
    image_key: str = "image"
    label_key: str = "label"
    fraction: Share = 1.0
    fraction_seed: Seed = 0
    threads: Annotated[int, Range("[1, 1024]")] = 8
    cache_mb: Annotated[int, Range("[0, inf)")] = 2048
    crop: Literal["central", "random", "random_resized"] = "central"
    crop_scale: tuple[Share, Share] = (0.08, 1.0)
    crop_ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    crop_fraction: Share = 0.875
    resize: Literal["crop", "pad", "stretch", "native"] = "crop"
    packing: Count | None = None
    pictures: Count | None = None
    filter: Literal["bilinear", "bicubic"] = "bilinear"
    max_bad: Fraction = 0.001
    examples: Count | None = None
    classes: Count | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise InputError(f"config.data.{name}={(low, high)}: must be (low, high) with low <= high")
        if self.packing is not None and self.resize != "native":
            raise InputError(
                f"config.data.packing={self.packing}: packs pictures of many shapes, but config.data.resize="
                f"{self.resize!r} gives all the same; set it to 'native'"
            )
        if self.pictures is not None and self.packing is None:
            raise InputError(f"config.data.pictures={self.pictures}: means nothing without config.data.packing")
        if self.resize == "native" and self.crop == "random":
            raise InputError("config.data.crop='random': crops have one shape; with native pictures use random_resized")


@dataclass(frozen=True)
class Augment(Section):
    """Augmentation of whole batches, inside the jitted step.

    Attributes:
        flip: mirror left to right with probability 1/2.
        shift: shift by up to this many pixels in each direction, repeating the edge pixels.
        autoaugment: the policy that Cubuk et al. (2019) found for CIFAR-10.
        randaugment: (layers, magnitude) of Cubuk et al. (2020), such as (2, 9); 0 layers turns it off.
        color_jitter: largest relative change of brightness, contrast and saturation; 0 turns it off.
        erasing: probability of erasing a rectangle of a picture (Zhong et al., 2020); 0 turns it off.
        mixup: alpha of the Beta distribution of Zhang et al. (2018); 0 turns it off.
        cutmix: alpha of the Beta distribution of Yun et al. (2019); 0 turns it off. With mixup also on, each batch
            gets one of the two at random.
    """

    where: ClassVar[str] = "config.augment"

    flip: bool = False
    shift: Annotated[int, Range("[0, inf)")] = 0
    autoaugment: bool = False
    randaugment: tuple[Annotated[int, Range("[0, 100]")], Annotated[float, Range("[0, 10]")]] = (0, 0.0)
    color_jitter: Fraction = 0.0
    erasing: Fraction = 0.0
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
