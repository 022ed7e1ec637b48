"""Hooks of MkDocs: the config reference, the pages outside docs/, and the check for missing docstrings."""

import functools
import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax.config import Config
from vit_jax.config.coerce import annotations, describe

ROOT = Path(__file__).parent.parent
KEYS = "<!-- every key -->"
# Pages of the site that people also read where they lie: file in the repository -> page.
OUTSIDE = {
    "configs/README.md": "configs.md",
    "benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "LICENSE": "https://www.apache.org/licenses/LICENSE-2.0",
}
ROOMS = ("vit_jax", "vit_jax.config", "vit_jax.data", "vit_jax.evaluators", "vit_jax.optim", "vit_jax.tasks")


class Key(NamedTuple):
    """A key of a config: its name after `--config.`, and what the dataclass says of it."""

    name: str
    kind: str
    default: str
    description: str


def sections(section: type = Config, prefix: str = "") -> Iterator[tuple[str, type, list[Key]]]:
    """Yield (prefix, dataclass, its own keys) of a config and of every section in it."""
    described, keys, inner = attributes(section), [], []
    for field in fields(section):
        wanted = annotations(section)[field.name]
        if is_dataclass(wanted):
            inner.append((wanted, f"{prefix}{field.name}."))
            continue
        inner += [(found, f"{prefix}{field.name}.NAME.") for found in _named_sections(wanted)]
        default = "" if field.default is MISSING else "none" if field.default is None else _literal(field.default)
        # The page explains durations once.
        kind = re.sub(r"(duration[^:]*): .*?\(pictures\)(?: or 5%)?", r"\1", describe(wanted))
        kind = kind.replace("{name: section}", "{NAME: section}")
        keys.append(Key(prefix + field.name, kind, default, described.get(field.name, "")))
    yield prefix, section, keys
    for other, where in inner:
        yield from sections(other, where)


def _named_sections(wanted: Any) -> Iterator[type]:
    for option in typing.get_args(wanted):
        if typing.get_origin(option) is dict:
            yield from filter(is_dataclass, typing.get_args(option))


def _literal(value: Any) -> str:
    return str(value) if isinstance(value, str) else repr(value)


@functools.cache
def attributes(section: type) -> dict[str, str]:
    """Return {name: description} of the "Attributes:" of a docstring; one entry may describe several names."""
    _, _, text = inspect.getdoc(section).partition("Attributes:\n")
    found = {}
    for names, description in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", text, re.MULTILINE):
        found |= dict.fromkeys(names.split(", "), " ".join(description.split()))
    return found


def reference() -> str:
    """Return the Markdown of every config key, an anchor each.

    Raises:
        ValueError: a key has no description.
    """
    lines, bare = [], []
    for prefix, section, keys in sections():
        title = prefix.rstrip(".")
        lines += [f"## {title or 'The experiment'}", ""]
        lines += [inspect.getdoc(section).partition("\n")[0], ""] if title else []
        for i, key in enumerate(keys):
            bare += [key.name] * (not key.description)
            default = f" · default `{key.default}`" if key.default else ""
            lines.append(f"[`{key.name}`](#{key.name}){{ #{key.name} .key }} {_escape(key.kind)}{default}")
            # Keys that share a description stand together above it.
            if i + 1 == len(keys) or keys[i + 1].description != key.description:
                lines += [f":   {_escape(key.description[:1].upper() + key.description[1:])}", ""]
    if bare:
        raise ValueError(f'config keys without a description in the "Attributes:" of their class: {", ".join(bare)}')
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Return text of a docstring as Markdown, in which nothing but code is marked."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_\[\]<>{}#|])", r"\\\1", part) for part in parts)


def shown() -> list[str]:
    """Return what the pages of the API show, as dotted names."""
    pages = sorted((ROOT / "docs/api").glob("*.md"))
    return [name for page in pages for name in re.findall(r"^::: ([\w.]+)", page.read_text(), re.MULTILINE)]


def undocumented() -> list[str]:
    """Return the public names that no page of the API shows, and of what is shown those without a docstring."""
    found = {name: resolve(name) for name in shown()}
    bare = [name for root, thing in found.items() for name in _bare(root, thing)]
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in module.__all__:
            thing = getattr(module, name)
            public = inspect.isfunction(thing) or (inspect.isclass(thing) and thing not in _config_sections())
            if public and not any(thing is other for other in found.values()):
                bare.append(f"{room}.{name} (on no page of docs/api)")
    return bare


def _config_sections() -> list[type]:
    return [section for _, section, _ in sections()]


def resolve(name: str) -> Any:
    """Return what a dotted name stands for: a module, a class or a function."""
    module, _, rest = name, "", []
    while True:
        try:
            thing = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
    return functools.reduce(getattr, rest, thing)


def _bare(name: str, thing: Any) -> Iterator[str]:
    if not inspect.getdoc(thing):
        yield name
    if not inspect.isclass(thing):
        return
    for member, value in vars(thing).items():
        if member.startswith("_") and member != "__call__":
            continue
        if isinstance(value, (types.FunctionType, property)) and not inspect.getdoc(getattr(thing, member)):
            yield f"{name}.{member}"


def on_config(config: Any) -> None:
    """Stop the build where a public name has no docstring."""
    from mkdocs.exceptions import PluginError

    if bare := undocumented():
        raise PluginError(f"without a docstring: {', '.join(bare)}")


def on_files(files: Any, config: Any) -> None:
    """Add the pages that lie outside docs/."""
    from mkdocs.structure.files import File

    for source, page in OUTSIDE.items():
        if not page.startswith("http") and files.get_file_from_path(page) is None:
            files.append(File.generated(config, page, content=(ROOT / source).read_text()))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Write the config reference into its page, and lead links between files of the repository to their pages."""
    from mkdocs.exceptions import PluginError

    if KEYS in markdown:
        try:
            markdown = markdown.replace(KEYS, reference())
        except ValueError as error:
            raise PluginError(str(error)) from error
    sources = {page: source for source, page in OUTSIDE.items()}
    here = ROOT / sources.get(page.file.src_path, f"docs/{page.file.src_path}")
    if page.file.src_path == "index.md":
        here = ROOT / "docs/index.md"

    def lead(match: re.Match) -> str:
        path, _, anchor = match[1].partition("#")
        target = (here.parent / path).resolve()
        if not target.is_relative_to(ROOT):
            return match[0]
        inside = OUTSIDE.get(str(target.relative_to(ROOT)))
        if inside is None:
            inside = str(target.relative_to(ROOT / "docs")) if target.is_relative_to(ROOT / "docs") else None
        if inside is None:
            return match[0]
        up = "" if inside.startswith("http") else "../" * page.file.src_path.count("/")
        return f"]({up}{inside}{'#' * bool(anchor)}{anchor})"

    return re.sub(r"\]\((?!https?:)([^)\s#][^)\s]*)\)", lead, markdown)
