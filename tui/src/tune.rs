//! `polylogue tune [RECIPE]`: tunes a pretrained model as a classifier and says how good it became.
//!
//! Progress goes to a terminal's error output, one line that is written over; the answer goes to the standard
//! output, as a table or as plain figures. Decides nothing about the training.

use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use sim::backbone::{DeviceKind, HubSettings, Precision};
use sim::tuning::error::TuneError;
use sim::tuning::plan::Plan;
use sim::tuning::recipe::{
    Ia3Recipe, LayersRecipe, LoraRecipe, MethodRecipe, Nothing, Pooling, Recipe,
};
use sim::tuning::report::Report;
use sim::tuning::{Progress, tune as run};

use crate::exit_code::Exit;
use crate::fetching::Downloads;
use crate::untrusted::Untrusted;

/// Seconds between two states of the progress line.
const REFRESH: f64 = 0.5;
/// Weakest classes that are listed.
const WEAKEST: usize = 5;

/// What the command takes.
#[derive(Debug, Args)]
pub(crate) struct TuneArguments {
    /// A recipe, `tune.toml`, or the folder it is in; options below win over it.
    recipe: Option<PathBuf>,
    /// `polylogue-tiny`, a folder in Hugging Face layout, a `.gguf` file, or `hub:owner/name@revision`.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// What the model computes in: `f32`, `bf16` or `f16`; adapters are trained in f32 all the same.
    #[arg(long)]
    dtype: Option<Precision>,
    /// What runs the model: `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value_t)]
    device: DeviceKind,
    /// Examples to learn from: `.csv`, `.jsonl`, or `LABEL=FILE` with one text a line; may be repeated.
    #[arg(long, value_name = "FILE")]
    train: Vec<String>,
    /// Examples to measure on; may be repeated.
    #[arg(long, value_name = "FILE")]
    test: Vec<String>,
    /// Cross-validate over so many parts of the training examples instead of a test.
    #[arg(long, value_name = "K")]
    folds: Option<usize>,
    /// Measure on this share of the training examples instead of a test, to choose settings by.
    #[arg(long, value_name = "SHARE")]
    validate: Option<f64>,
    /// Learn from so many examples of each class.
    #[arg(long, value_name = "N")]
    shots: Option<usize>,
    /// The column of the text.
    #[arg(long, value_name = "COLUMN")]
    text: Option<String>,
    /// The column of the class.
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Longest text in tokens.
    #[arg(long, value_name = "TOKENS")]
    longest: Option<usize>,
    /// How the model is changed.
    #[arg(long, value_enum)]
    method: Option<Word>,
    /// Rank of LoRA's updates.
    #[arg(long)]
    rank: Option<usize>,
    /// Numerator of LoRA's scale; twice the rank unless given.
    #[arg(long)]
    alpha: Option<f64>,
    /// The maps that LoRA or IA3 change, separated by commas.
    #[arg(long, value_delimiter = ',')]
    targets: Option<Vec<String>>,
    /// Share of LoRA's inputs that are dropped in training.
    #[arg(long)]
    dropout: Option<f64>,
    /// Lower layers that stay frozen, with the method `layers`.
    #[arg(long, value_name = "N")]
    freeze_layers: Option<usize>,
    /// How hidden states become features.
    #[arg(long, value_enum)]
    pooling: Option<PoolingWord>,
    /// Leave features as they are instead of bringing them to zero mean and unit spread.
    #[arg(long)]
    raw_features: bool,
    /// Train the head on frozen features first, then everything together.
    #[arg(long)]
    probe_first: bool,
    /// Answer with the mean of its class probabilities and those of a probe on the frozen model: the probe's
    /// share, such as 0.5.
    #[arg(long, value_name = "SHARE")]
    ensemble: Option<f64>,
    /// How often each example is seen.
    #[arg(long)]
    epochs: Option<usize>,
    /// Examples of one step.
    #[arg(long)]
    batch: Option<usize>,
    /// Highest learning rate.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Weight decay of AdamW.
    #[arg(long)]
    weight_decay: Option<f64>,
    /// Where all randomness comes from.
    #[arg(long)]
    seed: Option<u64>,
    /// Do it all so often, each time with the next seed.
    #[arg(long, value_name = "N")]
    repeats: Option<usize>,
    /// Where adapter, predictions and report are written; a new folder under `runs/` unless given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Answer in lines of `name value unit`.
    #[arg(long)]
    figures: bool,
}

/// The methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Word {
    /// A linear head on frozen features.
    Frozen,
    /// Low-rank updates.
    Lora,
    /// Learned scales of activations.
    Ia3,
    /// Upper layers.
    Layers,
    /// Everything.
    Full,
}

/// The poolings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PoolingWord {
    /// Mean over tokens.
    Mean,
    /// The first token.
    First,
    /// The last token.
    Last,
    /// BERT's pooler.
    Pooler,
    /// Means of every layer.
    Layers,
}

impl From<PoolingWord> for Pooling {
    fn from(word: PoolingWord) -> Self {
        match word {
            PoolingWord::Mean => Self::Mean,
            PoolingWord::First => Self::First,
            PoolingWord::Last => Self::Last,
            PoolingWord::Pooler => Self::Pooler,
            PoolingWord::Layers => Self::Layers,
        }
    }
}

/// Runs the command.
pub(crate) fn tune(arguments: &TuneArguments) -> miette::Result<Exit> {
    let plan = Plan::of(&recipe(arguments)?)?;
    let out = arguments.out.clone().unwrap_or_else(|| {
        let stamp = sim::clock::stamp();
        PathBuf::from("runs").join(format!("{stamp}_tune_{}_{}", plan.method.name(), plan.seed))
    });
    let mut line = Line::new(std::io::stderr().is_terminal());
    let hub = HubSettings::from_environment();
    let result = run(&plan, arguments.device, &out, &hub, |progress| line.show(progress));
    line.clear();
    match result {
        Ok(report) => {
            print(&report, &out.display().to_string(), arguments.figures);
            Ok(Exit::Done)
        }
        Err(error) if error.is_input() => Err(error.into()),
        Err(error) => {
            crate::summary::complain(&error.to_string());
            Ok(Exit::RunFailed)
        }
    }
}

/// The recipe with the options of the command line.
fn recipe(arguments: &TuneArguments) -> Result<Recipe, TuneError> {
    let mut recipe = match &arguments.recipe {
        Some(path) => Recipe::read(path)?,
        None => Recipe::default(),
    };
    let TuneArguments { model, train, test, .. } = arguments;
    let own = arguments;
    let data = &mut recipe.data;
    if !train.is_empty() {
        data.train.clone_from(train);
    }
    // Whoever names what is measured on replaces what the recipe measures on.
    if !test.is_empty() || own.folds.is_some() || own.validate.is_some() {
        data.test.clone_from(test);
        (data.folds, data.validate) = (own.folds, own.validate);
    }
    data.shots = own.shots.or(data.shots);
    data.text = own.text.clone().or(data.text.take());
    data.label = own.label.clone().or(data.label.take());
    data.longest = own.longest.or(data.longest);
    recipe.model = model.clone().or(recipe.model);
    recipe.dtype = own.dtype.or(recipe.dtype);
    recipe.seed = own.seed.or(recipe.seed);
    recipe.repeats = own.repeats.or(recipe.repeats);
    recipe.head.pooling = own.pooling.map(Pooling::from).or(recipe.head.pooling);
    if own.raw_features {
        recipe.head.standardize = Some(false);
    }
    let training = &mut recipe.training;
    training.epochs = own.epochs.or(training.epochs);
    training.batch = own.batch.or(training.batch);
    training.learning_rate = own.learning_rate.or(training.learning_rate);
    training.weight_decay = own.weight_decay.or(training.weight_decay);
    method(&mut recipe, own)?;
    if own.probe_first {
        recipe.probe.get_or_insert_default();
    }
    recipe.ensemble = own.ensemble.or(recipe.ensemble);
    Ok(recipe)
}

/// The method with the options of the command line; an option that it does not have is refused.
fn method(recipe: &mut Recipe, own: &TuneArguments) -> Result<(), TuneError> {
    let present = recipe.method.as_ref().map(word);
    if let Some(chosen) = own.method
        && present != Some(chosen)
    {
        recipe.method = Some(match chosen {
            Word::Frozen => MethodRecipe::Frozen(Nothing {}),
            Word::Lora => MethodRecipe::Lora(LoraRecipe::default()),
            Word::Ia3 => MethodRecipe::Ia3(Ia3Recipe::default()),
            Word::Layers => MethodRecipe::Layers(LayersRecipe { freeze_layers: 0 }),
            Word::Full => MethodRecipe::Full(Nothing {}),
        });
        // What was chosen for another method does not suit this one.
        let given = (own.epochs, own.batch, own.learning_rate, own.weight_decay);
        let training = &mut recipe.training;
        (training.epochs, training.batch, training.learning_rate, training.weight_decay) = given;
        if chosen == Word::Frozen {
            (recipe.probe, recipe.ensemble) = (None, None);
        }
    }
    let lora = [own.rank.is_some(), own.alpha.is_some(), own.dropout.is_some()];
    let targets = own.targets.is_some();
    let unfit = match &mut recipe.method {
        Some(MethodRecipe::Lora(lora)) => {
            lora.rank = own.rank.or(lora.rank);
            lora.alpha = own.alpha.or(lora.alpha);
            lora.dropout = own.dropout.or(lora.dropout);
            lora.targets = own.targets.clone().or(lora.targets.take());
            own.freeze_layers.is_some()
        }
        Some(MethodRecipe::Ia3(ia3)) => {
            ia3.targets = own.targets.clone().or(ia3.targets.take());
            own.freeze_layers.is_some() || lora.contains(&true)
        }
        Some(MethodRecipe::Layers(layers)) => {
            layers.freeze_layers = own.freeze_layers.unwrap_or(layers.freeze_layers);
            targets || lora.contains(&true)
        }
        _ => targets || own.freeze_layers.is_some() || lora.contains(&true),
    };
    if unfit {
        return Err(TuneError::Setting {
            what: "an option does not belong to the method".to_owned(),
            help: "--rank, --alpha, --dropout belong to lora, --targets to lora and ia3, \
                   --freeze-layers to layers; choose with --method"
                .to_owned(),
        });
    }
    Ok(())
}

fn word(method: &MethodRecipe) -> Word {
    match method {
        MethodRecipe::Frozen(_) => Word::Frozen,
        MethodRecipe::Lora(_) => Word::Lora,
        MethodRecipe::Ia3(_) => Word::Ia3,
        MethodRecipe::Layers(_) => Word::Layers,
        MethodRecipe::Full(_) => Word::Full,
    }
}

/// One line on a terminal, written over; silent elsewhere.
#[derive(Debug)]
struct Line {
    visible: bool,
    stage: String,
    /// Columns that the present text takes.
    width: usize,
    shown: f64,
    downloads: Downloads,
}

impl Line {
    fn new(visible: bool) -> Self {
        Self { visible, stage: String::new(), width: 0, shown: 0.0, downloads: Downloads::new() }
    }

    fn show(&mut self, progress: &Progress) {
        match progress {
            Progress::Fetching(fetching) => self.downloads.show(fetching),
            Progress::Ready { classes, parts, trained, parameters } => self.keep(&format!(
                "{classes} classes, {parts} training{}, {trained} of {parameters} parameters trained",
                if *parts == 1 { "" } else { "s" }
            )),
            Progress::Reading { examples } => {
                self.over(&format!("the frozen model reads {examples} texts"));
            }
            Progress::Began { part, stage, examples, steps } => {
                self.stage = Untrusted(&format!("{part}: {stage}")).to_string();
                self.shown = 0.0;
                self.over(&format!("{}  {examples} examples, {steps} steps", self.stage));
            }
            Progress::Stepped { step, steps, loss, seconds, left } => {
                if seconds - self.shown >= REFRESH || step == steps {
                    self.shown = *seconds;
                    let stage = &self.stage;
                    self.over(&format!(
                        "{stage}  step {step}/{steps}  loss {loss:.4}  {left:.0} s left"
                    ));
                }
            }
            Progress::Scored { part, accuracy, macro_f1 } => {
                let part = Untrusted(part).to_string();
                self.keep(&format!("{part}: accuracy {accuracy:.4}, macro-F1 {macro_f1:.4}"));
            }
        }
    }

    /// Writes over the line.
    fn over(&mut self, text: &str) {
        let width = text.chars().count();
        self.write(&format!("\r{text}{}", " ".repeat(self.width.saturating_sub(width))));
        self.width = width;
    }

    /// Leaves a line for good.
    fn keep(&mut self, text: &str) {
        self.over(text);
        self.write("\n");
        self.width = 0;
    }

    fn clear(&mut self) {
        if self.width > 0 {
            self.over("");
            self.write("\r");
        }
    }

    /// A terminal that is gone shall not end a training.
    fn write(&self, text: &str) {
        if self.visible {
            let mut out = std::io::stderr().lock();
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }
}

fn print(report: &Report, out: &str, figures: bool) {
    let lines = if figures { figure_lines(report) } else { table(report, out) };
    for line in lines {
        crate::output::say(line);
    }
}

/// `name value unit`, one figure a line.
fn figure_lines(report: &Report) -> Vec<String> {
    let mut lines = vec![format!("accuracy {:.4} share", report.accuracy)];
    let half = |name: &str, half: Option<f64>| half.map(|half| format!("{name} {half:.4} share"));
    lines.extend(half("accuracy_half_interval", report.accuracy_half));
    lines.push(format!("macro_f1 {:.4} share", report.macro_f1));
    lines.extend(half("macro_f1_half_interval", report.macro_f1_half));
    lines.push(format!("majority {:.4} share", report.majority));
    lines.push(format!("classes {} classes", report.labels));
    lines.push(format!("trained {} parameters", report.trained));
    lines.push(format!("reading_seconds {:.1} s", report.reading_seconds));
    lines.push(format!("seconds {:.1} s", report.seconds));
    for part in &report.parts {
        let name = part.name.replace(' ', "_");
        lines.push(format!("{name}_accuracy {:.4} share", part.accuracy));
        for stage in &part.stages {
            let (stage_name, rate) = (stage.name, stage.tokens_per_second);
            lines.push(format!("{name}_{stage_name}_steps {} steps", stage.steps));
            lines.push(format!("{name}_{stage_name}_loss {:.4} nats", stage.last_loss()));
            if stage.tokens > 0 {
                lines.push(format!("{name}_{stage_name}_speed {rate:.0} tokens/s"));
            }
        }
    }
    lines
}

fn table(report: &Report, out: &str) -> Vec<String> {
    let shown = |mean: f64, half: Option<f64>| match half {
        Some(half) => format!("{mean:.4} ± {half:.4}"),
        None => format!("{mean:.4}"),
    };
    let model = Untrusted(&report.model).to_string();
    let (method, labels, trained) = (report.method, report.labels, report.trained);
    let mut lines = vec![
        format!("{model}, {method}: {labels} classes, {trained} parameters trained"),
        format!(
            "  {:<16} {:>7} {:>7} {:>9} {:>9} {:>7} {:>9} {:>8}",
            "part", "train", "test", "accuracy", "macro-F1", "steps", "last loss", "seconds"
        ),
    ];
    for part in &report.parts {
        let steps: usize = part.stages.iter().map(|stage| stage.steps).sum();
        let loss = part.stages.last().map_or(f64::NAN, sim::tuning::report::StageReport::last_loss);
        lines.push(format!(
            "  {:<16} {:>7} {:>7} {:>9.4} {:>9.4} {steps:>7} {loss:>9.4} {:>8.1}",
            part.name, part.train, part.test, part.accuracy, part.macro_f1, part.seconds
        ));
    }
    lines.push(format!("  accuracy  {}", shown(report.accuracy, report.accuracy_half)));
    lines.push(format!("  macro-F1  {}", shown(report.macro_f1, report.macro_f1_half)));
    lines.push(format!("  the commonest class alone would give {:.4}", report.majority));
    if let [part] = report.parts.as_slice()
        && report.labels > 2
    {
        let mut classes: Vec<_> = part.classes.iter().filter(|c| c.score.support > 0).collect();
        classes.sort_by(|a, b| a.score.f1.total_cmp(&b.score.f1));
        let weakest = classes.iter().take(WEAKEST);
        let weakest: Vec<String> = weakest
            .map(|class| format!("{} {:.2}", Untrusted(&class.label), class.score.f1))
            .collect();
        lines.push(format!("  weakest classes by F1: {}", weakest.join(", ")));
    }
    lines.push(format!("  adapter, predictions and report are in {}", Untrusted(out)));
    lines
}
