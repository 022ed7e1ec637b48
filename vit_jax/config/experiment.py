"""One experiment: a typed, frozen dataclass that states independent facts. What follows from them is computed later."""

import dataclasses
import types
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from vit_jax.config.coerce import Section, coerce, literal
from vit_jax.config.data import Augment, Data
from vit_jax.config.model import Model, height_width
from vit_jax.config.optim import Optim
from vit_jax.config.ranges import Count, Duration, Pixels, Range, Rate, Seed
from vit_jax.errors import InputError, nearest

Devices = Annotated[int, Range("[-1, inf)")]
Every = Annotated[str, Duration()]
Ramp = Annotated[str, Duration(zero=True)]


@dataclass(frozen=True)
class MeshShape(Section):
    """How the devices are arranged.

    Attributes:
        data, fsdp, tensor: devices along each axis; one -1 takes the rest.
    """

    where: ClassVar[str] = "config.mesh"

    data: Devices = -1
    fsdp: Devices = 1
    tensor: Devices = 1


@dataclass(frozen=True)
class Evaluation(Section):
    """One evaluation during training; its metrics are written as "NAME/accuracy" and the like.

    Attributes:
        evaluator: a name of `vit_jax.evaluators.EVALUATORS`; None: the task's own.
        source, path, split: as `data.name`, `data.path` and `data.val`, from which they come where they are None.
        every: time between two evaluations; None: `eval_every`.
    """

    where: ClassVar[str] = "config.evaluators"

    evaluator: str | None = None
    source: str | None = None
    path: str | None = None
    split: str | None = None
    every: Every | None = None


@dataclass(frozen=True)
class Config(Section):
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
            if its name ends in "loss"; "auto": the one that the task names, such as "val/accuracy"; None: none stays.
        task: what the model is trained for, a name of `vit_jax.tasks.TASKS`.
        loss: cross-entropy over the classes, or one for each class against all others ("sigmoid"; summed over the
            classes, as in Beyer et al., 2020).
        label_smoothing: part of a target that is spread over all classes (Szegedy et al., 2016).
        ema: decay per step of a moving average of the parameters, which then is what is evaluated and
            loaded; in step k it is at most (1 + k) / (10 + k). None: no average.
        max_skipped: updates that may be left out, because the loss or the gradient is not finite, before the run stops.
        evaluators: what is evaluated during training: {name: evaluation}, such as {"val": {"split": "test"}}; names of
            `vit_jax.evaluators.EVALUATORS` stand for evaluations on `data.val` called "val"; None: the task's own.
    """

    seed: Seed = 0
    batch: Count = 128
    accumulate: Count = 1
    image_size: Pixels | tuple[Pixels, Pixels] = 224
    channels: Literal[1, 3] = 3
    total: Annotated[str, Duration(percent=False)] = "90ep"
    warmup: Ramp = "0st"
    cooldown: Ramp = "0st"
    log_every: Every = "50st"
    eval_every: Every = "5%"
    save_every: Every = "5%"
    keep: Count = 2
    keep_best: str | None = "auto"
    task: Literal["classification", "multi_label"] = "classification"
    loss: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: Rate = 0.0
    init: str | None = None
    ema: Annotated[float, Range("(0, 1)")] | None = None
    max_skipped: Annotated[int, Range("[0, inf)")] = 0
    evaluators: dict[str, Evaluation] | tuple[str, ...] | None = None
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    optim: Optim = field(default_factory=Optim)
    mesh: MeshShape = field(default_factory=MeshShape)

    def __post_init__(self):
        super().__post_init__()
        if self.augment.shift >= min(self.height_width()):
            raise InputError(f"config.augment.shift={self.augment.shift}: must be below image_size={self.image_size}")

    def height_width(self) -> tuple[int, int]:
        """Return `image_size` as (height, width)."""
        return height_width(self.image_size)

    def evaluations(self) -> list[tuple[str, Evaluation]]:
        """Return the evaluations of a run with their names; several may share one."""
        if isinstance(self.evaluators, dict):
            return list(self.evaluators.items())
        return [("val", Evaluation(evaluator)) for evaluator in self.evaluators or (None,)]

    def model_facts(self, num_classes: int) -> dict[str, Any]:
        """Return the arguments of `vit_jax.models.build_model`."""
        size = self.height_width()
        return {"config": self.model, "num_classes": num_classes, "image_size": size, "channels": self.channels}


# What may change when a run is continued: it alters how the run is computed and watched, never what is learned.
RUNTIME_KEYS = (
    *("mesh", "accumulate", "model.remat", "model.unroll", "model.attention", "keep", "keep_best", "max_skipped"),
    "evaluators",
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
    free = tuple(key for key in RUNTIME_KEYS if not (draws and key == "accumulate"))
    old, new = (flatten(dataclasses.asdict(config)) for config in (old, new))
    return [
        f"{key}: {old.get(key)!r} -> {new.get(key)!r}"
        for key in old | new
        if old.get(key) != new.get(key) and not any(key == other or key.startswith(other + ".") for other in free)
    ]


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"data.name": ..., "batch": ...} for a config as nested dicts."""
    flat = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
