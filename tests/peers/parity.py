"""Ours beside transformers: hidden states and logits of every family, embeddings of MiniLM, greedy text."""

import argparse
import csv
import json
import os
import pathlib

import torch
import transformers as tf

import adapters
import comparison
import families

NETWORKS, EMBEDDINGS = 1e-4, 1e-5
# Longer than the windows of the sizes, and short; run together by ours and one by one by transformers.
LENGTHS = {"tiny": (40, 11, 7, 1), "large": (200, 97, 33, 5)}
SENTENCES = 200
PROMPTS = [
    "", "Once upon a time, there was a little girl named Lily.", "Tom and his dog", "The sun was very hot and",
    "\"Can I play with you?\" asked the",
]
WRITTEN = 200


def networks(figures, peer, folder, size, names):
    for name in names:
        model = folder / name
        model.mkdir()
        families.save(families.build(name, size), name, model)
        rows = families.rows(name, size, LENGTHS[size], seed=sum(name.encode()))
        theirs = adapters.read(model, None)
        with torch.no_grad():
            expected = [adapters.forward(theirs, row) for row in rows]
        try:
            found = peer.tensors("logits", model, {"tokens": [row.tolist() for row in rows]})
        except RuntimeError as error:
            figures.failed(f"parity.{name}", error)
            continue
        for kind in expected[0]:
            worst = max(
                comparison.relative(found[f"{kind}.{i}"], given[kind]) for i, given in enumerate(expected))
            figures.add(f"parity.{name}.{kind}", worst, "relative", at_most=NETWORKS)


def sentences():
    """Questions of bank customers, evenly taken from the whole file, so that all topics are among them."""
    with open(comparison.data() / "intent-banking77/test.csv", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    return texts[:: max(1, len(texts) // SENTENCES)][:SENTENCES]


def embeddings(figures, peer, models):
    """Sentence embeddings from text: tokenizer, network, mean over the mask, length one."""
    directory = models / "all-MiniLM-L6-v2"
    texts = sentences()
    tokenizer = tf.AutoTokenizer.from_pretrained(directory)
    model = tf.AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    expected = []
    for start in range(0, len(texts), 50):
        batch = tokenizer(
            texts[start : start + 50], padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].float()
        mean = (hidden * mask).sum(1) / mask.sum(1)
        expected.append(torch.nn.functional.normalize(mean, dim=-1))
    expected = torch.cat(expected)
    found = peer.tensors("embed", directory, {"texts": texts})["embeddings"]
    figures.add("parity.minilm.sentences", len(texts), "texts", at_least=SENTENCES)
    figures.add(
        "parity.minilm.embeddings", comparison.relative(found, expected), "relative", at_most=EMBEDDINGS)
    cosine = (found * expected).sum(-1).min().item()
    figures.add("parity.minilm.lowest_cosine", cosine, "cosine", at_least=1 - EMBEDDINGS)


def greedy(figures, peer, models):
    """The likeliest token 200 times over, prompts of different length in one batch of ours."""
    directory = models / "stories260k"
    if not (directory / "config.json").exists():
        directory = directory / "hf"
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
    model = tf.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    begin = [] if model.config.bos_token_id is None else [model.config.bos_token_id]
    prompts = [begin + tokenizer.encode(text, add_special_tokens=False) for text in PROMPTS]
    settings = tf.GenerationConfig(do_sample=False, max_new_tokens=WRITTEN, eos_token_id=None, use_cache=True)
    request = {"tokens": prompts, "max_tokens": WRITTEN}
    found = json.loads(peer.run("generate", directory, request))
    equal = 0
    for prompt, ours in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt])
        given = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        theirs = given[0, len(prompt) :].tolist()
        equal += sum(a == b for a, b in zip(ours, theirs))
        comparison.say(f"{len(theirs)} tokens: {tokenizer.decode(theirs)[:70]!r}")
        if len(theirs) != WRITTEN or len(ours) != WRITTEN:
            figures.failed("parity.stories260k", f"wrote {len(ours)} tokens, transformers {len(theirs)}")
    total = len(PROMPTS) * WRITTEN
    figures.add("parity.stories260k.tokens", total, "tokens")
    figures.add("parity.stories260k.equal", equal / total, "share", at_least=1.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=pathlib.Path, help="folder of all-MiniLM-L6-v2 and stories260k")
    parser.add_argument("--size", choices=list(families.SIZES), default="large")
    parser.add_argument("names", nargs="*", help="families; minilm; stories260k; all where none is given")
    options = parser.parse_args()
    if options.models:
        os.environ["POLYLOGUE_MODELS"] = str(options.models.resolve())
    wanted = options.names or [*families.FAMILIES, "minilm", "stories260k"]
    figures = comparison.Figures()
    with comparison.work("parity") as folder:
        folder = pathlib.Path(folder)
        peer = comparison.Peer(folder)
        names = [name for name in families.FAMILIES if name in wanted]
        networks(figures, peer, folder, options.size, names)
        if "minilm" in wanted:
            embeddings(figures, peer, comparison.models())
        if "stories260k" in wanted:
            greedy(figures, peer, comparison.models())
    figures.finish()


if __name__ == "__main__":
    main()
