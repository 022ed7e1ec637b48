"""The Vision Transformer for people who train, in JAX and Flax."""

from vit_jax.models import create_model, list_models
from vit_jax.weights import load, save

__version__ = "0.1.0"
__all__ = ["create_model", "list_models", "load", "save"]
