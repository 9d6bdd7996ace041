"""What transfer from MiniLM is worth: `polylogue tune` beside logistic regression on the same embeddings.

Intents of bank customers (banking77): frozen base, LoRA, ten examples a class. Sentiment of film reviews:
five-fold, frozen and LoRA. The settings of ours are those of the shipped recipe and the defaults.
"""

import argparse
import csv
import math
import os
import pathlib
import statistics
import subprocess

import numpy
import torch
import transformers as tf
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import comparison

RECIPE = "scenarios/bert_banking77"
FROZEN_WITHIN, LORA, FEW, SHOTS, REPEATS, SEEDS, FOLDS = 0.005, 0.935, 0.82, 10, 5, 3, 5
PARTS = ["frozen", "lora", "shots", "sentiment-frozen", "sentiment-lora"]


def rows(path):
    with open(path, newline="") as file:
        table = list(csv.DictReader(file))
    return [row["text"] for row in table], numpy.array([row["category"] for row in table])


def lines(path):
    return [line.strip() for line in open(path, encoding="utf-8") if line.strip()]


def embed(directory, texts):
    """MiniLM's sentence embeddings, as its authors take them: mean over the mask, length one."""
    tokenizer = tf.AutoTokenizer.from_pretrained(directory)
    model = tf.AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    # Texts of like length together: little padding.
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    found = torch.empty(len(texts), model.config.hidden_size)
    for start in range(0, len(order), 64):
        part = order[start : start + 64]
        batch = tokenizer(
            [texts[index] for index in part], padding=True, truncation=True, max_length=256,
            return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].float()
        mean = (hidden * mask).sum(1) / mask.sum(1)
        found[part] = torch.nn.functional.normalize(mean, dim=-1)
    return found.numpy()


def probe(strength, scaled):
    """A linear probe; `strength` is scikit-learn's C, where 1 is its default."""
    regression = LogisticRegression(C=strength, max_iter=3000)
    return make_pipeline(StandardScaler(), regression) if scaled else regression


# The default, and two that suit embeddings of length one better; the best of them is what ours must match.
PROBES = {"default": probe(1.0, False), "c10": probe(10.0, False), "scaled": probe(0.01, True)}


def interval(values):
    """Mean and half of its 95 % interval by Student's t."""
    if len(values) < 2:
        return statistics.fmean(values), math.nan
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), float(half)


class Ours:
    """`polylogue tune` in a process of its own."""

    def __init__(self, folder, figures, threads):
        self.folder, self.figures = folder, figures
        self.program = comparison.built("POLYLOGUE", ["--bin", "polylogue"], "polylogue")
        self.environment = dict(os.environ) | {"RAYON_NUM_THREADS": str(threads), "CANDLE_NUM_THREADS": "1"}

    def tune(self, label, *arguments):
        """Accuracy and half of its interval; what else matters is printed under `intent.ours.LABEL`."""
        arguments = [str(argument) for argument in arguments]
        comparison.say(f"polylogue tune {' '.join(arguments)}")
        done = subprocess.run(
            [self.program, "tune", *arguments, "--figures", "--out", self.folder / label],
            cwd=comparison.ROOT, env=self.environment, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            self.figures.failed(f"intent.ours.{label}", f"exit code {done.returncode}")
            return None, math.nan
        found = {}
        for line in done.stdout.splitlines():
            name, value, _ = line.split()
            found[name] = float(value)
        parts = [v for n, v in found.items() if n.endswith("_accuracy")]
        comparison.say(f"{label}: {found}")
        self.figures.add(f"intent.ours.{label}.seconds", found["seconds"], "s")
        half = math.nan
        if len(parts) > 1:
            half = interval(parts)[1]
            self.figures.add(f"intent.ours.{label}.half_interval", half, "share")
            for number, part in enumerate(parts):
                self.figures.add(f"intent.ours.{label}.{number}", part, "share")
        return found["accuracy"], half


def banking(figures, ours, directory, wanted):
    data = comparison.data() / "intent-banking77"
    files = ["--model", directory, "--train", data / "train.csv", "--test", data / "test.csv"]
    best = math.nan
    if {"frozen", "shots"} & wanted:
        (train, known), (test, truth) = rows(data / "train.csv"), rows(data / "test.csv")
        embedded = embed(directory, train + test)
        x, y = embedded[: len(train)], embedded[len(train) :]
    if "frozen" in wanted:
        scores = {}
        for name, model in PROBES.items():
            scores[name] = model.fit(x, known).score(y, truth)
            figures.add(f"intent.sklearn.banking77.{name}", scores[name], "share")
        best = max(scores.values())
        found, _ = ours.tune("banking77.frozen", RECIPE, *files, "--method", "frozen")
        if found is not None:
            figures.add("intent.ours.banking77.frozen", found, "share")
            figures.add(
                "intent.banking77.frozen.difference", found - best, "share", at_least=-FROZEN_WITHIN)
    if "lora" in wanted:
        found, _ = ours.tune("banking77.lora", RECIPE, *files, "--repeats", SEEDS)
        if found is not None:
            figures.add("intent.ours.banking77.lora", found, "share", at_least=LORA)
    if "shots" in wanted:
        few_probe(figures, x, known, y, truth)
        found, _ = ours.tune(
            "banking77.shots", RECIPE, *files, "--method", "frozen", "--shots", SHOTS, "--repeats", REPEATS)
        if found is not None:
            figures.add("intent.ours.banking77.shots", found, "share", at_least=FEW)


def few_probe(figures, x, known, y, truth):
    """The probes on ten examples of each class, five draws of their own."""
    for name, model in PROBES.items():
        scores = []
        for seed in range(REPEATS):
            stream = numpy.random.default_rng(seed)
            chosen = numpy.concatenate([
                stream.choice(numpy.flatnonzero(known == label), SHOTS, replace=False)
                for label in sorted(set(known))])
            scores.append(model.fit(x[chosen], known[chosen]).score(y, truth))
        mean, half = interval(scores)
        figures.add(f"intent.sklearn.banking77.shots.{name}", mean, "share")
        figures.add(f"intent.sklearn.banking77.shots.{name}.half_interval", half, "share")


def sentiment(figures, ours, directory, wanted):
    """Both sides have folds of their own, so that only the means and their intervals compare."""
    data = comparison.data() / "sentiment-movies/sentence_polarity"
    files = {label: data / f"rt-polarity.{label}" for label in ("pos", "neg")}
    texts = {label: lines(path) for label, path in files.items()}
    truth = numpy.repeat(list(texts), [len(part) for part in texts.values()])
    embedded = embed(directory, [text for part in texts.values() for text in part])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=7)
    best = -math.inf
    for name, model in PROBES.items():
        scores = [
            model.fit(embedded[a], truth[a]).score(embedded[b], truth[b])
            for a, b in folds.split(embedded, truth)]
        mean, half = interval(scores)
        best = max(best, mean)
        figures.add(f"intent.sklearn.sentiment.{name}", mean, "share")
        figures.add(f"intent.sklearn.sentiment.{name}.half_interval", half, "share")
    sources = [part for label, path in files.items() for part in ("--train", f"{label}={path}")]
    sources += ["--folds", FOLDS, "--model", directory]
    settings = {"frozen": ["--method", "frozen"], "lora": ["--method", "lora", "--dropout", "0.1", "--epochs", "1"]}
    for method, more in settings.items():
        if f"sentiment-{method}" not in wanted:
            continue
        found, half = ours.tune(f"sentiment.{method}", *sources, *more)
        if found is not None:
            # Frozen, ours is a linear probe as well; with LoRA it must be better than one, outside the interval.
            bar = -FROZEN_WITHIN if method == "frozen" else half
            figures.add(f"intent.ours.sentiment.{method}", found, "share")
            figures.add(f"intent.sentiment.{method}.difference", found - best, "share", at_least=bar)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all where none is given")
    options = parser.parse_args()
    wanted = set(options.parts or PARTS)
    if unknown := wanted - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    torch.set_num_threads(options.threads)
    figures = comparison.Figures()
    directory = comparison.models() / "all-MiniLM-L6-v2"
    with comparison.work("intent") as folder:
        ours = Ours(pathlib.Path(folder), figures, options.threads)
        if {"frozen", "lora", "shots"} & wanted:
            banking(figures, ours, directory, wanted)
        if {"sentiment-frozen", "sentiment-lora"} & wanted:
            sentiment(figures, ours, directory, wanted)
    figures.finish()


if __name__ == "__main__":
    main()
