"""llama.cpp's side of `decode` and `blocks`: writes a model as GGUF and lets llama.cpp write with it.

Sequences go through the batched interface, one token of each a step, as `llama-batched-bench` does; the likeliest
token is taken with numpy. Nothing is compared here.
"""

import ctypes
import functools
import json
import time


def interleaved(weight, heads):
    """Rows of a head in the order of llama.cpp, whose rotary pairs are neighbours."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def write(model, path, kind):
    """Writes a Llama in Hugging Face layout as GGUF; matrices as `f32`, `f16`, `bf16` or `q8_0`."""
    import gguf
    import numpy
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_text())
    tensors = load_file(model / "model.safetensors")
    writer = gguf.GGUFWriter(path, "llama")
    heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    rope = config.get("rope_parameters") or config
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    # Tokens come as numbers.
    writer.add_tokenizer_model("none")
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }
    wanted = gguf.GGMLQuantizationType[kind.upper()]

    def add(name, tensor):
        if tensor.ndim == 1 or kind == "f32":
            writer.add_tensor(name, tensor.astype(numpy.float32))
        else:
            writer.add_tensor(name, gguf.quants.quantize(tensor, wanted), raw_dtype=wanted)

    add("token_embd.weight", tensors["model.embed_tokens.weight"])
    add("output_norm.weight", tensors["model.norm.weight"])
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in names.items():
            tensor = tensors[f"model.layers.{layer}.{theirs}.weight"]
            if ours in ("attn_q", "attn_k"):
                tensor = interleaved(tensor, heads if ours == "attn_q" else key_heads)
            add(f"blk.{layer}.{ours}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source, path, kind, threads):
    """Writes a GGUF file in f32 once more with all matrices in blocks of one type such as `q4_k`."""
    import llama_cpp

    # Where several mixtures share a type (`Q4_K_S`, `Q4_K_M`), any will do: `pure` leaves only the type.
    name = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}.get(kind, kind)
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name.upper()}")
    settings.pure = True
    settings.nthread = threads
    quiet()
    if llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), ctypes.byref(settings)) != 0:
        raise RuntimeError(f"llama.cpp does not make {kind} of {source}")


@functools.cache
def quiet():
    """Keeps llama.cpp's notes off standard error."""
    import llama_cpp

    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    # The library keeps no reference to it; the cache does.
    return silent


def measure(path, rows, steps, threads):
    """Writes `steps` tokens after each of the `rows`; tokens a second (median step) and what was written."""
    import llama_cpp
    import numpy

    quiet()
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise RuntimeError(f"llama.cpp does not load {path}")
    count, prompt = len(rows), len(rows[0])
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = count * -(-(prompt + steps + 1) // 256) * 256
    settings.n_batch = settings.n_ubatch = max(512, count * prompt)
    settings.n_seq_max = count
    settings.n_threads = settings.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, settings)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(count * prompt, 0, 1)

    def decode(tokens, first):
        """Reads the tokens of each row; the likeliest next ones."""
        at, last = 0, []
        for row, own in enumerate(tokens):
            for place, token in enumerate(own):
                batch.token[at], batch.pos[at] = token, first + place
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, row
                batch.logits[at] = place + 1 == len(own)
                at += 1
            last.append(at - 1)
        batch.n_tokens = at
        if llama_cpp.llama_decode(context, batch) != 0:
            raise RuntimeError("llama.cpp did not decode")
        logits = (llama_cpp.llama_get_logits_ith(context, place) for place in last)
        return [int(numpy.ctypeslib.as_array(own, (vocabulary,)).argmax()) for own in logits]

    next_tokens = decode(rows, 0)
    written, seconds = [[token] for token in next_tokens], []
    for step in range(steps):
        start = time.perf_counter()
        next_tokens = decode([[token] for token in next_tokens], prompt + step)
        seconds.append(time.perf_counter() - start)
        for own, token in zip(written, next_tokens, strict=True):
            own.append(token)
    seconds = sorted(seconds[1:])
    return {"tokens_per_second": count / seconds[len(seconds) // 2], "written": written}
