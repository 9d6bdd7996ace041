"""What the framework costs: a whole society beside the engine's own time on the same requests.

`polylogue run` notes in `times.jsonl` how long the engine's thread was busy with the requests of each tick. The
rest of the wall time is actors, channel, protocol, events and files. Tokens a second of the society over those of
the engine alone on the same requests is therefore the share of the time that the engine was busy.

What this does not see: requests that come late make smaller steps, and actors that take a core make steps slower;
both count as the engine's time here. An engine that had all requests of a run at once might be faster.
"""

import argparse
import json
import pathlib
import statistics
import subprocess

import comparison


def play(program, scenario, out, changes):
    arguments = [program, "run", scenario, "--display", "none", "--out", out]
    for change in changes:
        arguments += ["--set", change]
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, cwd=comparison.ROOT)
    lines = [json.loads(line) for line in (out / "times.jsonl").read_text().splitlines()]
    # What came before the end of the first tick is loading and warming up.
    wall = (lines[-1]["milliseconds"] - lines[0]["milliseconds"]) / 1e3
    total = {}
    for line in lines[1:]:
        for key, value in line.get("engine", {}).items():
            total[key] = total.get(key, 0) + value
    busy = sum(total[key] for key in ("text_time", "class_time", "training_time")) / 1e9
    tokens = sum(total[key] for key in ("prompt_tokens", "written_tokens", "class_tokens"))
    return {"wall": wall, "busy": busy, "tokens": tokens, "steps": total["steps"], "rows": total["rows"],
            "shared": total["shared_tokens"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", type=pathlib.Path, default=comparison.ROOT / "scenarios/customer_service")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--set", action="append", default=["triggers=[]"])
    options = parser.parse_args()
    figures = comparison.Figures()
    program = comparison.built("POLYLOGUE", ["-p", "polylogue"], "polylogue")
    shares, speeds, alone = [], [], []
    with comparison.work("society") as folder:
        for turn in range(options.rounds):
            changes = [*options.set, f"episodes={options.episodes}"]
            found = play(program, options.scenario, pathlib.Path(folder) / f"run{turn}", changes)
            comparison.say(f"round {turn + 1}: {found}")
            shares.append(found["busy"] / found["wall"])
            speeds.append(found["tokens"] / found["wall"])
            alone.append(found["tokens"] / found["busy"])
    figures.add("society.tokens", statistics.median(speeds), "tokens/s")
    figures.add("society.engine_alone", statistics.median(alone), "tokens/s")
    figures.add("society.ratio.lowest", min(shares), "ratio")
    figures.add("society.ratio.highest", max(shares), "ratio")
    figures.add("society.ratio", statistics.median(shares), "ratio", at_least=0.9)
    figures.finish()


if __name__ == "__main__":
    main()
