"""Many agents with own LoRA adapters on one card: tokens a second of ours and of transformers with PEFT.

Writing: one batch with `adapter_names`, switching between adapters, and the bare model, beside ours with and
without the adapters. Training: one adapter on rows of 128 tokens. What memory allows is what the card reads and
writes when torch copies a gigabyte on it. Nothing is compared with a CPU. `--size tiny --device cpu` tries the
script where there is no card, and its figures mean nothing then.
"""

import argparse
import json
import pathlib
import random
import statistics
import time

import comparison
import training

# Llama 3.2 1B, and something that any machine runs.
SIZES = {
    "1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256,
    },
    "tiny": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 512,
    },
}
COMMON = {"tie_word_embeddings": True, "max_position_embeddings": 2048}
PROMPT, RANK, TARGETS = 32, 8, ["q_proj", "v_proj"]
# To switch costs the same whoever comes next: so many of the agents are enough.
SWITCHED = 16
LESSON_ROWS, LESSON_LENGTH, LESSON_PROMPT = training.ROWS, training.LENGTH, training.PROMPT
DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


class Theirs:
    """transformers and PEFT in this process."""

    def __init__(self, options):
        import peft
        import torch
        import transformers as tf

        self.torch, self.options = torch, options
        # The driver calls it a number, torch a device.
        self.device = torch.device(options.device)
        self.dtype = getattr(torch, DTYPES[options.dtype])
        torch.manual_seed(0)
        with self.device:
            model = tf.LlamaForCausalLM(tf.LlamaConfig(**SIZES[options.size], **COMMON))
        self.base = model.to(self.dtype).eval()
        self.base.save_pretrained(options.folder / "model")
        config = peft.LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=16, target_modules=TARGETS)
        self.names = [f"a{row}" for row in range(options.agents)]
        with self.device:
            self.model = peft.get_peft_model(
                self.base, config, adapter_name=self.names[0], autocast_adapter_dtype=False)
            for name in self.names[1:]:
                self.model.add_adapter(name, config, autocast_adapter_dtype=False)
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.02)
        self.model.eval().save_pretrained(options.folder / "adapters", selected_adapters=self.names)
        rows = json.loads((options.folder / "rows.json").read_text())
        self.prompts = torch.tensor(rows, device=self.device)

    def now(self):
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()
        return time.perf_counter()

    def bandwidth(self):
        """Bytes a second that are read and written when a gigabyte is copied."""
        source = self.torch.zeros(2**28 if self.device.type == "cuda" else 2**22, device=self.device)
        target = self.torch.empty_like(source)
        best = float("inf")
        for _ in range(6):
            start = self.now()
            target.copy_(source)
            best = min(best, self.now() - start)
        return 2 * source.nbytes / best

    def batch(self, steps, **kwargs):
        """Tokens a second of all rows in one batch, and what was written."""
        with self.torch.inference_mode():
            out = self.model(input_ids=self.prompts, use_cache=True, logits_to_keep=1, **kwargs)
            seconds, written = [], []
            for _ in range(steps):
                start = self.now()
                tokens = out.logits[:, -1].argmax(-1, keepdim=True)
                written.append(tokens.flatten().tolist())
                out = self.model(input_ids=tokens, past_key_values=out.past_key_values, use_cache=True, **kwargs)
                seconds.append(self.now() - start)
        return len(self.prompts) / statistics.median(seconds[1:]), written

    def switching(self, steps):
        """Tokens a second of one row after the other, each under its own adapter."""
        some = list(enumerate(self.names[:SWITCHED]))
        with self.torch.inference_mode():
            states, seconds = [], []
            for row, name in some:
                self.model.set_adapter(name)
                states.append(self.model(input_ids=self.prompts[row:row + 1], use_cache=True))
            for _ in range(steps):
                start = self.now()
                for row, name in some:
                    self.model.set_adapter(name)
                    tokens = states[row].logits[:, -1].argmax(-1, keepdim=True)
                    states[row] = self.model(
                        input_ids=tokens, past_key_values=states[row].past_key_values, use_cache=True)
                seconds.append(self.now() - start)
        return len(some) / statistics.median(seconds[1:])

    def training(self, steps):
        """Tokens a second of the first adapter's training, and its losses."""
        self.model.set_adapter(self.names[0])
        self.model.train()
        rows = json.loads((self.options.folder / "lesson.json").read_text())
        tokens = self.torch.tensor(rows, device=self.device)
        losses, seconds = training.learn(self.model, tokens, LESSON_PROMPT, steps, self.now)
        return tokens.numel() / statistics.median(seconds[1:]), losses

    def run(self):
        options, rounds = self.options, []
        for turn in range(options.rounds):
            found = {"bandwidth": self.bandwidth()}
            found["mixed"], found["written"] = self.batch(options.steps, adapter_names=self.names)
            found["switching"] = self.switching(max(2, options.steps // 4))
            with self.model.disable_adapter():
                found["bare"], _ = self.batch(options.steps)
            rounds.append(found)
            shown = {key: found[key] for key in ("bandwidth", "mixed", "switching", "bare")}
            comparison.say(f"round {turn + 1} theirs: {shown}")
        speed, losses = self.training(options.steps)
        print(json.dumps({
            "rounds": rounds, "training": speed, "losses": losses,
            "weights": sum(p.nbytes for n, p in self.base.named_parameters() if "lora_" not in n),
            "adapters": sum(p.nbytes for n, p in self.model.named_parameters() if "lora_" in n),
        }))


def cache_bytes(options):
    """Keys and values that a step in the middle of the text reads for one agent."""
    size = SIZES[options.size]
    width = 2 * size["hidden_size"] * size["num_key_value_heads"] // size["num_attention_heads"]
    number = 4 if options.dtype == "f32" else 2
    return (PROMPT + options.steps / 2) * width * size["num_hidden_layers"] * number


def compare(options):
    folder, peer = options.folder, comparison.Peer(options.folder)
    size, stream = SIZES[options.size], random.Random(1)

    def tokens(rows, length):
        return [[stream.randrange(size["vocab_size"]) for _ in range(length)] for _ in range(rows)]

    rows, lesson = tokens(options.agents, PROMPT), tokens(LESSON_ROWS, LESSON_LENGTH)
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "lesson.json").write_text(json.dumps(lesson))
    theirs = comparison.worker(__file__, "--worker", "theirs", *(
        argument for name in ("folder", "size", "device", "dtype", "agents", "steps", "rounds")
        for argument in (f"--{name}", getattr(options, name))))
    place = {"device": options.device, "dtype": options.dtype}
    request = place | {"tokens": rows, "max_tokens": options.steps}
    own = request | {"adapters": [str(folder / "adapters" / f"a{row}") for row in range(options.agents)]}
    ours, bare, learned = [], [], []
    for turn in range(options.rounds):
        ours.append(json.loads(peer.run("write", folder / "model", own)))
        bare.append(json.loads(peer.run("write", folder / "model", request)))
        learned.append(json.loads(peer.run("train", folder / "model", place | {
            "tokens": lesson, "prompt": LESSON_PROMPT, "adapter": str(folder / "adapters/a0"),
            "steps": options.steps, "learning_rate": training.RATE})))
        speeds = [run[-1]["tokens_per_second"] for run in (ours, bare, learned)]
        comparison.say(f"round {turn + 1} ours, tokens/s: adapters, bare, training {speeds}")
    report(options, theirs, ours, bare, learned)


def report(options, theirs, ours, bare, learned):
    figures = comparison.Figures()

    def spread(name, values, unit):
        figures.add(f"card.{name}.lowest", min(values), unit)
        figures.add(f"card.{name}.highest", max(values), unit)
        figures.add(f"card.{name}", statistics.median(values), unit)

    def speeds(runs):
        return [run["tokens_per_second"] for run in runs]

    rounds = theirs["rounds"]
    spread("bandwidth", [found["bandwidth"] / 1e9 for found in rounds], "GB/s")
    bandwidth = max(found["bandwidth"] for found in rounds)
    for way in ("mixed", "switching", "bare"):
        spread(f"peft.{way}", [found[way] for found in rounds], "tokens/s")
        beside = bare if way == "bare" else ours
        pairs = zip(speeds(beside), rounds, strict=True)
        spread(f"ratio.{way}", [speed / found[way] for speed, found in pairs], "ratio")
    cache = options.agents * cache_bytes(options)
    for name, runs, read in (
        ("ours", ours, theirs["weights"] + theirs["adapters"] + cache), ("ours.bare", bare, theirs["weights"] + cache),
    ):
        spread(name, speeds(runs), "tokens/s")
        spread(f"{name}.share_of_bandwidth",
               [speed / options.agents * read / bandwidth for speed in speeds(runs)], "ratio")
    spread("training.ours", speeds(learned), "tokens/s")
    figures.add("card.training.peft", theirs["training"], "tokens/s")
    spread("training.ratio", [speed / theirs["training"] for speed in speeds(learned)], "ratio")
    exact = options.dtype == "f32"
    difference = abs(learned[0]["losses"][0] - theirs["losses"][0]) / theirs["losses"][0]
    figures.add("card.training.loss.difference", difference, "relative", at_most=1e-4 if exact else 0.02)
    # In 16 bits the likeliest of random logits is often another one.
    first = [row[0] for row in ours[0]["written"]]
    alike = sum(a == b for a, b in zip(first, rounds[0]["written"][0], strict=True)) / options.agents
    figures.add("card.first_tokens_alike", alike, "ratio", at_least=1 if exact else 0.5)
    figures.finish()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--agents", type=int, default=256)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=["theirs"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker == "theirs":
        Theirs(options).run()
    else:
        with comparison.work("card") as folder:
            options.folder = pathlib.Path(folder)
            compare(options)


if __name__ == "__main__":
    main()
