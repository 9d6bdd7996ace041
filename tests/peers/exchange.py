"""Adapters exchanged with PEFT in both directions: trained here and read there, trained there and read here.

`tests/peers/run peft`. Tiny random models; every adapter is trained for a few steps, and the two sides must
give the same hidden states, logits or classes for rows of several lengths.
"""

import argparse
import pathlib
import shutil
import traceback
import warnings

import peft
import torch

import adapters
import comparison
import families

BAR = 1e-4
LENGTHS = (11, 7, 16, 3)
CLASSES = torch.tensor([2, 0, 1, 2])
STEPS, RATE = 5, 1e-2
# An adapter that changes the states by less than this would not be seen to be wrong.
EFFECT = 10 * BAR

# Family, kind, and whether there is a head for sequences: none, transformers' own, or one that only ours has.
CASES = [
    *(("llama", kind, False) for kind in (
        "lora", "rslora", "dora", "pissa", "ia3", "vera", "vera_mixed", "prompt", "prefix")),
    # No prefix: PEFT 0.21.2 finds no `past_key_values` in the signature of Llama's class for sequences.
    *(("llama", kind, True) for kind in ("lora", "rslora", "dora", "pissa", "ia3", "vera", "prompt")),
    *(("bert", kind, True) for kind in ("lora", "rslora", "dora", "pissa", "ia3", "vera")),
    ("llama", "all_linear", False), ("bert", "all_linear", True),
    *(("bert", kind, False) for kind in ("lora", "dora", "ia3", "vera", "prompt")),
    ("qwen3", "lora", True), ("roberta", "lora", True), ("roberta", "dora", True),
    ("xlm-roberta", "lora", True), ("distilbert", "lora", True), ("distilbert", "ia3", True),
    ("bert", "lora", "own"), ("llama", "dora", "own"), ("roberta", "ia3", "own"), ("bert", "prompt", "own"),
    ("phi3", "lora", False), ("gemma3_text", "lora", False), ("modernbert", "lora", False),
]
HEADS = {
    "bert": {"pooling": "pooler", "bias": True, "dense": False},
    "roberta": {"pooling": "first", "bias": True, "dense": True},
    "xlm-roberta": {"pooling": "first", "bias": True, "dense": True},
    "distilbert": {"pooling": "first", "bias": True, "dense": True},
}
DECODER_HEAD = {"pooling": "last", "bias": False, "dense": False}
OWN_HEAD = {"pooling": "mean", "standardize": True}
KEYS = {
    "distilbert": ("k_lin", "v_lin", "lin2"), "bert": ("key", "value", "output.dense"),
    "roberta": ("key", "value", "output.dense"),
}


def our_spec(name, kind, headed):
    """The adapter as ours describes it."""
    targets = families.targets(name)
    if kind in ("lora", "rslora", "dora", "pissa", "all_linear"):
        targets = ["all-linear"] if kind == "all_linear" else targets
        lora = {
            "rank": 4, "alpha": 6.0, "targets": targets, "rank_stabilized": kind == "rslora",
            "dora": kind == "dora", "init": "pissa" if kind == "pissa" else "kaiming",
        }
        method = {"lora": lora}
    elif kind == "ia3":
        key, value, down = KEYS.get(name, ("k_proj", "v_proj", "down_proj"))
        method = {"ia3": {"targets": [key, value, down], "feedforward": [down]}}
    elif kind.startswith("vera"):
        wanted = targets[:1] if kind == "vera" and families.is_decoder(name) else targets
        method = {"vera": {"rank": 6, "targets": wanted}}
    else:
        method = {kind: {"tokens": 3}}
    head = {"labels": [str(i) for i in range(adapters.LABELS)], "standardize": False}
    head |= OWN_HEAD if headed == "own" else HEADS.get(name, DECODER_HEAD)
    return {"method": method} | ({"head": head} if headed else {})


def their_configuration(name, kind, headed):
    """The same adapter as PEFT describes it."""
    if kind == "pissa":
        config = adapters.configuration(name, "lora")
        config.init_lora_weights = "pissa"
    elif kind == "all_linear":
        config = adapters.configuration(name, "lora")
        # Alone, the word takes in BERT's pooler.
        blocks = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
        config.target_modules = "all-linear" if families.is_decoder(name) else blocks
    elif kind == "vera_mixed":
        config = adapters.configuration(name, "vera")
        config.target_modules = set(families.targets(name))
    elif kind == "ia3":
        targets = KEYS.get(name, ("k_proj", "v_proj", "down_proj"))
        config = peft.IA3Config(
            task_type="CAUSAL_LM" if families.is_decoder(name) else "FEATURE_EXTRACTION",
            target_modules=list(targets), feedforward_modules=[targets[2]])
    else:
        config = adapters.configuration(name, kind)
    if headed:
        config.task_type = peft.TaskType.SEQ_CLS
        if name == "distilbert":
            config.modules_to_save = ["pre_classifier", "classifier"]
    return config


class Case:
    """One adapter kind on one family."""

    def __init__(self, name, kind, headed, folder, peer, figures):
        self.name, self.kind, self.headed = name, kind, headed
        self.model, self.peer, self.figures = folder / name, peer, figures
        if not self.model.exists():
            self.model.mkdir()
            families.save(families.build(name), name, self.model)
        self.rows = families.rows(name, lengths=LENGTHS, seed=3)
        self.request = {"tokens": [row.tolist() for row in self.rows]}
        self.scratch = folder / "adapter"
        self.own = headed == "own"
        self.label = f"peft.{name}.{kind}" + (".own_head" if self.own else ".seq_cls" if headed else "")

    def folder(self, side):
        folder = self.scratch / side
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def theirs(self, adapter):
        """What Python gives with an adapter from disk."""
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*adapter keys.*")
            model = adapters.read(self.model, adapter, self.name if self.headed and not self.own else None)
        with torch.no_grad():
            results = [adapters.forward(model, row) for row in self.rows]
        return {f"{kind}.{i}": t for i, result in enumerate(results) for kind, t in result.items()}

    def ours(self, adapter):
        """What ours gives with an adapter from disk."""
        request = self.request | ({} if adapter is None else {"adapter": str(adapter)})
        return self.peer.tensors("logits", self.model, request)

    def compare(self, what, ours, theirs):
        worst = max(comparison.relative(ours[key], theirs[key]) for key in theirs)
        self.figures.add(f"{self.label}.{what}", worst, "relative", at_most=BAR)

    def effect(self, what, given):
        """An adapter that does nothing proves nothing."""
        bare = self.ours(None)
        moved = max(comparison.relative(given[key], bare[key]) for key in bare if key.startswith("hidden"))
        self.figures.add(f"{self.label}.{what}.effect", moved, "relative", at_least=EFFECT)

    def from_ours(self):
        """Trained by ours, read by PEFT."""
        out = self.folder("ours")
        request = self.request | {
            "spec": our_spec(self.name, self.kind, self.headed), "steps": STEPS, "learning_rate": RATE,
            "prompt": 1, "out": str(out),
        }
        if self.headed:
            request["labels"] = CLASSES.tolist()
        self.peer.run("train", self.model, request)
        ours = self.ours(out)
        self.effect("ours_to_peft", ours)
        self.compare("ours_to_peft", ours, self.theirs(out))

    def from_theirs(self):
        """Trained by PEFT, read by ours; and saved again by ours, read by PEFT."""
        given, again = self.folder("theirs"), self.folder("again")
        self.train_theirs(given)
        theirs = self.theirs(given)
        ours = self.ours(given)
        self.effect("peft_to_ours", theirs)
        self.compare("peft_to_ours", ours, theirs)
        self.peer.run("save", self.model, self.request | {"adapter": str(given), "out": str(again)})
        self.compare("saved_again", ours, self.theirs(again))

    def train_theirs(self, out):
        torch.manual_seed(11)
        model = adapters.read(self.model, None, self.name if self.headed else None)
        adapted = peft.get_peft_model(model, their_configuration(self.name, self.kind, self.headed))
        start = self.folder("start")
        if self.kind == "pissa":
            # PEFT's own way to a plain adapter of twice the rank needs the adapter it began with.
            adapted.peft_config["default"].init_lora_weights = True
            adapted.save_pretrained(start)
        trained = [p for p in adapted.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=RATE)
        width = families.SIZES["tiny"]["hidden"]
        weights = torch.randn(sum(LENGTHS), width, generator=torch.Generator().manual_seed(5))
        for _ in range(STEPS):
            optimizer.zero_grad()
            results = [adapters.forward(adapted, row) for row in self.rows]
            adapters.loss_of(results, self.rows, weights, CLASSES).backward()
            optimizer.step()
        if self.kind == "pissa":
            adapted.save_pretrained(out, path_initial_model_for_weight_conversion=str(start))
        else:
            adapted.save_pretrained(out)

    def run(self):
        # PEFT's conversion of PiSSA leaves the head out of the file, and PEFT itself cannot read that file.
        unread = self.kind == "pissa" and self.headed
        directions = [] if unread or self.own else [self.from_theirs]
        if self.headed or families.is_decoder(self.name):
            # Ours trains an encoder only under a head.
            directions.insert(0, self.from_ours)
        for direction in directions:
            try:
                direction()
            except Exception as error:
                if not isinstance(error, RuntimeError):
                    traceback.print_exc()
                self.figures.failed(self.label, f"{direction.__name__}: {error}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only cases whose name contains one of these")
    names = parser.parse_args().names
    torch.set_num_threads(1)
    figures = comparison.Figures()
    with comparison.work("peft") as folder:
        peer = comparison.Peer(folder)
        for name, kind, headed in CASES:
            case = Case(name, kind, headed, pathlib.Path(folder), peer, figures)
            if not names or any(part in case.label for part in names):
                case.run()
    figures.finish()


if __name__ == "__main__":
    main()
