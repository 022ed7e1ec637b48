"""Decoding: all kinds of files become upright RGB, damaged ones are refused, and the fast path changes no pixel."""

import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from vit_jax.config import Config, Data, Model
from vit_jax.data import crop, jpeg
from vit_jax.data.crop import Box
from vit_jax.data.decode import BadPictureError, decode
from vit_jax.data.rows import decode_as

HEIGHT, WIDTH = 48, 64
SIZE = (HEIGHT, WIDTH)
COLORS = ((220, 30, 30), (30, 200, 40), (40, 50, 230), (240, 240, 240))


def whole(height, width):
    return Box(0, 0, height, width)


def scene():
    """Four quarters: red, green, blue, white."""
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    for i, color in enumerate(COLORS):
        pixels[HEIGHT // 2 * (i // 2) :, WIDTH // 2 * (i % 2) :] = color
    return pixels


def photo(height, width, seed=0):
    """Smooth colours with noise, so that every coefficient of a JPEG is used."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.integers(-20, 20, smooth.shape), 0, 255).astype(np.uint8)


def encoded(image, kind, **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def quarters(pixels):
    """The colours in the middle of each quarter."""
    height, width = pixels.shape[:2]
    return [pixels[y, x].tolist() for y in (height // 4, height * 3 // 4) for x in (width // 4, width * 3 // 4)]


def with_alpha(pixels):
    return np.dstack([pixels, np.full(SIZE, 255, np.uint8)])


def png16(pixels):
    """A 16-bit colour PNG, which Pillow can't write: every sample is its byte, repeated."""
    header = np.array([WIDTH, HEIGHT], ">u4").tobytes() + bytes([16, 2, 0, 0, 0])
    rows = b"".join(b"\0" + np.repeat(row.ravel(), 2).tobytes() for row in pixels)
    return png_of(header, zlib.compress(rows))


def png_of(header, body):
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    parts = (len(d).to_bytes(4) + name + d + zlib.crc32(name + d).to_bytes(4) for name, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def animated_gif():
    frames = [Image.fromarray(scene()), Image.new("RGB", (WIDTH, HEIGHT))]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def palette_with_transparency():
    image = Image.fromarray(scene()).quantize(8)
    return encoded(image, "PNG", transparency=bytes([128] * 8))


@pytest.mark.parametrize(
    ("make", "tolerance"),
    [
        pytest.param(lambda: encoded(scene(), "JPEG", quality=95), 6, id="jpeg"),
        pytest.param(lambda: encoded(scene(), "JPEG", quality=95, progressive=True), 6, id="progressive jpeg"),
        pytest.param(lambda: encoded(scene(), "JPEG", quality=95, subsampling=0), 6, id="jpeg 4:4:4"),
        pytest.param(lambda: encoded(Image.fromarray(scene()).convert("CMYK"), "JPEG", quality=95), 6, id="cmyk jpeg"),
        pytest.param(lambda: encoded(scene(), "PNG"), 0, id="png"),
        pytest.param(lambda: encoded(with_alpha(scene()), "PNG"), 0, id="alpha"),
        pytest.param(lambda: encoded(Image.fromarray(scene()).quantize(8), "PNG"), 0, id="palette"),
        pytest.param(palette_with_transparency, 0, id="palette with transparency"),
        pytest.param(lambda: png16(scene()), 0, id="16-bit colour"),
        pytest.param(lambda: encoded(scene(), "BMP"), 0, id="bmp"),
        pytest.param(lambda: encoded(scene(), "WEBP", lossless=True), 0, id="webp"),
        pytest.param(lambda: encoded(scene(), "TIFF"), 0, id="tiff"),
        pytest.param(animated_gif, 0, id="animated gif"),
        pytest.param(lambda: scene(), 0, id="pixels"),
    ],
)
def test_every_format_becomes_rgb(make, tolerance, tmp_path):
    picture = make()
    if isinstance(picture, bytes):
        path = tmp_path / "misnamed.jpg"
        path.write_bytes(picture)
        np.testing.assert_array_equal(decode(path, SIZE, 3, whole), decode(picture, SIZE, 3, whole))
    pixels = decode(picture, SIZE, 3, whole)
    assert (pixels.shape, pixels.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    np.testing.assert_allclose(quarters(pixels), COLORS, atol=tolerance)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "1"])
def test_grey_pictures_become_rgb_and_colour_becomes_grey(mode):
    ramp = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    if mode == "1":
        ramp = np.where(ramp > 127, 255, 0).astype(np.uint8)
    image = Image.fromarray(ramp.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(ramp).convert(mode)
    data = encoded(image, "PNG")
    np.testing.assert_array_equal(decode(data, SIZE, 3, whole), np.repeat(ramp[..., None], 3, -1))
    np.testing.assert_array_equal(decode(data, SIZE, 1, whole), ramp[..., None])
    jpeg_of_grey = encoded(ramp, "JPEG", quality=100)
    assert np.abs(decode(jpeg_of_grey, SIZE, 3, whole).astype(int) - ramp[..., None]).max() <= 3
    grey = np.asarray(Image.fromarray(scene()).convert("L"))[..., None]
    np.testing.assert_array_equal(decode(scene(), SIZE, 1, whole), grey)
    np.testing.assert_array_equal(decode(ramp[..., None], SIZE, 3, whole), np.repeat(ramp[..., None], 3, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_undone_before_the_crop(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = photo(90, 120)
    data = encoded(stored, kind, exif=exif, **(dict(quality=97, subsampling=0) if kind == "JPEG" else {}))
    plain = encoded(stored, kind, **(dict(quality=97, subsampling=0) if kind == "JPEG" else {}))
    turn = [None, None, 0, 3, 1, 5, 4, 6, 2][orientation]
    upright = Image.open(io.BytesIO(plain))
    upright = np.asarray(upright if turn is None else upright.transpose(Image.Transpose(turn)))
    assert upright.shape[:2] == ((90, 120) if orientation < 5 else (120, 90))
    sizes = []

    def choose(height, width):
        sizes.append((height, width))
        return Box(10, 20, 30, 40)

    np.testing.assert_array_equal(decode(data, (30, 40), 3, choose, fast=True), upright[10:40, 20:60])
    assert sizes == [upright.shape[:2]]


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_stopping_below_the_crop_changes_no_pixel(subsampling, progressive):
    data = encoded(photo(203, 155), "JPEG", quality=90, subsampling=subsampling, progressive=progressive)
    full = np.asarray(Image.open(io.BytesIO(data)))
    header = jpeg.read_header(data)
    assert (header.height_at is None) == progressive
    for bottom in range(40, 204, 7):
        rows = jpeg.decode_rows(data, header, bottom, 1.0, 3)
        assert bottom <= len(rows) <= (203 if progressive else bottom + 2)
        np.testing.assert_array_equal(rows[:bottom], full[:bottom])


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
@pytest.mark.parametrize("blocks", [1, 5, 25])
def test_cutting_out_the_segments_of_a_crop_changes_no_pixel(subsampling, blocks):
    # 25 blocks of 16 pixels (50 of 8) per row; the last row and column of blocks are partly filled.
    picture, exif = photo(299, 395), Image.Exif()
    exif[0x0112] = 6
    mode = {"exif": exif} if subsampling == "grey" else {"exif": exif, "subsampling": subsampling}
    picture = picture[..., 0] if subsampling == "grey" else picture
    plain, marked = (encoded(picture, "JPEG", **mode, restart_marker_blocks=each) for each in (0, blocks))
    rng, saved = np.random.default_rng(0), 0
    for _ in range(30):
        height, width = rng.integers(40, (395, 299))
        box = Box(int(rng.integers(396 - height)), int(rng.integers(300 - width)), int(height), int(width))
        pixels = [decode(data, (64, 64), 3, lambda height, width, box=box: box, fast=True) for data in (plain, marked)]
        np.testing.assert_array_equal(*pixels, err_msg=str(box))
        stored = Box(box.left, box.top, box.width, box.height)
        saved += len(jpeg.cut(marked, jpeg.read_header(marked), stored)[0]) < len(marked) / 2
    assert saved > 5


def test_a_jpeg_with_a_missing_restart_marker_is_not_cut():
    marked = encoded(photo(160, 160), "JPEG", restart_marker_blocks=1)
    damaged = marked.replace(b"\xff\xd3", b"\x12\x34", 1)
    box = Box(16, 16, 32, 32)
    assert jpeg.cut(damaged, jpeg.read_header(damaged), box)[0] is damaged
    assert jpeg.cut(marked, jpeg.read_header(marked), box)[0] is not marked


@pytest.mark.parametrize("box", [Box(0, 0, 300, 400), Box(31, 57, 200, 140), Box(150, 200, 150, 200)])
@pytest.mark.parametrize("fast", [False, True])
def test_a_crop_decoded_small_shows_the_same(box, fast):
    colors = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    smooth = cv2.resize(colors, (400, 300), interpolation=cv2.INTER_LINEAR)
    data = encoded(smooth, "JPEG", quality=95, subsampling=0)
    header = jpeg.read_header(data)
    assert jpeg.decode_rows(data, header, 300, box.height / 32, 3).shape[0] <= 300 / 2
    small = decode(data, (32, 32), 3, lambda *_: box, fast)
    top, left, height, width = (int(side) for side in box)
    part = Image.fromarray(smooth[top : top + height, left : left + width])
    expected = np.asarray(part.resize((32, 32), Image.Resampling.BOX)).astype(int)
    error, shifted = (np.abs(small.astype(int) - np.roll(expected, step, 1))[:, 1:].mean() for step in (0, 1))
    assert error < shifted / 2


def test_the_central_crop_is_resize_then_cut():
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 15:25] = 255
    assert decode(wide, (10, 10), 3, crop.central((10, 10), 1.0)).min() == 255
    assert decode(wide, (5, 5), 1, crop.central((5, 5), 1.0)).shape == (5, 5, 1)
    assert crop.central((224, 224), 0.875)(512, 768) == Box(32, 160, 448, 448)
    assert crop.central((224, 448), 0.875)(512, 1024) == Box(32, 64, 448, 896)
    assert decode(wide, (10, 40), 3, crop.central((10, 40), 0.875)) is wide
    picture = photo(512, 640)
    resized = Image.fromarray(picture).resize((320, 256), Image.Resampling.BILINEAR)
    cut = np.asarray(resized)[16:240, 48:272].astype(int)
    assert np.abs(decode(picture, (224, 224), 3, crop.central((224, 224), 0.875)) - cut).mean() < 0.5


def fitted(**data):
    mean = data.pop("mean", (0.5,))
    channels = data.pop("channels", 3)
    size = data.pop("size", (40, 56))
    model = Model(mean=mean, std=(0.5,))
    return Config(image_size=size, channels=channels, model=model, data=Data(crop_fraction=1.0, **data))


@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(90, 60), (33, 100), (20, 20), (40, 56), (8, 300)])
def test_pad_and_stretch_are_those_of_pillow(size, filter):
    picture, method = photo(*size), getattr(Image.Resampling, filter.upper())
    image, mean = Image.fromarray(picture), (0.485, 0.456, 0.406)
    stretched = np.asarray(image.resize((56, 40), method))
    np.testing.assert_array_equal(decode_as(fitted(resize="stretch", filter=filter), picture), stretched)
    padded = np.asarray(ImageOps.pad(image, (56, 40), method, color=(124, 116, 104)))
    np.testing.assert_array_equal(decode_as(fitted(resize="pad", filter=filter, mean=mean), picture), padded)
    # A JPEG is only different where it is decoded small.
    pixels = decode_as(fitted(resize="pad", filter=filter, mean=mean), encoded(picture, "PNG"))
    np.testing.assert_array_equal(pixels, padded)


def test_the_central_crop_by_the_bicubic_filter_is_that_of_pillow():
    picture = photo(90, 100)
    cut = Image.fromarray(picture).resize((56, 40), Image.Resampling.BICUBIC, (0, 65 / 7, 100, 565 / 7))
    np.testing.assert_array_equal(decode_as(fitted(filter="bicubic"), picture), np.asarray(cut))
    assert (decode_as(fitted(), picture) != np.asarray(cut)).any()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(("height", "width"), [(400, 200), (500, 610), (60, 41)])
def test_a_padded_jpeg_shows_the_whole_upright_picture(orientation, height, width):
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = cv2.resize(photo(6, 8), (width, height), interpolation=cv2.INTER_CUBIC)
    data = encoded(smooth, "JPEG", quality=97, subsampling=0, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = np.asarray(ImageOps.pad(upright, (56, 40), Image.Resampling.BILINEAR, color=(128,) * 3)).astype(int)
    difference = np.abs(decode_as(fitted(resize="pad"), data) - expected)
    assert difference.mean() < 0.8
    assert difference.max() < 12
    grey = decode_as(fitted(resize="pad", channels=1), data)
    bars = (expected == 128).all(-1)
    assert grey.shape == (40, 56, 1)
    assert (grey[bars] == 128).all()


def test_a_very_long_picture_keeps_a_pixel():
    padded = decode_as(fitted(resize="pad"), np.zeros((2, 4000, 3), np.uint8))
    assert (padded == 0).all(axis=(1, 2)).sum() == 1


def test_training_by_central_crops_sees_pictures_as_evaluation_does():
    config = fitted(resize="pad")
    assert crop.training(config, 0, 0)(90, 60) == crop.evaluation(config)(90, 60) == Box(0, -33, 90, 126)
    assert crop.training(fitted(resize="stretch", crop="random"), 0, 0)(90, 60).height == 43


def bomb():
    # A header that claims 20,000 x 10,000 pixels, and nothing else.
    return png_of(np.array([20_000, 10_000], ">u4").tobytes() + bytes([8, 2, 0, 0, 0]), zlib.compress(b""))


def jpeg_bomb():
    data = bytearray(encoded(scene(), "JPEG"))
    at = jpeg.read_header(bytes(data)).height_at
    data[at : at + 4] = (20_000).to_bytes(2) + (10_000).to_bytes(2)
    return bytes(data)


def cut_short(kind, part=0.6):
    data = encoded(photo(100, 100), kind)
    return data[: int(part * len(data))]


def cut_short_with_thumbnail():
    """The thumbnail in the header is complete; the picture is not."""
    exif = b"Exif\0\0" + encoded(photo(20, 20), "JPEG")
    data = encoded(photo(100, 100), "JPEG", exif=exif)
    return data[: int(0.8 * len(data))]


def dds_of_no_format():
    data = bytearray(encoded(scene(), "DDS"))
    data[80:84] = bytes(4)
    return bytes(data)


BAD = [
    pytest.param(lambda: b"", "not a picture", id="empty"),
    pytest.param(lambda: b"no picture at all", "not a picture", id="text"),
    pytest.param(lambda: cut_short("JPEG"), "truncated", id="truncated jpeg"),
    pytest.param(lambda: cut_short("JPEG", 0.05), "", id="jpeg cut within its header"),
    pytest.param(cut_short_with_thumbnail, "truncated", id="truncated jpeg with a thumbnail"),
    pytest.param(lambda: cut_short("PNG"), "truncated", id="truncated png"),
    pytest.param(lambda: cut_short("WEBP"), "", id="truncated webp"),
    pytest.param(lambda: cut_short("GIF"), "", id="truncated gif"),
    pytest.param(lambda: cut_short("BMP"), "truncated", id="truncated bmp"),
    pytest.param(dds_of_no_format, "pixel format", id="dds of no format"),
    pytest.param(bomb, "pixels", id="bomb"),
    pytest.param(jpeg_bomb, "pixels", id="jpeg bomb"),
]


@pytest.mark.parametrize(("make", "reason"), BAD)
def test_bad_pictures_are_named(make, reason, tmp_path):
    path = tmp_path / "bad.jpg"
    path.write_bytes(make())
    with pytest.raises(BadPictureError, match=rf"picture '{path}' can't be read: .*{reason}"):
        decode(path, SIZE, 3, whole)
    with pytest.raises(BadPictureError, match=r"^picture can't be read: "):
        decode(make(), SIZE, 3, whole)


def test_a_missing_file_is_a_bad_picture(tmp_path):
    with pytest.raises(BadPictureError, match=r"none.jpg' can't be read: No such file or directory"):
        decode(tmp_path / "none.jpg", SIZE, 3, whole)


def test_damage_anywhere_is_refused_or_decoded():
    """With any bytes changed, the outcome is a picture or a `BadPictureError`."""
    rng = np.random.default_rng(0)
    refused = 0
    for data in (encoded(photo(40, 50), "JPEG"), encoded(photo(40, 50), "PNG"), animated_gif()):
        for _ in range(60):
            damaged = bytearray(data)
            for at in rng.integers(0, min(len(data), 700), 4):
                damaged[at] = rng.integers(256)
            try:
                assert decode(bytes(damaged), SIZE, 3, whole, fast=True).shape == (HEIGHT, WIDTH, 3)
            except BadPictureError:
                refused += 1
    assert 20 < refused < 180
