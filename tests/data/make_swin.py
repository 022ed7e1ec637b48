"""Makes swin.npz: logits of timm's and Transformers' Swins, whose weights are drawn by their names.

In an environment with torch, timm and transformers: python tests/data/make_swin.py
"""

import sys
from pathlib import Path

import numpy as np
import timm
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.drawn_swin import CASES, draw, pictures

logits = {}
for name, (code, size, window, shape) in CASES.items():
    sizes = {"embed_dim": shape.width, "depths": list(shape.swin)}
    sizes["num_heads"] = [shape.num_heads * 2**i for i in range(len(shape.swin))]
    if code == "timm":
        facts = dict(img_size=size, window_size=window, num_classes=shape.classes, **sizes)
        model = timm.create_model("swin_tiny_patch4_window7_224", **facts)
    else:
        config = transformers.SwinConfig(image_size=size, window_size=window, num_labels=shape.classes, **sizes)
        model = transformers.SwinForImageClassification(config)
    model.eval()
    if code == "timm":
        arrays = {key: torch.from_numpy(draw(key, value.shape)) for key, value in model.state_dict().items()}
        model.load_state_dict(arrays)
    else:
        # Transformers has names of its own for what it reads and writes.
        folder = Path(sys.argv[1]) / name
        model.save_pretrained(folder)
        from safetensors.torch import load_file, save_file

        arrays = load_file(folder / "model.safetensors")
        arrays = {key: torch.from_numpy(draw(key, value.shape)) for key, value in arrays.items()}
        save_file(arrays, folder / "model.safetensors", {"format": "pt"})
        model = transformers.SwinForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        found = model(torch.from_numpy(pictures(size)).permute(0, 3, 1, 2))
    logits[name] = np.asarray(found if code == "timm" else found.logits)
    print(name, np.abs(logits[name]).max())
np.savez(Path(__file__).with_name("swin.npz"), **logits)
