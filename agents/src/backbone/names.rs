//! Names and shapes of a network's weights, as Hugging Face checkpoints and PEFT adapters write them.
//!
//! Decoders are named as in `...ForCausalLM`, encoders as in the bare model. What a checkpoint puts in
//! front of these names is handled where files are read. No tensors here.

use super::architecture::{Architecture, Family, NormKind};

/// A linear map inside a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Module {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// Queries, keys and values in one.
    QueryKeyValue,
    /// Attention output.
    Output,
    /// Gate of the feed-forward block.
    Gate,
    /// Input of the feed-forward block.
    Up,
    /// Gate and input in one.
    GateUp,
    /// Output of the feed-forward block.
    Down,
}

/// Where a norm sits in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On what attention reads.
    BeforeAttention,
    /// On what attention gives, before it is added.
    AfterAttention,
    /// On the sum with what attention gave.
    AttentionSum,
    /// On what the feed-forward block reads.
    BeforeMlp,
    /// On what the feed-forward block gives, before it is added.
    AfterMlp,
    /// On the sum with what the feed-forward block gave.
    MlpSum,
}

impl Module {
    /// Every kind, in the order of a forward pass.
    pub const ALL: [Self; 9] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::QueryKeyValue,
        Self::Output,
        Self::Gate,
        Self::Up,
        Self::GateUp,
        Self::Down,
    ];

    /// Whether it belongs to the feed-forward block.
    #[must_use]
    pub fn is_feed_forward(self) -> bool {
        matches!(self, Self::Gate | Self::Up | Self::GateUp | Self::Down)
    }

    /// Its path inside a block of `family`; none where the family has no such map.
    #[must_use]
    pub fn path(self, family: Family) -> Option<&'static str> {
        use Family::{Bert, DistilBert, ModernBert, Phi3, Roberta, XlmRoberta};
        Some(match (family, self) {
            (Phi3, Self::QueryKeyValue) => "self_attn.qkv_proj",
            (Phi3, Self::GateUp) => "mlp.gate_up_proj",
            (Phi3, Self::Query | Self::Key | Self::Value | Self::Gate | Self::Up) => return None,
            (Bert | Roberta | XlmRoberta, module) => match module {
                Self::Query => "attention.self.query",
                Self::Key => "attention.self.key",
                Self::Value => "attention.self.value",
                Self::Output => "attention.output.dense",
                Self::Up => "intermediate.dense",
                Self::Down => "output.dense",
                Self::QueryKeyValue | Self::Gate | Self::GateUp => return None,
            },
            (DistilBert, module) => match module {
                Self::Query => "attention.q_lin",
                Self::Key => "attention.k_lin",
                Self::Value => "attention.v_lin",
                Self::Output => "attention.out_lin",
                Self::Up => "ffn.lin1",
                Self::Down => "ffn.lin2",
                Self::QueryKeyValue | Self::Gate | Self::GateUp => return None,
            },
            (ModernBert, module) => match module {
                Self::QueryKeyValue => "attn.Wqkv",
                Self::Output => "attn.Wo",
                Self::GateUp => "mlp.Wi",
                Self::Down => "mlp.Wo",
                Self::Query | Self::Key | Self::Value | Self::Gate | Self::Up => return None,
            },
            (_, Self::Query) => "self_attn.q_proj",
            (_, Self::Key) => "self_attn.k_proj",
            (_, Self::Value) => "self_attn.v_proj",
            (_, Self::Output) => "self_attn.o_proj",
            (_, Self::Gate) => "mlp.gate_proj",
            (_, Self::Up) => "mlp.up_proj",
            (_, Self::Down) => "mlp.down_proj",
            (_, Self::QueryKeyValue | Self::GateUp) => return None,
        })
    }

    /// The last part of every path that some family has, as scenarios and PEFT write targets.
    #[must_use]
    pub fn target_names() -> Vec<&'static str> {
        let mut names: Vec<&'static str> = Family::ALL
            .iter()
            .flat_map(|(family, _)| Self::ALL.map(|module| module.path(*family)))
            .flatten()
            .filter_map(|path| path.rsplit('.').next())
            .chain(["output.dense", "intermediate.dense", "attention.output.dense"])
            .filter(|name| *name != "dense")
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Place {
    pub(crate) const ALL: [Self; 6] = [
        Self::BeforeAttention,
        Self::AfterAttention,
        Self::AttentionSum,
        Self::BeforeMlp,
        Self::AfterMlp,
        Self::MlpSum,
    ];

    /// Its path inside block `layer` of `family`; none where there is no norm.
    pub(crate) fn path(self, family: Family, layer: usize) -> Option<&'static str> {
        use Family::{Bert, DistilBert, Gemma3, ModernBert, Roberta, XlmRoberta};
        Some(match (family, self) {
            (Bert | Roberta | XlmRoberta, Self::AttentionSum) => "attention.output.LayerNorm",
            (Bert | Roberta | XlmRoberta, Self::MlpSum) => "output.LayerNorm",
            (DistilBert, Self::AttentionSum) => "sa_layer_norm",
            (DistilBert, Self::MlpSum) => "output_layer_norm",
            (Bert | Roberta | XlmRoberta | DistilBert, _) => return None,
            (ModernBert, Self::BeforeAttention) if layer == 0 => return None,
            (ModernBert, Self::BeforeAttention) => "attn_norm",
            (ModernBert, Self::BeforeMlp) => "mlp_norm",
            (ModernBert, _) => return None,
            (_, Self::BeforeAttention) => "input_layernorm",
            (Gemma3, Self::AfterAttention) => "post_attention_layernorm",
            (Gemma3, Self::BeforeMlp) => "pre_feedforward_layernorm",
            (Gemma3, Self::AfterMlp) => "post_feedforward_layernorm",
            (_, Self::BeforeMlp) => "post_attention_layernorm",
            (_, _) => return None,
        })
    }
}

impl Family {
    /// What stands before the names of block `layer`.
    #[must_use]
    pub fn block(self, layer: usize) -> String {
        match self {
            Self::Bert | Self::Roberta | Self::XlmRoberta => format!("encoder.layer.{layer}"),
            Self::DistilBert => format!("transformer.layer.{layer}"),
            Self::ModernBert => format!("layers.{layer}"),
            _ => format!("model.layers.{layer}"),
        }
    }

    /// The embedding of tokens.
    #[must_use]
    pub fn embedding(self) -> &'static str {
        match self {
            Self::Bert | Self::Roberta | Self::XlmRoberta | Self::DistilBert => {
                "embeddings.word_embeddings"
            }
            Self::ModernBert => "embeddings.tok_embeddings",
            _ => "model.embed_tokens",
        }
    }

    /// The norm on embeddings.
    #[must_use]
    pub fn embedding_norm(self) -> Option<&'static str> {
        match self {
            Self::Bert | Self::Roberta | Self::XlmRoberta | Self::DistilBert => {
                Some("embeddings.LayerNorm")
            }
            Self::ModernBert => Some("embeddings.norm"),
            _ => None,
        }
    }

    /// The norm after the last block.
    #[must_use]
    pub fn final_norm(self) -> Option<&'static str> {
        match self {
            Self::Bert | Self::Roberta | Self::XlmRoberta | Self::DistilBert => None,
            Self::ModernBert => Some("final_norm"),
            _ => Some("model.norm"),
        }
    }

    /// The model's own name under a task head, as checkpoints and PEFT write it before every name.
    #[must_use]
    pub fn wrapped(self) -> &'static str {
        match self {
            Self::Bert => "bert.",
            Self::Roberta | Self::XlmRoberta => "roberta.",
            Self::DistilBert => "distilbert.",
            Self::ModernBert => "model.",
            _ => "",
        }
    }
}

/// Name of the table of learned positions.
pub(crate) const POSITIONS: &str = "embeddings.position_embeddings";
/// Name of the table of token types.
pub(crate) const TOKEN_TYPES: &str = "embeddings.token_type_embeddings";
/// Name of the output head of a language model.
pub(crate) const HEAD: &str = "lm_head";
/// Name of BERT's pooler, which few checkpoints lack.
pub const POOLER: &str = "pooler.dense";

impl Architecture {
    /// Path of a linear map in the whole network; none where this network has no such map.
    #[must_use]
    pub fn path(&self, layer: usize, module: Module) -> Option<String> {
        let path = module.path(self.family)?;
        Some(format!("{}.{path}", self.family.block(layer)))
    }

    /// Shape `[out, in]` of a linear map of a block.
    #[must_use]
    pub fn shape(&self, module: Module) -> [usize; 2] {
        let (query, key) = (self.query_width(), self.key_width());
        match module {
            Module::Query => [query, self.hidden],
            Module::Key | Module::Value => [key, self.hidden],
            Module::QueryKeyValue => [query + 2 * key, self.hidden],
            Module::Output => [self.hidden, query],
            Module::Gate | Module::Up => [self.inner, self.hidden],
            Module::GateUp => [2 * self.inner, self.hidden],
            Module::Down => [self.hidden, self.inner],
        }
    }

    /// Whether a linear map carries a bias.
    #[must_use]
    pub fn has_bias(&self, module: Module) -> bool {
        match module {
            Module::Query | Module::Key | Module::Value | Module::QueryKeyValue => {
                self.biases.input
            }
            Module::Output => self.biases.output,
            _ => self.biases.mlp,
        }
    }

    /// The linear maps of every block whose path matches a target as PEFT matches it: the whole path, or
    /// its end after a dot; `all-linear` is all of them.
    #[must_use]
    pub fn targets(&self, target: &str) -> Vec<Module> {
        let block = self.family.block(0);
        Module::ALL
            .into_iter()
            .filter(|module| {
                module.path(self.family).is_some_and(|path| {
                    let whole = format!("{block}.{path}");
                    target == "all-linear" || whole.ends_with(&format!(".{target}"))
                })
            })
            .collect()
    }

    /// Name and shape of every weight of one block.
    #[must_use]
    pub fn block_weights(&self, layer: usize) -> Vec<(String, Vec<usize>)> {
        let block = self.family.block(layer);
        let mut weights = Vec::new();
        for module in Module::ALL {
            let Some(path) = module.path(self.family) else { continue };
            let shape = self.shape(module);
            weights.push((format!("{block}.{path}.weight"), shape.to_vec()));
            if self.has_bias(module) {
                weights.push((format!("{block}.{path}.bias"), vec![shape[0]]));
            }
        }
        for place in Place::ALL {
            if let Some(path) = place.path(self.family, layer) {
                self.norm_weights(&format!("{block}.{path}"), self.hidden, &mut weights);
            }
        }
        if self.query_key_norm {
            for norm in ["q_norm", "k_norm"] {
                weights.push((format!("{block}.self_attn.{norm}.weight"), vec![self.head_width]));
            }
        }
        weights
    }

    fn norm_weights(&self, path: &str, width: usize, weights: &mut Vec<(String, Vec<usize>)>) {
        weights.push((format!("{path}.weight"), vec![width]));
        if self.norm == NormKind::Layer && self.biases.norm {
            weights.push((format!("{path}.bias"), vec![width]));
        }
    }

    /// Name and shape of every weight outside blocks: embeddings, final norm, output head.
    #[must_use]
    pub fn outer_weights(&self) -> Vec<(String, Vec<usize>)> {
        let table = |name: &str, rows| (format!("{name}.weight"), vec![rows, self.hidden]);
        let mut weights = vec![table(self.family.embedding(), self.vocabulary)];
        if let Some(first) = self.first_position {
            weights.push(table(POSITIONS, self.positions + first));
        }
        if self.token_types > 0 {
            weights.push(table(TOKEN_TYPES, self.token_types));
        }
        for norm in [self.family.embedding_norm(), self.family.final_norm()].into_iter().flatten() {
            self.norm_weights(norm, self.hidden, &mut weights);
        }
        if self.family.is_decoder() && !self.tied {
            weights.push(table(HEAD, self.vocabulary));
        }
        weights
    }

    /// Name and shape of every weight.
    #[must_use]
    pub fn weights(&self) -> Vec<(String, Vec<usize>)> {
        let blocks = (0..self.depth()).flat_map(|layer| self.block_weights(layer));
        self.outer_weights().into_iter().chain(blocks).collect()
    }

    /// Name and shape of weights that some checkpoints have: BERT's pooler.
    #[must_use]
    pub fn optional_weights(&self) -> Vec<(String, Vec<usize>)> {
        if self.family != Family::Bert {
            return Vec::new();
        }
        let (weight, bias) = (format!("{POOLER}.weight"), format!("{POOLER}.bias"));
        vec![(weight, vec![self.hidden, self.hidden]), (bias, vec![self.hidden])]
    }
}
