"""The formats of weight files, one module each.

Each says whether a file's names are its own (`matches`), reads the architecture (`facts`), pairs parameters with arrays
(`rules`), says what it holds (`SUPPORTED`, a table or a function of the config that returns one, and `SUPPORTED_BIT` or
`SUPPORTED_SWIN` where it holds such) and writes (`write`).

The arrays of a file are `files.Stored`: names and shapes are there, and `np.asarray(array)` reads one.
"""

from vit_jax.weights import big_vision, bit, google, huggingface, timm, timm_naflex

# In the order in which a file's names are tried: big_vision's are the least particular.
FORMATS = {
    **{"bit": bit, "google": google, "naflexvit": timm_naflex, "timm": timm},
    **{"huggingface": huggingface, "big_vision": big_vision},
}
# Those with a place for label names and preprocessing.
DESCRIBED = ("naflexvit", "timm", "huggingface")
ENDINGS = {".npz": "google", ".safetensors": "timm", "": "huggingface"}
