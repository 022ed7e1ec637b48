"""tf.data's way to read the pictures of a tar for training, in its own process, under any Python that has TensorFlow.

Each is cut out by a random crop of 8 % to 100 % of its area while it is decoded, resized and mirrored at random. For
each line of its input, a number of seconds, it reads about as long and prints [pictures, seconds, CPU seconds]; it ends
with its input.
"""

import argparse
import json
import sys
import tarfile
import time

import tensorflow as tf

parser = argparse.ArgumentParser()
parser.add_argument("tar")
for name in ("image_size", "batch", "threads"):
    parser.add_argument(f"--{name}", type=int, required=True)
args = parser.parse_args()

with tarfile.open(args.tar) as tar:
    encoded = [tar.extractfile(member).read() for member in tar if member.name.lower().endswith((".jpg", ".jpeg"))]


def read(image):
    """Return one picture, as uint8."""
    whole = tf.zeros((1, 0, 4), tf.float32)
    shape = tf.image.extract_jpeg_shape(image)
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        shape, whole, area_range=(0.08, 1.0), aspect_ratio_range=(3 / 4, 4 / 3), use_image_if_no_bounding_boxes=True
    )
    window = tf.stack([begin[0], begin[1], size[0], size[1]])
    crop = tf.image.decode_and_crop_jpeg(image, window, channels=3)
    crop = tf.image.resize(crop, (args.image_size, args.image_size))
    return tf.cast(tf.image.random_flip_left_right(crop), tf.uint8)


options = tf.data.Options()
options.threading.private_threadpool_size = args.threads
pictures = tf.data.Dataset.from_tensor_slices(encoded).repeat().shuffle(len(encoded)).map(read, args.threads)
batches = iter(pictures.batch(args.batch).prefetch(2).with_options(options))
for _ in range(2):
    next(batches)
print(json.dumps({"tensorflow": tf.__version__}), flush=True)
for line in sys.stdin:
    wall, cpu, number = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < float(line):
        number += len(next(batches).numpy())
    print(json.dumps([number, time.perf_counter() - wall, time.process_time() - cpu]), flush=True)
