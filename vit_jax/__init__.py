"""The Vision Transformer for people who train, in JAX and Flax."""

import typing

if typing.TYPE_CHECKING:
    from vit_jax.models import create_model, list_models
    from vit_jax.weights import load, save

__version__ = "0.1.0"
__all__ = ["create_model", "list_models", "load", "save"]


def __getattr__(name: str) -> typing.Any:
    # Imported when they are used: a command handles signals before it imports what takes seconds.
    if name in ("create_model", "list_models"):
        from vit_jax import models

        return getattr(models, name)
    if name in ("load", "save"):
        from vit_jax import weights

        return getattr(weights, name)
    raise AttributeError(f"module 'vit_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
