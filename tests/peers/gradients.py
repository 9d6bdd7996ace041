"""The gradient of every trained tensor beside PyTorch's: every family, every adapter kind, plain and recomputed."""

import argparse
import pathlib

import torch
from safetensors.torch import save_file

import adapters
import comparison
import families

BAR = 1e-4
LENGTHS = {"tiny": (13, 6, 9), "large": (48, 17, 33)}
CLASSES = torch.tensor([1, 0, 2])


class Comparison:
    """One family at one size."""

    def __init__(self, name, size, folder, peer, figures):
        self.name, self.peer, self.figures = name, peer, figures
        self.model, self.folder = folder / name, folder
        self.model.mkdir()
        families.save(families.build(name, size), name, self.model)
        self.rows = families.rows(name, size, LENGTHS[size], seed=17)
        self.weights = None
        self.request = {"tokens": [row.tolist() for row in self.rows]}
        if not families.is_decoder(name):
            generator = torch.Generator().manual_seed(9)
            width = families.SIZES[size]["hidden"]
            self.weights = torch.randn(sum(LENGTHS[size]), width, generator=generator)
            path = folder / "weights.safetensors"
            save_file({"weights": self.weights}, path)
            self.request["weights"] = str(path)

    def run(self, kind):
        target = self.folder / f"{self.name}-{kind}"
        model = adapters.attach(adapters.read(self.model, None), self.name, kind, self.model, seed=23)
        model.save_pretrained(target)
        again = adapters.read(self.model, target, self.name if adapters.headed(kind) else None)
        expected = adapters.expected(again, self.rows, self.weights, CLASSES)
        request = self.request | {"adapter": str(target)}
        if adapters.headed(kind):
            request["labels"] = CLASSES.tolist()
        for recompute in (False, True):
            label = f"gradients.{self.name}.{kind}" + (".recomputed" if recompute else "")
            try:
                found = self.peer.tensors("gradients", self.model, request | {"recompute": recompute})
            except RuntimeError as error:
                self.figures.failed(label, error)
                continue
            self.compare(label, found, expected)

    def compare(self, label, found, expected):
        gradients = {n.removeprefix("grad/"): t for n, t in expected.items() if n.startswith("grad/")}
        worst, where = 0.0, ""
        for name, theirs in gradients.items():
            if name not in found:
                self.figures.failed(label, f"{name} has no gradient")
                continue
            difference = comparison.relative(found[name], theirs)
            if difference > worst:
                worst, where = difference, name
        comparison.say(f"{label}: {len(gradients)} tensors, worst {where}")
        loss = comparison.relative(found["loss"].reshape(1), expected["loss"])
        self.figures.add(f"{label}.loss", loss, "relative", at_most=BAR)
        self.figures.add(label, worst, "relative", at_most=BAR)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=list(families.SIZES), default="tiny")
    parser.add_argument("names", nargs="*", help="families; all where none is given")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = comparison.Figures()
    with comparison.work("gradients") as folder:
        folder = pathlib.Path(folder)
        peer = comparison.Peer(folder)
        for name in options.names or families.FAMILIES:
            case = Comparison(name, options.size, folder, peer, figures)
            for kind in adapters.kinds(name):
                case.run(kind)
    figures.finish()


if __name__ == "__main__":
    main()
