"""Write the TFDS set that the tests read, with TensorFlow: `python tests/data/make_tiny_digits.py DIR array_record`."""

import sys

import numpy as np
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits


class TinyDigits(tfds.core.GeneratorBasedBuilder):
    """The first 50 of scikit-learn's digits."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=[f"digit {i}" for i in range(10)]),
            "real_label": tfds.features.ClassLabel(names=["even", "odd"]),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(40)), "test": self._generate_examples(range(40, 50))}

    def _generate_examples(self, numbers):
        digits = load_digits()
        for i in numbers:
            image, label = np.round(digits.images[i] * (255 / 16)).astype(np.uint8)[..., None], int(digits.target[i])
            yield i, {"image": image, "label": label, "real_label": label % 2, "file_name": f"{i}.png"}


if __name__ == "__main__":
    TinyDigits(data_dir=sys.argv[1], file_format=sys.argv[2]).download_and_prepare()
