"""Write small models of today's families as timm and Transformers save them, with what they return.

It needs an environment of its own with torch, timm (1.0.31) and transformers (5.24):
`python tests/data/make_today.py tests/data/weights/today`.
"""

import pathlib
import sys

import numpy as np
import timm
import torch

SIZES = dict(embed_dim=16, depth=2, num_heads=2)
# By the name of the folder: timm's architecture, and its arguments.
TIMM = {
    "timm_dinov3": ("vit_small_patch16_dinov3", dict(img_size=64)),
    "timm_dinov3_plus": ("vit_small_plus_patch16_dinov3_qkvb", dict(img_size=64, num_classes=5, global_pool="token")),
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
    "timm_clip": ("vit_base_patch16_clip_quickgelu_224", dict(img_size=64, num_classes=5)),
}


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


def main(folder):
    folder.mkdir(exist_ok=True)
    expected = {}

    def note(name, size, images, **outputs):
        for what, array in {"images": images.permute(0, 2, 3, 1), **outputs}.items():
            expected[f"{name}/{size}/{what}"] = array.numpy()

    for name, (architecture, own) in TIMM.items():
        model = draw(timm.create_model(architecture, **{"num_classes": 0} | SIZES | own))
        timm.models.save_for_hf(model, folder / name, safe_serialization=True, model_args=SIZES | own)
        patch = model.patch_embed.patch_size[0]
        for size in ((4 * patch, 4 * patch), (3 * patch, 5 * patch)):
            model.set_input_size(img_size=size)
            images = pictures(*size)
            with torch.no_grad():
                tokens = model.forward_features(images)
                note(name, "x".join(map(str, size)), images, tokens=tokens, outputs=model.forward_head(tokens))
    np.savez_compressed(folder / "expected.npz", **{name: array.astype(np.float32) for name, array in expected.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(pathlib.Path(sys.argv[1]))
