"""What pre-training puts on an encoder; `ViT.pretraining`. It is left behind when the encoder is loaded."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from vit_jax.config import Model, Pretrain
from vit_jax.errors import InputError
from vit_jax.models.layers import PLAIN_MLP, Mlp, add_position, apply_blocks, compute_dtype, make_blocks
from vit_jax.models.position import SinCos2d, num_prefix

LEVELS = 8  # of a channel, 3 bits
SIDE = 4  # of the small picture of a patch that the target "colors" is

Parts = tuple[str, Pretrain]


class MaskedPatches(nnx.Module):
    """The token that stands for corrupted patches, and a linear head (Dosovitskiy et al., 2021, section 4.6)."""

    def __init__(self, settings: Pretrain, config: Model, channels: int, *, rngs: nnx.Rngs):
        pixels = config.patch**2 * channels
        outputs = {"color": LEVELS**channels, "colors": SIDE**2 * LEVELS**channels, "pixels": pixels}[settings.target]
        self.token = _token(config.width, rngs)
        self.head = nnx.Linear(config.width, outputs, dtype=jnp.float32, rngs=rngs)


class MaskedAutoencoder(nnx.Module):
    """The decoder of He et al. (2022): blocks on all patches, of which one token stands for those that were hidden."""

    def __init__(self, settings: Pretrain, config: Model, channels: int, *, rngs: nnx.Rngs):
        width, heads, dtype = settings.decoder_width, settings.decoder_heads, compute_dtype(config)
        if width % heads or width % 4 or width < 8:
            raise InputError(
                f"config.pretrain.decoder_width={width}: must be at least 8, and a multiple of 4 and of "
                f"decoder_heads={heads}"
            )
        sizes = dict(width=width, depth=settings.decoder_depth, num_heads=heads, mlp_dim=4 * width)
        self.config = dataclasses.replace(config, **sizes, drop_path=0.0, dropout=0.0, rope=None)
        self.project = nnx.Linear(config.width, width, dtype=dtype, rngs=rngs)
        self.token = _token(width, rngs)
        self.blocks = make_blocks(self.config, dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(width, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(width, config.patch**2 * channels, dtype=jnp.float32, rngs=rngs)

    def __call__(
        self, tokens: Float[Array, "batch tokens dim"], places: Int[Array, "batch patches"], grid: tuple[int, int]
    ) -> Float[Array, "batch patches pixels"]:
        """Return the pixels of all patches.

        Args:
            tokens: the encoder's output, class token and registers first.
            places: of each patch, its number among those that the encoder saw; the others have the numbers after them.
        """
        prefix, (batch, patches) = num_prefix(self.config), places.shape
        tokens = self.project(tokens)
        hidden = patches - (tokens.shape[1] - prefix)
        stand_in = jnp.broadcast_to(self.token[...].astype(tokens.dtype), (batch, hidden, tokens.shape[2]))
        ordered = jnp.concatenate([tokens[:, prefix:], stand_in], axis=1)
        ordered = jnp.take_along_axis(ordered, places[:, :, None], axis=1)
        tokens = jnp.concatenate([tokens[:, :prefix], ordered], axis=1)
        tokens = add_position(tokens, SinCos2d(self.config, grid)(grid))
        tokens, _ = apply_blocks(self.blocks, tokens, self.config, grid=grid)
        return self.head(self.norm(tokens)[:, prefix:])


class NextPatch(nnx.Module):
    """An MLP head that predicts the pixels of the next patch (El-Nouby et al., 2024, section 3.2, one layer of it)."""

    def __init__(self, settings: Pretrain, config: Model, channels: int, *, rngs: nnx.Rngs):
        dtype = compute_dtype(config)
        self.mlp = Mlp(dataclasses.replace(config, **PLAIN_MLP), dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(config.width, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(config.width, config.patch**2 * channels, dtype=jnp.float32, rngs=rngs)

    def __call__(self, tokens: Float[Array, "batch tokens dim"]) -> Float[Array, "batch tokens pixels"]:
        """Return what each token says of the patch after it."""
        return self.head(self.norm(tokens + self.mlp(tokens)))


KINDS = {"masked_patches": MaskedPatches, "mae": MaskedAutoencoder, "next_patch": NextPatch}


def make_parts(parts: Parts, config: Model, channels: int, *, rngs: nnx.Rngs) -> nnx.Module:
    """Return what a task, by its name, puts on an encoder.

    Raises:
        InputError: the sizes do not fit.
    """
    task, settings = parts
    return KINDS[task](settings, config, channels, rngs=rngs)


def _token(width: int, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (width,)))
