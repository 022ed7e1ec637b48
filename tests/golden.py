"""Weight files of other code bases with their recorded outputs, and a comparison of two models."""

import pathlib

import numpy as np

import vit_jax
from tests.drawn import params_of

DATA = pathlib.Path(__file__).parent / "data" / "weights"
EXPECTED = np.load(DATA / "expected.npz")

# The file of each case.
FILES = {
    "vit_token": "google_vit_token.npz",
    "vit_gap": "google_vit_gap.npz",
    "vit_token_prelogits": "google_vit_token_prelogits.npz",
    "hybrid_stages": "google_hybrid_stages.npz",
    "hybrid_stem_only": "google_hybrid_stem_only.npz",
    "bigvision_gap_sincos2d": "bigvision_gap_sincos2d.npz",
    "bigvision_map": "bigvision_map.npz",
    "bigvision_tok_rep": "bigvision_tok_rep.npz",
    "bigvision_gap_scan": "bigvision_gap_scan.npz",
    "bit": "google_bit.npz",
    "timm_token": "timm_token.safetensors",
    "timm_avg": "timm_avg.safetensors",
    "timm_reg4_gap_ls": "timm_reg4_gap_ls.safetensors",
    "timm_token_reg_qknorm": "timm_token_reg_qknorm.safetensors",
    "timm_map": "timm_map.safetensors",
    "hf_vit": "hf_vit",
}


def load(case, **options):
    return vit_jax.load(DATA / FILES[case], **({"num_heads": 2} if "timm" in case else {}), **options)


def relative(got, wanted):
    return float(np.abs(np.asarray(got, np.float32) - wanted).max() / np.abs(wanted).max())


def same_model(first, second):
    assert first.config == second.config
    assert (first.num_classes, first.image_size, first.channels) == (
        second.num_classes,
        second.image_size,
        second.channels,
    )
    a, b = params_of(first), params_of(second)
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name
