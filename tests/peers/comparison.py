"""What every comparison needs: our binary, a folder to work in, figures with their bars."""

import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Figures:
    """Prints one `name value unit` line a figure and remembers the bars that were missed."""

    def __init__(self):
        self.missed = []

    def add(self, name, value, unit, at_most=None, at_least=None):
        print(f"{name} {value:.6g} {unit}", flush=True)
        # Written so that a value that is not a number misses its bar.
        if at_most is not None and not value <= at_most:
            self.missed.append(f"{name} is {value:.6g} {unit}, bar: at most {at_most:g}")
        if at_least is not None and not value >= at_least:
            self.missed.append(f"{name} is {value:.6g} {unit}, bar: at least {at_least:g}")

    def failed(self, name, reason):
        """A comparison that could not be made counts as a missed bar."""
        self.missed.append(f"{name}: {reason}")
        say(self.missed[-1])

    def finish(self):
        for line in self.missed:
            say(f"MISSED {line}")
        sys.exit(1 if self.missed else 0)


def say(text):
    print(text, file=sys.stderr, flush=True)


def relative(ours, theirs):
    """Largest difference over the largest value of the reference; infinite where they do not compare."""
    if ours.shape != theirs.shape:
        return math.inf
    found = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    # `max` over several would drop what is not a number.
    return math.inf if math.isnan(found) else found


def outside(variable, name):
    """A folder that is not part of the project: where the environment says, or in the folder beside it."""
    folder = pathlib.Path(os.environ.get(variable, ROOT / "../shared" / name)).resolve()
    if not folder.is_dir():
        say(f"there is no folder {folder}; name the folder of {name} in {variable}")
        sys.exit(2)
    return folder


def models():
    """The folder of downloaded models."""
    return outside("POLYLOGUE_MODELS", "models")


def data():
    """The folder of downloaded data."""
    return outside("POLYLOGUE_DATA", "data")


def work(name):
    """A new folder for one comparison; removed when the returned object is dropped."""
    return tempfile.TemporaryDirectory(prefix=f"polylogue-{name}-")


def built(variable, arguments, path):
    """A program of ours: the one the environment names, or built now."""
    if variable in os.environ:
        return pathlib.Path(os.environ[variable])
    subprocess.run(["cargo", "build", "--release", "-q", *arguments], cwd=ROOT, check=True, stdout=sys.stderr)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / path


class Peer:
    """Our side: `agents/examples/peer.rs` on one folder of requests and answers."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        arguments = ["-p", "polylogue-agents", "--example", "peer"]
        self.program = built("POLYLOGUE_PEER", arguments, "examples/peer")

    def run(self, command, model, request, out=None, threads=None):
        """What `peer` printed; raises RuntimeError with its words where it refuses."""
        path = self.folder / "request.json"
        path.write_text(json.dumps(request))
        environment = dict(os.environ)
        if threads is not None:
            environment |= {"RAYON_NUM_THREADS": str(threads), "CANDLE_NUM_THREADS": "1"}
        arguments = [self.program, command, model, path] + ([] if out is None else [out])
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"peer {command}: {done.stderr.strip()}")
        return done.stdout

    def tensors(self, command, model, request):
        """The tensors that `peer` wrote."""
        from safetensors.torch import load

        out = self.folder / "out.safetensors"
        self.run(command, model, request, out)
        # Not mapped into memory: the next answer goes into the same file.
        return load(out.read_bytes())


def worker(script, *arguments):
    """Runs a part of a comparison in a process of its own; what its last line says."""
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else None
