"""Sixteen agents with own LoRA adapters on one 135 M Llama shape: tokens a second of ours and of PEFT.

PEFT is measured in both ways it offers, one batch with `adapter_names` and switching between adapters, each in
f32 and in bf16. Ours runs in f32 beside the f32 of PEFT, and on the same model as a Q8_0 GGUF file beside the
better of PEFT's two: it has no 8-bit weights on a CPU. Every sequence reads its prompt first; only writing is
timed. Each side has a process of its own, a round is theirs then ours.
"""

import argparse
import json
import pathlib
import random
import statistics
import time

import comparison
from training import SHAPE

ROWS, PROMPT, RANK = 16, 32, 8
TARGETS = {
    "qv": ["q_proj", "v_proj"],
    "all": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
BARS = {"qv": 7, "all": 10}
SWITCHING = 25
SHARES = {"qv": 0.85, "all": 0.70}
DTYPES = {"f32": "float32", "bf16": "bfloat16"}
WAYS = ("mixed", "switching")


def prepare(folder, layers):
    """A random model, the same as GGUF, and sixteen adapters of each kind, whose B is not zero."""
    import llama
    import peft
    import torch
    import transformers as tf

    torch.manual_seed(0)
    tf.LlamaForCausalLM(tf.LlamaConfig(num_hidden_layers=layers, **SHAPE)).save_pretrained(folder / "model")
    llama.write(folder / "model", folder / "q8_0.gguf", "q8_0")
    for kind, targets in TARGETS.items():
        model = tf.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
        config = peft.LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=16, target_modules=targets)
        for row in range(ROWS):
            model = model.get_base_model() if row == 0 and hasattr(model, "get_base_model") else model
            if row == 0:
                adapted = peft.get_peft_model(model, config, adapter_name=f"a{row}")
            else:
                adapted.add_adapter(f"a{row}", config)
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.02)
        adapted.save_pretrained(folder / kind, selected_adapters=[f"a{row}" for row in range(ROWS)])


def adapted(folder, kind, dtype):
    import peft
    import torch
    import transformers as tf

    model = tf.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=getattr(torch, dtype))
    # Adapters as they would be trained on such a model: in its own type.
    model = peft.PeftModel.from_pretrained(model, folder / kind / "a0", adapter_name="a0", autocast_adapter_dtype=False)
    for row in range(1, ROWS):
        model.load_adapter(folder / kind / f"a{row}", adapter_name=f"a{row}", autocast_adapter_dtype=False)
    return model.eval()


def write_theirs(folder, kind, dtype, steps, threads):
    """Tokens a second of both ways, and what the mixed batch wrote."""
    import torch

    torch.set_num_threads(threads)
    prompts = torch.tensor(json.loads((folder / "rows.json").read_text()))
    model = adapted(folder, kind, dtype)
    names = [f"a{row}" for row in range(ROWS)]
    with torch.inference_mode():
        out = model(input_ids=prompts, use_cache=True, adapter_names=names)
        written, seconds = [], []
        for _ in range(steps):
            start = time.perf_counter()
            tokens = out.logits[:, -1].argmax(-1, keepdim=True)
            written.append(tokens.flatten().tolist())
            out = model(
                input_ids=tokens, past_key_values=out.past_key_values, use_cache=True, adapter_names=names)
            seconds.append(time.perf_counter() - start)
        mixed = ROWS / statistics.median(seconds[1:])
        seconds, states = [], []
        for row, name in enumerate(names):
            model.set_adapter(name)
            states.append(model(input_ids=prompts[row:row + 1], use_cache=True))
        for _ in range(max(2, steps // 4)):
            start = time.perf_counter()
            for row, name in enumerate(names):
                model.set_adapter(name)
                tokens = states[row].logits[:, -1].argmax(-1, keepdim=True)
                states[row] = model(
                    input_ids=tokens, past_key_values=states[row].past_key_values, use_cache=True)
            seconds.append(time.perf_counter() - start)
        switching = ROWS / statistics.median(seconds[1:])
    print(json.dumps({"mixed": mixed, "switching": switching, "written": written}))


def compare(options, folder):
    figures = comparison.Figures()
    peer = comparison.Peer(folder)
    comparison.worker(__file__, "--worker", "prepare", "--folder", folder, "--layers", options.layers)
    stream = random.Random(1)
    rows = [[stream.randrange(SHAPE["vocab_size"]) for _ in range(PROMPT)] for _ in range(ROWS)]
    (folder / "rows.json").write_text(json.dumps(rows))
    models = {"f32": folder / "model", "q8_0": folder / "q8_0.gguf"}
    for kind in options.kinds:
        ours, bare, theirs = ({name: [] for name in names} for names in (models, models, DTYPES))
        for turn in range(options.rounds):
            for dtype, name in DTYPES.items():
                theirs[dtype].append(comparison.worker(__file__,
                    "--worker", "write", "--folder", folder, "--kind", kind, "--dtype", name,
                    "--steps", options.steps, "--threads", options.threads))
            request = {"tokens": rows, "max_tokens": options.steps}
            own = request | {"adapters": [str(folder / kind / f"a{row}") for row in range(ROWS)]}
            for name, model in models.items():
                ours[name].append(json.loads(peer.run("write", model, own, threads=options.threads)))
                bare[name].append(json.loads(peer.run("write", model, request, threads=options.threads)))
            shown = [f"{dtype} {way} {runs[-1][way]:.1f}" for dtype, runs in theirs.items() for way in WAYS]
            shown += [f"ours {name} {ours[name][-1]['tokens_per_second']:.1f} "
                      f"(bare {bare[name][-1]['tokens_per_second']:.1f})" for name in models]
            comparison.say(f"round {turn + 1} {kind}: " + ", ".join(shown))
        best = [{way: max(runs[way] for runs in turn) for way in WAYS} for turn in zip(*theirs.values(), strict=True)]
        for dtype, runs in theirs.items():
            for way in WAYS:
                spread(figures, f"adapters.{kind}.peft.{dtype}.{way}", [run[way] for run in runs], "tokens/s")
        report(figures, kind, "f32", ours["f32"], theirs["f32"], bare["f32"])
        report(figures, kind, "q8_0", ours["q8_0"], best, bare["q8_0"])
        # The likeliest of random logits may differ by rounding; the first few tokens hardly ever do in f32.
        first = {name: [row[0] for row in runs[0]["written"]] for name, runs in ours.items()}
        for name, bar in (("f32", 1), ("q8_0", None)):
            alike = sum(a == b for a, b in zip(first[name], theirs["f32"][0]["written"][0], strict=True)) / ROWS
            figures.add(f"adapters.{kind}.{name}.first_tokens_alike", alike, "ratio", at_least=bar)
    figures.finish()


def spread(figures, name, values, unit, at_least=None):
    figures.add(f"{name}.lowest", min(values), unit)
    figures.add(f"{name}.highest", max(values), unit)
    figures.add(name, statistics.median(values), unit, at_least=at_least)


def report(figures, kind, name, ours, theirs, bare):
    """One precision of ours: its speed, its share of the same without adapters, and how many times theirs it is."""
    prefix = f"adapters.{kind}.{name}"
    speed = [run["tokens_per_second"] for run in ours]
    spread(figures, f"{prefix}.ours", speed, "tokens/s")
    share = [own / run["tokens_per_second"] for own, run in zip(speed, bare, strict=True)]
    # The bar is one of f32: with 8-bit weights the same adapters are a larger part of a step.
    spread(figures, f"{prefix}.share_of_bare", share, "ratio", at_least=SHARES[kind] if name == "f32" else None)
    for way, bar in (("mixed", BARS[kind]), ("switching", SWITCHING)):
        ratios = [own / run[way] for own, run in zip(speed, theirs, strict=True)]
        spread(figures, f"{prefix}.ratio.{way}", ratios, "ratio", at_least=bar)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=["qv", "all"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=["prepare", "write"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker == "prepare":
        prepare(options.folder, options.layers)
    elif options.worker == "write":
        write_theirs(options.folder, options.kind, options.dtype, options.steps, options.threads)
    else:
        with comparison.work("adapters") as folder:
            compare(options, pathlib.Path(folder))


if __name__ == "__main__":
    main()
