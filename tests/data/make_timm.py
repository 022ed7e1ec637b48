"""Write the small weights that tests/test_weights_timm.py reads, with the outputs of the code bases they are of.

It needs an environment of its own with torch, timm (1.0.31) and transformers (5.24):
`python tests/data/make_timm.py tests/data/weights`.
"""

import functools
import pathlib
import sys

import numpy as np
import safetensors.torch
import timm
import torch
from timm.layers import HybridEmbed, StdConv2d, StdConv2dSame
from timm.models.resnetv2 import ResNetV2, create_resnetv2_stem
from timm.models.vision_transformer import VisionTransformer
from transformers import IJepaConfig, IJepaForImageClassification, ViTImageProcessor

VIT = dict(embed_dim=32, depth=2, num_heads=2, num_classes=7)
SAME = functools.partial(StdConv2dSame, eps=1e-8)  # As in timm's own functions for these models.


def draw(model):
    """Draw every parameter anew, as float16 can hold it; norms stay near 1 and kernels as they were."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            values = 1 + 0.1 * values
        elif "conv" in name:
            values = parameter.data
        else:
            values = 0.1 * values
        parameter.data = values.half().float()
    return model.eval()


def outputs(model, height, width, channels=3):
    """Return pictures (batch, height, width, channels) and the logits that the model gives for them."""
    images = torch.rand((2, channels, height, width), generator=torch.Generator().manual_seed(1)) * 2 - 1
    images = images.half().float()
    with torch.no_grad():
        logits = model(images)
    return images.permute(0, 2, 3, 1).numpy(), getattr(logits, "logits", logits).numpy()


def hybrid(backbone, patch):
    embedding = functools.partial(HybridEmbed, backbone=backbone)
    return VisionTransformer(img_size=64, patch_size=patch, embed_layer=embedding, **VIT)


def main(folder):
    stages = dict(layers=[2, 1], channels=(128, 256), stem_chs=32, num_classes=0, global_pool="")
    lone = {
        "timm_hybrid": hybrid(ResNetV2(**stages, preact=False, stem_type="same", conv_layer=SAME), 1),
        "timm_hybrid_stem": hybrid(create_resnetv2_stem(3, 32, stem_type="same", preact=False, conv_layer=SAME), 4),
        "timm_bit": ResNetV2(
            layers=[2, 1],
            channels=(256, 512),
            width_factor=0.5,
            num_classes=7,
            stem_type="fixed",
            conv_layer=functools.partial(StdConv2d, eps=1e-8),
        ),
    }
    expected = {}

    def note(name, model, *size):
        expected[f"{name}/images"], expected[f"{name}/logits"] = outputs(model, *size)

    for name, model in lone.items():
        note(name, draw(model), 64, 64)
        arrays = {key: array.half() for key, array in model.state_dict().items()}
        safetensors.torch.save_file(arrays, folder / f"{name}.safetensors")

    model = draw(
        timm.create_model(
            "vit_tiny_patch16_224",
            **VIT | {"num_classes": 3},
            img_size=(32, 48),
            in_chans=1,
            class_token=False,
            global_pool="avg",
            act_layer="gelu_tanh",
        )
    )
    note("timm_folder", model, 32, 48, 1)
    names = {"label_names": ["cat", "dog", "great owl"]}
    pictures = {"mean": (0.3,), "std": (0.2,), "crop_pct": 1.0, "interpolation": "bilinear", "crop_mode": "squash"}
    timm.models.save_for_hf(model, folder / "timm_folder", names, safe_serialization=True, data_config=pictures)

    config = IJepaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-6,
        id2label={0: "cat", 1: "dog", 2: "great owl"},
        label2id={"cat": 0, "dog": 1, "great owl": 2},
    )
    model = draw(IJepaForImageClassification(config))
    note("hf_ijepa", model, 32, 32)
    model.save_pretrained(folder / "hf_ijepa")
    ViTImageProcessor(size={"height": 32, "width": 32}, resample=3, image_mean=[0.485, 0.456, 0.406]).save_pretrained(
        folder / "hf_ijepa"
    )
    np.savez_compressed(folder / "expected_timm.npz", **expected)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
