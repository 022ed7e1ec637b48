"""Pictures and texts in one space: a text encoder of the same blocks, the pair of towers, and texts as a head."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.losses import LOSSES
from vit_jax.models.layers import add_position, apply_blocks, compute_dtype, make_blocks, make_norm
from vit_jax.models.vit import Images, ViT

# The token whose output stands for a text: the last; the first with the highest number; the first with a given one.
End = Literal["last", "highest"] | int


def unit(vectors: Float[Array | np.ndarray, "rows dim"]) -> Float[Array, "rows dim"]:
    """Return vectors of length 1, in float32."""
    vectors = jnp.asarray(vectors, jnp.float32)
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


class TextEncoder(nnx.Module):
    """Token and position embeddings, the blocks of a ViT, a norm, and a projection of one token's output.

    That of CLIP (Radford et al., 2021) is causal, and reads the token that ends a text: what pads it is never seen.
    That of SigLIP (Zhai et al., 2023) sees all tokens, padding too, and reads the last.

    Attributes:
        config: sizes and constants of the blocks; all else of a `vit_jax.config.Model` means nothing here.
        length: number of tokens that it has positions for.
    """

    def __init__(
        self,
        config: Model,
        *,
        vocabulary: int,
        length: int,
        outputs: int,
        causal: bool,
        end: End,
        use_bias: bool,
        rngs: nnx.Rngs,
    ):
        self.config, self.vocabulary, self.length, self.causal, self.end = config, vocabulary, length, causal, end
        dtype, width, init = compute_dtype(config), config.width, nnx.initializers.normal(0.02)
        self.embedding = nnx.Param(init(rngs.params(), (vocabulary, width)))
        self.position = nnx.Param(init(rngs.params(), (length, width)))
        self.blocks = make_blocks(config, dtype=dtype, rngs=rngs)
        self.norm = make_norm(config, width, dtype=dtype, rngs=rngs)
        self.projection = nnx.Linear(width, outputs, use_bias=use_bias, dtype=jnp.float32, rngs=rngs)

    def __call__(self, tokens: Int[Array | np.ndarray, "batch tokens"]) -> Float[Array, "batch dim"]:
        """Return a vector for each text, of any length; as many tokens as `length`, as tokenizers pad them, or fewer.

        Raises:
            InputError: there are more.
        """
        batch, length = tokens.shape
        if length > self.length:
            raise InputError(f"a text of {length} tokens: the model has positions for {self.length}")
        tokens = jnp.asarray(tokens)
        embedded = self.embedding[...][tokens].astype(compute_dtype(self.config))
        embedded = add_position(embedded, self.position[...][:length])
        seen = jnp.broadcast_to(jnp.tri(length, dtype=bool), (batch, length, length)) if self.causal else None
        encoded, _ = apply_blocks(self.blocks, embedded, self.config, seen=seen)
        # Normed after it is picked, token by token as it would be before.
        return self.projection(self.norm(encoded[jnp.arange(batch), self._end_of(tokens)]))

    def _end_of(self, tokens: Int[Array, "batch tokens"]) -> Int[Array, " batch"]:
        if self.end == "last":
            return jnp.full(len(tokens), tokens.shape[1] - 1)
        return (tokens if self.end == "highest" else tokens == self.end).argmax(axis=1)


class ImageText(nnx.Module):
    """A tower for pictures and one for texts, whose outputs are near to each other where they go together.

    Attributes:
        image: the ViT.
        text: the `TextEncoder`.
        projection: from the ViT's features to the space of the texts; None: they are in it.
        scale, bias: of logits: the logarithm of what cosines are multiplied by, and what is added, or None.
        loss: what turns logits into probabilities, a name from `vit_jax.losses.LOSSES`.
        tokenize: maps texts to the tokens that `encode_text` takes.
    """

    def __init__(self, image: ViT, text: TextEncoder, *, projected: bool, biased: bool, rngs: nnx.Rngs):
        self.image, self.text, self.tokenize = image, text, None
        sizes = (image.config.width, text.projection.out_features)
        self.projection = nnx.Linear(*sizes, use_bias=False, dtype=jnp.float32, rngs=rngs) if projected else None
        self.scale, self.bias = nnx.Param(jnp.zeros(())), nnx.Param(jnp.zeros(())) if biased else None
        self.loss = "sigmoid" if biased else "softmax"

    def encode_images(self, images: Images) -> Float[Array, "batch dim"]:
        """Return embeddings of length 1, in float32; pictures are as for the ViT."""
        features = self.image.features(images).astype(jnp.float32)
        return unit(features if self.projection is None else self.projection(features))

    def encode_text(self, tokens: Int[Array | np.ndarray, "batch tokens"]) -> Float[Array, "batch dim"]:
        """Return embeddings of length 1, in float32, of texts from `tokenize`."""
        return unit(self.text(tokens))

    def logits(
        self, images: Float[Array | np.ndarray, "batch dim"], texts: Float[Array | np.ndarray, "classes dim"]
    ) -> Float[Array, "batch classes"]:
        """Return how well each picture and each text go together, from their embeddings."""
        logits = jnp.matmul(images, texts.T, precision="highest") * jnp.exp(self.scale[...])
        return logits if self.bias is None else logits + self.bias[...]

    def probabilities(
        self, images: Float[Array | np.ndarray, "batch dim"], texts: Float[Array | np.ndarray, "classes dim"]
    ) -> Float[Array, "batch classes"]:
        """Return, from embeddings, each text's share of 1 (softmax, CLIP) or its own probability (sigmoid, SigLIP)."""
        return LOSSES[self.loss].probabilities(self.logits(images, texts))


class TextHead(nnx.Module):
    """Texts as the head of a ViT: of normalised, projected features a linear layer, whose kernel the texts are.

    Attributes:
        loss: as in `ImageText`.
    """

    def __init__(self, pair: ImageText, texts: Float[Array | np.ndarray, "classes dim"]):
        self.projection, self.loss = pair.projection, pair.loss
        scale, bias = (0.0 if each is None else np.asarray(each[...]) for each in (pair.scale, pair.bias))
        # Not called a kernel, so that they never pass for a plain head's. In the host's memory, to go to any device.
        self.texts = nnx.Param(np.asarray(texts).T * np.exp(scale))
        self.bias = nnx.Param(np.full(len(texts), bias, np.float32))

    @property
    def features(self) -> int:
        """Width of the features that it takes."""
        return len(self.texts[...] if self.projection is None else self.projection.kernel[...])

    def __call__(self, features: Float[Array | np.ndarray, "batch dim"]) -> Float[Array, "batch classes"]:
        """Return the logits that `ImageText` gives for the same texts."""
        features = jnp.asarray(features, jnp.float32)
        projected = unit(features if self.projection is None else self.projection(features))
        return jnp.matmul(projected, self.texts[...], precision="highest") + self.bias[...]


def with_head(model: ViT, head: TextHead) -> ViT:
    """Return a ViT, changed in place, with texts as its head; they are not yet named."""
    model.head, model.num_classes = nnx.data(head), head.bias.shape[0]
    return model
