"""Write small models of today's families as timm and Transformers save them, with what they return.

It needs an environment of its own with torch, timm (1.0.31) and transformers (5.24):
`python tests/data/make_today.py tests/data/weights/today beit` writes those with "beit" in their names, and what they
return in `expected_beit.npz`; without a word all, in `expected.npz`.
"""

import functools
import pathlib
import sys

import numpy as np
import timm
import torch
import transformers

SIZES = dict(embed_dim=16, depth=2, num_heads=2)
# By the name of the folder: timm's architecture, and its arguments.
TIMM = {
    "timm_dinov3": ("vit_small_patch16_dinov3", dict(img_size=64)),
    "timm_dinov3_plus": ("vit_small_plus_patch16_dinov3_qkvb", dict(img_size=64, num_classes=5, global_pool="token")),
    "timm_beit": ("beit_base_patch16_224", dict(img_size=64, num_classes=5)),
    "timm_beit_shared": (
        "beitv2_base_patch16_224",
        dict(img_size=64, num_classes=5, use_rel_pos_bias=False, use_shared_rel_pos_bias=True, init_values=None)
        | dict(global_pool="token", swiglu_mlp=True, scale_mlp=True),
    ),
    "timm_aimv2": ("aimv2_large_patch14_224", dict(img_size=56)),
    "timm_eva": ("eva_giant_patch14_224", dict(img_size=56, num_classes=5, mlp_ratio=2)),
    "timm_eva02": ("eva02_tiny_patch14_224", dict(img_size=56)),
    "timm_eva02_norm": ("eva02_base_patch14_224", dict(img_size=56, num_classes=5)),
    "timm_dinov2": ("vit_small_patch14_dinov2", dict(img_size=56)),
    "timm_dinov2_reg": ("vit_small_patch14_reg4_dinov2", dict(img_size=56)),
    "timm_dinov2_giant": ("vit_giant_patch14_dinov2", dict(img_size=56, num_heads=4, mlp_ratio=4)),
    "timm_deit3": ("deit3_small_patch16_224", dict(img_size=64, num_classes=5)),
    "timm_mae": ("vit_base_patch16_224", dict(img_size=64)),
    "timm_siglip": ("vit_base_patch16_siglip_224", dict(img_size=64)),
    "timm_siglip_gap": ("vit_so400m_patch16_siglip_gap_256", dict(img_size=64, mlp_ratio=3.25)),
    "timm_perception": ("vit_pe_core_base_patch16_224", dict(img_size=64, num_classes=5, attn_pool_num_heads=4)),
    "timm_perception_giant": (
        "vit_pe_core_gigantic_patch14_448",
        dict(img_size=56, num_classes=5, attn_pool_num_heads=2, mlp_ratio=3),
    ),
    # Their positions are for 4 x 4 patches.
    "timm_naflex": ("naflexvit_base_patch16_siglip", dict(pos_embed_grid_size=(4, 4))),
    "timm_naflex_gap": ("naflexvit_base_patch16_gap", dict(pos_embed_grid_size=(4, 4), num_classes=5)),
    "timm_clip": ("vit_base_patch16_clip_quickgelu_224", dict(img_size=64, num_classes=5)),
}

HF = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
# By the name of the folder: Transformers' class and config, and the config's arguments.
TRANSFORMERS = {
    "hf_dinov3": (
        transformers.DINOv3ViTModel,
        transformers.DINOv3ViTConfig,
        dict(patch_size=16, intermediate_size=32, num_register_tokens=4, image_size=64),
    ),
    "hf_dinov3_gated": (
        transformers.DINOv3ViTModel,
        transformers.DINOv3ViTConfig,
        dict(patch_size=16, intermediate_size=24, num_register_tokens=4, image_size=64, use_gated_mlp=True)
        | dict(hidden_act="silu")
        | dict(query_bias=False, value_bias=False, rope_theta=50.0, pos_embed_rescale=None),
    ),
    "hf_beit": (
        transformers.BeitForImageClassification,
        transformers.BeitConfig,
        dict(patch_size=16, image_size=64, intermediate_size=32, use_relative_position_bias=True, num_labels=3),
    ),
    "hf_beit_shared": (
        transformers.BeitModel,
        transformers.BeitConfig,
        dict(patch_size=16, image_size=64, intermediate_size=32, use_shared_relative_position_bias=True)
        | dict(use_mean_pooling=False, layer_scale_init_value=0.0),
    ),
    "hf_aimv2": (
        transformers.Aimv2VisionModel,
        transformers.Aimv2VisionConfig,
        dict(patch_size=14, image_size=56, intermediate_size=32),
    ),
    "hf_aimv2_native": (
        transformers.Aimv2VisionModel,
        transformers.Aimv2VisionConfig,
        dict(patch_size=14, image_size=56, intermediate_size=32, use_head=False, is_native=True)
        | dict(qkv_bias=True, mlp_bias=True, rms_norm_eps=1e-6),
    ),
    "hf_dinov2": (transformers.Dinov2Model, transformers.Dinov2Config, dict(patch_size=14, image_size=56)),
    "hf_dinov2_giant": (
        transformers.Dinov2ForImageClassification,
        transformers.Dinov2Config,
        dict(patch_size=14, image_size=56, use_swiglu_ffn=True, num_labels=3),
    ),
    "hf_dinov2_reg": (
        transformers.Dinov2WithRegistersForImageClassification,
        transformers.Dinov2WithRegistersConfig,
        dict(patch_size=14, image_size=56, num_register_tokens=4, num_labels=3),
    ),
    "hf_siglip": (
        transformers.SiglipVisionModel,
        transformers.SiglipVisionConfig,
        dict(patch_size=16, image_size=64, intermediate_size=32),
    ),
    "hf_naflex": (
        transformers.Siglip2VisionModel,
        transformers.Siglip2VisionConfig,
        dict(patch_size=16, num_patches=16, intermediate_size=32),
    ),
    "hf_clip": (
        transformers.CLIPVisionModel,
        transformers.CLIPVisionConfig,
        dict(patch_size=16, image_size=64, intermediate_size=32),
    ),
    "hf_vit": (
        functools.partial(transformers.ViTModel, add_pooling_layer=False),
        transformers.ViTConfig,
        dict(patch_size=16, image_size=64, intermediate_size=32),
    ),
}
FIXED = ("hf_aimv2",)  # These take pictures of one size.
RESAMPLED = ("hf_clip", "hf_siglip", "hf_vit")  # Transformers resamples positions of these only if it is told to.


def draw(model):
    """Draw every parameter anew, as float16 can hold it; norms stay near 1."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        values = 1 + 0.1 * values if "norm" in name and name.endswith("weight") else 0.2 * values
        parameter.data = values.half().float()
    return model.eval()


def pictures(*size):
    """Return two pictures, (batch, channels, height, width)."""
    images = torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(1)) * 2 - 1
    return images.half().float()


def of_any_shape(model):
    """Return a function of pictures that gives a NaFlex model its patches, some of no picture at the end."""

    def run(images):
        batch, _, height, width = images.shape
        cut = images.reshape(batch, 3, height // 16, 16, width // 16, 16).permute(0, 2, 4, 3, 5, 1)
        patches = torch.nn.functional.pad(cut.reshape(batch, -1, 16 * 16 * 3), (0, 0, 0, 3))
        number = patches.shape[1] - 3
        mask = (torch.arange(number + 3) < number).int().expand(batch, -1)
        found = model(patches, mask, torch.tensor([[height // 16, width // 16]] * batch))
        found.last_hidden_state = found.last_hidden_state[:, :number]
        return found

    return run


def chosen(models, word):
    """Return those with a word in their names."""
    return [(name, model) for name, model in models.items() if word in name]


def main(folder, word=""):
    folder.mkdir(exist_ok=True)
    expected = {}

    def note(name, size, images, **outputs):
        expected[f"images/{size}"] = images.permute(0, 2, 3, 1).numpy()
        for what, array in outputs.items():
            expected[f"{name}/{size}/{what}"] = array.numpy()

    for name, (architecture, own) in chosen(TIMM, word):
        model = draw(timm.create_model(architecture, **{"num_classes": 0} | SIZES | own))
        timm.models.save_for_hf(model, folder / name, safe_serialization=True, model_args=SIZES | own)
        patch = (model.embeds if "naflex" in name else model.patch_embed).patch_size[0]
        for size in ((4 * patch, 4 * patch), (3 * patch, 5 * patch)):
            if hasattr(model, "set_input_size"):  # NaFlexVit takes pictures of any shape.
                model.set_input_size(img_size=size)
            images = pictures(*size)
            with torch.no_grad():
                tokens = model.forward_features(images)
                note(name, "x".join(map(str, size)), images, tokens=tokens, outputs=model.forward_head(tokens))
    for name, (make, configure, own) in chosen(TRANSFORMERS, word):
        model = draw(make(configure(**HF | own)))
        for key, parameter in model.named_parameters():
            if key.endswith("mask_token"):
                parameter.data = torch.zeros_like(parameter)
        model.save_pretrained(folder / name)
        base, patch = getattr(model, model.base_model_prefix, model), own["patch_size"]
        base = base if hasattr(base, "embeddings") else model
        base = of_any_shape(model) if name == "hf_naflex" else base
        for size in ((4 * patch, 4 * patch), (3 * patch, 5 * patch))[: 1 if name in FIXED else 2]:
            images = pictures(*size)
            with torch.no_grad():
                found = base(images, **({"interpolate_pos_encoding": True} if name in RESAMPLED else {}))
                tokens, outputs = found.last_hidden_state, found.pooler_output
                if outputs is None:
                    outputs = tokens.mean(dim=1) if "aimv2" in name else tokens[:, 0]
                outputs = model(images).logits if hasattr(model, "classifier") else outputs
            note(name, "x".join(map(str, size)), images, tokens=tokens, outputs=outputs)
    if word:
        # The pictures are those of the others.
        expected = {name: array for name, array in expected.items() if not name.startswith("images/")}
    path = folder / (f"expected_{word}.npz" if word else "expected.npz")
    np.savez_compressed(path, **{name: array.astype(np.float32) for name, array in expected.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(pathlib.Path(sys.argv[1]), *sys.argv[2:])
