"""Typed, frozen experiment configurations: the reference of every key that a config file can set.

A config states independent facts; what follows from them is computed here.
"""

import dataclasses
import math
import re
import types
from dataclasses import dataclass, field
from typing import Any, Literal

from vit_jax.config.coerce import coerce, literal
from vit_jax.config.model import Model, height_width
from vit_jax.config.optim import Optim
from vit_jax.errors import InputError, nearest


@dataclass(frozen=True)
class Data:
    """Where pictures come from.

    Attributes:
        name: a source of `vit_jax.data.SOURCES`, and after a colon what it opens: "folder", "records:DIR",
            "tfds:NAME[/CONFIG][:VERSION]", "hf:PATH_OR_NAME[:CONFIG]", "digits", "synthetic".
        path: where the data lies on this machine: of "folder", "records" and "hf", in place of what `name` says; of
            "tfds", the directory of all prepared sets.
        train, val: names of the splits (for a folder, its subfolders), or slices of them: "train[:99%]",
            "train[50_000:]". TFDS cuts its own in the order of the records; the other sources cut class by class.
        image_key, label_key: the features (TFDS) or columns (hf) that hold the picture and its class.
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

    name: str = "folder"
    path: str | None = None
    train: str = "train"
    val: str = "test"
    image_key: str = "image"
    label_key: str = "label"
    fraction: float = 1.0
    fraction_seed: int = 0
    threads: int = 8
    cache_mb: int = 2048
    crop: Literal["central", "random", "random_resized"] = "central"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_fraction: float = 0.875
    max_bad: float = 0.001
    examples: int | None = None
    classes: int | None = None

    def __post_init__(self):
        if not 0 < self.fraction <= 1:
            raise InputError(f"config.data.fraction={self.fraction}: must be above 0 and at most 1")
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise InputError(f"config.data.{name}={(low, high)}: must be a range of positive numbers, (low, high)")
        if not 0 < self.crop_fraction <= 1:
            raise InputError(f"config.data.crop_fraction={self.crop_fraction}: must be in (0, 1]")
        if self.crop_scale[1] > 1:
            raise InputError(f"config.data.crop_scale={self.crop_scale}: a crop can't be larger than its picture")


@dataclass(frozen=True)
class Augment:
    """Augmentation of whole batches inside the jitted step.

    Attributes:
        flip: mirror left to right with probability 1/2.
        shift: move by up to this many pixels each way, edges repeated.
        randaugment: (layers, magnitude in [0, 10]) of Cubuk et al. (2020), such as (2, 9); no layers turn it off.
        color_jitter: largest relative change of brightness, contrast and saturation, in [0, 1]; 0 turns it off.
        erasing: probability that a rectangle of a picture is erased (Zhong et al., 2020); 0 turns it off.
        mixup: alpha of the Beta distribution of Zhang et al. (2018); 0 turns it off.
        cutmix: alpha of the Beta distribution of Yun et al. (2019); 0 turns it off. Beside mixup, each batch
            takes one of the two by chance.
    """

    flip: bool = False
    shift: int = 0
    randaugment: tuple[int, float] = (0, 0.0)
    color_jitter: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self):
        for name, limit in (("color_jitter", 1), ("erasing", 1), ("mixup", None), ("cutmix", None)):
            value = getattr(self, name)
            if value < 0 or (limit is not None and value > limit):
                raise InputError(f"config.augment.{name}={value}: must be {'in [0, 1]' if limit else 'positive or 0'}")
        layers, magnitude = self.randaugment
        if layers < 0 or not 0 <= magnitude <= 10:
            raise InputError(f"config.augment.randaugment={self.randaugment}: (layers, magnitude in [0, 10])")


@dataclass(frozen=True)
class MeshShape:
    """Devices along each axis; one -1 takes the rest."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclass(frozen=True)
class Config:
    """One experiment.

    Attributes:
        init: weights to start from, whatever `vit_jax.load` takes: a path, "https://", "gs://", "hf://org/name" or a
            run directory; None: drawn from the seed. `model.name` must be theirs ("custom/16" leaves the sizes to
            them), and the rest of the architecture is, wherever `model` has its defaults. Positions are resized to
            `image_size`; the head is new, of zeros, unless they are a run of the same classes. They are opened once: a
            run with a checkpoint needs them no more.
        batch: pictures in the global batch of a step.
        accumulate: parts that a batch is cut into, done one after the other to save memory; the update is that of the
            whole batch, but dropout and stochastic depth draw anew for each part.
        image_size: height and width, pixels.
        total, warmup, cooldown, log_every, eval_every, save_every: durations with a unit: "100st" steps, "90ep"
            epochs, "1_000_000ex" pictures, "5%" of the total. The learning rate rises over the warm-up, and falls to 0
            over the cooldown, in a line.
        keep: how many of the newest checkpoints stay.
        keep_best: a metric by which the best checkpoint of an evaluated step stays too: the highest, or the lowest
            if its name ends in "loss"; None keeps no such.
        loss: cross-entropy over the classes, or one for each class against all others ("sigmoid"; summed over the
            classes, as in Beyer et al., 2020).
        label_smoothing: part of a target that is spread over all classes, in [0, 1) (Szegedy et al., 2016).
        ema: decay per step, in (0, 1), of a moving average of the parameters, which then is what is evaluated and
            loaded; in step k it is at most (1 + k) / (10 + k). None: no average.
        max_skipped: updates that may be left out, because the loss or the gradient is not finite, before the run stops.
        evaluators: names of `vit_jax.evaluators.EVALUATORS`.
    """

    seed: int = 0
    batch: int = 128
    accumulate: int = 1
    image_size: int | tuple[int, int] = 224
    channels: int = 3
    total: str = "90ep"
    warmup: str = "0st"
    cooldown: str = "0st"
    log_every: str = "50st"
    eval_every: str = "5%"
    save_every: str = "5%"
    keep: int = 2
    keep_best: str | None = "val/accuracy"
    loss: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: float = 0.0
    init: str | None = None
    ema: float | None = None
    max_skipped: int = 0
    evaluators: tuple[str, ...] = ("classification",)
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    optim: Optim = field(default_factory=Optim)
    mesh: MeshShape = field(default_factory=MeshShape)

    def __post_init__(self):
        for name in ("batch", "accumulate", "channels", "keep"):
            if getattr(self, name) < 1:
                raise InputError(f"config.{name}={getattr(self, name)}: must be at least 1")
        for name in ("total", "warmup", "cooldown", "log_every", "eval_every", "save_every"):
            parse_duration(getattr(self, name), f"config.{name}")
        parse_duration(self.optim.timescale, "config.optim.timescale")
        if self.total.endswith("%"):
            raise InputError(f"config.total={self.total!r}: can't be a part of itself; use st, ep or ex")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"config.label_smoothing={self.label_smoothing}: must be in [0, 1)")
        if self.ema is not None and not 0 < self.ema < 1:
            raise InputError(f"config.ema={self.ema}: must be between 0 and 1; none turns it off")
        if self.max_skipped < 0:
            raise InputError(f"config.max_skipped={self.max_skipped}: must be at least 0")

    def height_width(self) -> tuple[int, int]:
        """Return `image_size` as (height, width)."""
        return height_width(self.image_size)

    def model_facts(self, num_classes: int) -> dict[str, Any]:
        """Return the arguments of `vit_jax.models.build_model`."""
        size = self.height_width()
        return {"config": self.model, "num_classes": num_classes, "image_size": size, "channels": self.channels}


# What may change between the runs of one experiment: it alters how the run is computed, never what comes out.
EXECUTION = (
    *("mesh", "accumulate", "model.remat", "model.unroll", "model.attention", "keep", "keep_best", "max_skipped"),
    *("data.path", "data.threads", "data.cache_mb", "data.max_bad", "data.examples", "data.classes"),
)


def parse_duration(text: str, where: str) -> tuple[float, str]:
    """Split "90ep" into (90.0, "ep"); raise `InputError` naming `where`."""
    match = re.fullmatch(r"(\d[\d_]*\.?\d*)(st|ep|ex|%)", text)
    if not match:
        raise InputError(
            f"{where}={text!r}: not a duration; write 100st (steps), 90ep (epochs), 1_000ex (images) or 5%"
        )
    return float(match[1]), match[2]


@dataclass(frozen=True)
class Plan:
    """The durations of a config in steps."""

    total: int
    warmup: int
    cooldown: int
    timescale: int
    log_every: int
    eval_every: int
    save_every: int

    def due(self, step: int, *every: int) -> bool:
        """Return whether anything done every so many steps, and at the end, is due at `step`."""
        return any(step % number == 0 for number in every) or step == self.total


def make_plan(config: Config, examples: int) -> Plan:
    """Return the durations in steps for a training split of `examples` pictures."""

    def steps(text: str, total: int, least: int) -> int:
        value, unit = parse_duration(text, "duration")
        per_unit = {"st": 1, "ex": 1 / config.batch, "ep": examples / config.batch, "%": total / 100}[unit]
        return max(math.ceil(round(value * per_unit, 6)), least)

    total = steps(config.total, 0, 1)
    every = {name: steps(getattr(config, name), total, 1) for name in ("log_every", "eval_every", "save_every")}
    warmup, cooldown = (min(steps(text, total, 0), total) for text in (config.warmup, config.cooldown))
    return Plan(total, warmup, cooldown, steps(config.optim.timescale, total, 1), **every)


def parse_arg(arg: str | None, **defaults) -> types.SimpleNamespace:
    """Read a config file's argument, "model=mu/4,debug": each value takes the type of its default."""
    values = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        key, equals, text = item.partition("=")
        if key not in defaults:
            raise InputError(f"config argument {key!r} is unknown; {nearest(key, defaults)}")
        value = True if not equals else text if isinstance(defaults[key], str) else literal(text)
        wanted = type(defaults[key])
        values[key] = value if defaults[key] is None else coerce(value, wanted, f"config argument {key}")
    return types.SimpleNamespace(**values)


def from_dict(values: dict[str, Any]) -> Config:
    """Build a `Config`; raise `InputError` for an unknown key or a value of the wrong type."""
    return coerce(values, Config, "config")


def differences(old: Config, new: Config) -> list[str]:
    """List `key: old -> new` for every key that decides what a run computes."""
    # Dropout and stochastic depth draw anew for each part of a batch.
    draws = old.model.dropout > 0 or old.model.drop_path > 0
    free = tuple(key for key in EXECUTION if not (draws and key == "accumulate"))
    old, new = (flatten(dataclasses.asdict(config)) for config in (old, new))
    return [
        f"{key}: {old[key]!r} -> {new[key]!r}"
        for key in old
        if old[key] != new[key] and not any(key == other or key.startswith(other + ".") for other in free)
    ]


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"data.name": ..., "batch": ...} for a config as nested dicts."""
    flat = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
