"""The keys that say where pictures come from, and how they are changed on the way."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from vit_jax.config.coerce import Section
from vit_jax.config.ranges import Count, Fraction, NonNegative, Positive, Range, Seed
from vit_jax.errors import InputError

# Above 0: nothing can be trained on nothing.
Share = Annotated[float, Range("(0, 1]")]


@dataclass(frozen=True)
class Data(Section):
    """Where pictures come from.

    Attributes:
        name: a source of `vit_jax.data.SOURCES`, and after a colon what it opens: "folder", "csv:DIR", "records:DIR",
            "tfds:NAME[/CONFIG][:VERSION]", "hf:PATH_OR_NAME[:CONFIG]", "digits", "synthetic".
        path: where the data lies on this machine: of "folder", "csv", "records" and "hf", in place of what `name` says;
            of "tfds", the directory of all prepared sets.
        train, val: names of the splits (for a folder, its subfolders), or slices of them: "train[:99%]",
            "train[50_000:]". TFDS cuts its own in the order of the records; the other sources cut class by class.
        image_key, label_key: the features (TFDS) or columns (hf, csv) that hold the picture and its class.
        fraction, fraction_seed: part of the training split to train on, the same part of every class; with one seed
            each smaller fraction lies inside each larger.
        threads: reader threads of one process; changes speed, never batches.
        cache_mb: a split that is no larger than this once decoded is decoded once and held in memory.
        crop: of training pictures: "central" as in evaluation; "random" a crop of the same size anywhere;
            "random_resized" a part of random area and shape (Szegedy et al., 2015), stretched to the model's input.
        crop_scale, crop_ratio: of "random_resized": the part's area over the picture's, and its width over its height.
        crop_fraction: side of the central and random crop after the shorter side is resized; a picture that has the
            model's size already passes whole.
        max_bad: part of a split's pictures that may be unreadable, each replaced by the next, before a run stops.
        examples, classes: pictures to train on and classes, by which a run on other devices is checked where its data
            is not at hand (`vit_jax.preflight.check`).
    """

    where: ClassVar[str] = "config.data"

    name: str = "folder"
    path: str | None = None
    train: str = "train"
    val: str = "test"
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
    max_bad: Fraction = 0.001
    examples: Count | None = None
    classes: Count | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise InputError(f"config.data.{name}={(low, high)}: must be (low, high), low not above high")


@dataclass(frozen=True)
class Augment(Section):
    """Augmentation of whole batches inside the jitted step.

    Attributes:
        flip: mirror left to right with probability 1/2.
        shift: move by up to this many pixels each way, edges repeated.
        randaugment: (layers, magnitude) of Cubuk et al. (2020), such as (2, 9); no layers turn it off.
        color_jitter: largest relative change of brightness, contrast and saturation; 0 turns it off.
        erasing: probability that a rectangle of a picture is erased (Zhong et al., 2020); 0 turns it off.
        mixup: alpha of the Beta distribution of Zhang et al. (2018); 0 turns it off.
        cutmix: alpha of the Beta distribution of Yun et al. (2019); 0 turns it off. Beside mixup, each batch
            takes one of the two by chance.
    """

    where: ClassVar[str] = "config.augment"

    flip: bool = False
    shift: Annotated[int, Range("[0, inf)")] = 0
    randaugment: tuple[Annotated[int, Range("[0, 100]")], Annotated[float, Range("[0, 10]")]] = (0, 0.0)
    color_jitter: Fraction = 0.0
    erasing: Fraction = 0.0
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
