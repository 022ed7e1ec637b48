"""Write small CLIPs and SigLIPs as Transformers saves them, tokenizers included, with what they return.

It needs an environment of its own with torch, transformers (5.24), sentencepiece and protobuf:
`python tests/data/make_text.py tests/data/text`.
"""

import io
import json
import pathlib
import sys

import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers

# Something to learn merges from.
CORPUS = [
    *("a photo of a cat.", "a photo of a dog.", "a photo of the small dog", "a bad photo of the cat", "two dogs"),
    *("a drawing of a house", "the houses of the town", "a café in the old town", "über den Dächern", "a boat"),
    *("photographs of boats on the river", "a red boat and a green boat", "an owl in a tree", "it's a dog's life"),
]
# What tokenizers see differently: capitals, accents, punctuation, spaces, numbers, other scripts, nothing, too much.
TEXTS = [
    *("a cat", "a photo of a dog.", "A PHOTO of the Small Dog", "Café ÜBER Dächern", "cafe\u0301", "naïve façade"),
    *("  spaces \t and\nlines  ", "1234 boats & 5.6 owls!", "snake_case-and/slashes (brackets) {}", "猫と犬 🐱"),
    *("", " ", "...", "the old town " * 40, "ﬁne ½ Ⅷ", "İstanbul ẞ ǅ", "▁a▁cat", "a\u00a0cat\u200b"),
    *("it's the dog's, isn't it?", "x" * 200),
]
LABELS = ["a cat", "the small dog", "Café, ÜBER", "two boats on the river"]
TOWER = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
VISION = TOWER | dict(image_size=32, patch_size=8)
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def draw(model):
    """Draw every parameter anew, as float16 can hold it; norms stay near 1."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        values = 1 + 0.1 * values if "norm" in name and name.endswith("weight") else 0.2 * values
        values = {"logit_scale": values * 0 + 2.5, "logit_bias": values * 0 - 1.5}.get(name, values)
        parameter.data = values.half().float()
    return model.eval()


def clip_tokenizer(**options):
    """Return a CLIP tokenizer: all bytes, the same at the end of a word, merges, and two special tokens."""
    blank = transformers.CLIPTokenizer()
    learner = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = blank._tokenizer.normalizer, blank._tokenizer.pre_tokenizer
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=140, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(CORPUS, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    joined = ["".join(pair) for pair in merges]
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *joined, "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    return transformers.CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77, **options)


def siglip_tokenizer(folder):
    """Return a SigLIP tokenizer on a SentencePiece model that keeps letters as they are."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.lower() for text in CORPUS]),
        model_writer=model,
        vocab_size=90,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    folder.mkdir(exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    return transformers.SiglipTokenizer(str(folder / "spiece.model"))


def siglip2_tokenizer():
    """Return a tokenizer like Gemma's, which pads at the right and ends a text as SigLIP 2's do."""
    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=120, show_progress=False)
    learner.train_from_iterator([text.lower() for text in CORPUS], trainer)
    learned = json.loads(learner.to_str())["model"]
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{i:02X}>" for i in range(256)), *learned["vocab"]]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = [tuple(pair) for pair in learned["merges"]]
    made = transformers.Siglip2Tokenizer(vocab=vocab, merges=merges, padding_side="right")
    made._tokenizer.post_processor = tokenizers.processors.TemplateProcessing("$A <eos>", None, [("<eos>", 1)])
    return made


def clip(tokenizer, hidden_act, eos_token_id):
    """Return a CLIP for a tokenizer."""
    text = TOWER | dict(vocab_size=len(tokenizer), hidden_act=hidden_act, eos_token_id=eos_token_id)
    vision = VISION | dict(hidden_act=hidden_act)
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))


def siglip(tokenizer):
    """Return a SigLIP for a tokenizer."""
    text = TOWER | dict(vocab_size=len(tokenizer))
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=VISION))


def main(folder):
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    # Smooth, as photographs are, so that they differ in more than noise.
    coarse = torch.tensor(generator.uniform(0, 255, (3, 3, 5, 5)))
    pictures = torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear").round().byte().permute(0, 2, 3, 1)
    expected = {"pictures": pictures.numpy()}
    end = clip_tokenizer().convert_tokens_to_ids("<|endoftext|>")
    made = {
        "clip": (clip_tokenizer(), lambda tokenizer: clip(tokenizer, "quick_gelu", end)),
        # As CLIPs of before 2023 say it, and with a GELU; its padding has a higher number than any end.
        "clip_old": (clip_tokenizer(pad_token="!"), lambda tokenizer: clip(tokenizer, "gelu", 2)),
        "siglip": (siglip_tokenizer(folder / "siglip"), siglip),
        "siglip2": (siglip2_tokenizer(), siglip),
    }
    for name, (tokenizer, make) in made.items():
        model, is_clip = draw(make(tokenizer)), name.startswith("clip")
        tokenizer.save_pretrained(folder / name)
        size, length = {"height": 32, "width": 32}, 77 if is_clip else 64
        if is_clip:
            processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
        else:
            processor = transformers.SiglipImageProcessor(size=size)
        processor.save_pretrained(folder / name)
        if name == "clip_old":
            files = json.loads((folder / name / "tokenizer.json").read_text())["model"]
            (folder / name / "tokenizer.json").unlink()
            (folder / name / "vocab.json").write_text(json.dumps(files["vocab"], ensure_ascii=False))
            lines = ["#version: 0.2", *(" ".join(pair) for pair in files["merges"])]
            (folder / name / "merges.txt").write_text("\n".join(lines) + "\n")
        for what, texts in (("tokens", TEXTS), ("labels", LABELS)):
            read = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
            expected[f"{name}/{what}"] = read["input_ids"].numpy().astype(np.int32)
        mean, std = (CLIP_MEAN, CLIP_STD) if is_clip else ([0.5] * 3, [0.5] * 3)
        pixels = (pictures / 255 - torch.tensor(mean)) / torch.tensor(std)
        with torch.no_grad():
            found = model(input_ids=read["input_ids"], pixel_values=pixels.permute(0, 3, 1, 2).float())
            everything = model.get_text_features(torch.tensor(expected[f"{name}/tokens"])).pooler_output
        logits = found.logits_per_image
        expected[f"{name}/images"], expected[f"{name}/texts"] = found.image_embeds.numpy(), found.text_embeds.numpy()
        expected[f"{name}/awkward"] = torch.nn.functional.normalize(everything).numpy()
        expected[f"{name}/probabilities"] = (logits.softmax(-1) if is_clip else logits.sigmoid()).numpy()
        model.half().save_pretrained(folder / name)
    np.savez_compressed(folder / "expected.npz", **expected)
    (folder / "texts.json").write_text(json.dumps({"texts": TEXTS, "labels": LABELS}, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(pathlib.Path(sys.argv[1]))
