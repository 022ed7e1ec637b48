"""The model config: one flat, frozen dataclass, used to build models and to describe weight files."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from vit_jax.config.coerce import Section
from vit_jax.config.ranges import Count, Factor, Finite, Form, Fraction, NonNegative, Positive, Range, Rate
from vit_jax.errors import InputError

PATTERN = Form(
    r"full|axial(:both)?|(local|blocks|strided|fixed):[1-9]\d{0,5}",
    "full, axial, axial:both, local:RADIUS, blocks:SIDE, strided:STRIDE or fixed:STRIDE, numbers at least 1",
)


@dataclass(frozen=True)
class Model(Section):
    """A Vision Transformer, hybrid, ResNet or Swin, chosen by name; a size that is None comes from the table of sizes.

    Attributes:
        name: size/patch, such as "S/16"; "R50+B/16" is a hybrid, "BiT-R50x1" a ResNet, "Swin-T" a Swin,
            "CCT-2/3x2" a compact transformer with 2 blocks after 2 convolutions of 3x3; "custom/16" has no sizes.
        patch: side of the square that one token covers, in pixels of the picture.
        width, depth, num_heads, mlp_dim: token width, number of blocks, heads per block, and hidden width of the MLP;
            None: from the table of sizes.
        swin: number of blocks in each stage of a Swin; `width`, `num_heads` and `mlp_dim` are those of the first stage,
            and each doubles them.
        window: side of a Swin's windows, in patches.
        resnet: number of units in each stage of a hybrid's or BiT's ResNet; () is the root alone, None a pure ViT.
        resnet_width: channels of the ResNet's root: 64 times the width factor.
        resnet_style: whose small constants a ResNet computes with, epsilons and padding: the originals' ("google") or
            those of PyTorch Image Models ("timm"). Outputs differ in the fourth digit or so.
        tokenizer: side and number of the convolutions that make the tokens of a compact transformer (Hassani et al.,
            2021), each with ReLU and a max-pooling that halves the map; None: patches are projected linearly.
        pool: what the head reads: the class token ("token"), the mean over the patches ("gap"), both, one after the
            other ("token_gap"; Oquab et al., 2024), multi-head attention pooling over the patches ("map"; Zhai et al.,
            2022), attention of one learned query alone ("probe"; Fini et al., 2025), their mean weighted by the softmax
            of a learned linear function ("seq"; Hassani et al., 2021), or every token separately ("none"). A "CCT" has
            "seq" for "token".
        pool_heads, pool_mlp_dim: heads and hidden width of attention pooling; None: those of the blocks.
        pool_prefix: whether attention pooling reads class token and registers too, as in Perception Encoder (Bolya et
            al., 2025).
        pool_norm: whether the last norm comes before or after pooling ("after" is timm's `fc_norm`).
        class_token: whether there is a class token; None: only if the head reads it.
        registers: number of extra tokens that attend and are attended to, but are not read (Darcet et al., 2024).
        representation: width of a tanh layer before the head (the `pre_logits` of ImageNet-21k weights).
        position: learned per patch, learned as halves per row and per column ("learned2d"), an attention bias per head
            and 2-D offset ("relative"), fixed 2-D sine-cosine, or none (Dosovitskiy et al., 2021, appendix D.4). The
            frequencies of "sincos2d_mae" are those of MAE (He et al., 2022) and AIMv2, which end a step earlier.
        position_at: where positions are added: once before the blocks ("stem"), or before every block, separate
            for each ("blocks") or shared. A relative bias acts in every block, and is shared unless this is "blocks".
        prefix_position: whether class and register tokens have their own learned positions.
        relative_prefix: whether a relative bias has, for each head, learned numbers of its own for class and register
            tokens: from them to patches, from patches to them, and among them (Bao et al., 2022); else zeros.
        rope: base of the frequencies of rotary positions, by which queries and keys of patches are turned according to
            row and column (Fang et al., 2023; Siméoni et al., 2025); None: none. They act beside `position`.
        rope_unit: coordinates go from -1 to 1 over a "picture" of any size and are multiplied by 2 pi (DINOv3; base
            100), or count each "patch" (EVA-02; base 10,000).
        rope_grid: (rows, columns) that counted coordinates are scaled to, whatever the picture's own; None: its own.
        rope_start: coordinate of the first row and column of patches, where they are counted.
        rope_shift, rope_jitter, rope_rescale: in training, once a step, coordinates are shifted by up to so much, and
            multiplied by up to so much or its inverse: each axis by itself, and both alike.
        resample: how positions are resized for other image sizes: "bilinear" aligns corners as the original ViT
            does, "bicubic" antialiases as timm does, "bicubic_sharp" is Transformers', "bilinear_smooth" SigLIP 2's
            for pictures of any shape. For a relative bias "geometric" is BEiT's own and timm's (Bao et al., 2022), and
            "bilinear_sharp" is Transformers'.
        gelu: the tanh approximation, as in JAX code bases, the exact function, as in PyTorch, or the "quick" x
            sigmoid(1.702 x) of CLIP (Hendrycks and Gimpel, 2016; Radford et al., 2021).
        swiglu: in the blocks, the MLP's hidden layer is SiLU(gate) times a linear layer, both `mlp_dim` wide, in place
            of a GELU (Shazeer, 2020).
        mlp_norm, attention_norm: whether a norm comes before the last linear layer of the MLP, and of attention (Wang
            et al., 2022; EVA-02).
        linear_bias: whether the MLP's linear layers and the last one of attention have a bias (not in AIMv2; Fini et
            al., 2025).
        patch_bias: whether the projection of the patches has a bias.
        patch_norm: whether a norm comes right after it, before positions are added, as in AIMv2.
        embedding_norm: whether a norm comes before the first block, as in CLIP.
        norm: LayerNorm ("layer"), or RMSNorm ("rms"; Zhang and Sennrich, 2019), which neither subtracts the mean nor
            has a bias. Attention pooling has LayerNorm.
        norm_eps: added to the variance in every LayerNorm, and to the mean square in every RMSNorm.
        layer_scale: initial factor of each residual branch, learned per channel (Touvron et al., 2021); None: none.
        qkv_bias: whether queries, keys and values have a bias; those of a "ViT-Lite" or "CCT" never have one.
        key_bias: whether keys have a bias where queries and values have one (not in BEiT, EVA and DINOv3).
        qk_norm: normalize queries and keys (Dehghani et al., 2023).
        dropout: rate after the position embedding and in every MLP and attention output.
        drop_path: rate of stochastic depth at the last block; it grows linearly from 0 at the first.
        drop_path_subset: compute each residual branch only for the pictures that keep it, so that dropped ones cost
            nothing (Oquab et al., 2024). Every block then has the rate `drop_path`, rounded to a fixed number of
            dropped pictures in each group of 16 consecutive pictures of a batch.
        head_bias: initial bias of the head; -10 for the sigmoid loss over many classes, as in Steiner et al. (2022).
        attention: implementation; "auto": fused by cuDNN on GPUs in half precision where supported, else XLA.
        attention_pattern: which patches a patch attends to: all ("full"); those of its row in even blocks and of its
            column in odd ones ("axial"), or of both in each ("axial:both"); those within a radius ("local:7"), in a
            window that is shifted in odd blocks ("blocks:7"), or in the sparse patterns of Child et al. (2019),
            "strided:14" and "fixed:14". See `vit_jax.models.patterns.Pattern`. Parameters are those of full attention.
        mean, std: how pixels become floats: (pixel / 255 - mean) / std, one number for all channels or one for each.
            The defaults give [-1, 1].
        dtype: dtype of the computation; parameters are always float32. "auto": bfloat16 on accelerators, else float32.
        remat: what the backward pass recomputes instead of storing: only the cheap operations, keeping the outputs of
            linear layers and attention ("none"; fastest), or everything in a block ("full"; least memory). Affects
            memory and speed; results differ only by rounding.
        unroll: number of blocks per iteration of the scan over depth; None: all when training on GPUs without `fsdp`,
            or on one CPU if they fit into memory, else 1. Affects speed, memory and compile time; results differ only
            by rounding.
    """

    where: ClassVar[str] = "model"

    name: str = "S/16"
    patch: Count | None = None
    width: Count | None = None
    depth: Count | None = None
    num_heads: Count | None = None
    mlp_dim: Count | None = None
    swin: tuple[Count, ...] | None = None
    window: Count | None = None
    resnet: tuple[Count, ...] | None = None
    resnet_width: Count | None = None
    resnet_style: Literal["google", "timm"] = "google"
    tokenizer: tuple[Count, Count] | None = None
    pool: Literal["token", "gap", "token_gap", "map", "probe", "seq", "none"] = "token"
    pool_heads: Count | None = None
    pool_mlp_dim: Count | None = None
    pool_prefix: bool = False
    pool_norm: Literal["before", "after"] = "before"
    class_token: bool | None = None
    registers: Annotated[int, Range("[0, inf)")] = 0
    representation: Count | None = None
    position: Literal["learned", "learned2d", "relative", "sincos2d", "sincos2d_mae", "none"] = "learned"
    position_at: Literal["stem", "blocks", "blocks_shared"] = "stem"
    prefix_position: bool = True
    relative_prefix: bool = False
    rope: Positive | None = None
    rope_unit: Literal["picture", "patch"] = "picture"
    rope_grid: tuple[Count, Count] | None = None
    rope_start: Finite = 0.0
    rope_shift: NonNegative = 0.0
    rope_jitter: Factor = 1.0
    rope_rescale: Factor = 1.0
    resample: Literal["bilinear", "bilinear_sharp", "bilinear_smooth", "bicubic", "bicubic_sharp", "geometric"] = (
        "bilinear"
    )
    gelu: Literal["tanh", "exact", "quick"] = "tanh"
    swiglu: bool = False
    mlp_norm: bool = False
    attention_norm: bool = False
    linear_bias: bool = True
    patch_bias: bool = True
    patch_norm: bool = False
    embedding_norm: bool = False
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: Positive = 1e-6
    layer_scale: NonNegative | None = None
    qkv_bias: bool = True
    key_bias: bool = True
    qk_norm: bool = False
    dropout: Rate = 0.0
    drop_path: Rate = 0.0
    drop_path_subset: bool = False
    head_bias: Finite = 0.0
    attention: Literal["auto", "xla", "cudnn"] = "auto"
    attention_pattern: Annotated[str, PATTERN] = "full"
    mean: tuple[Fraction, ...] = (0.5,)
    std: tuple[Positive, ...] = (0.5,)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    remat: Literal["none", "full"] = "none"
    unroll: Count | None = None


def height_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return an image size, an int for a square or (height, width), as (height, width).

    Raises:
        InputError: it is neither, or a side is not positive.
    """
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not isinstance(sides, (tuple, list)) or len(sides) != 2 or any(type(x) is not int or x < 1 for x in sides):
        raise InputError(f"image_size={image_size!r}: must be pixels, or (height, width)")
    return tuple(sides)
