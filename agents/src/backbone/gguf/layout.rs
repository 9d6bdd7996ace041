//! How a GGUF file lays out the network of a Hugging Face checkpoint: names, order of rows, offsets.
//!
//! Follows `convert_hf_to_gguf.py` of llama.cpp. Reads nothing itself.

/// The architectures that are read, as `general.architecture` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Llama, and Mistral.
    Llama,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3.
    Qwen3,
    /// Gemma 3, the text part.
    Gemma3,
    /// Phi-3.
    Phi3,
}

impl Kind {
    pub(super) const ALL: [(Self, &'static str); 5] = [
        (Self::Llama, "llama"),
        (Self::Qwen2, "qwen2"),
        (Self::Qwen3, "qwen3"),
        (Self::Gemma3, "gemma3"),
        (Self::Phi3, "phi3"),
    ];

    /// The name of a weight in the file; none where the file cannot have it.
    pub(super) fn stored(self, name: &str) -> Option<String> {
        match name {
            "model.embed_tokens.weight" => return Some("token_embd.weight".to_owned()),
            "model.norm.weight" => return Some("output_norm.weight".to_owned()),
            "lm_head.weight" => return Some("output.weight".to_owned()),
            _ => {}
        }
        let (layer, path) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let (path, part) = path.rsplit_once('.')?;
        let path = match (path, self) {
            ("self_attn.q_proj", _) => "attn_q",
            ("self_attn.k_proj", _) => "attn_k",
            ("self_attn.v_proj", _) => "attn_v",
            ("self_attn.qkv_proj", _) => "attn_qkv",
            ("self_attn.o_proj", _) => "attn_output",
            ("self_attn.q_norm", _) => "attn_q_norm",
            ("self_attn.k_norm", _) => "attn_k_norm",
            ("mlp.gate_proj", _) => "ffn_gate",
            ("mlp.up_proj" | "mlp.gate_up_proj", _) => "ffn_up",
            ("mlp.down_proj", _) => "ffn_down",
            ("input_layernorm", _) => "attn_norm",
            ("post_attention_layernorm", Self::Gemma3) => "post_attention_norm",
            ("post_attention_layernorm" | "pre_feedforward_layernorm", _) => "ffn_norm",
            ("post_feedforward_layernorm", _) => "post_ffw_norm",
            _ => return None,
        };
        Some(format!("blk.{layer}.{path}.{part}"))
    }

    /// What was added to a weight when it was written: Gemma's norms count from zero, GGUF's from one.
    pub(super) fn added(self, name: &str) -> f64 {
        if self == Self::Gemma3 && name.ends_with("norm.weight") { 1.0 } else { 0.0 }
    }
}

/// Puts the rows of queries or keys back: the file pairs neighbours `(2j, 2j + 1)` of a head for rotary
/// positions, checkpoints pair halves `(j, j + width / 2)`. Rows are moved whole, quantised or not.
pub(super) fn unpaired(bytes: &[u8], heads: usize, rows: usize) -> Vec<u8> {
    let (width, row) = (rows / heads.max(1), bytes.len() / rows.max(1));
    let from = |to: usize| {
        let (head, place) = (to / width, to % width);
        let (half, pair) = (place / (width / 2), place % (width / 2));
        head * width + 2 * pair + half
    };
    (0..rows).flat_map(|to| &bytes[from(to) * row..(from(to) + 1) * row]).copied().collect()
}
