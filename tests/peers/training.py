"""LoRA training of a 135 M Llama shape: tokens a second and peak memory, ours beside transformers with PEFT.

Each side trains in a process of its own, in turn; the first step of each process does not count.
"""

import argparse
import json
import pathlib
import random
import statistics
import time

import comparison

SHAPE = {
    "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3,
    "vocab_size": 49152, "tie_word_embeddings": True, "max_position_embeddings": 2048,
}
ROWS, LENGTH, PROMPT = 8, 128, 64
RANK, ALPHA, TARGETS, RATE = 8, 16, ["q_proj", "v_proj"], 1e-4
MICRO_BATCH = 256


def peak_memory():
    """Peak resident memory of this process in bytes."""
    line = next(l for l in open("/proc/self/status") if l.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def prepare(folder, layers):
    """The model and a first adapter, whose B is not zero so that it counts from the first step."""
    import peft
    import torch
    import transformers as tf

    torch.manual_seed(0)
    model = tf.LlamaForCausalLM(tf.LlamaConfig(num_hidden_layers=layers, **SHAPE))
    model.save_pretrained(folder / "model")
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=TARGETS)
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    adapted.save_pretrained(folder / "adapter")


def learn(model, tokens, prompt, steps, now=time.perf_counter):
    """Losses and seconds of steps on all rows, whose first `prompt` tokens carry no loss."""
    import torch

    labels = tokens.clone()
    labels[:, :prompt] = -100
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE)
    losses, seconds = [], []
    for _ in range(steps):
        start = now()
        loss = model(input_ids=tokens, labels=labels, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(now() - start)
    return losses, seconds


def train_theirs(folder, steps, threads):
    """Trains with transformers and PEFT and prints what `peer train` prints."""
    import peft
    import torch
    import transformers as tf

    torch.set_num_threads(threads)
    request = json.loads((folder / "rows.json").read_text())
    model = tf.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True).train()
    loaded = peak_memory()
    tokens = torch.tensor(request["tokens"])
    losses, seconds = learn(model, tokens, request["prompt"], steps)
    median = statistics.median_high(seconds[1:] or seconds)
    print(json.dumps({
        "tokens_per_second": tokens.numel() / median, "peak_bytes": peak_memory(), "loaded_bytes": loaded,
        "losses": losses, "seconds": seconds,
    }))


def matmul_peak(threads):
    """The most floating-point operations a second of a large f32 product."""
    import torch

    torch.set_num_threads(threads)
    size, best = 2048, float("inf")
    a, b = torch.randn(size, size), torch.randn(size, size)
    for _ in range(12):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    print(json.dumps(2 * size**3 / best))


def operations(layers):
    """Floating-point operations that one step needs: products only, two for a multiply-add.

    Frozen weights get no gradient, so the backward pass of a map costs as much as its forward pass. The
    first layer's input needs none either: nothing flows back through its q, k and v. Attention looks at
    earlier positions only. The head counts at the positions that carry loss.
    """
    hidden, inner = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    keys = hidden * SHAPE["num_key_value_heads"] // SHAPE["num_attention_heads"]
    columns = LENGTH - 1  # the last token is only predicted
    tokens = ROWS * columns
    attention_maps = hidden * (hidden + 2 * keys)
    other_maps = hidden * hidden + 3 * hidden * inner
    maps = 2 * tokens * (attention_maps * (2 * layers - 1) + other_maps * 2 * layers)
    pairs = ROWS * columns * (columns + 1) // 2
    # Forward: scores and values. Backward: values, weights, queries and keys (no keys in the first layer).
    attention = 2 * pairs * hidden * (6 * layers - 1)
    adapters = 2 * tokens * RANK * ((hidden + hidden) + (hidden + keys)) * 3 * layers
    head = 2 * ROWS * (LENGTH - PROMPT) * hidden * SHAPE["vocab_size"] * 2
    return maps + attention + adapters + head


def compare(options, folder):
    figures = comparison.Figures()
    peer = comparison.Peer(folder)
    comparison.worker(__file__, "--worker", "prepare", "--folder", folder, "--layers", options.layers)
    stream = random.Random(1)
    tokens = [[stream.randrange(SHAPE["vocab_size"]) for _ in range(LENGTH)] for _ in range(ROWS)]
    rows = {"tokens": tokens, "prompt": PROMPT}
    (folder / "rows.json").write_text(json.dumps(rows))
    request = rows | {
        "adapter": str(folder / "adapter"), "steps": options.steps, "learning_rate": RATE,
        "micro_batch_tokens": MICRO_BATCH,
    }
    ours, theirs, peaks = [], [], []
    for turn in range(options.rounds):
        peaks.append(comparison.worker(__file__, "--worker", "peak", "--threads", options.threads))
        theirs.append(comparison.worker(__file__,
            "--worker", "train", "--folder", folder, "--steps", options.steps, "--threads", options.threads))
        ours.append(json.loads(peer.run("train", folder / "model", request, threads=options.threads)))
        for name, given in (("theirs", theirs[-1]), ("ours", ours[-1])):
            comparison.say(f"round {turn + 1} {name}: {given}")
    report(figures, options.layers, ours, theirs, max(peaks))
    figures.finish()


def report(figures, layers, ours, theirs, peak):
    def median(runs, key):
        return statistics.median(run[key] for run in runs)

    needed = operations(layers)
    figures.add("training.operations", needed / 1e9, "GFLOP/step")
    figures.add("training.machine.peak", peak / 1e9, "GFLOP/s")
    for name, runs in (("ours", ours), ("peft", theirs)):
        speed = median(runs, "tokens_per_second")
        figures.add(f"training.{name}.speed", speed, "tokens/s")
        figures.add(f"training.{name}.speed.lowest", min(r["tokens_per_second"] for r in runs), "tokens/s")
        figures.add(f"training.{name}.speed.highest", max(r["tokens_per_second"] for r in runs), "tokens/s")
        figures.add(f"training.{name}.share_of_peak", needed * speed / (ROWS * LENGTH) / peak, "ratio")
        figures.add(f"training.{name}.memory", median(runs, "peak_bytes") / 2**20, "MiB")
        figures.add(f"training.{name}.loss.first", runs[0]["losses"][0], "nats")
        figures.add(f"training.{name}.loss.last", runs[0]["losses"][-1], "nats")
    figures.add("training.peft.memory.loaded", median(theirs, "loaded_bytes") / 2**20, "MiB")
    difference = max(
        abs(a["losses"][0] - b["losses"][0]) / b["losses"][0] for a, b in zip(ours, theirs, strict=True))
    figures.add("training.loss.difference", difference, "relative", at_most=1e-4)
    # Rounds are compared one by one: what slows the machine for a while slows both sides of a round.
    ratios = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(ours, theirs, strict=True)]
    figures.add("training.ratio.speed.lowest", min(ratios), "ratio")
    figures.add("training.ratio.speed.highest", max(ratios), "ratio")
    figures.add("training.ratio.speed", statistics.median(ratios), "ratio", at_least=1.1)
    memory = [a["peak_bytes"] / b["peak_bytes"] for a, b in zip(ours, theirs, strict=True)]
    figures.add("training.ratio.memory", statistics.median(memory), "ratio", at_most=0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="of each process; the first does not count")
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=["prepare", "train", "peak"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker == "prepare":
        prepare(options.folder, options.layers)
    elif options.worker == "train":
        train_theirs(options.folder, options.steps, options.threads)
    elif options.worker == "peak":
        matmul_peak(options.threads)
    else:
        with comparison.work("training") as folder:
            compare(options, pathlib.Path(folder))


if __name__ == "__main__":
    main()
