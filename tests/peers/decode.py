"""Writing with a 135 M Llama shape: tokens a second of one and of sixteen sequences, each under its own adapter.

Ours (`agents/examples/speed.rs`) stands beside transformers and PEFT, and beside what memory allows.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import comparison
from training import SHAPE

RANK, ALPHA, PROMPT = 8, 16, 32
TARGETS = {"none": [], "qv": ["q_proj", "v_proj"], "all": "all-linear"}
# Bytes of weights a token, over what the machine can stream: at least this share.
SHARE = 0.9
# Of the same sixteen sequences without adapters.
KEPT = {"qv": 0.85, "all": 0.70}
# Times PEFT's batch of sixteen adapters.
MIXED = {"qv": 7, "all": 10}


def prepare(folder, layers):
    """A random model, and sixteen adapters for each choice of maps."""
    import torch
    import transformers as tf

    torch.manual_seed(0)
    tf.LlamaForCausalLM(tf.LlamaConfig(num_hidden_layers=layers, **SHAPE)).save_pretrained(folder / "model")


def theirs(folder, sequences, targets, tokens, threads):
    """Writes greedily with transformers, with PEFT's mixed batch where there are targets."""
    import peft
    import torch
    import transformers as tf

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    model = tf.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    names = {}
    if targets != "none":
        config = peft.LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules=TARGETS[targets])
        model = peft.get_peft_model(model, config, adapter_name="0").eval()
        for index in range(1, sequences):
            model.add_adapter(str(index), config)
        names = {"adapter_names": [str(index) for index in range(sequences)]}
    ids = torch.randint(10, 20_000, (sequences, PROMPT))
    with torch.inference_mode():
        out = model(input_ids=ids, use_cache=True, **names)
        start = time.perf_counter()
        for _ in range(tokens):
            ids = out.logits[:, -1].argmax(-1, keepdim=True)
            out = model(input_ids=ids, past_key_values=out.past_key_values, use_cache=True, **names)
        seconds = time.perf_counter() - start
    print(json.dumps(sequences * tokens / seconds))


def ours(program, folder, kept, sequences, targets, tokens, rounds):
    maps = {"none": "none", "qv": "q_proj,v_proj", "all": "all-linear"}[targets]
    arguments = [program, folder / "model", kept, sequences, maps, PROMPT, tokens, rounds]
    done = subprocess.run([str(a) for a in arguments], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)["rounds"]


def worker(*arguments):
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else None


def spread(figures, name, values, unit, **bar):
    figures.add(f"{name}.lowest", min(values), unit)
    figures.add(f"{name}.highest", max(values), unit)
    figures.add(name, statistics.median(values), unit, **bar)


def compare(options, folder):
    figures = comparison.Figures()
    program = comparison.built("POLYLOGUE_SPEED", ["-p", "polylogue-agents", "--example", "speed"], "examples/speed")
    worker("--worker", "prepare", "--folder", folder, "--layers", options.layers)

    def run(kept, sequences, targets):
        return ours(program, folder, kept, sequences, targets, options.tokens, options.rounds)

    def other(sequences, targets):
        return worker(
            "--worker", "theirs", "--folder", folder, "--sequences", sequences, "--targets", targets,
            "--tokens", max(4, options.tokens // 4), "--threads", options.threads)

    for kept in ("f32", "bf16", "f16", "q8_0"):
        rounds = run(kept, 1, "none")
        spread(figures, f"decode.1.{kept}.bandwidth", [r["bandwidth"] / 1e9 for r in rounds], "GB/s")
        spread(figures, f"decode.1.{kept}", [r["tokens_per_second"] for r in rounds], "tokens/s")
        shares = [r["share_of_bandwidth"] for r in rounds]
        spread(figures, f"decode.1.{kept}.share", shares, "ratio", at_least=SHARE)
    for kept in ("bf16", "f16", "q8_0"):
        spread(figures, f"decode.16.{kept}", [r["tokens_per_second"] for r in run(kept, 16, "none")], "tokens/s")
    bare = [r["tokens_per_second"] for r in run("f32", 16, "none")]
    spread(figures, "decode.16.f32", bare, "tokens/s")
    for targets in KEPT:
        speeds = [r["tokens_per_second"] for r in run("f32", 16, targets)]
        spread(figures, f"decode.16.f32.{targets}", speeds, "tokens/s")
        share = statistics.median(speeds) / statistics.median(bare)
        figures.add(f"decode.16.f32.{targets}.share", share, "ratio", at_least=KEPT[targets])
        mixed = other(16, targets)
        figures.add(f"decode.16.peft.{targets}", mixed, "tokens/s")
        ratio = statistics.median(speeds) / mixed
        figures.add(f"decode.16.peft.{targets}.ratio", ratio, "ratio", at_least=MIXED[targets])
    figures.add("decode.1.transformers", other(1, "none"), "tokens/s")
    figures.add("decode.16.transformers", other(16, "none"), "tokens/s")
    figures.finish()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=48, help="written by each sequence")
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2, help="of transformers; ours uses all cores")
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--sequences", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--targets", help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=["prepare", "theirs"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker == "prepare":
        prepare(options.folder, options.layers)
    elif options.worker == "theirs":
        theirs(options.folder, options.sequences, options.targets, options.tokens, options.threads)
    else:
        with comparison.work("decode") as folder:
            compare(options, pathlib.Path(folder))


if __name__ == "__main__":
    main()
