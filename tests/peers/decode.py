"""Writing with a 135 M Llama shape: tokens a second of one and of sixteen sequences.

Ours (`agents/examples/speed.rs`) stands beside llama.cpp in the same precision, beside transformers, and beside
what memory allows. Every side has a process of its own; a round takes theirs, then ours, on the same prompts.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import time

import comparison
from training import SHAPE

PROMPT, MANY = 32, 16
KINDS = ("f32", "f16", "q8_0")
# Bytes of weights a token, over what the machine can stream: at least this share.
SHARE = 0.9
# Times llama.cpp with one sequence in the same precision, and its best in f32 or f16 with sixteen.
ALONE, TOGETHER = 1, 1.8
# Of the same sixteen sequences without adapters.
KEPT = {"qv": ("q_proj,v_proj", 0.85), "all": ("all-linear", 0.70)}


def prompts(count):
    """Those of `speed`."""
    return [[(row * 131 + place * 17) % 20_000 + 10 for place in range(PROMPT)] for row in range(count)]


def prepare(folder, layers):
    """A random model, and the same for llama.cpp."""
    import llama
    import torch
    import transformers as tf

    torch.manual_seed(0)
    tf.LlamaForCausalLM(tf.LlamaConfig(num_hidden_layers=layers, **SHAPE)).save_pretrained(folder / "model")
    for kind in KINDS:
        llama.write(folder / "model", folder / f"{kind}.gguf", kind)


def write_llama(folder, kind, sequences, steps, threads):
    import llama

    print(json.dumps(llama.measure(folder / f"{kind}.gguf", prompts(sequences), steps, threads)))


def write_transformers(folder, sequences, steps, threads):
    import torch
    import transformers as tf

    torch.set_num_threads(threads)
    model = tf.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    with torch.inference_mode():
        out = model(input_ids=torch.tensor(prompts(sequences)), use_cache=True)
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            ids = out.logits[:, -1].argmax(-1, keepdim=True)
            out = model(input_ids=ids, past_key_values=out.past_key_values, use_cache=True)
            seconds.append(time.perf_counter() - start)
    print(json.dumps({"tokens_per_second": sequences / statistics.median(seconds[1:])}))


class Sides:
    """Runs either side once."""

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.program = comparison.built(
            "POLYLOGUE_SPEED", ["-p", "polylogue-agents", "--example", "speed"], "examples/speed")

    def ours(self, kind, sequences, targets="none"):
        arguments = [self.program, self.folder / "model", kind, sequences, targets, PROMPT, self.options.tokens]
        done = subprocess.run([str(a) for a in arguments], check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        return found["rounds"][0] | {"written": found["written"], "weight_bytes": found["weight_bytes"]}

    def theirs(self, worker, sequences, *more):
        return comparison.worker(
            __file__, "--worker", worker, "--folder", self.folder, "--sequences", sequences,
            "--tokens", self.options.tokens, "--threads", self.options.threads, *more)


def speeds(rounds):
    return [found["tokens_per_second"] for found in rounds]


def ratios(ours, theirs):
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def spread(figures, name, values, unit, **bar):
    figures.add(f"{name}.lowest", min(values), unit)
    figures.add(f"{name}.highest", max(values), unit)
    figures.add(name, statistics.median(values), unit, **bar)


def compare(options, folder):
    figures = comparison.Figures()
    sides = Sides(options, folder)
    comparison.worker(__file__, "--worker", "prepare", "--folder", folder, "--layers", options.layers)
    found = {}

    def note(name, run):
        comparison.say(f"{name}: {run['tokens_per_second']:.1f} tokens/s")
        found.setdefault(name, []).append(run)

    for _ in range(options.rounds):
        for sequences in (1, MANY):
            for kind in KINDS:
                note(f"{sequences}.llama.{kind}", sides.theirs("llama", sequences, "--kind", kind))
                note(f"{sequences}.{kind}", sides.ours(kind, sequences))
        note("1.bf16", sides.ours("bf16", 1))
        note(f"{MANY}.bf16", sides.ours("bf16", MANY))
        for targets, (maps, _) in KEPT.items():
            note(f"{MANY}.{targets}", sides.ours("f32", MANY, maps))
    for sequences in (1, MANY):
        note(f"{sequences}.transformers", sides.theirs("transformers", sequences))
    report(figures, found)
    figures.finish()


def report(figures, found):
    of = {name: speeds(rounds) for name, rounds in found.items()}
    for name, values in of.items():
        spread(figures, f"decode.{name}", values, "tokens/s")
    bandwidths = [run["bandwidth"] / 1e9 for rounds in found.values() for run in rounds if "bandwidth" in run]
    spread(figures, "decode.bandwidth", bandwidths, "GB/s")
    for kind in (*KINDS, "bf16"):
        shares = [run["share_of_bandwidth"] for run in found[f"1.{kind}"]]
        spread(figures, f"decode.1.{kind}.share", shares, "ratio", at_least=SHARE)
    for kind in KINDS:
        alone = ratios(of[f"1.{kind}"], of[f"1.llama.{kind}"])
        spread(figures, f"decode.1.{kind}.ratio", alone, "ratio", at_least=ALONE)
        together = ratios(of[f"{MANY}.{kind}"], of[f"{MANY}.llama.{kind}"])
        spread(figures, f"decode.{MANY}.{kind}.ratio", together, "ratio")
    best = [max(pair) for pair in zip(of[f"{MANY}.llama.f32"], of[f"{MANY}.llama.f16"], strict=True)]
    spread(figures, f"decode.{MANY}.ratio", ratios(of[f"{MANY}.f32"], best), "ratio", at_least=TOGETHER)
    for targets, (_, bar) in KEPT.items():
        kept = ratios(of[f"{MANY}.{targets}"], of[f"{MANY}.f32"])
        spread(figures, f"decode.{MANY}.{targets}.share", kept, "ratio", at_least=bar)
    # The same model was written for both: the first tokens after the prompts agree.
    ours, theirs = (found[name][0]["written"] for name in (f"{MANY}.f32", f"{MANY}.llama.f32"))
    alike = sum(a[0] == b[0] for a, b in zip(ours, theirs, strict=True)) / MANY
    figures.add(f"decode.{MANY}.first_tokens_alike", alike, "ratio", at_least=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32, help="written by each sequence")
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2, help="of the others; ours uses all cores")
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--sequences", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=["prepare", "llama", "transformers"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker == "prepare":
        prepare(options.folder, options.layers)
    elif options.worker == "llama":
        write_llama(options.folder, options.kind, options.sequences, options.tokens, options.threads)
    elif options.worker == "transformers":
        write_transformers(options.folder, options.sequences, options.tokens, options.threads)
    else:
        with comparison.work("decode") as folder:
            compare(options, pathlib.Path(folder))


if __name__ == "__main__":
    main()
