"""ResNets of weight-standardised convolutions and GroupNorm: a hybrid's patch embedding, and BiT.

The two come from different code bases, so they differ in more than the order of norm and convolution: the hybrid pads
as XLA's "SAME" and BiT evenly on both sides, and their epsilons differ. timm's versions of both differ from the
originals in epsilons, and in what BiT's pooling is padded with.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key, Shaped

from vit_jax.config import Model, Preprocessing
from vit_jax.errors import InputError
from vit_jax.models.activations import check_names
from vit_jax.models.layers import PatchEmbedding, compute_dtype, make_head, stacked
from vit_jax.models.variants import reduction
from vit_jax.pixels import as_input

Images = Shaped[Array | np.ndarray, "..."]
Maps = Float[Array, "batch rows columns channels"]


class StdConv(nnx.Module):
    """A convolution without bias whose kernel has mean 0 and variance 1 over each output (Qiao et al., 2019)."""

    def __init__(
        self,
        size: int,
        channels: int,
        features: int,
        *,
        stride: int = 1,
        bit: bool,
        timm: bool = False,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        init = nnx.initializers.lecun_normal(in_axis=(0, 1, 2))
        self.kernel = nnx.Param(init(rngs.params(), (size, size, channels, features)))
        self.stride, self.bit, self.timm, self.dtype = stride, bit, timm, dtype

    def __call__(self, maps: Maps) -> Float[Array, "batch new_rows new_columns features"]:
        kernel = self.kernel[...]
        kernel = kernel - kernel.mean(axis=(0, 1, 2))
        variance = jnp.square(kernel).mean(axis=(0, 1, 2))
        if self.bit or self.timm:
            kernel = kernel / jnp.sqrt(variance + (1e-8 if self.timm else 1e-10))
        else:
            kernel = kernel / (jnp.sqrt(variance) + 1e-5)
        half = (kernel.shape[0] - 1) // 2
        return jax.lax.conv_general_dilated(
            maps.astype(self.dtype),
            kernel.astype(self.dtype),
            (self.stride, self.stride),
            ((half, half),) * 2 if self.bit else "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class Unit(nnx.Module):
    """A bottleneck unit: 1x1, 3x3 (with the stride) and 1x1 convolutions around a shortcut.

    A hybrid's norms come after the convolutions (He et al., 2016a), BiT's before them (He et al., 2016b).
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        stride: int = 1,
        bit: bool,
        timm: bool = False,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        facts = dict(bit=bit, timm=timm, dtype=dtype, rngs=rngs)
        out = 4 * width
        projects = channels != out or stride != 1
        self.conv_proj = StdConv(1, channels, out, stride=stride, **facts) if projects else None
        self.norm_proj = _group_norm(out, **facts) if projects and not bit else None
        self.conv1 = StdConv(1, channels, width, **facts)
        self.norm1 = _group_norm(channels if bit else width, **facts)
        self.conv2 = StdConv(3, width, width, stride=stride, **facts)
        self.norm2 = _group_norm(width, **facts)
        self.conv3 = StdConv(1, width, out, **facts)
        # A hybrid's unit starts as its shortcut.
        self.norm3 = _group_norm(width if bit else out, **facts, zero=not bit)
        self.bit = bit

    def __call__(self, maps: Maps) -> Float[Array, "batch new_rows new_columns features"]:
        if self.bit:
            hidden = jax.nn.relu(self.norm1(maps))
            shortcut = maps if self.conv_proj is None else self.conv_proj(hidden)
            hidden = jax.nn.relu(self.norm2(self.conv1(hidden)))
            hidden = jax.nn.relu(self.norm3(self.conv2(hidden)))
            return shortcut + self.conv3(hidden)
        shortcut = maps if self.conv_proj is None else self.norm_proj(self.conv_proj(maps))
        hidden = jax.nn.relu(self.norm1(self.conv1(maps)))
        hidden = jax.nn.relu(self.norm2(self.conv2(hidden)))
        return jax.nn.relu(shortcut + self.norm3(self.conv3(hidden)))


class Stage(nnx.Module):
    """Units of one width: the first changes the size, the `rest` are alike and have a leading axis to scan over."""

    def __init__(self, units: int, channels: int, width: int, *, stride: int, rngs: nnx.Rngs, **facts):
        self.first = Unit(channels, width, stride=stride, rngs=rngs, **facts)

        def alike(rngs: nnx.Rngs) -> Unit:
            return Unit(4 * width, width, rngs=rngs, **facts)

        self.rest = stacked(alike, units - 1, rngs) if units > 1 else None

    def __call__(self, maps: Maps) -> Float[Array, "batch new_rows new_columns features"]:
        maps = self.first(maps)
        if self.rest is None:
            return maps
        graph, params = nnx.split(self.rest)
        return jax.lax.scan(lambda maps, params: (nnx.merge(graph, params)(maps), None), maps, params)[0]


class Stages(nnx.Module):
    """The root, a 7x7 convolution and a pooling that divide the size by 4, and stages that halve it after the first.

    The stages are attributes `block1`, `block2`, ..., which is how published weights name them.
    """

    def __init__(self, config: Model, channels: int, *, bit: bool, dtype: jnp.dtype, rngs: nnx.Rngs):
        timm = config.resnet_style == "timm"
        facts = dict(bit=bit, timm=timm, dtype=dtype, rngs=rngs)
        width = config.resnet_width
        self.root = StdConv(7, channels, width, stride=2, **facts)
        self.root_norm = None if bit else _group_norm(width, **facts)
        self.features, self.num_stages, self.bit, self.timm = width, len(config.resnet), bit, timm
        for i, units in enumerate(config.resnet):
            stage = Stage(units, self.features, width * 2**i, stride=1 if i == 0 else 2, **facts)
            setattr(self, f"block{i + 1}", stage)
            self.features = 4 * width * 2**i

    def __call__(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch rows columns features"]:
        """Return the last feature map."""
        return self.maps(images)[-1]

    def maps(self, images: Float[Array, "batch height width channels"]) -> list[Float[Array, "batch _ _ _"]]:
        """Return the feature maps after the root and after every stage."""
        maps = self.root(images)
        if self.bit:
            # timm pads with zeros, which raise what is negative at the edge.
            edge = 0.0 if self.timm else -jnp.inf
            maps = jnp.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=edge)
            maps = nnx.max_pool(maps, window_shape=(3, 3), strides=(2, 2), padding="VALID")
        else:
            maps = jax.nn.relu(self.root_norm(maps))
            maps = nnx.max_pool(maps, window_shape=(3, 3), strides=(2, 2), padding="SAME")
        found = [maps]
        for i in range(self.num_stages):
            found.append(getattr(self, f"block{i + 1}")(found[-1]))
        return found


class ResNetEmbedding(PatchEmbedding):
    """A hybrid's patch embedding: the feature map of a ResNet, cut into patches (often 1x1)."""

    def __init__(self, config: Model, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        resnet = Stages(config, channels, bit=False, dtype=dtype, rngs=rngs)
        cut = dataclasses.replace(config, patch=config.patch // reduction(config))
        super().__init__(cut, resnet.features, dtype=dtype, rngs=rngs)
        self.resnet = resnet

    def __call__(self, images: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns dim"]:
        return super().__call__(self.resnet(images))


class BiT(nnx.Module):
    """BiT's ResNet-v2 (Kolesnikov et al., 2020): pre-activation units, a last norm, the mean over positions, a head.

    Attributes:
        config: the resolved `vit_jax.config.Model`.
        image_size: (height, width) that it was made for; it runs on any.
        preprocessing, label_names: as in `ViT`.
    """

    def __init__(self, config: Model, *, num_classes: int, image_size: tuple[int, int], channels: int, rngs: nnx.Rngs):
        self.config, self.image_size = config, tuple(image_size)
        self.num_classes, self.channels = num_classes, channels
        self.preprocessing, self.label_names = Preprocessing(mean=config.mean, std=config.std), None
        dtype = compute_dtype(config)
        self.resnet = Stages(config, channels, bit=True, dtype=dtype, rngs=rngs)
        # The head reads float32, so its input is not rounded on the way.
        self.norm = _group_norm(
            self.resnet.features, bit=True, timm=self.resnet.timm, dtype=jnp.dtype("float32"), rngs=rngs
        )
        self.head = make_head(config, self.resnet.features, num_classes, rngs=rngs)

    def activation_names(self) -> list[str]:
        """Return what `activations` can be asked for."""
        return ["logits", "pooled", "tokens", *(f"stage/{i}" for i in range(self.resnet.num_stages))]

    def activations(self, images: Images, *names: str) -> dict[str, Float[Array, "..."]]:
        """Return what the model computes on the way to its logits, by name.

        Args:
            names: any of

                - logits (batch, classes); pooled (batch, dim): what the head reads;
                - tokens (batch, tokens, dim): the last feature map, normalised, one token for each position;
                - stage/I (batch, rows, columns, dim): the feature map after stage I, from fine to coarse.

        Raises:
            InputError: the model has no such activation, or doesn't take such pictures.
        """
        check_names(names, self)
        _, *maps = self.resnet.maps(as_input(images, self.channels, self.config))
        last = self._encode(maps[-1])
        found = {f"stage/{i}": stage for i, stage in enumerate(maps)}
        found["tokens"] = last.reshape(last.shape[0], -1, last.shape[-1])
        found["pooled"] = last.mean(axis=(1, 2))
        found["logits"] = self.head(found["pooled"])
        return {name: found[name] for name in names}

    def _encode(self, maps: Maps) -> Maps:
        return jax.nn.relu(self.norm(maps))

    def features(self, images: Images, *, key: Key[Array, ""] | None = None) -> Float[Array, "batch dim"]:
        """Return what the head reads; else as `__call__`."""
        return self._encode(self.resnet(as_input(images, self.channels, self.config))).mean(axis=(1, 2))

    def __call__(self, images: Images, *, key: Key[Array, ""] | None = None) -> Float[Array, "batch classes"]:
        """Return float32 logits; a key changes nothing.

        Args:
            images: uint8 pixels from 0 to 255, or floats that are normalised as the weights expect: in [-1, 1], unless
                `config.mean` and `config.std` say otherwise.

        Raises:
            InputError: the pictures have another rank, other channels or another integer type; found while tracing.
        """
        return self.head(self.features(images, key=key))

    def resize(self, image_size: tuple[int, int], patch: int | None = None) -> None:
        """Make this, in place, the model of another picture size: it has no positions that would follow.

        Raises:
            InputError: a patch size is given.
        """
        if patch is not None:
            raise InputError(f"patch={patch}: {self.config.name!r} is a ResNet, which has no patches")
        self.image_size = tuple(image_size)


def _group_norm(
    features: int, *, bit: bool, timm: bool, dtype: jnp.dtype, rngs: nnx.Rngs, zero: bool = False
) -> nnx.GroupNorm:
    init = nnx.initializers.zeros if zero else nnx.initializers.ones
    # PyTorch's variance is that of the differences from the mean: half the rounding of the mean square less the square.
    facts = dict(epsilon=1e-5 if bit or timm else 1e-6, use_fast_variance=not timm)
    return nnx.GroupNorm(features, num_groups=32, **facts, dtype=dtype, scale_init=init, rngs=rngs)
