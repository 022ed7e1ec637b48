"""The `.safetensors` files and folders of PyTorch Image Models (timm): ViTs, those of `timm_eva`, `timm_beit` and
`timm_aimv2`, Swins, and the ResNets of `timm_resnet`.

A lone file says little beside the arrays: what is known only to timm's model names is taken from its conventions (heads
of 64, exact GELU, a class token that is read), from what we note in a file's metadata, or from keywords of `load`. A
folder's `config.json` says it, and how pictures are prepared; see `timm_config`.
"""

import dataclasses
import json
import pathlib

import numpy as np

from vit_jax.config import Model, from_dict
from vit_jax.errors import InputError
from vit_jax.models.variants import SIZES, kind_of, reduction
from vit_jax.weights import files, swin, timm_aimv2, timm_beit, timm_config, timm_eva, timm_resnet
from vit_jax.weights.described import names_of, preprocessing_fields, preprocessing_of, write_folder
from vit_jax.weights.rules import Rule, convolution, linear, norm, positions, reshaped, same
from vit_jax.weights.supported import ANY, PLAIN, count, grid_of, grid_of_offsets

_VIT = PLAIN | {
    "resnet": ANY,
    "resnet_style": ("timm", None),
    "pool": ("token", "gap", "map", "none"),
    "pool_heads": ANY,
    "pool_mlp_dim": ANY,
    "pool_prefix": ANY,
    "pool_norm": ANY,
    "unread_class": ANY,
    "registers": ANY,
    "position": ("learned", "none"),
    "prefix": ANY,
    "gelu": ANY,
    "norm_eps": ANY,
    "layer_scale": ANY,
    "qkv_bias": ANY,
    "key_bias": ANY,
    "qk_norm": ANY,
    "rope": ANY,
    "rope_unit": ANY,
    "swiglu": ANY,
    "mlp_norm": ANY,
    "attention_norm": ANY,
    "patch_bias": ANY,
    "embedding_norm": ANY,
}


def supported(config: Model) -> dict:
    """Return the table of what the class of a resolved config holds."""
    if config.norm == "rms":
        return timm_aimv2.SUPPORTED
    return timm_beit.supported(config) if config.relative_prefix else _VIT


SUPPORTED, SUPPORTED_BIT, SUPPORTED_SWIN = supported, timm_resnet.SUPPORTED, swin.SUPPORTED_TIMM
# What a lone file's arrays don't say.
NOTED = {
    "ViT": (
        *("num_heads", "pool", "pool_heads", "pool_prefix", "pool_norm", "class_token", "gelu", "norm_eps"),
        *("layer_scale", "rope", "rope_unit", "rope_grid", "rope_start", "rope_shift", "rope_jitter", "rope_rescale"),
        "resample",
    ),
    "Swin": ("window",),
    "BiT": (),
}


def matches(arrays: dict[str, np.ndarray]) -> bool:
    """Return whether the names are this format's."""
    vit = "blocks.0.attn.qkv.weight" in arrays or timm_eva.has_eva(arrays)
    return vit or timm_resnet.is_bit(arrays) or swin.has_swin(arrays, swin.TIMM)


def facts(arrays: dict[str, np.ndarray], notes: dict, grid: tuple[int, int] | None) -> dict:
    """Return what `build_model` needs to know; the number of heads stays None where nothing tells it."""
    noted = json.loads(notes["vit_jax"]) if "vit_jax" in notes else None
    is_swin = swin.has_swin(arrays, swin.TIMM)
    if is_swin or timm_resnet.is_bit(arrays):
        window = noted["model"].get("window") if noted else timm_config.window(notes)
        found = swin.facts(arrays, swin.TIMM, window) if is_swin else timm_resnet.bit_facts(arrays)
        stated = timm_config.image_size(notes) or (noted and tuple(noted["image_size"]))
        found["image_size"] = stated or found["image_size"]
    else:
        found = _vit_facts(arrays, notes, noted, grid)
    found |= timm_config.bound(notes, found["num_classes"])
    if noted and "preprocessing" in noted:
        found["preprocessing"] = preprocessing_fields(**noted["preprocessing"])
        found["label_names"] = names_of(noted["label_names"], found["num_classes"], "label_names in the metadata")
    return found


def _vit_facts(arrays: dict[str, np.ndarray], notes: dict, noted: dict | None, grid: tuple[int, int] | None) -> dict:
    width, channels, patch, _ = arrays["patch_embed.proj.weight"].shape
    prefix = sum(arrays[name].shape[1] for name in ("cls_token", "reg_token") if name in arrays)
    token, after = "cls_token" in arrays, "fc_norm.weight" in arrays
    heads = {size.width: size.num_heads for size in SIZES.values() if size.width >= 192}
    head_norm = arrays.get("blocks.0.attn.q_norm.weight")
    num_heads = heads.get(width, width // 64 if width % 64 == 0 else None)
    config = Model(
        name="custom/16",
        patch=patch,
        width=width,
        depth=count(arrays, r"blocks\.(\d+)\."),
        num_heads=num_heads if head_norm is None else width // len(head_norm),
        pool="map" if "attn_pool.latent" in arrays else "token" if token and not after else "gap",
        pool_norm="after" if after else "before",
        class_token=token,
        registers=arrays["reg_token"].shape[1] if "reg_token" in arrays else 0,
        gelu="exact",
        qk_norm=head_norm is not None,
        patch_bias=any(name.startswith("patch_embed.") and name.endswith("proj.bias") for name in arrays),
        embedding_norm="norm_pre.weight" in arrays,
    )
    is_beit = timm_beit.has_beit(arrays)
    if is_beit:
        own = timm_beit.fields(arrays)
    elif timm_aimv2.has_aimv2(arrays):
        own = timm_aimv2.fields(arrays)
    else:
        own = timm_eva.fields(arrays) if timm_eva.has_eva(arrays) else _block_fields(arrays)
    if timm_eva.has_perception(arrays):
        own |= timm_eva.perception_fields(arrays)
    if "attn_pool.latent" in arrays:
        hidden = arrays["attn_pool.mlp.fc1.weight"].shape[0]
        own["pool_mlp_dim"] = None if hidden == own["mlp_dim"] else hidden
    config = dataclasses.replace(config, **own)
    if any(name.startswith(timm_resnet.HYBRID) for name in arrays):
        resnet = timm_resnet.stages_of(arrays, timm_resnet.HYBRID)
        channels = resnet.pop("channels")
        config = dataclasses.replace(config, **resnet)
        config = dataclasses.replace(config, patch=patch * reduction(config))
    config = dataclasses.replace(config, name=f"custom/{config.patch}", **timm_config.model_fields(notes))
    if noted is not None:
        config = from_dict({"model": dataclasses.asdict(config) | noted["model"]}).model
        grid = grid or tuple(noted["grid"])
    stated, patch = timm_config.image_size(notes), config.patch
    if is_beit:
        number = len(timm_beit.table_of(arrays)) - 3
        grid = grid or (stated and tuple(side // patch for side in stated))
        image_size = tuple(patch * side for side in grid_of_offsets(number, grid))
    elif "pos_embed" in arrays:
        tokens = arrays["pos_embed"].shape[1]
        if grid is None and stated is not None:
            rows, columns = (side // patch for side in stated)
            grid = (rows, columns) if rows * columns in (tokens, tokens - prefix) else None
        owned = _owns_positions(tokens, prefix, grid)
        config = dataclasses.replace(config, prefix_position=owned)
        image_size = tuple(patch * side for side in grid_of(tokens - prefix * owned, grid))
    else:
        config = dataclasses.replace(config, position="none")
        image_size = stated or (224, 224) if grid is None else tuple(patch * side for side in grid)
    head = arrays.get("head.weight")
    num_classes = None if head is None else head.shape[0]
    return {"config": config, "num_classes": num_classes, "image_size": image_size, "channels": channels}


def _block_fields(arrays: dict[str, np.ndarray]) -> dict:
    """Return what the arrays of a `VisionTransformer` say of its blocks."""
    hidden, out = arrays["blocks.0.mlp.fc1.weight"].shape[0], arrays["blocks.0.mlp.fc2.weight"].shape[1]
    return {
        "mlp_dim": out,
        "swiglu": hidden == 2 * out,
        "qkv_bias": "blocks.0.attn.qkv.bias" in arrays,
        "layer_scale": 1e-5 if "blocks.0.ls1.gamma" in arrays else None,
        "norm_eps": 1e-5 if "norm_pre.weight" in arrays else 1e-6,  # CLIP's
    }


def _block_rules(config: Model) -> list[Rule]:
    mlp = linear(("blocks/mlp/gate", "blocks/mlp/fc1"), "blocks.{i}.mlp.fc1")
    if config.norm == "rms":
        mlp = [*linear("blocks/mlp/gate", "blocks.{i}.mlp.fc1_g"), *linear("blocks/mlp/fc1", "blocks.{i}.mlp.fc1_x")]
    return [
        *linear(tuple(f"blocks/attn/{x}" for x in ("query", "key", "value")), "blocks.{i}.attn.qkv", outputs=2),
        *norm("blocks/attn/query_norm", "blocks.{i}.attn.q_norm"),
        *norm("blocks/attn/key_norm", "blocks.{i}.attn.k_norm"),
        *linear("blocks/attn/out", "blocks.{i}.attn.proj"),
        same("blocks/scale1", "blocks.{i}.ls1.gamma"),
        *mlp,
        *linear("blocks/mlp/fc2", "blocks.{i}.mlp.fc2"),
        same("blocks/scale2", "blocks.{i}.ls2.gamma"),
    ]


def rules(config: Model, arrays: dict[str, np.ndarray] | None = None) -> list[Rule]:
    """Return the table for a resolved config."""
    if config.patch is None:
        return timm_resnet.bit_rules(config)
    if config.swin is not None:
        return swin.rules(config, swin.TIMM)
    is_eva = timm_eva.is_eva(config) or config.relative_prefix
    block = timm_eva.block_rules(config, arrays) if is_eva else _block_rules(config)
    pool = [
        reshaped("pool/probe", "attn_pool.latent"),
        *linear("pool/attn/query", "attn_pool.q", outputs=2),
        *linear(("pool/attn/key", "pool/attn/value"), "attn_pool.kv", outputs=2),
        *linear("pool/attn/out", "attn_pool.proj"),
        *norm("pool/norm", "attn_pool.norm"),
        *linear("pool/mlp/fc1", "attn_pool.mlp.fc1"),
        *linear("pool/mlp/fc2", "attn_pool.mlp.fc2"),
    ]
    return [
        reshaped("cls", "cls_token"),
        reshaped("registers", "reg_token"),
        timm_beit.table_rule(config) if config.relative_prefix else positions("pos_embed"),
        *(timm_resnet.hybrid_rules(config) if config.resnet is not None else []),
        *convolution("embedding", "patch_embed.proj"),
        *norm("embedding/norm", "patch_embed.norm"),
        *norm("embedding_norm", "norm_pre"),
        *norm("blocks/norm1", "blocks.{i}.norm1"),
        *norm("blocks/norm2", "blocks.{i}.norm2"),
        *block,
        *norm("norm", "norm"),
        *pool,
        *norm("pool_norm", "fc_norm"),
        *linear("head", "head"),
    ]


def write(path: pathlib.Path, arrays: dict[str, np.ndarray], model) -> None:
    """Write a lone file, with what its arrays don't say noted in its metadata; without an ending, a folder.

    Raises:
        InputError: timm has no architecture that is the model, which a folder must name.
    """
    if path.suffix != ".safetensors":
        write_folder(path, {"config.json": timm_config.described(model)}, arrays, {"format": "pt"})
        return
    kind = kind_of(model.config.name)
    shape = {"grid": model.grid(model.image_size)} if kind == "ViT" else {"image_size": model.image_size}
    noted = {
        "model": {key: getattr(model.config, key) for key in NOTED[kind]},
        **shape,
        "label_names": model.label_names,
        "preprocessing": dataclasses.asdict(preprocessing_of(model)),
    }
    files.write_safetensors(path, arrays, {"format": "pt", "vit_jax": json.dumps(noted)})


def _owns_positions(tokens: int, prefix: int, grid: tuple[int, int] | None) -> bool:
    """Return whether class and register tokens are among the positions: what is left must be the grid."""
    for owned in (True, False):
        try:
            grid_of(tokens - prefix * owned, grid)
        except InputError:
            continue
        return owned
    return True
