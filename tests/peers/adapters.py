"""Adapters made by PEFT with random weights, and what model and adapter give: states, loss, gradients."""

import math

import peft
import torch
import torch.nn.functional as F
import transformers as tf

import families

tf.utils.logging.set_verbosity_error()
tf.utils.logging.disable_progress_bar()

LABELS = 3
KINDS = ["lora", "rslora", "dora", "ia3", "vera", "prompt", "prefix", "seq_cls", "prompt_seq_cls"]
# Families that get every kind.
THOROUGH = ("llama", "bert")
HEADED = {
    "llama": tf.LlamaForSequenceClassification, "qwen3": tf.Qwen3ForSequenceClassification,
    "bert": tf.BertForSequenceClassification, "roberta": tf.RobertaForSequenceClassification,
    "xlm-roberta": tf.XLMRobertaForSequenceClassification,
    "distilbert": tf.DistilBertForSequenceClassification,
}


def kinds(name):
    """Every kind for llama and bert, LoRA for the others; some need a decoder."""
    if name not in THOROUGH:
        return ["lora"]
    decoder = families.is_decoder(name)
    return [kind for kind in KINDS if kind not in ("prefix", "prompt_seq_cls") or decoder]


def headed(kind):
    """Whether a kind has a head for sequences, LoRA with one or a prompt with one."""
    return kind.endswith("seq_cls")


def configuration(name, kind):
    task = "CAUSAL_LM" if families.is_decoder(name) else "FEATURE_EXTRACTION"
    targets = families.targets(name)
    if kind in ("lora", "rslora", "dora"):
        return peft.LoraConfig(
            task_type=task, r=4, lora_alpha=6, lora_dropout=0.0, target_modules=targets,
            use_rslora=kind == "rslora", use_dora=kind == "dora",
        )
    if kind == "seq_cls":
        return peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=targets)
    if kind == "ia3":
        family = families.FAMILIES[name][0]
        down = families.FEEDFORWARD[family]
        return peft.IA3Config(
            task_type=task, target_modules=[families.KEYS[family], targets[-1], down],
            feedforward_modules=[down],
        )
    if kind == "vera":
        # VeRA shares its projections, so all targets have one shape here: query and value may not.
        wanted = targets[:1] if families.is_decoder(name) else targets
        return peft.VeraConfig(task_type=task, r=6, target_modules=wanted, save_projection=True)
    if kind.startswith("prompt"):
        task = "SEQ_CLS" if headed(kind) else task
        return peft.PromptTuningConfig(task_type=task, num_virtual_tokens=3)
    return peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=3)


def attach(model, name, kind, folder, seed=7):
    """The PEFT model; for SEQ_CLS around the family's own class for classification, read from `folder`."""
    if headed(kind):
        model = HEADED[name].from_pretrained(folder, num_labels=LABELS, attn_implementation="eager")
    adapted = peft.get_peft_model(model.float(), configuration(name, kind))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, weight in sorted(adapted.named_parameters()):
            if not weight.requires_grad:
                continue
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1 or "ia3_l" in parameter_name:
                weight.add_(noise * 0.2)
            elif "prompt" in parameter_name:
                weight.copy_(noise * 0.5)
            else:
                weight.copy_(noise * 0.5 / math.sqrt(weight.shape[1]))
    return adapted.eval()


def read(folder, adapter, seq_cls=None):
    """Model and adapter as Python reads them from disk; `seq_cls` names the class where there is a head."""
    cls = tf.AutoModel if seq_cls is None else HEADED[seq_cls]
    if seq_cls is None and "ForCausalLM" in (folder / "config.json").read_text():
        cls = tf.AutoModelForCausalLM
    more = {} if seq_cls is None else {"num_labels": LABELS}
    model = cls.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32, **more)
    if adapter is None:
        return model.eval()
    # PEFT refuses to load virtual tokens as trainable, so they are made so afterwards.
    virtual = '"num_virtual_tokens"' in (adapter / "adapter_config.json").read_text()
    adapted = peft.PeftModel.from_pretrained(model, adapter, is_trainable=not virtual)
    if virtual:
        adapted.peft_config["default"].inference_mode = False
        for parameter_name, weight in adapted.named_parameters():
            weight.requires_grad_("prompt_encoder" in parameter_name or "modules_to_save" in parameter_name)
    return adapted.eval()


def final_norm(model):
    """The module whose output is a decoder's final hidden states."""
    found = [module for name, module in model.named_modules() if name.endswith("model.norm")]
    return found[0]


def forward(model, tokens):
    """Final hidden states, logits and classes of one row, virtual tokens left out."""
    kept = []
    decoder = any(name.endswith("model.norm") for name, _ in model.named_modules())
    hook = final_norm(model).register_forward_hook(lambda _, __, out: kept.append(out)) if decoder else None
    more = {} if decoder else {"output_hidden_states": True}
    # No mask: PEFT makes one for its virtual tokens only where there is one to extend.
    out = model(input_ids=tokens[None], attention_mask=torch.ones_like(tokens)[None], **more)
    if hook:
        hook.remove()
    hidden = kept[0] if decoder else getattr(out, "last_hidden_state", None)
    if hidden is None:
        hidden = out.hidden_states[-1]
    result = {"hidden": hidden[0, -len(tokens):]}
    logits = getattr(out, "logits", None)
    if logits is not None:
        if logits.ndim == 2:
            result["classes"] = logits[0]
        else:
            result["logits"] = logits[0, -len(tokens):]
    return result


def loss_of(results, rows, weights=None, labels=None):
    """Cross-entropy of classes, next-token NLL, or weighted states: whichever applies, in that order."""
    if "classes" in results[0]:
        return F.cross_entropy(torch.stack([r["classes"] for r in results]), labels)
    if "logits" in results[0]:
        given = torch.cat([r["logits"][:-1] for r in results])
        return F.cross_entropy(given, torch.cat([row[1:] for row in rows]))
    hidden = torch.cat([r["hidden"] for r in results])
    return (hidden * weights).sum() / hidden.shape[0]


def disk_names(model):
    """On-disk name of every trained parameter, found by the storage that both share."""
    stored = {t.data_ptr(): name for name, t in peft.get_peft_model_state_dict(model).items()}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            yield stored.get(weight.data_ptr(), "prompt_embeddings"), weight


def expected(model, rows, weights=None, labels=None, gradients=True):
    """Everything a fixture holds, by the names of the exchange format."""
    results = [forward(model, row) for row in rows]
    tensors = {f"tokens.{i}": row for i, row in enumerate(rows)}
    for i, result in enumerate(results):
        for kind, tensor in result.items():
            tensors[f"{kind}.{i}"] = tensor.detach().contiguous()
    headed = "classes" in results[0]
    if headed:
        tensors["labels"] = labels
    elif weights is not None:
        tensors["weights"] = weights
    loss = loss_of(results, rows, weights, labels)
    tensors["loss"] = loss.detach().reshape(1)
    if gradients:
        loss.backward()
        for name, weight in disk_names(model):
            tensors[f"grad/{name}"] = weight.grad.contiguous()
    return tensors
