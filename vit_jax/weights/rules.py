"""How parameters of ours and arrays of a weight file correspond: a table of rules, read in both directions."""

import itertools
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from vit_jax.errors import InputError
from vit_jax.weights.files import Stored
from vit_jax.weights.placement import Pending, Placement

Shape = tuple[int, ...]


class Rule(NamedTuple):
    """One kind of array in a file, and the parameters that it holds.

    Attributes:
        ours: names of parameters; those that a model lacks are left out, and with all of them the rule.
        theirs: name in the file; `{i}` counts along the leading axis of our parameters.
        pack: from our arrays to theirs.
        unpack: from their array and our shapes to our arrays.
        first: the number that `{i}` starts at.
    """

    ours: tuple[str, ...]
    theirs: str
    pack: Callable[..., np.ndarray]
    unpack: Callable[[np.ndarray, list[Shape]], list[np.ndarray]]
    first: int = 0

    @property
    def stacked(self) -> bool:
        """Whether it is of several arrays, one for each step along the leading axis."""
        return "{i" in self.theirs


class Problems(NamedTuple):
    """What does not fit between a file and a model, as one line each."""

    missing: list[str]
    unexpected: list[str]
    misshaped: list[str]

    def __str__(self) -> str:
        kinds = zip(self._fields, self, strict=True)
        return "; ".join(f"{kind} ({len(names)}): {', '.join(_grouped(names))}" for kind, names in kinds if names)


def same(ours: str, theirs: str, *, first: int = 0) -> Rule:
    """The array as it is."""
    return Rule((ours,), theirs, lambda array: array, lambda array, _: [array], first)


def reshaped(ours: str, theirs: str, axes: int = 1) -> Rule:
    """Theirs has leading axes of size 1 that ours lacks."""
    return Rule((ours,), theirs, lambda a: a.reshape((1,) * axes + a.shape), lambda a, s: [a.reshape(s[0])])


def flattened(ours: str, theirs: str) -> Rule:
    """Theirs has one axis."""
    return Rule((ours,), theirs, lambda array: array.reshape(-1), lambda array, shapes: [array.reshape(shapes[0])])


def positions(theirs: str, *, leading: bool = True, owners: int | None = None) -> Rule:
    """Prefix tokens and grid in one array (1, tokens, width).

    Args:
        leading: whether theirs has the axis of size 1.
        owners: how many of the prefix tokens have a position in the file, the others zeros; None: all.
    """

    def pack(*arrays: np.ndarray) -> np.ndarray:
        flat = [array.reshape(-1, array.shape[-1]) for array in arrays]
        joined = np.concatenate([*(prefix[:owners] for prefix in flat[:-1]), flat[-1]])
        return joined[None] if leading else joined

    def unpack(array: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
        start = array.shape[-2] - math.prod(shapes[-1][:-1])
        prefix, grid = np.split(array[0] if leading else array, [start])
        grown = [np.pad(prefix, ((0, shape[0] - start), (0, 0))) for shape in shapes[:-1]]
        return [*grown, grid.reshape(shapes[-1])]

    return Rule(("position/prefix", "position/grid"), theirs, pack, unpack)


def offsets(theirs: str) -> Rule:
    """A relative bias in one array (offsets + 3, heads): between patches by offset, then that of prefix tokens."""

    def unpack(array: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
        return [array[:-3].reshape(shapes[0]), array[-3:]]

    return Rule(
        ("position/bias", "position/prefix"),
        theirs,
        lambda bias, prefix: np.concatenate([bias.reshape(-1, bias.shape[-1]), prefix]),
        unpack,
    )


def linear(ours: str | tuple[str, ...], theirs: str, *, outputs: int = 1) -> list[Rule]:
    """A PyTorch linear layer, weight (out, in) and bias; several of ours are one of theirs, stacked along `out`.

    Args:
        outputs: axes of our kernel that are outputs: (width, heads, head_dim) has 2.
    """
    names = (ours,) if isinstance(ours, str) else ours

    def pack_kernel(*kernels: np.ndarray) -> np.ndarray:
        return _joined([kernel.reshape(math.prod(kernel.shape[:-outputs]), -1).T for kernel in kernels])

    def pack_bias(*biases: np.ndarray) -> np.ndarray:
        return _joined([bias.reshape(-1) for bias in biases])

    def unpack_kernel(array: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
        return [part.T.reshape(shape) for part, shape in zip(np.split(array, len(shapes)), shapes, strict=True)]

    def unpack_bias(array: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
        return [part.reshape(shape) for part, shape in zip(np.split(array, len(shapes)), shapes, strict=True)]

    return [
        Rule(tuple(f"{name}/kernel" for name in names), f"{theirs}.weight", pack_kernel, unpack_kernel),
        Rule(tuple(f"{name}/bias" for name in names), f"{theirs}.bias", pack_bias, unpack_bias),
    ]


def norm(ours: str, theirs: str, *, first: int = 0) -> list[Rule]:
    """A PyTorch LayerNorm, RMSNorm or GroupNorm."""
    pairs = (("scale", "weight"), ("bias", "bias"))
    return [same(f"{ours}/{a}", f"{theirs}.{b}", first=first) for a, b in pairs]


def reordered(rule: Rule, ours: str, order: np.ndarray | None) -> Rule:
    """The rule, with the last axis of the parameters that a pattern finds in another order than in the file.

    Args:
        order: for each place of ours, the place in the file; None: the same.
    """
    chosen = [re.search(ours, name) is not None for name in rule.ours]
    if order is None or not any(chosen):
        return rule
    back = np.argsort(order)

    def put(arrays: Iterable[np.ndarray], places: np.ndarray) -> list[np.ndarray]:
        return [array[..., places] if here else array for array, here in zip(arrays, chosen, strict=True)]

    return rule._replace(
        pack=lambda *arrays: rule.pack(*put(arrays, back)),
        unpack=lambda array, shapes: put(rule.unpack(array, shapes), order),
    )


def convolution(ours: str, theirs: str, *, first: int = 0) -> list[Rule]:
    """A PyTorch convolution, weight (out, in, rows, columns) and bias, where ours has one."""
    pack, unpack = (lambda a: a.transpose(3, 2, 0, 1)), (lambda a, _: [a.transpose(2, 3, 1, 0)])
    kernel = Rule((f"{ours}/kernel",), f"{theirs}.weight", pack, unpack, first)
    return [kernel, same(f"{ours}/bias", f"{theirs}.bias", first=first)]


class Pair(NamedTuple):
    """Parameters, and what holds them: one array of a file, or one for each step along their leading axis.

    Attributes:
        shapes: of the parameters, by name.
        each: what one array holds of each of them.
        wanted: the shape of an array.
    """

    rule: Rule
    shapes: dict[str, Shape]
    each: list[Shape]
    wanted: Shape
    arrays: list[Stored]


def pair(
    rules: list[Rule], arrays: dict[str, Stored], shapes: dict[str, jax.ShapeDtypeStruct]
) -> tuple[list[Pair], Problems]:
    """Return what holds each parameter, and what does not fit, by the shapes alone: nothing is read."""
    pairs, left, missing, misshaped = [], dict(arrays), [], []
    for rule in rules:
        whole = {name: shapes[name].shape for name in rule.ours if name in shapes}
        if not whole:
            continue
        each = [shape[1:] if rule.stacked else shape for shape in whole.values()]
        wanted, found = rule.pack(*(np.broadcast_to(np.False_, shape) for shape in each)).shape, []
        numbers = range(next(iter(whole.values()))[0] if rule.stacked else 1)
        for name in (rule.theirs.format(i=i + rule.first) for i in numbers):
            array = left.pop(name, None)
            if array is None:
                missing.append(name)
            # Published hybrids have norms of shape (1, 1, 1, channels).
            elif array.shape != (1,) * (array.ndim - len(wanted)) + wanted:
                misshaped.append(f"{name} {array.shape}, wanted {wanted}")
            else:
                found.append(array)
        if len(found) == len(numbers):
            pairs.append(Pair(rule, whole, each, wanted, found))
    placed = {name for rule in rules for name in rule.ours}
    missing += [f"{name} (for which this format has no place)" for name in shapes if name not in placed]
    return pairs, Problems(missing, list(left), misshaped)


def read(pairs: list[Pair], placement: Placement) -> dict[str, Any]:
    """Return the parameters, made one after the other from one array of the file at a time."""
    params = {}
    for one in pairs:
        pending = {name: placement.begin(name, shape) for name, shape in one.shapes.items()}
        for i, array in enumerate(one.arrays):
            held = _take(one, array, list(pending.values()), i if one.rule.stacked else ...)
            placement.note(held + sum(each.nbytes for each in pending.values()))
        params |= {name: pending.pop(name).placed() for name in one.shapes}
    return params


def _take(one: Pair, stored: Stored, pending: list[Pending], where: Any) -> int:
    """Write an array into the parameters that it holds; return the bytes that this took beside theirs."""
    # A function of its own, so that the array is gone before the next is read.
    array = np.asarray(stored).reshape(one.wanted)
    parts = one.rule.unpack(array, one.each)
    for each, part in zip(pending, parts, strict=True):
        each.write(where, part)
    return array.nbytes + sum(part.nbytes for part in parts if not np.may_share_memory(part, array))


def write(rules: list[Rule], params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a file's arrays; every parameter must be in a rule."""
    arrays, written = {}, set()
    for rule in rules:
        parts = [params[name] for name in rule.ours if name in params]
        if not parts:
            continue
        written.update(rule.ours)
        if rule.stacked:
            for i, slices in enumerate(zip(*parts, strict=True)):
                arrays[rule.theirs.format(i=i + rule.first)] = rule.pack(*slices)
        else:
            arrays[rule.theirs] = rule.pack(*parts)
    if left := [name for name in params if name not in written]:
        raise InputError(f"the format has no place for the parameters {', '.join(left)}")
    return arrays


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenate, but keep a single view a view, which takes no memory."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _grouped(names: list[str]) -> list[str]:
    """Write `block_0/x, block_1/x` as `block_{0..1}/x`."""
    groups: dict[str, list[int]] = {}
    for name in names:
        match = re.search(r"\d+", name)
        key = name if not match else f"{name[: match.start()]}{{}}{name[match.end() :]}"
        groups.setdefault(key, []).extend([int(match[0])] if match else [])
    lines = []
    for key, numbers in groups.items():
        runs = []
        for _, run in itertools.groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0]):
            values = [value for _, value in run]
            runs.append(str(values[0]) if len(values) == 1 else f"{values[0]}..{values[-1]}")
        text = ",".join(runs)
        lines.append(key.replace("{}", text if text.isdigit() else f"{{{text}}}", 1))
    return lines
