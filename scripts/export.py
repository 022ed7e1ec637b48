"""Export a model for use without this package: `python scripts/export.py MODEL OUT.stablehlo|OUT.onnx`.

MODEL is anything that `vit_jax.load` reads: a run directory, a path, https://, gs:// or hf://org/name. The file takes
uint8 pictures; OUT.json beside it, such as model.onnx.json, has the labels and the preprocessing. See docs/export.md.

    python scripts/export.py runs/pets pets.stablehlo
    python scripts/export.py hf://google/vit-base-patch16-224 vit.onnx --output=features --image_size=384
"""

from pathlib import Path

from vit_jax.config.coerce import literal
from vit_jax.errors import InputError, Parser, run_command
from vit_jax.export import OUTPUTS, check_target, export_model
from vit_jax.runtime import set_up
from vit_jax.weights.opened import open_model


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("--output", default="probabilities", choices=OUTPUTS, help="what the file computes")
    parser.add_argument("--image_size", help="of the pictures it takes: pixels, or height,width")
    parser.add_argument("--resize", choices=("crop", "pad", "stretch"), help="how pictures are to be fitted to it")
    parser.add_argument("--labels", metavar="FILE or A,B,...", help="names of the classes, in order")
    parser.add_argument("--checkpoint", default="newest", metavar="WHICH", help="of a run: newest, best or a step")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the computation")
    args = parser.parse_args(argv)
    size = literal(args.image_size) if args.image_size else None
    if size is not None and not isinstance(size, (int, tuple)):
        raise InputError(f"--image_size={args.image_size}: must be pixels, or height,width")
    check_target(args.out)
    set_up()
    opened = open_model(args.model, checkpoint=args.checkpoint, labels=args.labels, image_size=size, resize=args.resize)
    print(opened.description())
    difference = export_model(opened, args.out, args.output, args.dtype)
    size = args.out.stat().st_size / 2**20
    print(f"{args.out}: {args.output}, {args.dtype}, {size:,.1f} MiB; max |difference| from the model {difference:.2g}")


if __name__ == "__main__":
    run_command(main)
