"""Parameter names, such as `blocks/attn/query/kernel`, and operations on trees by name."""

from collections.abc import Callable, Container
from typing import Any

import jax


def name_of(path: tuple) -> str:
    """Return a `jax.tree_util` key path as a slash-separated name."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree: Any) -> dict[str, Any]:
    """Return {name: leaf}, in tree order."""
    return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_named(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Apply `function(name, leaf, ...)` to every leaf, with the corresponding leaves of `rest`."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: function(name_of(path), *leaves), tree, *rest)


def select(tree: dict, names: Container[str], prefix: str = "") -> dict:
    """Return the part of a nested dict whose leaf names are in `names`."""
    chosen = {}
    for key, value in tree.items():
        if not isinstance(value, dict):
            chosen |= {key: value} if prefix + key in names else {}
        elif part := select(value, names, f"{prefix}{key}/"):
            chosen[key] = part
    return chosen


def union(one: dict, other: dict) -> dict:
    """Merge two nested dicts that have no leaf in common."""
    return one | {key: union(one[key], value) if key in one else value for key, value in other.items()}


def count(tree: Any) -> int:
    """Return the number of scalars in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
