"""What the framework costs: a whole society beside an engine alone that is given the same requests.

`sim/examples/alone.rs` plays the scenario as `polylogue run` does, with every event recorded, and hears what its
engine is asked: which prompts, under which weights, with which draws, which steps of which jobs. Then it gives all of
it at once to an engine without a society. Tokens a second of the society over those of the engine alone are therefore
the seconds of the engine alone over the seconds of the society. Two engines are asked: one with the society's own
limits (as many sequences at once as its episodes side by side can need), which is what the society could have had,
and one with room for 256, which is what the machine could have done if all had been known at once.
"""

import argparse
import json
import pathlib
import statistics
import subprocess

import comparison

# What a scenario is changed by: no agent learns while it plays, or as the scenario says.
PARTS = {"calm": ["triggers=[]"], "learning": []}


def play(program, scenario, out, changes):
    """Both sides once, in seconds and counts."""
    done = subprocess.run([program, scenario, out, *changes], check=True, stdout=subprocess.PIPE, text=True,
                          cwd=comparison.ROOT)
    found = json.loads(done.stdout.splitlines()[-1])
    lines = [json.loads(line).get("engine", {}) for line in (out / "times.jsonl").read_text().splitlines()]
    played = {key: sum(line.get(key, 0) for line in lines) for key in found["alone"]["did"]}
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
    shares, widest, speeds, alone = [], [], [], []
    with comparison.work("society") as folder:
        for turn in range(rounds):
            found, played = play(program, scenario, pathlib.Path(folder) / f"run{turn}", changes)
            same, wide = found["alone"], found["wide"]
            if not texts(played) == texts(same["did"]) == texts(wide["did"]):
                figures.failed(name, f"not the same texts: {texts(played)}, {texts(same['did'])}, "
                                     f"{texts(wide['did'])}")
                return
            tokens = sum(texts(played))
            comparison.say(
                f"{name}, round {turn + 1}: society {found['society']:.2f} s, {rows(played):.1f} sequences a step; "
                f"engine alone {same['seconds']:.2f} s, {rows(same['did']):.1f}; with room for "
                f"{wide['sequences']} {wide['seconds']:.2f} s, {rows(wide['did']):.1f}; {tokens} tokens, "
                f"{same['did']['training_steps']} steps of jobs")
            shares.append(same["seconds"] / found["society"])
            widest.append(wide["seconds"] / found["society"])
            speeds.append(tokens / found["society"])
            alone.append(tokens / same["seconds"])
    figures.add(f"{name}.tokens", statistics.median(speeds), "tokens/s")
    figures.add(f"{name}.engine_alone", statistics.median(alone), "tokens/s")
    figures.add(f"{name}.ratio.lowest", min(shares), "ratio")
    figures.add(f"{name}.ratio.highest", max(shares), "ratio")
    figures.add(f"{name}.ratio", statistics.median(shares), "ratio", at_least=0.9)
    figures.add(f"{name}.ratio_to_256", statistics.median(widest), "ratio")


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
