"""What the framework costs: a whole society beside an engine alone that is asked for the same.

`sim/examples/alone.rs` plays the scenario as `polylogue run` does, with every event recorded, and hears what its
engine is asked: which prompts, under which weights, with which draws, which steps of which jobs. Then an engine
without a society is asked for all of it, in two ways. In turn: an episode asks for its next turn when it has the
answer to its last one, and as many episodes are in progress as were in the society; so much any program could do that
drives an engine by itself, and the bar is set on it. At once: as if all prompts had been known in advance, which they
cannot be, because a reply is asked for with the class that was found. Tokens a second of the society over those of
the engine alone are the seconds of the engine alone over the seconds of the society.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess

import comparison

# What a scenario is changed by: no agent learns while it plays, or as the scenario says.
PARTS = {"calm": ["triggers=[]"], "learning": []}


def play(program, scenario, out, changes):
    """Both sides once, in seconds and counts."""
    cores = {"CANDLE_NUM_THREADS": "1", "RAYON_NUM_THREADS": str(os.cpu_count())}  # as `polylogue` has them
    done = subprocess.run([program, scenario, out, *changes], check=True, stdout=subprocess.PIPE, text=True,
                          cwd=comparison.ROOT, env=os.environ | cores)
    found = json.loads(done.stdout.splitlines()[-1])
    lines = [json.loads(line).get("engine", {}) for line in (out / "times.jsonl").read_text().splitlines()]
    played = {key: sum(line.get(key, 0) for line in lines) for key in found["in_turn"]["did"]}
    return found, played


def texts(did):
    """What must be equal on both sides; how much of it prompts shared depends on who was faster."""
    return did["prompt_tokens"] + did["shared_tokens"], did["written_tokens"], did["class_tokens"]


def rows(did):
    """How many sequences a step had, in the mean."""
    return did["rows"] / max(did["steps"], 1)


def compare(figures, name, scenario, changes, rounds):
    """A society and its engine alone, in turn, some rounds."""
    program = comparison.built("POLYLOGUE_ALONE", ["-p", "polylogue-sim", "--example", "alone"], "examples/alone")
    shares, oracle, speeds, alone = [], [], [], []
    with comparison.work("society") as folder:
        for turn in range(rounds):
            found, played = play(program, scenario, pathlib.Path(folder) / f"run{turn}", changes)
            in_turn, at_once = found["in_turn"], found["at_once"]
            if not texts(played) == texts(in_turn["did"]) == texts(at_once["did"]):
                figures.failed(name, f"not the same texts: {texts(played)}, {texts(in_turn['did'])}, "
                                     f"{texts(at_once['did'])}")
                return
            tokens = sum(texts(played))
            comparison.say(
                f"{name}, round {turn + 1}: society {found['society']:.2f} s, {rows(played):.1f} sequences a step; "
                f"engine alone in turn {in_turn['seconds']:.2f} s, {rows(in_turn['did']):.1f}; at once "
                f"{at_once['seconds']:.2f} s, {rows(at_once['did']):.1f}; {tokens} tokens, "
                f"{in_turn['did']['training_steps']} steps of jobs")
            shares.append(in_turn["seconds"] / found["society"])
            oracle.append(at_once["seconds"] / found["society"])
            speeds.append(tokens / found["society"])
            alone.append(tokens / in_turn["seconds"])
    figures.add(f"{name}.tokens", statistics.median(speeds), "tokens/s")
    figures.add(f"{name}.engine_alone", statistics.median(alone), "tokens/s")
    figures.add(f"{name}.ratio.lowest", min(shares), "ratio")
    figures.add(f"{name}.ratio.highest", max(shares), "ratio")
    figures.add(f"{name}.ratio", statistics.median(shares), "ratio", at_least=0.9)
    figures.add(f"{name}.at_once.lowest", min(oracle), "ratio")
    figures.add(f"{name}.at_once.highest", max(oracle), "ratio")
    figures.add(f"{name}.at_once", statistics.median(oracle), "ratio")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all where none is given")
    parser.add_argument("--scenario", type=pathlib.Path, default=comparison.ROOT / "scenarios/customer_service")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    figures = comparison.Figures()
    for part in options.parts or PARTS:
        changes = [*options.set, f"episodes={options.episodes}", *PARTS[part]]
        compare(figures, f"society.{part}", options.scenario, changes, options.rounds)
    figures.finish()


if __name__ == "__main__":
    main()
