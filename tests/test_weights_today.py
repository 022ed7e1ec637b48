"""Today's families as timm writes them: outputs are the owner's, at its size and at another, and files come back."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import vit_jax
from tests.drawn import TINY, drawn_model
from tests.golden import DATA, relative, same_model
from vit_jax import tree
from vit_jax.config import Model, from_dict
from vit_jax.errors import InputError
from vit_jax.evaluate import evaluate
from vit_jax.export import output_function
from vit_jax.models import abstract_model
from vit_jax.models.published import TIMM
from vit_jax.models.rotary import make_rotation, rotate
from vit_jax.models.variants import resolve
from vit_jax.packing import pack
from vit_jax.pixels import as_input
from vit_jax.prediction.forward import Wanted, predictions
from vit_jax.prediction.listing import list_pictures
from vit_jax.weights.files import read_arrays, write_safetensors
from vit_jax.weights.opened import open_model
from vit_jax.weights.timm_config import architecture_of

# Written by tests/data/make_today.py.
TODAY = DATA / "today"
EXPECTED = {name: array for path in TODAY.glob("expected*.npz") for name, array in np.load(path).items()}
CASES = sorted({tuple(name.split("/")[:2]) for name in EXPECTED if not name.startswith("images/")})
FOLDERS = sorted({folder for folder, _ in CASES})
# Of timm's architectures: its number of parameters, and the model that its arrays and names are read as.
COUNTS = json.loads((DATA.parent / "today_counts.json").read_text())


def told(path, message):
    with pytest.raises(InputError, match=message) as caught:
        vit_jax.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("folder", "size"), CASES)
def test_tokens_and_outputs_are_the_owners(folder, size):
    height, width = map(int, size.split("x"))
    antialiased = folder.startswith("timm_") or folder == "hf_dinov2_reg"
    resample = "bicubic" if antialiased else "bicubic_sharp"
    if "beit" in folder:
        resample = "geometric" if antialiased else "bilinear_sharp"
    resample = None if "naflex" in folder else resample
    model = vit_jax.load(TODAY / folder, image_size=(height, width), resample=resample)
    images = EXPECTED[f"images/{size}"]
    outputs = "pooled" if model.head is None else "logits"
    found = jax.jit(lambda images: model.activations(images, "tokens", outputs))(images)
    assert relative(found["tokens"], EXPECTED[f"{folder}/{size}/tokens"]) < 2e-5
    assert relative(found[outputs], EXPECTED[f"{folder}/{size}/outputs"]) < 2e-5


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_is_written_as_it_was(folder, tmp_path):
    model = vit_jax.load(TODAY / folder)
    vit_jax.save(model, tmp_path / "x", folder.split("_")[0].replace("hf", "huggingface"))
    ours, theirs = (read_arrays(path / "model.safetensors") for path in (tmp_path / "x", TODAY / folder))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert np.array_equal(ours[name], theirs[name]), name
    same_model(vit_jax.load(tmp_path / "x"), model)


@pytest.mark.parametrize(
    "folder",
    ["timm_dinov3", "timm_eva02_norm", "timm_clip", "timm_perception", "timm_beit_shared", "timm_aimv2"]
    + ["timm_naflex", "timm_naflex_gap"],
)
def test_a_lone_file_is_read_as_it_was_written(folder, tmp_path):
    model = vit_jax.load(TODAY / folder)
    vit_jax.save(model, tmp_path / "x.safetensors")
    same_model(vit_jax.load(tmp_path / "x.safetensors"), model)


@pytest.mark.parametrize("folder", ["hf_naflex", "timm_naflex_gap"])
def test_naflex_weights_take_pictures_of_any_shape(folder):
    model = vit_jax.load(TODAY / folder)
    shapes = [(64, 64), (48, 80)]
    pictures = [picture for size in shapes for picture in EXPECTED[f"images/{size[0]}x{size[1]}"]]
    packed, rows = pack(pictures, 16, 32)
    wanted = np.concatenate([EXPECTED[f"{folder}/{size[0]}x{size[1]}/outputs"] for size in shapes])
    outputs = model.features(packed) if model.head is None else model(packed)
    assert relative(np.asarray(outputs)[rows], wanted) < 2e-5


@pytest.mark.parametrize("folder", ["timm_naflex", "timm_naflex_gap"])
def test_a_lone_naflexvit_is_read_by_convention(folder):
    # Layers of 16 channels alone don't say how many heads they have.
    model = vit_jax.load(TODAY / folder / "model.safetensors", num_heads=2)
    same_model(model, vit_jax.load(TODAY / folder))


def test_a_naflexvit_is_written_for_pictures_in_their_own_shapes(tmp_path):
    model = vit_jax.load(TODAY / "timm_naflex", image_size=(48, 80))
    vit_jax.save(model, tmp_path / "x", "timm")
    described = json.loads((tmp_path / "x" / "config.json").read_text())
    assert described["model_args"]["pos_embed_grid_size"] == [3, 5]
    same_model(vit_jax.load(tmp_path / "x"), model)
    cropped = dataclasses.replace(model.preprocessing, resize="crop")
    model.preprocessing = cropped
    vit_jax.save(model, tmp_path / "y", "timm")
    assert json.loads((tmp_path / "y" / "config.json").read_text())["architecture"] == "vit_base_patch16_224"
    with pytest.raises(
        InputError, match="a naflexvit file holds models with preprocessing.resize='native' and resample"
    ):
        vit_jax.save(model, tmp_path / "z", "naflexvit")


def test_a_naflexvit_goes_to_transformers_and_back(tmp_path):
    model = vit_jax.load(TODAY / "timm_naflex")
    vit_jax.save(model, tmp_path / "x")
    assert json.loads((tmp_path / "x" / "config.json").read_text())["model_type"] == "siglip2_vision_model"
    vit_jax.save(vit_jax.load(tmp_path / "x"), tmp_path / "y", "timm")
    same_model(vit_jax.load(tmp_path / "y"), model)


def test_naflex_preprocessing_is_kept(tmp_path):
    path = damaged("hf_naflex", tmp_path)
    processor = {"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 16, "patch_size": 16}
    (path / "preprocessor_config.json").write_text(json.dumps(processor))
    model = vit_jax.load(path)
    assert model.preprocessing.resize == "native"
    lines = vit_jax.save(model, tmp_path / "y")
    assert "resize native" in lines[-1]
    assert json.loads((tmp_path / "y" / "preprocessor_config.json").read_text()).items() >= processor.items()
    with pytest.raises(InputError, match="can't hold positions of 3 x 5 patches of a NaFlex model"):
        vit_jax.save(vit_jax.load(path, image_size=(48, 80)), tmp_path / "z")


def test_features_take_the_place_of_a_head():
    model = vit_jax.load(TODAY / "timm_dinov3")
    assert (model.num_classes, model.head, model.label_names) == (0, None, None)
    with pytest.raises(InputError, match="has no head; take its features, or load it with num_classes="):
        model(EXPECTED["images/64x64"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_new_head_goes_on_each(folder):
    model = vit_jax.load(TODAY / folder, num_classes=4)
    assert model.head.kernel.shape == (32 if model.config.pool == "token_gap" else 16, 4)
    assert not model.head.kernel[...].any()


def damaged(folder, tmp_path, change=lambda arrays: arrays, **config):
    """Copy a folder, its arrays and its config changed."""
    shutil.copytree(TODAY / folder, tmp_path / "x")
    write_safetensors(tmp_path / "x" / "model.safetensors", change(read_arrays(TODAY / folder / "model.safetensors")))
    described = json.loads((tmp_path / "x" / "config.json").read_text()) | config
    (tmp_path / "x" / "config.json").write_text(json.dumps(described))
    return tmp_path / "x"


def in_parts(folder, tmp_path):
    """Write a folder's arrays as two files and an index."""
    path, arrays = damaged(folder, tmp_path), read_arrays(TODAY / folder / "model.safetensors")
    (path / "model.safetensors").unlink()
    names, places = list(arrays), {}
    for i, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{i}-of-00002.safetensors"
        write_safetensors(path / file, {name: arrays[name] for name in part})
        places |= dict.fromkeys(part, file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return path


def test_weights_in_several_files_are_one_model(tmp_path):
    path = in_parts("hf_dinov3", tmp_path)
    same_model(vit_jax.load(path), vit_jax.load(TODAY / "hf_dinov3"))
    (path / "model-00002-of-00002.safetensors").unlink()
    told(path, r"lacks model-00002-of-00002.safetensors, which model.safetensors.index.json names; download")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}))
    told(path, "its weight_map must name, for each array, a file in the same folder")


@pytest.mark.parametrize("kind", ["clip", "aimv2"])
def test_of_a_whole_clip_the_image_tower_is_read(kind, tmp_path):
    def whole(arrays):
        text = {"text_model.final_layer_norm.weight": np.ones(4, np.float32), "logit_scale": np.ones((), np.float32)}
        return {f"vision_model.{name}": array for name, array in arrays.items()} | text

    config = json.loads((TODAY / f"hf_{kind}" / "config.json").read_text())
    path = damaged(f"hf_{kind}", tmp_path, whole, model_type=kind, vision_config=config)
    same_model(vit_jax.load(path), vit_jax.load(TODAY / f"hf_{kind}"))


@pytest.mark.parametrize(
    ("folder", "change", "config", "message"),
    [
        ("hf_clip", lambda _: {"text_model.a.weight": np.ones(4, np.float32)}, {}, "no arrays of a model of pictures"),
        ("hf_dinov3", lambda a: a, {"num_attention_heads": 3}, "num_heads=3 does not divide model.width=16"),
        ("hf_dinov3_gated", lambda a: a, {"hidden_act": "gelu"}, "of an MLP with a gate only silu is known"),
        ("hf_dinov3", lambda a: a, {"hidden_act": "mish"}, "hidden_act='mish' in config.json: only gelu, "),
        ("timm_dinov3", lambda a: a, {"model_args": {"rope_type": "mixed"}}, "rope_type='mixed' in config.json: only"),
        (
            "timm_eva02",
            lambda a: a,
            {"model_args": {"rope_grid_indexing": "xy"}},
            "indexing='xy' isn't known here",
        ),
        ("timm_beit", lambda a: {**a, "pos_embed": np.ones((1, 17, 16))}, {}, "of a BEiT only relative positions"),
        ("timm_beit", lambda a: a, {"model_args": {"use_abs_pos_emb": True}}, "use_abs_pos_emb=True isn't known here"),
        ("timm_beit", lambda a: a, {"model_args": {"use_rel_pos_bias": False}}, "use_shared_rel_pos_bias=False isn't"),
        ("timm_beit", lambda a: a, {"architecture": "beit3_base_patch16_224"}, "no such model here; of timm's"),
        ("timm_naflex", lambda a: a, {"architecture": "naflexvit_base_patch16_par_gap"}, "there are naflexvit_base_p"),
        ("timm_naflex", lambda a: a, {"architecture": "naflexvit_base_patch16_radio_v3"}, "no such model here; there"),
        ("timm_naflex", lambda a: a, {"model_args": {"pos_embed_ar_preserving": True}}, "=True isn't known here"),
        (
            "timm_naflex",
            lambda a: a,
            {"model_args": {"patchify_channels_last": False}},
            "=False isn't known here, only",
        ),
        ("timm_naflex", lambda a: a, {"model_args": {"patch_size": [8, 32]}}, "patches of 768 numbers aren't squares"),
        ("timm_naflex", lambda a: a, {"model_args": {"pos_embed_interp_mode": "area"}}, "only bicubic, bilinear are"),
        ("timm_naflex", lambda a: {**a, "blocks.0.gamma_1": np.ones(16)}, {}, "its blocks are those of a timm `Eva`"),
        ("timm_naflex", lambda a: {**a, "norm_pre.weight": np.ones(16)}, {}, r"unexpected \(1\): norm_pre.weight"),
        (
            "hf_beit",
            lambda a: {**a, "lm_head.weight": np.ones(3)},
            {},
            "holds a BeitForMaskedImageModeling, whose head",
        ),
        ("hf_beit", lambda a: a, {"image_size": [48, 80]}, "Transformers mixes up rows and columns"),
        (
            "hf_beit",
            lambda a: {**a, "beit.embeddings.position_embeddings": np.ones((1, 17, 16))},
            {},
            "of BEiT only relative positions are known",
        ),
        ("hf_aimv2", lambda a: a, {"hidden_act": "gelu"}, "of an MLP with a gate only silu is known"),
        (
            "hf_aimv2",
            lambda a: {**a, "encoder.layers.0.ffn.down_proj.bias": np.ones(16)},
            {},
            "qkv_bias and mlp_bias that are alike",
        ),
        ("timm_dinov3", lambda a: {**a, "gate": np.ones(3, np.float32)}, {}, r"unexpected \(1\): gate"),
        (
            "timm_dinov3",
            lambda a: {name: x for name, x in a.items() if name != "blocks.1.attn.qkv.weight"},
            {},
            r"missing \(1\): blocks.1.attn.qkv.weight",
        ),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(folder, change, config, message, tmp_path):
    told(damaged(folder, tmp_path, change, **config), message)


def test_quantised_weights_are_refused(tmp_path):
    path = damaged("timm_dinov3", tmp_path)
    arrays = read_arrays(TODAY / "timm_dinov3" / "model.safetensors")
    arrays["blocks.0.attn.qkv.weight"] = np.ones((48, 16), np.int64)
    write_safetensors(path / "model.safetensors", arrays)
    told(path, "blocks.0.attn.qkv.weight is of type I64; weights are float16")


def test_what_is_unknown_is_told_with_what_is_known(tmp_path):
    arrays = read_arrays(TODAY / "hf_dinov2" / "model.safetensors")
    path = damaged("hf_dinov2", tmp_path, lambda _: {f"a.{name}": x for name, x in arrays.items()}, model_type="dinov")
    told(path, "model_type='dinov' in config.json: .*dinov2")
    shutil.rmtree(path)
    told(damaged("timm_eva", tmp_path, architecture="eva02_enormous_patch14_clip_224"), "no such model here; of timm's")


def test_commands_say_that_there_is_no_head(tmp_path):
    picture = tmp_path / "test" / "cat" / "a.png"
    picture.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(picture)
    opened = open_model(TODAY / "timm_dinov3")
    with pytest.raises(InputError, match="no head that tells classes; take its --features=FILE"):
        next(predictions(opened, list_pictures([str(picture)]), Wanted()))
    (found,) = predictions(opened, list_pictures([str(picture)]), Wanted(layer="pooled"))
    assert (found.features.shape, found.rows[0].classes) == ((1, 16), ())
    with pytest.raises(InputError, match="has no head; export its features, --output=features"):
        output_function(opened.model, opened, "logits")
    with pytest.raises(InputError, match="has no head; evaluate its features, --config.evaluators.NAME.evaluator="):
        evaluate(TODAY / "timm_dinov3", data=f"folder:{tmp_path}")


@pytest.mark.parametrize("architecture", COUNTS)
def test_models_have_as_many_parameters_as_timms(architecture):
    noted = COUNTS[architecture]
    config = from_dict({"model": noted["model"]}).model
    shape = {"image_size": tuple(noted["image_size"]), "channels": 3}
    model = abstract_model(config=config, num_classes=noted["num_classes"], **shape)
    assert tree.count(nnx.split(model)[1]) == noted["count"]


def test_published_weights_are_listed():
    assert TIMM.keys() <= COUNTS.keys()
    assert "hf://timm/vit_small_patch16_dinov3.lvd1689m" in vit_jax.list_models("DINOv3")
    assert "hf://timm/beitv2_base_patch16_224.in1k_ft_in1k" in vit_jax.list_models("beit")
    assert vit_jax.list_models("b/16") == ["B/16", "R50+B/16"]
    assert not vit_jax.list_models("vgg")


def test_timms_clip_goes_to_transformers(tmp_path):
    model = vit_jax.load(TODAY / "timm_clip")
    model.head, model.num_classes = None, 0
    vit_jax.save(model, tmp_path / "x")
    images = EXPECTED["images/64x64"]
    assert relative(vit_jax.load(tmp_path / "x").features(images), model.features(images)) < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"swiglu": True, "norm_eps": 1e-5}, "gates with norm_eps=1e-05"),
        ({"rope": 100.0, "resnet": (), "resnet_width": 64, "resnet_style": "timm"}, "after a ResNet"),
        ({"patch_bias": False}, "patch_bias=False with embedding_norm=False"),
        ({"norm": "rms"}, "norm_eps=1e-06 of an AIMv2, only 1e-05"),
        (
            {"position": "relative", "relative_prefix": True, "norm_eps": 1e-5},
            "norm_eps=1e-05 and gelu='tanh' of a BEiT",
        ),
    ],
)
def test_what_timm_has_no_architecture_for_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        architecture_of(resolve(Model(**TINY | options)))


@pytest.mark.parametrize("pattern", ["axial", "local:1"])
def test_rotary_positions_act_in_patterns_of_attention(pattern):
    model = drawn_model(**ROTARY, attention_pattern=pattern)
    images = EXPECTED["images/64x64"]
    found = model.activations(images, "attention/0", "block/0", "tokens")
    block = jax.tree.map(lambda x: x[0], nnx.split(model.blocks)[1])
    block = nnx.merge(nnx.split(model.blocks)[0], block)
    prefix = jnp.broadcast_to(model.cls[...], (2, 1, 32))
    start = jnp.concatenate([prefix, model.embedding(as_input(images, 3, model.config)).reshape(2, 16, 32)], axis=1)
    value = block.attn._project(block.norm1(start), block.norm1(start))[2]
    attended = start + block.attn.out(jnp.einsum("bhqk,bkhd->bqhd", found["attention/0"], value))
    assert relative(attended + block.mlp(block.norm2(attended)), found["block/0"]) < 1e-5


ROTARY = dict(rope=100.0, position="none")


def test_rotary_scores_depend_on_offsets_alone():
    config = drawn_model(rope=10_000.0, rope_unit="patch").config
    x = jax.random.normal(jax.random.key(0), (2, 1, 1, config.num_heads, config.width // config.num_heads))
    tokens = [jnp.broadcast_to(one, (1, 17, *one.shape[2:])) for one in x]
    query, key = (rotate(one, make_rotation(config, (4, 4)))[0, 1:].reshape(4, 4, *x.shape[3:]) for one in tokens)
    scores = jnp.einsum("ijhd,klhd->hijkl", query, key)
    np.testing.assert_allclose(scores[:, 0, 1, 2, 2], scores[:, 1, 2, 3, 3], rtol=1e-5)
    assert abs(scores[:, 0, 1, 2, 2] - scores[:, 0, 1, 2, 3]).max() > 1e-3


def test_rotary_coordinates_move_only_with_a_key():
    still, moving = drawn_model(**ROTARY), drawn_model(**ROTARY, rope_shift=0.1, rope_jitter=1.5, rope_rescale=2.0)
    images = np.random.default_rng(0).uniform(-1, 1, (2, *still.image_size, 3)).astype(np.float32)
    assert np.array_equal(still(images), moving(images))
    assert np.array_equal(still(images), still(images, key=jax.random.key(0)))
    drawn = [np.asarray(moving(images, key=jax.random.key(i))) for i in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1])
    assert relative(drawn[0], still(images)) > 1e-4
    assert relative(drawn[0], drawn[2]) > 1e-4


def test_kept_patches_keep_their_rotation():
    model = drawn_model(**ROTARY)
    images = np.random.default_rng(0).uniform(-1, 1, (2, *model.image_size, 3)).astype(np.float32)
    patches = 16
    orders = np.stack([np.random.default_rng(i).permutation(patches) for i in range(2)])
    tokens, shuffled = model.encode(images), model.encode(images, keep=jnp.asarray(orders))
    prefix = tokens.shape[1] - patches
    for i, order in enumerate(orders):
        assert relative(shuffled[i, prefix:], tokens[i, prefix:][order]) < 1e-5


BIASED = dict(position="relative", relative_prefix=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rope": 100.0, "num_heads": 8, "width": 16}, "model.rope needs heads of a multiple of 4 channels, not 2"),
        ({"rope": -1.0}, "model.rope=-1.0: must be"),
        ({"rope_jitter": 2.0}, "model.rope_jitter: means nothing without model.rope"),
        ({"rope": 100.0, "rope_grid": (4, 4)}, "model.rope_grid: means nothing with model.rope_unit='picture'"),
        ({"rope": 100.0, "rope_jitter": 0.5}, "model.rope_jitter=0.5: must be"),
        ({"patch_bias": False, "resnet": (), "resnet_width": 64}, "model.patch_bias=False or patch_norm=True: only"),
        ({"relative_prefix": True}, "model.relative_prefix: means nothing with model.position='learned'"),
        (BIASED | {"attention_pattern": "axial"}, "isn't built for model.attention_pattern='axial', only for 'full'"),
        (BIASED | {"pool": "gap"}, "model.relative_prefix: there is neither a class token nor a register"),
        ({"resample": "geometric"}, "model.resample='geometric': resizes offsets, not model.position='learned'"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        drawn_model(**options)
