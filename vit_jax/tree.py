"""Parameter names, such as `blocks/attn/query/kernel`, and what is chosen by them."""

from collections.abc import Callable, Container
from typing import Any

import jax


def name_of(path: tuple) -> str:
    """Return a key path of `jax.tree_util` as a name with slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree: Any) -> dict[str, Any]:
    """Return {name: leaf}, in the tree's own order."""
    return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_named(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Apply `function(name, leaf)`, or with more trees of one structure `function(name, leaf, ...)`, to every leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: function(name_of(path), *leaves), tree, *rest)


def select(tree: dict, names: Container[str], prefix: str = "") -> dict:
    """Return the part of a nested dict whose leaves have one of the names."""
    chosen = {}
    for key, value in tree.items():
        if not isinstance(value, dict):
            chosen |= {key: value} if prefix + key in names else {}
        elif part := select(value, names, f"{prefix}{key}/"):
            chosen[key] = part
    return chosen


def union(one: dict, other: dict) -> dict:
    """Return the nested dict that holds the leaves of two, which share none."""
    return one | {key: union(one[key], value) if key in one else value for key, value in other.items()}


def count(tree: Any) -> int:
    """Return the number of scalars in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
