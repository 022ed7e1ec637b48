"""What a model is: one flat, frozen dataclass, from which every model is built and that weight files are read into."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from vit_jax.config.coerce import Section
from vit_jax.config.ranges import Count, Finite, NonNegative, Positive, Range, Rate
from vit_jax.errors import InputError


@dataclass(frozen=True)
class Model(Section):
    """A Vision Transformer, hybrid or ResNet by name; what is None comes from the table of sizes.

    Attributes:
        name: size `/` patch, such as "S/16"; "R50+B/16" is a hybrid, "BiT-R50x1" a ResNet; "custom/16" has no sizes.
        patch: side, in pixels of the picture, of what one token covers.
        resnet: units in each stage of a hybrid's or BiT's ResNet; () is its root alone, None a pure ViT.
        resnet_width: channels of the ResNet's root; 64 times the width factor.
        pool: what the head reads: the class token, the mean over the patches ("gap"), multi-head attention pooling
            over the patches ("map"; Zhai et al., 2022), or every token by itself ("none").
        pool_norm: the last norm comes before pooling, or after it (timm's `fc_norm`).
        class_token: whether there is one; None: when the head reads it.
        registers: tokens that take part and are not read (Darcet et al., 2024).
        representation: width of a tanh layer before the head (the `pre_logits` of ImageNet-21k weights).
        position: learned per patch, as halves per row and per column ("learned2d"), as an attention bias per head
            and 2-D offset ("relative"), fixed 2-D sine-cosine, or none (Dosovitskiy et al., 2021, appendix D.4).
        position_at: added once before the blocks ("stem"), or before every block: each its own, or one shared. A
            relative bias acts in every block: shared, unless "blocks" gives each its own.
        prefix_position: whether class and register tokens have learned positions of their own.
        resample: how positions follow pictures of another size: corners aligned, or antialiased.
        gelu: the tanh approximation, as in JAX code bases, or the exact one, as in PyTorch's.
        norm_eps: added to the variance in every LayerNorm.
        layer_scale: initial factor of each residual branch, learned per channel (Touvron et al., 2021); None: none.
        qk_norm: normalise queries and keys (Dehghani et al., 2023).
        dropout: rate after the position embedding and in every MLP and attention output.
        drop_path: stochastic depth, the rate at the last block; it grows linearly from 0 at the first.
        drop_path_subset: a branch is computed for the pictures that keep it and no others, so that what is dropped
            costs nothing (Oquab et al., 2024). Then every block has the rate `drop_path`, and of every 16 pictures
            of a batch, in its order, exactly so many are dropped as comes nearest to it.
        head_bias: initial bias of the head; -10 for the sigmoid loss over many classes, as in Steiner et al. (2022).
        attention: how it is computed; "auto": fused by cuDNN on GPUs in half precision where that runs, else by XLA.
        dtype: of the computation; parameters are float32 always. "auto": bfloat16 on accelerators, float32 on CPU.
        remat: what the backward pass computes again, not to store it: what is cheap in a block, so that the outputs of
            its linear layers and attention remain ("none"; the fastest), or everything in it ("full"; the smallest).
            Changes memory and speed, results by rounding.
        unroll: how many blocks one iteration of the scan over depth holds; None: all when training on GPUs without
            `fsdp`, else 1. Changes speed, memory and the time to compile, results by rounding.
    """

    where: ClassVar[str] = "model"

    name: str = "S/16"
    patch: Count | None = None
    width: Count | None = None
    depth: Count | None = None
    num_heads: Count | None = None
    mlp_dim: Count | None = None
    resnet: tuple[Count, ...] | None = None
    resnet_width: Count | None = None
    pool: Literal["token", "gap", "map", "none"] = "token"
    pool_norm: Literal["before", "after"] = "before"
    class_token: bool | None = None
    registers: Annotated[int, Range("[0, inf)")] = 0
    representation: Count | None = None
    position: Literal["learned", "learned2d", "relative", "sincos2d", "none"] = "learned"
    position_at: Literal["stem", "blocks", "blocks_shared"] = "stem"
    prefix_position: bool = True
    resample: Literal["bilinear", "bicubic"] = "bilinear"
    gelu: Literal["tanh", "exact"] = "tanh"
    norm_eps: Positive = 1e-6
    layer_scale: NonNegative | None = None
    qk_norm: bool = False
    dropout: Rate = 0.0
    drop_path: Rate = 0.0
    drop_path_subset: bool = False
    head_bias: Finite = 0.0
    attention: Literal["auto", "xla", "cudnn"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    remat: Literal["none", "full"] = "none"
    unroll: Count | None = None


def height_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return an image size, one int for a square, as (height, width).

    Raises:
        InputError: it is neither, or not positive.
    """
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not isinstance(sides, (tuple, list)) or len(sides) != 2 or any(type(x) is not int or x < 1 for x in sides):
        raise InputError(f"image_size={image_size!r}: must be pixels, or (height, width)")
    return tuple(sides)
