"""Writes tests/golden/gguf: small GGUF files made by the `gguf` package, and what Python gives for them.

Models are transformers', tokenizers are SentencePiece's and transformers', the file is written and quantised
by llama.cpp's own package under the names of its table. Order of rows, offsets and entries follow
llama.cpp's `convert_hf_to_gguf.py`. Each file is read again by transformers' GGUF loader, which undoes all
of that in code of its own, and must give the weights that were meant.
"""

import io
import json
import pathlib
import shutil
import tempfile

import gguf
import numpy as np
import sentencepiece
import torch
import transformers as tf
from gguf import GGMLQuantizationType as Type
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import TikTokenConverter

import families

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests/golden/gguf"
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 64, "max_position_embeddings": 128,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}
YARN = {
    "rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
GEMMA = {
    "num_hidden_layers": 6, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32,
    "query_pre_attn_scalar": 16, "sliding_window": 4, "rope_parameters": {
        "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    },
}
# File: (family, architecture in GGUF, what differs, type of matrices, whether the loader keeps the rest).
FILES = {
    "llama-f32": ("llama", "LLAMA", {"rope_parameters": families.ROPE}, Type.F32, True),
    "llama-q8_0": ("llama", "LLAMA", {"rope_parameters": families.ROPE, "vocab_size": 448}, Type.Q8_0, True),
    "llama3-q8_0": ("llama", "LLAMA", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}, Type.Q8_0, False),
    "llama-bias-f16": ("llama", "LLAMA", {"rope_parameters": LINEAR, "attention_bias": True}, Type.F16, False),
    "llama-yarn-q4_0": ("llama", "LLAMA", {"rope_parameters": YARN}, Type.Q4_0, False),
    "qwen2-q8_0": ("qwen2", "QWEN2", {
        "rope_parameters": families.ROPE, "tie_word_embeddings": True, "vocab_size": 384}, Type.Q8_0, True),
    "qwen3-q8_0": ("qwen3", "QWEN3", {"rope_parameters": families.ROPE}, Type.Q8_0, True),
    "gemma3-q8_0": ("gemma3_text", "GEMMA3", GEMMA, Type.Q8_0, False),
    "phi3-q8_0": ("phi3", "PHI3", {"rope_parameters": families.ROPE, "sliding_window": 4}, Type.Q8_0, True),
}
CORPUS = [
    "The agents write to each other in turns, and each agent learns from what it has read.",
    "It's the end of the week; they're late, we've paid 1,250 euros and I'll write again in 2024.",
    "Die Prüfung beginnt um 9:45 Uhr, danach gibt's Kaffee für alle Anwesenden.",
    "A model is tuned on texts: the texts are read, the loss falls, the weights change.",
    "def read(path):\n    return open(path).read()  # the text of a file\n",
    "Whatever the others wrote, the reader answers with the words that the writer expects.",
]
TEXTS = [
    "", " ", "the", "The agents write 12345 letters.", "It's what THEY'RE reading, isn't it?",
    "two  spaces,   three", "line\n\nline\r\n  indented\tby a tab ", "Prüfung für 9:45 Uhr",
    "naïve cafe\u0301 \u00e9 \u0065\u0301", "日本語 und \U0001f600 end", "a<s>b</s> <|endoftext|>x", "x=y+1; #$%^&*() ...!?",
]


def sentence_piece():
    """A SentencePiece model as Llama's was trained, and what the converter writes of it."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4), model_writer=out, vocab_size=448, model_type="bpe",
        byte_fallback=True, split_digits=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, minloglevel=2)
    model = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    ids = range(model.vocab_size())
    kinds = [
        gguf.TokenType.UNKNOWN if model.is_unknown(i) else gguf.TokenType.CONTROL if model.is_control(i)
        else gguf.TokenType.BYTE if model.is_byte(i) else gguf.TokenType.NORMAL for i in ids
    ]

    def write(writer):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([model.id_to_piece(i).encode() for i in ids])
        writer.add_token_scores([model.get_score(i) for i in ids])
        writer.add_token_types(kinds)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(False)

    # SentencePiece itself does not know special tokens in a text.
    texts = [text for text in TEXTS if "<" not in text]
    return write, {"llama": [[text, model.encode(text)] for text in texts]}


def byte_level():
    """A byte-level vocabulary, and its tokens under the splits of several published tokenizers."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(TikTokenConverter().pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trained.train_from_iterator(CORPUS * 4, trainers.BpeTrainer(
        vocab_size=383, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    special = "<|endoftext|>"
    vocabulary = {**model["vocab"], special: len(model["vocab"])}
    tokens = sorted(vocabulary, key=vocabulary.get)
    qwen2 = tf.Qwen2Tokenizer(vocab=dict(vocabulary), merges=merges)
    gpt2 = tf.GPT2Tokenizer(vocab=dict(vocabulary), merges=merges)
    llama3 = Tokenizer(models.BPE(dict(vocabulary), merges, fuse_unk=False, ignore_merges=True))
    llama3.pre_tokenizer, llama3.decoder = trained.pre_tokenizer, decoders.ByteLevel()
    llama3.add_special_tokens([special])
    # As in SmolLM's tokenizer.json.
    smollm = Tokenizer(models.BPE(dict(vocabulary), merges))
    smollm.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    smollm.add_special_tokens([special])

    def write(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list(tokens)
        writer.add_token_types([
            gguf.TokenType.CONTROL if token == special else gguf.TokenType.NORMAL for token in tokens])
        writer.add_token_merges([" ".join(merge) for merge in merges])
        writer.add_eos_token_id(vocabulary[special])
        writer.add_add_bos_token(False)

    encode = {
        "qwen2": lambda text: qwen2.encode(text, add_special_tokens=False),
        "gpt-2": lambda text: gpt2.encode(text, add_special_tokens=False),
        "llama-bpe": lambda text: llama3.encode(text, add_special_tokens=False).ids,
        "smollm": lambda text: smollm.encode(text, add_special_tokens=False).ids,
    }
    return write, {pre: [[text, of(text)] for text in TEXTS] for pre, of in encode.items()}


def parameters(writer, config, kind):
    """The entries that the converter writes for a configuration."""
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_file_type(0)
    head = getattr(config, "head_dim", None)
    if head is not None:
        writer.add_key_length(head)
        writer.add_value_length(head)
    if kind == "LLAMA":
        writer.add_vocab_size(config.vocab_size)
        writer.add_rope_dimension_count(head)
    if kind == "PHI3":
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
    if kind in ("PHI3", "GEMMA3"):
        writer.add_sliding_window(config.sliding_window)
    if kind == "GEMMA3":
        writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def paired(array, heads):
    """Rows of queries or keys with the two halves of a head interleaved."""
    apart = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return apart.swapaxes(1, 2).reshape(array.shape)


def frequencies(rope, width):
    """What each rotary frequency is divided by under Llama 3's scaling."""
    model = tf.LlamaConfig(rope_parameters=rope, head_dim=width, max_position_embeddings=128)
    scaled, _ = tf.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](model, "cpu")
    plain = 1.0 / rope["rope_theta"] ** (torch.arange(0, width, 2).float() / width)
    factors = (plain / scaled).numpy().astype(np.float32)
    assert factors[0] == 1 and 1.5 < factors[4] < 7 and factors[-1] == 8, factors
    return factors


def write(path, model, kind, dtype, vocabulary):
    """The GGUF file, and the weights that its reader should find, by their names in the model."""
    config, architecture = model.config, gguf.MODEL_ARCH[kind]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    parameters(writer, config, kind)
    if vocabulary is not None:
        vocabulary(writer)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    meant = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = tensor.numpy()
        if kind == "GEMMA3" and name.endswith("norm.weight"):
            array = array + 1
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        of = [count for part, count in heads.items() if kind == "LLAMA" and f".{part}." in name]
        array = paired(array, of[0]) if of else array
        stored = dtype if array.ndim > 1 else Type.F32
        data = gguf.quants.quantize(np.ascontiguousarray(array, dtype=np.float32), stored)
        plain = gguf.quants.dequantize(gguf.quants.quantize(tensor.numpy(), stored), stored)
        meant[name] = torch.from_numpy(plain.copy())
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), data, raw_dtype=stored)
    if config.tie_word_embeddings:
        meant["lm_head.weight"] = meant["model.embed_tokens.weight"]
    if config.rope_parameters.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", frequencies(config.rope_parameters, config.head_dim))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


def logits(model, rows):
    with torch.no_grad():
        return [model(row[None]).logits[0] for row in rows]


def check(path, name, model, keeps, rows):
    """transformers' own loader gives the weights back, and the logits where it keeps the configuration."""
    config = {} if keeps else {"config": model.config}
    again = tf.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager", **config).eval()
    ours, theirs = model.state_dict(), again.state_dict()
    far = max((ours[key] - theirs[key]).abs().max().item() for key in ours)
    assert far < 1e-6, f"{name}: the loader gives other weights: {far}"
    apart = max((a - b).abs().max().item() for a, b in zip(logits(model, rows), logits(again, rows)))
    print(f"golden.gguf.{name}.loader {apart:.2e} logits")
    assert apart < 1e-4, f"{name}: the loader gives other logits"


def build(name, vocabulary):
    family, kind, changes, dtype, keeps = FILES[name]
    entries = {**SIZES, **changes, "attn_implementation": "eager"}
    if family in ("qwen2", "phi3"):
        del entries["head_dim"]
    config, cls = families.DECODERS[family]
    model = cls(config(**entries)).float().eval()
    families.randomise(model, sum(name.encode()))
    path = FOLDER / f"{name}.gguf"
    meant = write(path, model, kind, dtype, vocabulary)
    model.load_state_dict({**model.state_dict(), **meant})
    generator = torch.Generator().manual_seed(7)
    # Llama 3's scaling shows at some distance only.
    lengths = (100 if name.startswith("llama3") else 19, 7)
    rows = [torch.randint(3, entries["vocab_size"], (n,), generator=generator) for n in lengths]
    if name.startswith("llama3"):
        plain = cls(config(**{**entries, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}))
        plain.float().eval().load_state_dict(model.state_dict())
        differs = (logits(plain, rows)[0] - logits(model, rows)[0]).abs().max()
        assert differs > 1e-2, f"the scaling shows by {differs} only"
    expected = {f"logits.{row}": values for row, values in enumerate(logits(model, rows))}
    expected |= {f"tokens.{row}": ids for row, ids in enumerate(rows)}
    save_file({key: value.contiguous() for key, value in expected.items()}, FOLDER / f"{name}.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        # The loader takes the size of a vocabulary from its tokens, where no entry says it.
        copy = pathlib.Path(folder) / path.name
        shutil.copy(path, copy)
        check(copy, name, model, keeps and (kind == "LLAMA" or vocabulary is not None), rows)


def main():
    torch.set_num_threads(1)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    pieces, tokens = sentence_piece()
    merged, more = byte_level()
    for name in FILES:
        build(name, {"llama-q8_0": pieces, "qwen2-q8_0": merged}.get(name))
    text = json.dumps({**tokens, **more}, ensure_ascii=True, indent=0, separators=(",", ":"))
    (FOLDER / "tokens.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
