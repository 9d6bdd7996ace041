"""One random model per family, built by transformers from a configuration and a seed."""

import json
import math

import torch
import transformers as tf

DECODERS = {
    "llama": (tf.LlamaConfig, tf.LlamaForCausalLM),
    "qwen2": (tf.Qwen2Config, tf.Qwen2ForCausalLM),
    "qwen3": (tf.Qwen3Config, tf.Qwen3ForCausalLM),
    "mistral": (tf.MistralConfig, tf.MistralForCausalLM),
    "smollm3": (tf.SmolLM3Config, tf.SmolLM3ForCausalLM),
    "gemma3_text": (tf.Gemma3TextConfig, tf.Gemma3ForCausalLM),
    "phi3": (tf.Phi3Config, tf.Phi3ForCausalLM),
}
ENCODERS = {
    "bert": (tf.BertConfig, tf.BertModel),
    "distilbert": (tf.DistilBertConfig, tf.DistilBertModel),
    "roberta": (tf.RobertaConfig, tf.RobertaModel),
    "xlm-roberta": (tf.XLMRobertaConfig, tf.XLMRobertaModel),
    "modernbert": (tf.ModernBertConfig, tf.ModernBertModel),
}
ROPE = {"rope_type": "default", "rope_theta": 500.0}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
YARN = {
    "rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 32,
}

# Name: (family, what differs from the family's sizes). `window` stands for the size's window.
FAMILIES = {
    "llama": ("llama", {"rope_parameters": ROPE, "rms_norm_eps": 1e-5}),
    "llama_tied": ("llama", {"rope_parameters": ROPE, "tie_word_embeddings": True}),
    "llama3": ("llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama_linear": ("llama", {"rope_parameters": LINEAR, "tie_word_embeddings": True}),
    "llama_yarn": ("llama", {"rope_parameters": YARN, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", {"rope_parameters": ROPE, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"rope_parameters": ROPE, "head": 1.5}),
    "qwen3_tied": ("qwen3", {"rope_parameters": ROPE, "head": 1.5, "tie_word_embeddings": True}),
    "mistral": ("mistral", {"rope_parameters": ROPE, "sliding_window": "window"}),
    "smollm3": ("smollm3", {"rope_parameters": ROPE, "no_rope_layers": [1, 0, 1]}),
    "gemma3_text": ("gemma3_text", {
        "sliding_window": "window", "query_pre_attn_scalar": 24,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
    }),
    "phi3": ("phi3", {"rope_parameters": ROPE, "sliding_window": "window"}),
    "bert": ("bert", {"layer_norm_eps": 1e-6}),
    "distilbert": ("distilbert", {}),
    "roberta": ("roberta", {"layer_norm_eps": 1e-5}),
    "xlm-roberta": ("xlm-roberta", {"layer_norm_eps": 1e-5}),
    "modernbert": ("modernbert", {
        "local_attention": "window", "layer_types": [
            "full_attention", "sliding_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
    }),
}
SIZES = {
    "tiny": {"hidden": 32, "inner": 40, "layers": 2, "vocabulary": 48, "window": 4, "positions": 64},
    "large": {"hidden": 256, "inner": 640, "layers": 4, "vocabulary": 512, "window": 32, "positions": 256},
}
PATTERNED = {"smollm3", "gemma3_text", "modernbert"}
# Where configurations of published checkpoints still have the older spelling of rotary settings.
OLDER_SPELLING = {"llama3", "llama_linear", "mistral", "qwen2"}
# The query and value maps, or what holds them.
TARGETS = {
    "phi3": ["qkv_proj"], "modernbert": ["Wqkv"], "distilbert": ["q_lin", "v_lin"],
    "bert": ["query", "value"], "roberta": ["query", "value"], "xlm-roberta": ["query", "value"],
}
KEYS = {"bert": "key", "llama": "k_proj"}
FEEDFORWARD = {"bert": "output.dense", "llama": "down_proj"}


def is_decoder(name):
    return FAMILIES[name][0] in DECODERS


def targets(name):
    return TARGETS.get(FAMILIES[name][0], ["q_proj", "v_proj"])


def configuration(name, size):
    family, changes = FAMILIES[name]
    dims = SIZES[size]
    layers = 3 if name in PATTERNED and size == "tiny" else dims["layers"]
    heads = 4
    changes = {key: dims["window"] if value == "window" else value for key, value in changes.items()}
    width = int(changes.pop("head", 1) * dims["hidden"] / heads)
    for key in ("no_rope_layers", "layer_types"):
        if key in changes:
            changes[key] = [changes[key][i % 3] for i in range(layers)]
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if family == "distilbert":
        entries = {
            "dim": dims["hidden"], "hidden_dim": dims["inner"], "n_layers": layers, "n_heads": heads,
            "vocab_size": dims["vocabulary"], "max_position_embeddings": dims["positions"], "pad_token_id": 0,
        }
        return tf.DistilBertConfig(**entries)
    entries = {
        "hidden_size": dims["hidden"], "intermediate_size": dims["inner"], "num_hidden_layers": layers,
        "num_attention_heads": heads, "vocab_size": dims["vocabulary"],
        "max_position_embeddings": dims["positions"], **ids,
    }
    if family in DECODERS:
        entries |= {"num_key_value_heads": 2, "pad_token_id": None}
        if family not in ("phi3", "qwen2"):
            entries["head_dim"] = width
    if family in ("roberta", "xlm-roberta"):
        entries |= {"pad_token_id": 1, "bos_token_id": 0, "type_vocab_size": 1}
    if family == "modernbert":
        entries |= {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1}
    return {**DECODERS, **ENCODERS}[family][0](**{**entries, **changes})


def randomise(model, seed):
    """Weights of size one over the square root of what they read; norms and biases not neutral."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                scale = 0.5 if "embed" in name or "tok_embeddings" in name else 1 / math.sqrt(weight.shape[1])
                weight.copy_(noise * scale)
            elif name.endswith("bias"):
                weight.copy_(noise * 0.1)
            else:
                weight.add_(noise * 0.2)


def build(name, size="tiny"):
    """The model in evaluation mode, with eager attention in float32."""
    config = configuration(name, size)
    config._attn_implementation = "eager"
    family = FAMILIES[name][0]
    model = {**DECODERS, **ENCODERS}[family][1](config)
    randomise(model, sum(name.encode()))
    return model.float().eval()


def save(model, name, folder):
    """Writes config.json and model.safetensors, some with the older spelling of rotary settings."""
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if name in OLDER_SPELLING:
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def rows(name, size="tiny", lengths=(11, 7), seed=0):
    """Token rows without special tokens."""
    generator = torch.Generator().manual_seed(1000 + seed)
    top = SIZES[size]["vocabulary"]
    return [torch.randint(3, top, (length,), generator=generator) for length in lengths]
