"""timm's way to predict pictures in files, in its own process, under any Python that has PyTorch and timm.

For each line of its input it predicts all pictures once and prints the seconds that took; it exits at the end of the
input.
"""

import argparse
import csv
import json
import sys
import time

import timm
import torch
from PIL import Image
from timm.data import create_transform

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("list")
parser.add_argument("out")
parser.add_argument("--batch", type=int, required=True)
parser.add_argument("--image_size", type=int, required=True)
parser.add_argument("--workers", type=int, required=True)
args = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
with open(args.list) as file:
    paths = file.read().splitlines()
half = (0.5, 0.5, 0.5)
transform = create_transform(
    args.image_size, is_training=False, crop_pct=0.875, interpolation="bilinear", mean=half, std=half
)
model = timm.create_model(args.model, img_size=args.image_size, num_classes=1000).to(device).eval()


class Pictures(torch.utils.data.Dataset):
    def __len__(self):
        return len(paths)

    def __getitem__(self, index):
        with Image.open(paths[index]) as image:
            return transform(image.convert("RGB"))


def predict():
    start, index = time.perf_counter(), 0
    loader = torch.utils.data.DataLoader(Pictures(), args.batch, num_workers=args.workers)
    with open(args.out, "w", newline="") as file, torch.inference_mode():
        writer = csv.writer(file)
        for images in loader:
            probabilities, labels = model(images.to(device)).softmax(-1).topk(5)
            for best, numbers in zip(probabilities.tolist(), labels.tolist(), strict=True):
                writer.writerow([paths[index], *numbers, *best])
                index += 1
    return time.perf_counter() - start


def main():
    predict()
    versions = {"torch": torch.__version__, "timm": timm.__version__}
    print(json.dumps({"threads": torch.get_num_threads(), "device": device, **versions}), flush=True)
    for _ in sys.stdin:
        print(predict(), flush=True)


if __name__ == "__main__":
    main()
