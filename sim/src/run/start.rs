//! What an agent starts from: an adapter that knows nothing yet, or one that was trained before.
//!
//! Loads and checks; who gets it and where the record of it goes is up to the run.

use std::collections::BTreeMap;
use std::path::Path;

use agents::adapter::file::FILES;
use agents::adapter::head::HeadSpec;
use agents::adapter::{Adapter, AdapterSpec, Method};
use agents::backbone::{Backbone, digest};
use agents::learning::job::Settings;
use agents::prompt;
use agents::seed::Seed;
use agents::transfer::VERDICTS;
use serde_json::{Value, json};

use crate::scenario::suggestion::quote;
use crate::scenario::{Labels, TransferPlan};
use crate::task::Task;

/// Classes that a notice lists.
const FIRST: usize = 2;

/// What an agent starts from.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) adapter: Adapter,
    /// For the manifest, where it was trained before: `path`, `files` with the SHA-256 of each, the `digest`
    /// of kind and weights, and `labels_by_position` where its classes were numbers.
    pub(super) origin: Option<Value>,
    /// What a person should know.
    pub(super) notice: Option<String>,
}

/// What an agent starts from; the reason where its backbone or its files do not suit its part.
pub(super) fn of(
    plan: &TransferPlan,
    backbone: &Backbone,
    task: &Task,
    seed: Seed,
) -> Result<Start, String> {
    let labels = plan.labels().map(|labels| match labels {
        Labels::Intent => task.support().map(|support| support.labels.clone()).unwrap_or_default(),
        Labels::Resolved => VERDICTS.map(str::to_owned).to_vec(),
    });
    let family = backbone.network.architecture().family;
    if labels.is_none() && !family.is_decoder() {
        return Err(format!(
            "it writes texts, which {} cannot: give it a decoder, or transfer.feature",
            family.name()
        ));
    }
    if labels.is_none() {
        prompt::check_writer(&backbone.tokenizer)
            .map_err(|error| format!("it cannot be prompted: {error}"))?;
    }
    let method = match plan {
        TransferPlan::Feature { .. } => Method::Frozen,
        TransferPlan::Text(method) => method.clone(),
        TransferPlan::Head { freeze_layers, .. } => {
            let depth = backbone.network.depth();
            if *freeze_layers > depth {
                return Err(format!("freeze_layers is {freeze_layers}, the backbone has {depth}"));
            }
            Method::Layers { freeze_layers: *freeze_layers }
        }
        TransferPlan::Adapter { folder, .. } => return trained_before(folder, backbone, labels),
    };
    let spec = AdapterSpec { method, head: labels.map(HeadSpec::new) };
    let adapter = Adapter::initial(spec, backbone, seed).map_err(|e| e.to_string())?;
    Ok(Start { adapter, origin: None, notice: None })
}

/// An adapter from a folder, with its record.
fn trained_before(
    folder: &Path,
    backbone: &Backbone,
    labels: Option<Vec<String>>,
) -> Result<Start, String> {
    let shown = folder.display().to_string();
    let found = Adapter::load(folder, backbone).map_err(|e| e.to_string())?;
    let mut files = BTreeMap::new();
    for name in FILES {
        files.insert(name, digest::of_file(&folder.join(name)).map_err(|e| e.to_string())?);
    }
    let mut origin = json!({
        "path": shown,
        "files": files,
        "digest": found.digest().map_err(|e| e.to_string())?,
    });
    let Some(labels) = labels else {
        if found.head().is_some() {
            let place = quote(&shown);
            return Err(format!(
                "the adapter in {place} has a head: say what it classifies with `labels`"
            ));
        }
        return Ok(Start { adapter: found, origin: Some(origin), notice: None });
    };
    let adapter = for_labels(&found, labels)?;
    let notice = (adapter.labels() != found.labels()).then(|| {
        let order = adapter.labels().iter().enumerate().take(FIRST);
        let order: Vec<String> =
            order.map(|(number, label)| format!("{number} for {}", quote(label))).collect();
        format!(
            "the adapter in {} only numbers its classes; they are taken in the order of the task's labels \
             ({}, …)",
            quote(&shown),
            order.join(", ")
        )
    });
    if notice.is_some() {
        origin["labels_by_position"] = true.into();
    }
    Ok(Start { adapter, origin: Some(origin), notice })
}

/// Refuses LoRA+ for an adapter that has no two matrices; of an adapter from a folder that is known only now.
pub(super) fn can_learn(adapter: &Adapter, settings: &[Settings]) -> Result<(), String> {
    let plus = settings.iter().any(|settings| settings.optimizer.lora_plus.is_some());
    if plus && !matches!(adapter.spec().method, Method::Lora(_)) {
        return Err("`lora_plus` is for low-rank updates, and its adapter has none".to_owned());
    }
    Ok(())
}

/// A trained classifier whose classes are those of the task, or that has just numbers for them.
fn for_labels(adapter: &Adapter, wanted: Vec<String>) -> Result<Adapter, String> {
    if adapter.head().is_some_and(|head| head.per_token) {
        return Err("the adapter's head labels tokens, and an agent labels whole texts".to_owned());
    }
    let found = adapter.labels();
    let numbered = found.iter().enumerate().all(|(index, label)| *label == index.to_string());
    if found == wanted {
        return Ok(adapter.clone());
    }
    if numbered {
        return adapter.with_labels(wanted).map_err(|e| e.to_string());
    }
    let odd = |a: &[String], b: &[String]| {
        a.iter().find(|label| !b.contains(label)).map(|label| quote(label))
    };
    let reason = match (odd(&wanted, found), odd(found, &wanted)) {
        (Some(lacks), _) => format!("its head does not know {lacks}"),
        (None, Some(other)) => format!("its head knows {other}, which the task does not"),
        (None, None) => "its head has them in another order".to_owned(),
    };
    Err(format!("the adapter was trained for other labels: {reason}"))
}

#[cfg(test)]
mod tests {
    use agents::adapter::ia3::Ia3Spec;
    use agents::adapter::lora::LoraSpec;
    use agents::backbone::builtin;
    use agents::device::DeviceKind;
    use agents::learning::optimizer::LoraPlus;

    use super::*;

    #[test]
    fn an_adapter_from_a_folder_is_recorded_and_numbered_classes_are_told() {
        let backbone = builtin::polylogue_tiny(&DeviceKind::Cpu.open().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let names =
            |names: &[&str]| -> Vec<String> { names.iter().map(|&n| n.to_owned()).collect() };
        let start = |labels: &[&str]| {
            let method = Method::Lora(LoraSpec::new(2, 4.0, &["q_proj"]));
            let spec = AdapterSpec { method, head: Some(HeadSpec::new(names(labels))) };
            let saved = Adapter::initial(spec, &backbone, Seed::new(1)).unwrap();
            saved.save(folder.path()).unwrap();
            let start = trained_before(folder.path(), &backbone, Some(names(&["no", "yes"])));
            (saved, start)
        };
        let (saved, numbered) = start(&["0", "1"]);
        let numbered = numbered.unwrap();
        let origin = numbered.origin.unwrap();
        let weights = std::fs::read(folder.path().join("adapter_model.safetensors")).unwrap();
        let files = &origin["files"];
        assert_eq!(files["adapter_model.safetensors"], digest::of_bytes(&weights));
        assert!(files["adapter_config.json"].is_string(), "{files}");
        assert_eq!(origin["digest"], saved.digest().unwrap());
        assert_eq!(origin["path"], folder.path().display().to_string());
        assert_eq!(origin["labels_by_position"], true);
        assert!(numbered.notice.unwrap().contains("(0 for `no`, 1 for `yes`, …)"));
        let named = start(&["no", "yes"]).1.unwrap();
        assert!(named.notice.is_none());
        assert!(named.origin.unwrap().get("labels_by_position").is_none());
        let refused = start(&["yes", "no\u{1b}[2J"]).1.unwrap_err();
        assert!(!refused.contains('\u{1b}'), "{refused}");
    }

    #[test]
    fn a_head_that_labels_tokens_is_refused() {
        let backbone = builtin::polylogue_tiny(&DeviceKind::Cpu.open().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let labels: Vec<String> = ["no", "yes"].map(str::to_owned).into();
        let start = |per_token: bool| {
            let head = HeadSpec { per_token, standardize: false, ..HeadSpec::new(labels.clone()) };
            let spec = AdapterSpec { method: Method::Frozen, head: Some(head) };
            let saved = Adapter::initial(spec, &backbone, Seed::new(1)).unwrap();
            saved.save(folder.path()).unwrap();
            trained_before(folder.path(), &backbone, Some(labels.clone())).map(|_| ())
        };
        assert_eq!(start(false), Ok(()));
        assert!(start(true).unwrap_err().contains("labels tokens"));
    }

    #[test]
    fn lora_plus_needs_low_rank_updates() {
        let backbone = builtin::polylogue_tiny(&DeviceKind::Cpu.open().unwrap()).unwrap();
        let mut settings = Settings::default();
        settings.optimizer.lora_plus = Some(LoraPlus { ratio: 16.0 });
        let learns = |method: Method| {
            let spec = AdapterSpec { method, head: None };
            can_learn(&Adapter::initial(spec, &backbone, Seed::new(1)).unwrap(), &[settings])
        };
        assert!(learns(Method::Lora(LoraSpec::new(2, 4.0, &["q_proj"]))).is_ok());
        let family = backbone.network.architecture().family;
        assert!(learns(Method::Ia3(Ia3Spec::usual(family))).unwrap_err().contains("lora_plus"));
    }
}
