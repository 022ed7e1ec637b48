"""Convert weights between code bases: `python scripts/convert.py IN OUT`.

IN is anything that `vit_jax.load` reads (a path, https://, gs://, hf://org/name, a run directory); OUT's suffix selects
the format: .npz is the original ViT's, .safetensors is timm's, and no suffix is a Transformers directory.

    python scripts/convert.py hf://google/vit-base-patch16-224 vit_b16.safetensors
    python scripts/convert.py timm.safetensors B_16.npz --set gelu=tanh --image_size 384
    python scripts/convert.py runs/pets pets --format timm        # timm.create_model("local-dir:pets", pretrained=True)

It prints what was written, and what became of label names and preprocessing.
"""

import argparse
from pathlib import Path

from vit_jax.config.coerce import literal
from vit_jax.errors import InputError, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", metavar="IN")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--format", help="google, timm, huggingface, big_vision or bit, for any suffix")
    parser.add_argument("--checkpoint", default="newest", metavar="WHICH", help="of a run: newest, best or a step")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="names of the classes, one a line or in JSON")
    parser.add_argument("--image_size", help="resample the position embeddings: pixels, or height,width")
    parser.add_argument("--patch", type=int, help="resize the patch embedding, as FlexiViT does")
    parser.add_argument("--resample", default="bilinear", choices=("bilinear", "bicubic"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a field of the model's config")
    args = parser.parse_args()
    overrides = {}
    for item in args.set:
        key, equals, text = item.partition("=")
        if not equals:
            raise InputError(f"--set {item}: must be KEY=VALUE")
        overrides[key] = literal(text)
    size = literal(args.image_size) if args.image_size else None
    if size is not None and not isinstance(size, (int, tuple)):
        raise InputError(f"--image_size {args.image_size}: must be pixels, or height,width")

    from vit_jax import save
    from vit_jax.weights.opened import open_model

    how = {"patch": args.patch, "resample": args.resample, "checkpoint": args.checkpoint, "labels": args.labels}
    opened = open_model(args.weights, image_size=size, **how, **overrides)
    model = opened.model
    model.label_names = opened.label_names
    said = save(model, args.out, args.format)
    pixels = "x".join(map(str, model.image_size))
    print(f"{args.out}: {model.config.name}, {model.num_classes} classes, {pixels} pixels")
    print("\n".join(f"  {line}" for line in said))


if __name__ == "__main__":
    run_command(main)
