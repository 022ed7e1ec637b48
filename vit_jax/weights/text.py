"""Text towers of Transformers' CLIP and SigLIP: which arrays and facts of a folder are theirs, and the pair as a model.

Their blocks have the names of the image tower's, those of `huggingface_families`.
"""

import functools
from typing import Any

from flax import nnx

from vit_jax import tree
from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.models import Backbone
from vit_jax.models.text import End, ImageText, TextEncoder
from vit_jax.weights import huggingface_vit
from vit_jax.weights.fetch import fetch
from vit_jax.weights.files import Stored
from vit_jax.weights.folder import open_folder
from vit_jax.weights.huggingface import gelu_of
from vit_jax.weights.huggingface_families import FAMILIES
from vit_jax.weights.placement import Placement
from vit_jax.weights.rules import Rule, linear, norm, pair, read, same
from vit_jax.weights.supported import count
from vit_jax.weights.tokenizer import FILES, Tokenizer

PREFIX = "text_model."
EMBEDDING = f"{PREFIX}embeddings.token_embedding.weight"
# All of an image tower but one small array, so that something is there to read where there is no text tower.
IMAGE = r"vision_model\.(?!post_layernorm\.bias$).*|.*\.position_ids"
# By whether it is a CLIP: the family of the blocks, and what Transformers presumes where a config says nothing.
KINDS = {
    True: ("clip_vision_model", {"num_attention_heads": 8, "eos_token_id": 49407}),
    False: ("siglip_vision_model", {"num_attention_heads": 12}),
}
# What CLIPs before 2023 say of the token that ends a text, which has the highest number of all. Of a MetaCLIP 2, whose
# arrays have the same names, it is true.
LEGACY_END = 2


def read_pair(where: str, image: Backbone, placement: Placement) -> ImageText:
    """Return the pair of an image tower that was read from `where` and of the text tower beside it.

    Args:
        placement: where the parameters of the text tower go.

    Raises:
        InputError: there is no text tower, or its arrays or its config are not as Transformers writes them.
    """
    path = fetch(where, also=FILES)
    with open_folder(path, IMAGE) as (arrays, notes):
        if EMBEDDING not in arrays:
            raise InputError(
                f"{where}: has no text tower to read texts or labels with; those of CLIP and SigLIP are known as "
                "Transformers writes them, not as timm or OpenCLIP do"
            )
        arrays = {name: array for name, array in arrays.items() if not name.startswith("vision_model.")}
        towers = _described(where, arrays, notes, image)
        graph, state = nnx.split(towers)
        own = {f"image/{name}": array for name, array in tree.flatten(nnx.to_pure_dict(nnx.state(image))).items()}
        shapes = {name: shape for name, shape in tree.flatten(nnx.to_pure_dict(state)).items() if name not in own}
        pairs, problems = pair(_rules(towers), arrays, shapes)
        if any(problems):
            raise InputError(f"{where} does not fit the text tower of its config: {problems}")
        params = own | read(pairs, placement)
    towers = nnx.merge(graph, tree.map_named(lambda name, _: params[name], nnx.to_pure_dict(state)))
    end = towers.text.end if isinstance(towers.text.end, int) else None
    towers.tokenize = Tokenizer(path, towers.text.length, towers.text.vocabulary, end, lower=towers.bias is not None)
    return towers


def _described(where: str, arrays: dict[str, Stored], notes: dict[str, Any], image: Backbone) -> ImageText:
    """Return the towers with shapes in place of parameters."""
    try:
        return nnx.eval_shape(functools.partial(_build, arrays, notes, image))
    except KeyError as error:
        raise InputError(f"{where}: has no {error.args[0]!r}, which a text tower has") from error
    except InputError as error:
        raise InputError(f"{where}: text_config: {error}") from error
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{where}: its text tower is not as Transformers writes them ({reason})") from error


def _build(arrays: dict[str, Stored], notes: dict[str, Any], image: Backbone) -> ImageText:
    kind, notes = notes.get("model_type"), notes.get("text_config") or {}
    is_clip = "text_projection.weight" in arrays
    family, presumed = KINDS[is_clip]
    presumed = FAMILIES[family].defaults | presumed
    (vocabulary, width), rngs = arrays[EMBEDDING].shape, nnx.Rngs(params=0)
    outputs = arrays["text_projection.weight" if is_clip else f"{PREFIX}head.weight"].shape[0]
    ours = image.config
    config = Model(
        name="text",
        width=width,
        depth=count(arrays, r"text_model\.encoder\.layers\.(\d+)\."),
        num_heads=notes.get("num_attention_heads", presumed["num_attention_heads"]),
        mlp_dim=arrays[f"{PREFIX}encoder.layers.0.mlp.fc1.weight"].shape[0],
        norm_eps=float(notes.get("layer_norm_eps", presumed["layer_norm_eps"])),
        gelu=gelu_of(notes, presumed["hidden_act"]),
        # How it is computed is as for the pictures.
        **{key: getattr(ours, key) for key in ("dtype", "attention", "remat", "unroll")},
    )
    if width % config.num_heads:
        raise InputError(f"num_attention_heads={config.num_heads} does not divide the width {width}")
    end: End = "last"
    if is_clip:
        end = notes.get("eos_token_id", presumed["eos_token_id"])
        end = "highest" if end == LEGACY_END and kind != "metaclip_2" else int(end)
    facts = dict(vocabulary=vocabulary, length=arrays[f"{PREFIX}embeddings.position_embedding.weight"].shape[0])
    text = TextEncoder(config, **facts, outputs=outputs, causal=is_clip, end=end, use_bias=not is_clip, rngs=rngs)
    return ImageText(image, text, projected=is_clip, biased=not is_clip, rngs=rngs)


def _rules(pair: ImageText) -> list[Rule]:
    is_clip = pair.projection is not None
    blocks = huggingface_vit.rules(pair.text.config, KINDS[is_clip][0], PREFIX)
    return [
        same("text/embedding", EMBEDDING),
        same("text/position", f"{PREFIX}embeddings.position_embedding.weight"),
        *[
            rule._replace(ours=tuple(f"text/{name}" for name in rule.ours))
            for rule in blocks
            if rule.ours[0].startswith("blocks/")
        ],
        *norm("text/norm", f"{PREFIX}final_layer_norm"),
        *linear("text/projection", "text_projection" if is_clip else f"{PREFIX}head"),
        *linear("projection", "visual_projection"),
        _number("scale", "logit_scale", is_clip),
        _number("bias", "logit_bias", is_clip),
    ]


def _number(ours: str, theirs: str, is_clip: bool) -> Rule:
    shape = () if is_clip else (1,)
    return Rule((ours,), theirs, lambda array: array.reshape(shape), lambda array, _: [array.reshape(())])
