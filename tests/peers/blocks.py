"""Writing with each type of blocks that GGUF files have: tokens a second of one and of sixteen sequences.

Ours and llama.cpp as in `decode`, on a Llama of 138 M parameters whose rows are multiples of 256 numbers, so that
every matrix has the type it is called by. llama.cpp reads what its own quantisation makes of the model, ours what
candle's does; both must take the same number of bytes. `blocks TYPE …` takes some of the types.
"""

import argparse
import pathlib

import comparison
from decode import MANY, Sides, ratios, speeds, spread

SHAPE = {
    "hidden_size": 768, "intermediate_size": 2048, "num_attention_heads": 12, "num_key_value_heads": 4,
    "vocab_size": 49152, "tie_word_embeddings": True, "max_position_embeddings": 2048,
}
KINDS = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k")
# Times llama.cpp with one sequence.
ALONE = 1


def prepare(folder, kinds, layers, threads):
    """A random model, and the same for llama.cpp in each of the types."""
    import llama
    import torch
    import transformers as tf

    torch.manual_seed(0)
    tf.LlamaForCausalLM(tf.LlamaConfig(num_hidden_layers=layers, **SHAPE)).save_pretrained(folder / "model")
    whole = folder / "f32.gguf"
    llama.write(folder / "model", whole, "f32")
    for kind in kinds:
        llama.quantize(whole, folder / f"{kind}.gguf", kind, threads)


def compare(options, folder):
    figures = comparison.Figures()
    sides = Sides(options, folder)
    comparison.worker(
        __file__, *options.kinds, "--prepare", folder, "--layers", options.layers, "--threads", options.threads)
    found = {}

    def note(name, run):
        comparison.say(f"{name}: {run['tokens_per_second']:.1f} tokens/s")
        found.setdefault(name, []).append(run)

    for _ in range(options.rounds):
        for kind in options.kinds:
            for sequences in (1, MANY):
                note(f"{kind}.{sequences}.llama", sides.theirs("llama", sequences, "--kind", kind))
                note(f"{kind}.{sequences}", sides.ours(kind, sequences))
    of = {name: speeds(rounds) for name, rounds in found.items()}
    for kind in options.kinds:
        ours = found[f"{kind}.1"]
        # Of another size, one of them would not have the type. The file has names besides, some thousand bytes.
        file = (folder / f"{kind}.gguf").stat().st_size
        figures.add(f"blocks.{kind}.size", ours[0]["weight_bytes"] / file, "ratio", at_least=0.99, at_most=1)
        for sequences in (1, MANY):
            name = f"{kind}.{sequences}"
            spread(figures, f"blocks.{name}", of[name], "tokens/s")
            spread(figures, f"blocks.{name}.llama", of[f"{name}.llama"], "tokens/s")
            bar = {"at_least": ALONE} if sequences == 1 else {}
            spread(figures, f"blocks.{name}.ratio", ratios(of[name], of[f"{name}.llama"]), "ratio", **bar)
        spread(figures, f"blocks.{kind}.share", [run["share_of_bandwidth"] for run in ours], "ratio")
    bandwidths = [run["bandwidth"] / 1e9 for rounds in found.values() for run in rounds if "bandwidth" in run]
    spread(figures, "blocks.bandwidth", bandwidths, "GB/s")
    figures.finish()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="TYPE", help=f"of {', '.join(KINDS)}; all where none is given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32, help="written by each sequence")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2, help="of llama.cpp; ours uses all cores")
    parser.add_argument("--prepare", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.kinds = options.kinds or KINDS
    for kind in options.kinds:
        if kind not in KINDS:
            parser.error(f"{kind} is none of {', '.join(KINDS)}")
    if options.prepare:
        prepare(options.prepare, options.kinds, options.layers, options.threads)
    else:
        with comparison.work("blocks") as folder:
            compare(options, pathlib.Path(folder))


if __name__ == "__main__":
    main()
