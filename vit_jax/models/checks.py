"""What the fields of a ViT's config can't be together."""

from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.models.rotary import check_rotary


def check(config: Model) -> None:
    """Raise an `InputError` if fields of a resolved config contradict each other."""
    if config.position.startswith("sincos2d") and (config.width % 4 or config.width < 8):
        raise InputError(f"model.position={config.position!r} needs a width divisible by 4, at least 8: {config.width}")
    if config.position == "learned2d" and config.width < 2:
        raise InputError("model.position='learned2d' needs a width of at least 2, for the two halves")
    check_rotary(config)
    if (not config.patch_bias or config.patch_norm) and (config.resnet, config.tokenizer) != (None, None):
        raise InputError("model.patch_bias=False or patch_norm=True: only for patches that are projected linearly")
    if config.pool != "map" and (config.pool_heads, config.pool_mlp_dim, config.pool_prefix) != (None, None, False):
        raise InputError("model.pool_heads, pool_mlp_dim and pool_prefix mean nothing without model.pool='map'")
    if config.pool_heads and config.width % config.pool_heads:
        raise InputError(f"model.pool_heads={config.pool_heads} does not divide model.width={config.width}")
    if config.pool in ("token", "token_gap") and not config.class_token:
        raise InputError(f"model.pool={config.pool!r} reads the class token: model.class_token can't be False")
    if config.pool == "token_gap" and config.pool_norm == "after":
        raise InputError("model.pool='token_gap': the norm comes before it, model.pool_norm='before'")
