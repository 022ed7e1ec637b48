"""Convert weights between code bases: `python scripts/convert.py IN OUT`.

IN is anything that `vit_jax.load` reads (a path, https://, gs://, hf://org/name); OUT's suffix selects the format: .npz
is the original ViT's, .safetensors is timm's, and no suffix is a Transformers directory.

    python scripts/convert.py hf://google/vit-base-patch16-224 vit_b16.safetensors
    python scripts/convert.py timm.safetensors B_16.npz --set gelu=tanh --image_size 384
"""

import argparse

from vit_jax.config.coerce import literal
from vit_jax.errors import InputError, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", metavar="IN")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--format", help="google, timm, huggingface, big_vision or bit, for any suffix")
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

    from vit_jax import load, save

    model = load(args.weights, image_size=size, patch=args.patch, resample=args.resample, **overrides)
    save(model, args.out, args.format)
    print(
        f"{args.out}: {model.config.name}, {model.num_classes} classes, {'x'.join(map(str, model.image_size))} pixels"
    )


if __name__ == "__main__":
    run_command(main)
