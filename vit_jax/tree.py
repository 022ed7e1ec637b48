"""Parameter names, such as `blocks/attn/query/kernel`, and what is chosen by them."""

import re
from collections.abc import Callable
from typing import Any

import jax


def name_of(path: tuple) -> str:
    """Return a key path of `jax.tree_util` as a name with slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree: Any) -> dict[str, Any]:
    """Return {name: leaf}, in the tree's own order."""
    return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_named(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """Apply `function(name, leaf)` to every leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(name_of(path), leaf), tree)


def mask(tree: Any, pattern: str) -> Any:
    """Return a tree of booleans: True where the whole name matches the regular expression."""
    return map_named(lambda name, _: re.fullmatch(pattern, name) is not None, tree)


def count(tree: Any) -> int:
    """Return the number of scalars in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
