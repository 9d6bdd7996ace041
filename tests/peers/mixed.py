"""Sixteen agents with own LoRA adapters on one 135 M Llama shape: tokens a second of ours and of PEFT.

PEFT is measured in both ways it offers: one batch with `adapter_names`, and switching between adapters. Every
sequence reads its prompt first; only writing is timed. Each side has a process of its own, a round is theirs
then ours.
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


def prepare(folder, layers):
    """A random model and sixteen adapters of each kind, whose B is not zero."""
    import peft
    import torch
    import transformers as tf

    torch.manual_seed(0)
    tf.LlamaForCausalLM(tf.LlamaConfig(num_hidden_layers=layers, **SHAPE)).save_pretrained(folder / "model")
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


def adapted(folder, kind):
    import peft
    import torch
    import transformers as tf

    model = tf.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, folder / kind / "a0", adapter_name="a0")
    for row in range(1, ROWS):
        model.load_adapter(folder / kind / f"a{row}", adapter_name=f"a{row}")
    return model.eval()


def write_theirs(folder, kind, steps, threads):
    """Tokens a second of both ways, and what the mixed batch wrote."""
    import torch

    torch.set_num_threads(threads)
    prompts = torch.tensor(json.loads((folder / "rows.json").read_text()))
    model = adapted(folder, kind)
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
    bare = []
    for kind in options.kinds:
        ours, theirs = [], []
        for turn in range(options.rounds):
            theirs.append(comparison.worker(__file__,
                "--worker", "write", "--folder", folder, "--kind", kind, "--steps", options.steps,
                "--threads", options.threads))
            request = {"tokens": rows, "max_tokens": options.steps}
            own = request | {"adapters": [str(folder / kind / f"a{row}") for row in range(ROWS)]}
            model = folder / "model"
            ours.append(json.loads(peer.run("write", model, own, threads=options.threads)))
            bare.append(json.loads(peer.run("write", model, request, threads=options.threads)))
            shown = {key: theirs[-1][key] for key in ("mixed", "switching")}
            comparison.say(f"round {turn + 1} {kind}: theirs {shown}, ours {ours[-1]['tokens_per_second']:.1f}, "
                           f"without adapters {bare[-1]['tokens_per_second']:.1f}")
        report(figures, kind, ours, theirs, bare[-options.rounds:])
    figures.finish()


def report(figures, kind, ours, theirs, bare):
    speed = [run["tokens_per_second"] for run in ours]
    figures.add(f"adapters.{kind}.ours", statistics.median(speed), "tokens/s")
    figures.add(f"adapters.{kind}.ours.lowest", min(speed), "tokens/s")
    figures.add(f"adapters.{kind}.ours.highest", max(speed), "tokens/s")
    share = [own / run["tokens_per_second"] for own, run in zip(speed, bare, strict=True)]
    figures.add(f"adapters.{kind}.share_of_bare", statistics.median(share), "ratio",
                at_least={"qv": 0.85, "all": 0.70}[kind])
    for way, bar in (("mixed", BARS[kind]), ("switching", SWITCHING)):
        figures.add(f"adapters.{kind}.peft.{way}", statistics.median(run[way] for run in theirs), "tokens/s")
        ratios = [own / run[way] for own, run in zip(speed, theirs, strict=True)]
        figures.add(f"adapters.{kind}.ratio.{way}.lowest", min(ratios), "ratio")
        figures.add(f"adapters.{kind}.ratio.{way}.highest", max(ratios), "ratio")
        figures.add(f"adapters.{kind}.ratio.{way}", statistics.median(ratios), "ratio", at_least=bar)
    # The likeliest of random logits may differ by rounding; the first few tokens hardly ever do.
    first = [row[0] for row in ours[0]["written"]]
    alike = sum(a == b for a, b in zip(first, theirs[0]["written"][0], strict=True)) / ROWS
    figures.add(f"adapters.{kind}.first_tokens_alike", alike, "ratio", at_least=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=["qv", "all"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=["prepare", "write"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker == "prepare":
        prepare(options.folder, options.layers)
    elif options.worker == "write":
        write_theirs(options.folder, options.kind, options.steps, options.threads)
    else:
        with comparison.work("adapters") as folder:
            compare(options, pathlib.Path(folder))


if __name__ == "__main__":
    main()
