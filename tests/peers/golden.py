"""Writes tests/golden: a tiny random model per family, adapters, and what Python gives for them."""

import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file

import adapters
import families

ROOT = pathlib.Path(__file__).resolve().parents[2]
LABELS = torch.tensor([2, 0])


def weights_for(name, rows, width):
    if families.is_decoder(name):
        return None
    generator = torch.Generator().manual_seed(5)
    return torch.randn(sum(map(len, rows)), width, generator=generator)


def write(name, folder, kinds):
    """One family's fixtures, or those of one kind of adapter on the model that is there."""
    whole = kinds == adapters.kinds(name)
    if whole:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        families.save(families.build(name), name, folder)
    rows = families.rows(name, seed=sum(name.encode()))
    weights = weights_for(name, rows, families.SIZES["tiny"]["hidden"])
    plain = adapters.expected(adapters.read(folder, None), rows, weights, gradients=False)
    if whole:
        save_file(plain, folder / "expected.safetensors")
    for kind in kinds:
        target = folder / kind
        model = adapters.attach(adapters.read(folder, None), name, kind, folder)
        model.save_pretrained(target)
        (target / "README.md").unlink(missing_ok=True)
        path = target / "adapter_config.json"
        config = json.loads(path.read_text())
        config["base_model_name_or_path"] = None
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        again = adapters.read(folder, target, name if adapters.headed(kind) else None)
        given = adapters.expected(again, rows, weights, LABELS)
        differs = (given["hidden.0"] - plain["hidden.0"]).abs().max()
        assert differs > 1e-3, f"{name}/{kind} does nothing"
        assert all(t.abs().max() > 0 for n, t in given.items() if n.startswith("grad/")), f"{name}/{kind}"
        save_file(given, target / "expected.safetensors")
        print(f"golden.{name}.{kind}.difference {differs:.6f} hidden")


def main():
    torch.set_num_threads(1)
    for wanted in sys.argv[1:] or families.FAMILIES:
        name, _, kind = wanted.partition("/")
        write(name, ROOT / "tests/golden" / name, [kind] if kind else adapters.kinds(name))


if __name__ == "__main__":
    main()
