"""Compare exported files with the model on photographs, preprocessing included.

python -m tests.photographs TAR [--number=100] [--model=S/16]

Draws a random model for 224 pixels and 1,000 classes, exports it to StableHLO and, where jax2onnx is installed, to
ONNX. Prints the largest differences of logits and probabilities from the model's: for the same pixels, as
`vit_jax.data.decode` makes them, and for those of the programs in docs/export.md, which use Pillow alone.
"""

import argparse
import importlib.util
import io
import sys
import tarfile
import tempfile
from pathlib import Path

import jax
import numpy as np

from tests.drawn import drawn_model, logits_of
from tests.programs import exact_pixels, program_pixels
from vit_jax.config import Config
from vit_jax.data.rows import decode_as
from vit_jax.export import export_model
from vit_jax.export.onnx import run as run_onnx
from vit_jax.export.stablehlo import run as run_stablehlo
from vit_jax.weights.opened import Opened


def photographs(path: Path, number: int) -> list[bytes]:
    """Return the first pictures of a tar file, in its order."""
    with tarfile.open(path) as archive:
        members = [member for member in archive if member.name.lower().endswith((".jpg", ".jpeg"))]
        return [archive.extractfile(member).read() for member in members[:number]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tar", type=Path)
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--model", default="S/16")
    args = parser.parse_args()
    model = drawn_model(name=args.model, num_classes=1000, image_size=224)
    config = Config(image_size=224, model=model.config)
    files = photographs(args.tar, args.number)
    ours = np.stack([decode_as(config, file) for file in files])
    pillow = np.stack([program_pixels(io.BytesIO(file), (224, 224), config.data.crop_fraction) for file in files])
    exact = np.stack([exact_pixels(io.BytesIO(file), (224, 224), config.data.crop_fraction) for file in files])
    logits = np.asarray(logits_of(model, ours))
    probabilities = np.asarray(jax.nn.softmax(logits))
    print(f"{args.model}: {len(files)} photographs, logits up to {np.abs(logits).max():.3g}")
    differing = np.abs(pillow.astype(int) - ours).reshape(len(files), -1).max(axis=1)
    same, level = ((differing == number).sum() for number in (0, 1))
    print(f"Pillow's pixels: {same} photographs the same, {level} within one level, the rest within {differing.max()}")
    print(f"those of the page's `picture`: {(exact == ours).all(axis=(1, 2, 3)).sum()} photographs the same")
    endings = {".stablehlo": run_stablehlo}
    if importlib.util.find_spec("jax2onnx"):
        endings[".onnx"] = run_onnx
    for ending, run in endings.items():
        for output, wanted in (("logits", logits), ("probabilities", probabilities)):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "model").with_suffix(ending)
                export_model(Opened(model, config, None, "", False), path, output)
                content = path.read_bytes()
            same, apart = (np.abs(run(content, pixels) - wanted).max() for pixels in (ours, pillow))
            print(f"{ending} {output}: {same:.2g} for the same pixels, {apart:.2g} for Pillow's")


if __name__ == "__main__":
    sys.exit(main())
