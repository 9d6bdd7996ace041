//! Checks of triggers.

use agents::learning::guard::Guard;
use agents::learning::job::Settings;
use agents::learning::optimizer::LoraPlus;
use agents::learning::schedule::WarmUp;
use agents::name::AgentName;

use super::society::Part;
use super::{Check, count, count64};
use crate::scenario::file::{SettingsFile, TrainFile, TransferFile, TriggerFile, WhenFile};
use crate::scenario::place::At;
use crate::scenario::problem::Problem;
use crate::scenario::problem::meeting::MeetingProblem;
use crate::scenario::suggestion::{advice, quote};
use crate::scenario::words::{self, meaning, names};
use crate::scenario::{TrainPlan, TriggerPlan, WhenPlan};

impl Check<'_> {
    pub(super) fn triggers(&mut self) -> Vec<TriggerPlan> {
        let file = self.file;
        file.triggers.iter().filter_map(|trigger| self.trigger(trigger)).collect()
    }

    fn trigger(&mut self, file: &TriggerFile) -> Option<TriggerPlan> {
        let known = self.known_agent("a trigger", &file.agent);
        let agent = self.file.agent(&file.agent);
        let transfer = agent.and_then(|agent| agent.transfer.as_ref());
        if agent.is_some_and(|agent| agent.script.is_some()) {
            let (name, at) = (quote(&file.agent.value), file.agent.at);
            self.meets(MeetingProblem::ScriptLearns { name, at });
            return None;
        }
        let train = match &file.train {
            TrainFile::Supervised(train) => {
                self.settings(&train.settings, transfer).map(|settings| TrainPlan::Supervised {
                    steps: count(&train.steps),
                    batch: count(&train.batch),
                    learning_rate: train.learning_rate.value,
                    buffer: count(&train.buffer),
                    settings,
                })
            }
            TrainFile::Grpo(train) => {
                self.writes_texts(&file.agent);
                self.settings(&train.settings, transfer).map(|settings| TrainPlan::Grpo {
                    steps: count(&train.steps),
                    prompts: count(&train.prompts),
                    group: count(&train.group),
                    learning_rate: train.learning_rate.value,
                    buffer: count(&train.buffer),
                    settings,
                })
            }
        };
        let when = self.when(&file.when);
        let agent = AgentName::new(&file.agent.value).ok().filter(|_| known);
        Some(TriggerPlan { agent: agent?, when: when?, train: train? })
    }

    /// How steps are taken; the usual numbers where nothing is said. Whose, where that is known.
    pub(super) fn settings(
        &mut self,
        file: &SettingsFile,
        transfer: Option<&TransferFile>,
    ) -> Option<Settings> {
        let method = file.optimizer.as_ref();
        let method = method.map(|typed| self.choice("optimiser", &words::OPTIMIZERS, typed));
        let shape = file.schedule.as_ref();
        let shape = shape.map(|typed| self.choice("schedule", &words::SCHEDULES, typed));
        // What an adapter from a folder is, is known when it is loaded.
        let has_matrices =
            transfer.is_none_or(|t| matches!(t, TransferFile::Lora(_) | TransferFile::Adapter(_)));
        if let (Some(typed), false) = (&file.lora_plus, has_matrices) {
            self.problems.push(Problem::LoraPlusWithoutLora { at: typed.at });
        }
        let limit = |typed: &Option<At<f64>>| typed.as_ref().map(|typed| typed.value);
        let guard = Guard { norm: limit(&file.guard.norm), kl: limit(&file.guard.kl) };
        let mut settings = Settings { recompute: file.recompute, guard, ..Settings::default() };
        let optimizer = &mut settings.optimizer;
        if let Some(method) = method {
            optimizer.method = method?;
        }
        if let Some(shape) = shape {
            settings.shape = shape?;
        }
        if let Some(decay) = &file.weight_decay {
            optimizer.weight_decay = decay.value;
        }
        if let Some(clip) = &file.clip {
            optimizer.clip = Some(clip.value);
        }
        optimizer.lora_plus = file.lora_plus.as_ref().map(|ratio| LoraPlus { ratio: ratio.value });
        if let Some(rise) = &file.rise {
            settings.warm_up = WarmUp::Share(rise.value);
        }
        if let Some(share) = &file.label_smoothing {
            settings.label_smoothing = share.value;
        }
        if let Some(rate) = &file.hidden_dropout {
            settings.hidden_dropout = rate.value;
        }
        if let Some(strength) = &file.logit_adjustment {
            settings.logit_adjustment = strength.value;
        }
        if let Some(tokens) = &file.micro_batch_tokens {
            settings.micro_batch_tokens = count(tokens);
        }
        Some(settings)
    }

    /// What a word of a closed choice stands for.
    pub(super) fn choice<T: Clone>(
        &mut self,
        what: &'static str,
        choice: &[(&'static str, T)],
        typed: &At<String>,
    ) -> Option<T> {
        let found = meaning(choice, &typed.value);
        if found.is_none() {
            let help = advice(&typed.value, names(choice));
            let name = quote(&typed.value);
            self.problems.push(Problem::UnknownChoice { what, name, at: typed.at, help });
        }
        found
    }

    fn when(&mut self, file: &WhenFile) -> Option<WhenPlan> {
        let threshold = match file {
            WhenFile::Periodic(periodic) => {
                return Some(WhenPlan::Periodic { every: count64(&periodic.every) });
            }
            WhenFile::Threshold(threshold) => threshold,
        };
        let typed = &threshold.signal;
        let signal = meaning(&words::SIGNALS, &typed.value);
        if signal.is_none() {
            let help = advice(&typed.value, names(&words::SIGNALS));
            let name = quote(&typed.value);
            self.problems.push(Problem::UnknownSignal { name, at: typed.at, help });
        }
        Some(WhenPlan::Threshold {
            signal: signal?,
            mean_of: count(&threshold.mean_of),
            below: threshold.below.value,
            cooldown: count64(&threshold.cooldown),
        })
    }

    fn writes_texts(&mut self, typed: &At<String>) {
        let part = self.file.agent(typed).and_then(Part::of);
        if part.is_some_and(|part| part != Part::Writer) {
            let (agent, at) = (quote(&typed.value), typed.at);
            self.problems.push(Problem::GrpoWithoutTexts { agent, at });
        }
    }
}
