"""AutoAugment (Cubuk et al., 2019) on whole batches, inside the jitted step: the policy found for CIFAR-10."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vit_jax.data.randaugment import OPERATIONS, apply

Images = Float[Array, "batch height width channels"]

# The paper's table 7: two operations each, as "name probability magnitude", with magnitudes from 0 to 9.
CIFAR10 = (
    ("invert 0.1 7", "contrast 0.2 6"),
    ("rotate 0.7 2", "translate_x 0.3 9"),
    ("sharpness 0.8 1", "sharpness 0.9 3"),
    ("shear_y 0.5 8", "translate_y 0.7 9"),
    ("autocontrast 0.5 8", "equalize 0.9 2"),
    ("shear_y 0.2 7", "posterize 0.3 7"),
    ("color 0.4 3", "brightness 0.6 7"),
    ("sharpness 0.3 9", "brightness 0.7 9"),
    ("equalize 0.6 5", "equalize 0.5 1"),
    ("contrast 0.6 7", "sharpness 0.6 5"),
    ("color 0.7 7", "translate_x 0.5 8"),
    ("equalize 0.3 7", "autocontrast 0.4 8"),
    ("translate_y 0.4 3", "sharpness 0.2 6"),
    ("brightness 0.9 6", "color 0.2 8"),
    ("solarize 0.5 2", "invert 0.0 3"),
    ("equalize 0.2 0", "autocontrast 0.6 0"),
    ("equalize 0.2 8", "equalize 0.6 4"),
    ("color 0.9 9", "equalize 0.6 6"),
    ("autocontrast 0.8 4", "solarize 0.2 8"),
    ("brightness 0.1 3", "color 0.7 0"),
    ("solarize 0.4 5", "autocontrast 0.9 3"),
    ("translate_y 0.9 9", "translate_y 0.7 9"),
    ("autocontrast 0.9 2", "solarize 0.8 3"),
    ("equalize 0.8 8", "invert 0.1 3"),
    ("translate_y 0.7 9", "autocontrast 0.9 1"),
)


def _parse(text: str) -> tuple[int, float, float]:
    name, probability, magnitude = text.split()
    level = int(magnitude) / 9
    if name == "invert":  # That is to solarize from black on.
        name, level = "solarize", 1.0
    if name.startswith("translate"):  # Up to 150 of 331 pixels, where RandAugment has 100.
        level *= 1.5
    return OPERATIONS.index(name), float(probability), level


# (policies, 2, 3): operation, probability, level.
TABLE = tuple(tuple(_parse(text) for text in policy) for policy in CIFAR10)


def autoaugment(key: Key[Array, ""], images: Images) -> Images:
    """Apply one of the 25 sub-policies to each picture, its operations with their probabilities and random signs."""
    policy_key, key = jax.random.split(key)
    chosen = jnp.array(TABLE)[jax.random.randint(policy_key, images.shape[:1], 0, len(TABLE))]
    for step, step_key in enumerate(jax.random.split(key, 2)):
        operations, probabilities, levels = jnp.moveaxis(chosen[:, step], -1, 0)
        happens_key, sign_key = jax.random.split(step_key)
        happens = jax.random.uniform(happens_key, probabilities.shape) < probabilities
        signs = jax.random.rademacher(sign_key, levels.shape, jnp.float32)
        # Operation 0 is the identity.
        operations = jnp.where(happens, operations, 0).astype(jnp.int32)
        images = jax.vmap(apply)(images, operations, signs * levels)
    return images
