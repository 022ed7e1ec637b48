"""The config of one experiment: a typed, frozen dataclass of independent settings. Derived values are not stored."""

import dataclasses
import types
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from vit_jax.config.coerce import Section, coerce, literal
from vit_jax.config.data import Augment, Data
from vit_jax.config.model import Model, height_width
from vit_jax.config.optim import Optim
from vit_jax.config.pretrain import PRETRAINING, Pretrain
from vit_jax.config.ranges import Count, Duration, Pixels, Positive, Range, Rate, Seed
from vit_jax.errors import InputError, nearest

Devices = Annotated[int, Range("[-1, inf)")]
Every = Annotated[str, Duration()]
Probability = Annotated[float, Range("(0, 1)")]
Ramp = Annotated[str, Duration(zero=True)]


@dataclass(frozen=True)
class MeshShape(Section):
    """The shape of the device mesh.

    Attributes:
        data, fsdp, tensor: number of devices along each axis; a single -1 takes all that remain.
    """

    where: ClassVar[str] = "config.mesh"

    data: Devices = -1
    fsdp: Devices = 1
    tensor: Devices = 1


@dataclass(frozen=True)
class Evaluation(Section):
    """One evaluation during training; its name prefixes its metrics, as in "NAME/accuracy".

    Attributes:
        evaluator: a name from `vit_jax.evaluators.EVALUATORS`; None: the task's default.
        source, path, split: replace `data.name`, `data.path` and `data.val`; None: not replaced. With `source` set,
            `data.path` is not used.
        every: interval between evaluations; None: `eval_every`.
        train: the split that shots, neighbours or a probe's training pictures come from; None: `data.train`.
        text: of zeroshot, the CLIP or SigLIP whose text tower reads the labels and whose space pictures are projected
            into, in any form that `vit_jax.load` accepts; None: the weights that `evaluate` is given.
        templates: of zeroshot, prompts with "{}" where the label goes; their embeddings are averaged.
        features: activation that fewshot, knn and linear_probe work on, such as "pooled", or "block/11:token" and
            "block/11:gap" for the class token and the mean of the others.
        head: classifier of fewshot: "least_squares" in closed form, or "logistic" regression.
        shots: numbers of pictures per class in fewshot.
        seeds: each draws its own shots; the results are means over them.
        l2: strengths of the penalty on a least_squares head; if there are several, a held-out part chooses.
        neighbours: numbers of neighbours that vote in knn.
        threshold: probability from which multi_label's F1 counts a class as present, in (0, 1).
    """

    where: ClassVar[str] = "config.evaluators"

    evaluator: str | None = None
    source: str | None = None
    path: str | None = None
    split: str | None = None
    every: Every | None = None
    train: str | None = None
    text: str | None = None
    templates: tuple[str, ...] = ("a photo of a {}.",)
    features: str = "pooled"
    head: Literal["least_squares", "logistic"] = "least_squares"
    shots: tuple[Count, ...] = (1, 5, 10, 25)
    seeds: tuple[Seed, ...] = (0, 1, 2)
    l2: tuple[Positive, ...] = (1024.0,)
    neighbours: tuple[Count, ...] = (10, 20, 100, 200)
    threshold: Probability = 0.5


@dataclass(frozen=True)
class Config(Section):
    """One experiment.

    Attributes:
        init: weights to start from, in any form that `vit_jax.load` accepts: a path, "https://", "gs://",
            "hf://org/name" or a run directory; None: random, from `seed`. `model.name` must match the weights
            ("custom/16" takes their sizes); other `model` keys left at their defaults are taken from them. Positions
            are resized to `image_size`; the head is new and zero, unless the weights are a run with the same classes.
            The weights are read once: a run with a checkpoint no longer needs them.
        seed: seed of initialization, data order, crops, augmentation and dropout.
        batch: number of pictures in the global batch of a step.
        accumulate: number of parts that a batch is split into, processed in sequence to save memory. The update is
            that of the whole batch, but each part has its own draws of dropout and stochastic depth.
        image_size: height and width in pixels; one number for a square.
        channels: channels of the pictures: 1 (gray) or 3 (RGB).
        total, warmup, cooldown, log_every, eval_every, save_every: durations with a unit: "100st" steps, "90ep"
            epochs, "1_000_000ex" pictures, "5%" of the total. The learning rate rises linearly over the warm-up and
            falls linearly to 0 over the cooldown. "auto" for the total and the warm-up follows from the number of
            training pictures, by the rule of `vit_jax.config.with_length`.
        keep: number of newest checkpoints to keep.
        select: metric that selects the best checkpoint of the evaluated steps, which is also kept and is what
            `data.test` is reported of: the highest value, or the lowest if the name ends in "loss" or "ece"; "auto":
            the task's choice, such as "val/accuracy"; None: none, only the newest are kept.
        task: what the model is trained for, a name from `vit_jax.tasks.TASKS`.
        loss: cross-entropy over the classes ("softmax"), or of each class against the rest, summed over the classes
            ("sigmoid"; Beyer et al., 2020).
        label_smoothing: fraction of a target that is spread over all classes (Szegedy et al., 2016).
        ema: decay per step of a moving average of the parameters, which replaces them when evaluating and loading; in
            step k it is at most (1 + k) / (10 + k). None: no average.
        max_skipped: number of updates with a non-finite loss or gradient that may be skipped before the run stops.
        evaluators: evaluations during training: {name: evaluation}, such as {"val": {"split": "test"}}, or names from
            `vit_jax.evaluators.EVALUATORS`, which all evaluate `data.val` as "val"; None: the task's default.
    """

    seed: Seed = 0
    batch: Count = 128
    accumulate: Count = 1
    image_size: Pixels | tuple[Pixels, Pixels] = 224
    channels: Literal[1, 3] = 3
    total: Annotated[str, Duration(percent=False)] | Literal["auto"] = "90ep"
    warmup: Ramp | Literal["auto"] = "0st"
    cooldown: Ramp = "0st"
    log_every: Every = "50st"
    eval_every: Every = "5%"
    save_every: Every = "5%"
    keep: Count = 2
    select: str | None = "auto"
    task: Literal["classification", "multi_label", "masked_patches", "mae", "next_patch"] = "classification"
    loss: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: Rate = 0.0
    init: str | None = None
    ema: Annotated[float, Range("(0, 1)")] | None = None
    max_skipped: Annotated[int, Range("[0, inf)")] = 0
    evaluators: dict[str, Evaluation] | tuple[str, ...] | None = None
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    pretrain: Pretrain = field(default_factory=Pretrain)
    optim: Optim = field(default_factory=Optim)
    mesh: MeshShape = field(default_factory=MeshShape)

    def __post_init__(self):
        super().__post_init__()
        self.pretrain.check(self.task)
        if self.augment.shift >= min(self.height_width()):
            raise InputError(f"config.augment.shift={self.augment.shift}: must be below image_size={self.image_size}")
        if self.data.resize == "native":
            self._check_native()
        for name, _ in self.evaluations():
            if name in ("train", "data") or not name.isidentifier():
                raise InputError(f"config.evaluators: {name!r} can't be a name: use a word, but not 'train' or 'data'")
            if name == "test" and self.data.test is not None:
                raise InputError("config.evaluators: 'test' is what config.data.test is reported as; use another name")

    def _check_native(self) -> None:
        changed = [key for key in vars(Augment()) if getattr(self.augment, key) != getattr(Augment(flip=True), key)]
        if others := [key for key in changed if key != "flip"]:
            raise InputError(
                f"config.augment.{others[0]}: needs pictures of one shape; of native ones only flip is had"
            )
        if self.task in PRETRAINING:
            raise InputError(f"config.task={self.task!r}: needs pictures of one shape, not config.data.resize='native'")
        if self.data.packing is not None and self.accumulate > 1:
            raise InputError(f"config.accumulate={self.accumulate}: packed sequences can't be cut; leave packing out")

    def height_width(self) -> tuple[int, int]:
        """Return `image_size` as (height, width)."""
        return height_width(self.image_size)

    def evaluations(self) -> list[tuple[str, Evaluation]]:
        """Return the evaluations of a run with their names; several may share a name."""
        if isinstance(self.evaluators, dict):
            return list(self.evaluators.items())
        names = (None,) if self.evaluators is None else self.evaluators
        return [("val", Evaluation(name)) for name in names]

    def model_facts(self, num_classes: int) -> dict[str, Any]:
        """Return the arguments of `vit_jax.models.build_model`."""
        facts = {"config": self.model, "image_size": self.height_width(), "channels": self.channels}
        if self.task in PRETRAINING:
            # An encoder without a head, and what the task puts on it.
            return facts | {"num_classes": 0, "parts": (self.task, self.pretrain)}
        return facts | {"num_classes": num_classes}


# Keys that may change when a run is resumed: they affect how it is computed and monitored, never what is learned.
RUNTIME_KEYS = (
    *("mesh", "accumulate", "model.remat", "model.unroll", "model.attention", "keep", "select", "max_skipped"),
    *("evaluators", "data.test"),
    *("data.path", "data.threads", "data.cache_mb", "data.max_bad", "data.examples", "data.classes"),
)


def is_runtime(key: str) -> bool:
    """Return whether a dotted key is one of `RUNTIME_KEYS`, or below one."""
    return any(key == other or key.startswith(other + ".") for other in RUNTIME_KEYS)


def parse_arg(arg: str | None, **defaults) -> types.SimpleNamespace:
    """Parse a config file's argument, such as "model=mu/4,debug"; each value gets the type of its default.

    A default that is a tuple lists the values that are allowed, of which the first is the default.
    """
    choices = {key: default for key, default in defaults.items() if isinstance(default, tuple)}
    defaults |= {key: first for key, (first, *_) in choices.items()}
    values = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        key, equals, text = item.partition("=")
        if key not in defaults:
            raise InputError(f"config argument {key!r} is unknown; {nearest(key, defaults)}")
        value = True if not equals else text if isinstance(defaults[key], str) else literal(text)
        wanted = Literal[choices[key]] if key in choices else type(defaults[key])
        values[key] = value if defaults[key] is None else coerce(value, wanted, f"config argument {key}")
    return types.SimpleNamespace(**values)


def from_dict(values: dict[str, Any]) -> Config:
    """Build a `Config`; raise `InputError` for an unknown key or a value of the wrong type."""
    return coerce(values, Config, "config")


def differences(old: Config, new: Config) -> list[str]:
    """List `key: old -> new` for every changed key that affects what a run learns."""
    # Each part of a batch has its own draws of dropout and stochastic depth.
    draws = old.model.dropout > 0 or old.model.drop_path > 0
    old, new = (flatten(dataclasses.asdict(config)) for config in (old, new))
    return [
        f"{key}: {old.get(key)!r} -> {new.get(key)!r}"
        for key in old | new
        if old.get(key) != new.get(key) and (not is_runtime(key) or (draws and key == "accumulate"))
    ]


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a config given as nested dicts to {"data.name": ..., "batch": ...}."""
    flat = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
