//! What a pretrained network is made of: one description for every family of decoders and encoders.
//!
//! Families differ in where norms sit, what is fused, how positions enter and who may look at whom. All
//! of that is data here; the forward pass in [`super::network`] has no family in it. Reading a
//! `config.json` is done in [`super::config`], names of weights are in [`super::names`].

use super::rope::Rope;

/// A family of networks that share names and layout in checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 2 and 3, SmolLM2 (Touvron et al. 2023, arXiv 2302.13971).
    Llama,
    /// SmolLM3: Llama with layers that see no positions.
    SmolLm3,
    /// Mistral 7B: Llama with a sliding window (Jiang et al. 2023, arXiv 2310.06825).
    Mistral,
    /// Qwen2 and Qwen2.5: Llama with biases on queries, keys and values.
    Qwen2,
    /// Qwen3: Llama with norms on queries and keys.
    Qwen3,
    /// Gemma 3, text only: norms around each branch, local and global layers.
    Gemma3,
    /// Phi-3: Llama with fused projections.
    Phi3,
    /// BERT and MiniLM (Devlin et al. 2019, arXiv 1810.04805).
    Bert,
    /// RoBERTa: BERT whose positions begin after the padding index.
    Roberta,
    /// XLM-RoBERTa: the same network with a multilingual vocabulary.
    XlmRoberta,
    /// DistilBERT: BERT without token types.
    DistilBert,
    /// ModernBERT: rotary positions, gated feed-forward, local and global layers (arXiv 2412.13663).
    ModernBert,
}

impl Family {
    /// Every family with the `model_type` that `config.json` gives it.
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::Llama, "llama"),
        (Self::SmolLm3, "smollm3"),
        (Self::Mistral, "mistral"),
        (Self::Qwen2, "qwen2"),
        (Self::Qwen3, "qwen3"),
        (Self::Gemma3, "gemma3_text"),
        (Self::Phi3, "phi3"),
        (Self::Bert, "bert"),
        (Self::Roberta, "roberta"),
        (Self::XlmRoberta, "xlm-roberta"),
        (Self::DistilBert, "distilbert"),
        (Self::ModernBert, "modernbert"),
    ];

    /// Whether tokens see only those before them.
    #[must_use]
    pub fn is_decoder(self) -> bool {
        !matches!(
            self,
            Self::Bert | Self::Roberta | Self::XlmRoberta | Self::DistilBert | Self::ModernBert
        )
    }

    /// The `model_type` of this family.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(family, _)| *family == self).map_or("llama", |(_, name)| name)
    }
}

/// How a norm scales its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x / rms(x) * w` (Zhang and Sennrich 2019, arXiv 1910.07467).
    Rms,
    /// `x / rms(x) * (1 + w)`, as Gemma stores it.
    RmsFromOne,
    /// `(x - mean) / deviation * w + b` (Ba et al. 2016, arXiv 1607.06450); `b` may be absent.
    Layer,
}

/// The nonlinearity of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · Φ(x)` (Hendrycks and Gimpel 2016, arXiv 1606.08415).
    Gelu,
    /// The tanh approximation of it.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `tanh(x)`.
    Tanh,
}

/// Which linear maps carry a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    /// Queries, keys and values.
    pub input: bool,
    /// Attention output.
    pub output: bool,
    /// Feed-forward block.
    pub mlp: bool,
    /// Norms.
    pub norm: bool,
}

/// What is particular to one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerShape {
    /// How far a token sees: a causal layer the last `window` tokens, itself included; a bidirectional
    /// one `window` tokens to either side. Everything where absent.
    pub window: Option<usize>,
    /// Index of its rotary embedding; none for layers without positions and for learned positions.
    pub rope: Option<usize>,
}

/// A network's dimensions and parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Whose names and layout it has.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the feed-forward block.
    pub inner: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; fewer than query heads in grouped-query attention.
    pub key_heads: usize,
    /// Width of one head.
    pub head_width: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Longest text in tokens.
    pub positions: usize,
    /// How norms scale.
    pub norm: NormKind,
    /// Added under the root in norms.
    pub epsilon: f64,
    /// The nonlinearity.
    pub activation: Activation,
    /// Factor on attention scores.
    pub attention_scale: f64,
    /// Factor on embeddings.
    pub embedding_scale: f64,
    /// Which maps carry biases.
    pub biases: Biases,
    /// Whether queries and keys are normed per head.
    pub query_key_norm: bool,
    /// Rotary embeddings that layers refer to.
    pub ropes: Vec<Rope>,
    /// The layers.
    pub layers: Vec<LayerShape>,
    /// Whether the output head is the embedding matrix.
    pub tied: bool,
    /// Row of the position table that the first token takes, where positions are learned.
    pub first_position: Option<usize>,
    /// Rows of the token-type table; 0 where there is none.
    pub token_types: usize,
}

impl Architecture {
    /// Number of layers.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Width of all query heads side by side.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.heads * self.head_width
    }

    /// Width of all key heads side by side.
    #[must_use]
    pub fn key_width(&self) -> usize {
        self.key_heads * self.head_width
    }

    /// Number of parameters.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.weights().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}
