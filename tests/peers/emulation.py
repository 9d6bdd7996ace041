"""The kernels for a GPU, run on a CPU by an emulation, beside the same in numpy with 64 bits.

What is compared is the source that NVRTC compiles on a card. What only a card can show (speed, races, its own
rounding of exponentials) is shown by `cargo test --features cuda -- gpu` there. Needs a C++ compiler.
"""

import ctypes
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
PAGE, SPAN = 32, 256
KINDS = ("F32", "BF16", "F16")
# What rounding a result to this kind may cost, relative to the largest; sums are in 32 bits.
ROUNDED = {"F32": 2e-6, "BF16": 8e-3, "F16": 1e-3}
failures = 0


def say(what, worst, bound):
    global failures
    failures += not worst <= bound
    print(f"{'ok  ' if worst <= bound else 'MISS'} {what}: {worst:.2e} (at most {bound:.0e})")


def compiled(folder, *settings):
    """The kernels of one file for one shape."""
    name = folder / ("-".join(settings).replace("=", "") + ".so")
    defines = [f"-D{setting}" for setting in settings]
    subprocess.run(["g++", "-std=c++17", "-O2", "-w", "-shared", "-fPIC", *defines, HERE / "emulation.cpp", "-o", name], check=True)
    return ctypes.CDLL(str(name))


def kept(x, kind):
    """Numbers as the kernel keeps them, and the same in 64 bits."""
    x = np.ascontiguousarray(x, np.float32)
    if kind == "F32":
        return x, x.astype(np.float64)
    if kind == "F16":
        half = x.astype(np.float16)
        return half.view(np.uint16), half.astype(np.float64)
    bits = x.view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return bits.astype(np.uint16), (bits << 16).astype(np.uint32).view(np.float32).astype(np.float64)


def read(x, kind):
    if kind == "F32":
        return x.astype(np.float64)
    if kind == "F16":
        return x.view(np.float16).astype(np.float64)
    return (x.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def at(x):
    return ctypes.c_void_p(x.ctypes.data)


def words(*values):
    return np.array(values, np.uint64)


def attention(folder, random):
    """Keys and values kept token by token, then what queries at any position find."""
    shapes = [(64, 9, 3), (16, 4, 4), (80, 8, 1), (128, 6, 2)]
    for kind in KINDS:
        for width, heads, key_heads in shapes:
            settings = [f"WIDTH={width}", f"HEADS={heads}", f"KEY_HEADS={key_heads}", f"PAGE={PAGE}", f"SPAN={SPAN}"]
            queries_of_block = min(heads // key_heads, 4)
            library = compiled(folder, "PAGED", f"NUMBER_{kind}", *settings, f"QUERIES={queries_of_block}")
            layers, layer, lengths = 2, 1, (1, 33, 300, 700)
            dtype = np.float32 if kind == "F32" else np.uint16
            pages = [[np.zeros(layers * 2 * key_heads * PAGE * width, dtype) for _ in range(-(-n // PAGE))] for n in lengths]
            table = words(*[page.ctypes.data for own in pages for page in own])
            begins = np.cumsum([0] + [len(own) for own in pages])
            # Every token of every sequence is a row, with some rows of nobody in between.
            rows = [(s, p) for s, n in enumerate(lengths) for p in range(n)]
            rows[5:5] = [None, None]
            first = np.array([0 if row is None else begins[row[0]] for row in rows], np.uint32)
            positions = np.array([-1 if row is None else row[1] for row in rows], np.int32)
            keys, keys64 = kept(random.normal(size=(len(rows), key_heads, width)), kind)
            values, values64 = kept(random.normal(size=(len(rows), key_heads, width)), kind)
            library.run_keep(at(keys), at(values), at(table), at(first), at(positions), layer, len(rows))
            asked = [i for i, row in enumerate(rows) if row is None or row[1] in (0, 31, 32, 255, 256, 299, 511, 699)]
            q, q64 = kept(random.normal(size=(len(asked), heads, width)), kind)
            ask_first, ask_positions = (np.ascontiguousarray(x[asked]) for x in (first, positions))
            short = [place for place, i in enumerate(asked) if rows[i] is None or rows[i][1] < SPAN]
            bits = {}
            for window, spans in ((0, 3), (0, 5), (40, 3), (0, 1)):
                # One span looks at its own positions only.
                chosen = short if spans == 1 else list(range(len(asked)))
                own_q, own_first, own_positions = (np.ascontiguousarray(x[chosen]) for x in (q, ask_first, ask_positions))
                mixed = np.full((len(chosen), heads, width), 7, dtype)
                partial = np.full((len(chosen), heads, spans, width + 2), np.nan, np.float32)
                scale = width**-0.5
                library.run_attend(at(own_q), at(table), at(own_first), at(own_positions), layer, window,
                                   ctypes.c_float(scale), at(mixed), at(partial), len(chosen), spans)
                found, worst = read(mixed, kind), 0.0
                if not window:
                    bits[spans] = mixed if spans == 1 else mixed[short]
                for place, i in enumerate(asked[place] for place in chosen):
                    if rows[i] is None:
                        worst = max(worst, np.abs(found[place]).max())
                        continue
                    sequence, position = rows[i]
                    own = [j for j, row in enumerate(rows) if row and row[0] == sequence and row[1] <= position]
                    own = own[-window:] if window else own
                    for head in range(heads):
                        k, v = keys64[own, head // (heads // key_heads)], values64[own, head // (heads // key_heads)]
                        score = k @ q64[chosen[place], head] * scale
                        share = np.exp(score - score.max())
                        expected = share @ v / share.sum()
                        worst = max(worst, np.abs(found[place, head] - expected).max())
                say(f"attention {kind} {width} x {heads}/{key_heads}, window {window}, {spans} spans", worst, ROUNDED[kind])
            # A row's bits do not tell how long the others are.
            differing = sum(int((bits[1] != other).sum()) for other in bits.values())
            say(f"attention {kind} {width} x {heads}/{key_heads}, bits that depend on company", differing, 0)


def low_rank(folder, random):
    """Rows of different adapters, ranks and methods in one launch."""
    rows, width, out, most = 8, 72, 300, 9
    for kind in KINDS:
        library = compiled(folder, "LOW_RANK", f"NUMBER_{kind}")
        x, x64 = kept(random.normal(size=(rows, width)), kind)
        bias, bias64 = kept(random.normal(size=out), kind)
        base = random.normal(size=(rows, out))
        y, y64 = kept(base, kind)
        changes = np.zeros((rows, 8), np.uint64)
        narrow = np.full((rows, most), np.nan, np.float32)
        held, expected = [], y64.copy()

        def part(*shape):
            """A part of an adapter in 64 bits, and its address as the kernel reads it."""
            own, exact = kept(random.normal(size=shape), kind)
            held.append(own)
            return exact, own.ctypes.data

        # Nobody, LoRA of three ranks, DoRA, VeRA, an output of IA3, and a LoRA of a row that shares its adapter.
        for row, method in enumerate(["none", "lora1", "lora8", "lora9", "dora", "vera", "ia3", "lora9"]):
            if method == "none":
                continue
            if method == "ia3":
                factor, changes[row, 5] = part(out)
                expected[row] *= factor
                continue
            rank = int(method[4:] or 4) if method.startswith("lora") else 4
            (a, changes[row, 0]), (b, changes[row, 1]) = part(rank, width), part(out, rank)
            scale, changes[row, 6] = np.float32(0.25 if method != "vera" else 1), rank
            changes[row, 7] = int(np.float32(scale).view(np.uint32))
            u = scale * (a @ x64[row])
            if method == "vera":
                (inner, changes[row, 2]), (outer, changes[row, 3]) = part(rank), part(out)
                expected[row] += outer * (b @ (inner * u))
            elif method == "dora":
                stretch, changes[row, 4] = part(out)
                expected[row] = stretch * (expected[row] - bias64 + b @ u) + bias64
            else:
                expected[row] += b @ u
        library.run_low_rank(at(x), width, at(changes), most, at(narrow), at(y), out, at(bias), rows)
        worst = np.abs(read(y, kind) - expected).max() / np.abs(expected).max()
        say(f"adapters {kind}", worst, ROUNDED[kind])


def allowed(z, temperature, top_k, top_p, min_p):
    """The probabilities of the sampler: sorted, cut three times, as `agents/src/sampler.rs` does it."""
    weights = np.exp((z.astype(np.float64) - np.float64(z.max())) / temperature)
    order = np.lexsort((np.arange(len(z)), -z.astype(np.float64)))
    left = len(z)
    if top_k:
        left = min(left, top_k)
    if top_p < 1:
        sums = np.cumsum(weights[order[:left]])
        left = int(np.searchsorted(sums, top_p * sums[-1])) + 1
    left = max(1, int((weights[order[:left]] >= min_p).sum()))
    share = np.zeros(len(z))
    share[order[:left]] = weights[order[:left]]
    return share / share.sum()


def draws(folder, random):
    """Tokens for many draws of one row: those of the cumulative probabilities, but for roundings at edges."""
    for threads, vocabulary in ((64, 50), (64, 1000), (128, 3001)):
        library = compiled(folder, f"THREADS={threads}")
        for name, temperature, top_k, top_p, min_p in (
            ("likeliest", 0, 0, 1, 0), ("open", 0.8, 0, 1, 0), ("top_k", 1.3, 7, 1, 0), ("top_p", 1.0, 0, 0.7, 0),
            ("min_p", 1.0, 0, 1, 0.1), ("all three", 1.5, 40, 0.9, 0.05), ("one left", 1.0, 1, 1, 0),
            ("a cut within ties", 1.0, 4, 0.5, 0),
        ):
            # Coarse logits have many ties.
            z = (random.normal(size=vocabulary) * 2).round(1).astype(np.float32)
            if name == "a cut within ties":
                z = np.where(random.permutation(vocabulary) < vocabulary // 2, 2, 0).astype(np.float32)
            z[3] = z.max()
            count = 60
            rows = np.tile(z, (count, 1))
            numbers = (np.arange(count) + 0.5) / count
            asks = np.array([[temperature, top_k, top_p, min_p, number] for number in numbers])
            tokens = np.zeros(count, np.uint32)
            library.run_draw(at(rows), vocabulary, at(asks), at(tokens), count)
            if temperature == 0:
                say(f"draw of {vocabulary}, {name}", float((tokens != int(np.argmax(z))).mean()), 0)
                continue
            share = allowed(z, temperature, top_k, top_p, min_p)
            ends = np.cumsum(share)
            # How far a draw lies outside of what its token has of the line from 0 to 1.
            outside = np.maximum(0, np.maximum(ends[tokens] - share[tokens] - numbers, numbers - ends[tokens]))
            outside[share[tokens] == 0] = 1
            say(f"draw of {vocabulary}, {name}", float(outside.max()), 1e-6)


def main():
    random = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        low_rank(folder, random)
        draws(folder, random)
        attention(folder, random)
    print(f"{failures} missed" if failures else "every bar met")
    sys.exit(failures > 0)


main()
