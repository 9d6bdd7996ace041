//! Every mistake that a scenario can contain: one variant each, with its place and a way out.
//!
//! Names in the messages are quoted already (see [`super::suggestion`]); nothing here decides what is a
//! mistake. How many mistakes become one report is in [`report`]; those of ordered faults in [`fault`], those of
//! who meets in [`meeting`].

pub mod fault;
pub mod meeting;
pub mod report;

use std::sync::Arc;

use miette::{Diagnostic, NamedSource, SourceSpan};
use thiserror::Error;

use self::fault::FaultProblem;
use self::meeting::MeetingProblem;

/// One mistake.
#[derive(Debug, Error, Diagnostic)]
#[expect(missing_docs, reason = "the fields are the holes of the message above each variant")]
#[non_exhaustive]
pub enum Problem {
    // --- the file ------------------------------------------------------------------------------------
    /// There is no such file or folder.
    #[error("there is no scenario at {path}")]
    MissingFile {
        path: String,
        #[help]
        help: String,
    },
    /// The system refused to read the file.
    #[error("could not read {path}: {reason}")]
    UnreadableFile { path: String, reason: String },
    /// The file is larger than any scenario.
    #[error("{path} is larger than {limit} bytes, the most that is read of a scenario")]
    #[diagnostic(help("large data belongs into files of its own, named under `[task.support]`"))]
    FileTooLarge { path: String, limit: u64 },
    /// The file is not text.
    #[error("{path} is not UTF-8 text: byte {offset} (line {line}) is not part of a character")]
    #[diagnostic(help("save the file with the encoding UTF-8"))]
    NotText { path: String, offset: usize, line: usize },

    // --- the command line ----------------------------------------------------------------------------
    /// An override is not `path=value`.
    #[error("`--set` takes path=value")]
    #[diagnostic(help(
        "write it as in --set task.support.train=my.csv or --set triggers.0.train.grpo.steps=4"
    ))]
    InvalidOverride {
        #[source_code]
        typed: Arc<NamedSource<String>>,
        #[label("{reason}")]
        at: SourceSpan,
        reason: String,
    },
    /// An override names a place that cannot be.
    #[error("`--set` cannot reach {place}")]
    #[diagnostic(help(
        "keys lead from table to table, positions into lists, as in triggers.0.train.grpo.steps"
    ))]
    UnreachableOverride {
        place: String,
        #[source_code]
        typed: Arc<NamedSource<String>>,
        #[label("{reason}")]
        at: SourceSpan,
        reason: String,
    },

    // --- the form of the file ------------------------------------------------------------------------
    /// The file is not TOML.
    #[error("not valid TOML: {reason}")]
    Syntax {
        reason: String,
        #[label("here")]
        at: SourceSpan,
        #[help]
        help: Option<String>,
    },
    /// A key that nobody knows.
    #[error("unknown key {key} in {place}")]
    UnknownKey {
        key: String,
        place: String,
        #[label("not known here")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// A value of another type.
    #[error("{key} must be {expected}")]
    WrongType {
        key: String,
        expected: &'static str,
        found: &'static str,
        #[label("this is {found}")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// A table that every scenario has is missing.
    #[error("the scenario has no table `[{name}]`")]
    MissingTable {
        name: String,
        #[label("the file ends without it")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// A key that its table needs is missing.
    #[error("{place} lacks `{name}`")]
    MissingKey {
        name: String,
        place: String,
        #[label("`{name}` is missing here")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// A choice that is not made.
    #[error("{place} chooses nothing")]
    NoVariant {
        place: String,
        #[label("needs exactly one choice")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// A choice that is made more than once.
    #[error("{place} chooses more than one: {chosen}")]
    SeveralVariants {
        place: String,
        chosen: String,
        #[label("the second choice")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// The form is right for us and not for serde: a mistake of ours.
    #[error("could not make sense of the scenario: {reason}")]
    #[diagnostic(help("this message should never appear; please report it with the scenario"))]
    Undecodable {
        reason: String,
        #[label("here")]
        at: SourceSpan,
    },

    // --- numbers -------------------------------------------------------------------------------------
    /// A whole number out of its bounds.
    #[error("{key} is {found}, but must be {bounds}")]
    CountOutOfRange {
        key: String,
        found: String,
        bounds: String,
        #[label("out of bounds")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// A rank that no update has.
    #[error("the rank of {place} is {found}, but must be {bounds}")]
    #[diagnostic(help("a rank of 4 to 16 is usual; write `rank = 8`"))]
    RankOutOfRange {
        place: String,
        found: String,
        bounds: String,
        #[label("out of bounds")]
        at: SourceSpan,
    },
    /// A scale that is no scale.
    #[error("{key} is {found}, but must be {bounds}")]
    #[diagnostic(help("leave `alpha` out for twice the rank, which scales the update by 2"))]
    AlphaOutOfRange {
        key: String,
        found: String,
        bounds: String,
        #[label("out of bounds")]
        at: SourceSpan,
    },
    /// A number of layers that cannot be frozen.
    #[error("{key} is {found}, but must be {bounds}")]
    #[diagnostic(help(
        "`freeze_layers = 0` trains every layer; with all layers frozen only the head is trained"
    ))]
    FrozenLayersOutOfRange {
        key: String,
        found: String,
        bounds: String,
        #[label("out of bounds")]
        at: SourceSpan,
    },
    /// A temperature that nothing can be sampled at.
    #[error("{key} is {found}, but must be {bounds}")]
    #[diagnostic(help(
        "0 always picks the likeliest token, 1 samples from the model as it is; 0.7 is usual"
    ))]
    TemperatureOutOfRange {
        key: String,
        found: String,
        bounds: String,
        #[label("out of bounds")]
        at: SourceSpan,
    },
    /// A learning rate that teaches nothing or destroys.
    #[error("{key} is {found}, but must be {bounds}")]
    #[diagnostic(help(
        "1e-2 is usual for a classifier on frozen features, 3e-4 for GRPO; to learn nothing, remove the trigger"
    ))]
    LearningRateOutOfRange {
        key: String,
        found: String,
        bounds: String,
        #[label("out of bounds")]
        at: SourceSpan,
    },
    /// A number that compares with nothing.
    #[error("{key} is {found}, which no mean can be compared with")]
    #[diagnostic(help("write an ordinary number, such as `below = 0.7`"))]
    NotFinite {
        key: String,
        found: String,
        #[label("not a finite number")]
        at: SourceSpan,
    },

    // --- backbones and agents ------------------------------------------------------------------------
    /// A scenario without agents.
    #[error("the scenario has no agents")]
    #[diagnostic(help(
        "add a table for each, such as `[agents.reply]`; see scenarios/customer_service"
    ))]
    NoAgents {
        #[label("nobody here")]
        at: SourceSpan,
    },
    /// A name that no agent may have.
    #[error("{name} is not a name for an agent")]
    #[diagnostic(help("use 1 to 32 of a-z, 0-9, `_` and `-`, starting with a letter"))]
    InvalidAgentName {
        name: String,
        #[label("not a name")]
        at: SourceSpan,
    },
    /// A backbone that is not in the file.
    #[error("the agent {agent} has the backbone {name}, which the scenario does not have")]
    UnknownBackbone {
        agent: String,
        name: String,
        #[label("no such backbone")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// A backbone from nowhere.
    #[error("the backbone {name} has none of `builtin`, `path` and `hub`")]
    #[diagnostic(help(
        "write `builtin = \"polylogue-tiny\"`, `path = \"FOLDER\"` or `hub = \"OWNER/NAME@REVISION\"`"
    ))]
    NoBackboneSource {
        name: String,
        #[label("from where?")]
        at: SourceSpan,
    },
    /// A backbone from several places.
    #[error("the backbone {name} has more than one of `builtin`, `path` and `hub`")]
    #[diagnostic(help("keep one of them"))]
    TwoBackboneSources {
        name: String,
        #[label("from here")]
        first: SourceSpan,
        #[label("or from here?")]
        at: SourceSpan,
    },
    /// A name that no model of the hub has.
    #[error("{name} names no model of the hub: {reason}")]
    #[diagnostic(help(
        "write `hub = \"OWNER/NAME\"`, or `hub = \"OWNER/NAME@REVISION\"` for a branch, tag or commit"
    ))]
    InvalidHubModel {
        name: String,
        reason: String,
        #[label("no model")]
        at: SourceSpan,
    },
    /// A network that is not inside the binary.
    #[error("there is no builtin network {name}")]
    UnknownBuiltin {
        name: String,
        #[label("not built in")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// A model that is not there.
    #[error("the backbone {name} is said to be in {path}, but there is no model")]
    #[diagnostic(help(
        "give a .gguf file, or a folder with config.json, tokenizer.json and model.safetensors"
    ))]
    MissingBackbone {
        name: String,
        path: String,
        #[label("neither a folder nor a .gguf file")]
        at: SourceSpan,
    },
    /// A folder that should hold an adapter is missing.
    #[error("there is no adapter in {path}")]
    #[diagnostic(help("give a folder with adapter_config.json and adapter_model.safetensors"))]
    MissingAdapter {
        path: String,
        #[label("no such folder")]
        at: SourceSpan,
    },
    /// A module that cannot be adapted.
    #[error("no network has a map {name} that could be adapted")]
    UnknownTarget {
        name: String,
        #[label("no such module")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// A module named twice.
    #[error("the module {name} is named twice")]
    #[diagnostic(help("remove one of the two"))]
    DuplicateTarget {
        name: String,
        #[label("first here")]
        first: SourceSpan,
        #[label("and again here")]
        at: SourceSpan,
    },
    /// A method without modules.
    #[error("there are no modules to adapt")]
    #[diagnostic(help("write `targets = [\"q_proj\", \"v_proj\"]`, the usual choice"))]
    NoTargets {
        #[label("empty")]
        at: SourceSpan,
    },
    /// A scaled input of a map that is not scaled.
    #[error("`feedforward` names {name}, which is not among the targets")]
    FeedforwardWithoutTarget {
        name: String,
        #[label("no target")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// A word that is none of a closed choice.
    #[error("there is no {what} {name}")]
    UnknownChoice {
        what: &'static str,
        name: String,
        #[label("not known")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// Labels that nobody has.
    #[error("there are no labels {name}")]
    UnknownLabels {
        name: String,
        #[label("not known")]
        at: SourceSpan,
        #[help]
        help: String,
    },

    // --- meeting and learning ------------------------------------------------------------------------
    /// An agent that is not in the file.
    #[error("{place} names the agent {name}, which the scenario does not have")]
    UnknownAgent {
        place: String,
        name: String,
        #[label("no such agent")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// An agent that speaks twice.
    #[error("the agent {name} is twice in the order")]
    #[diagnostic(help("in a pipeline each agent speaks once; remove one of the two"))]
    DuplicateInOrder {
        name: String,
        #[label("first here")]
        first: SourceSpan,
        #[label("and again here")]
        at: SourceSpan,
    },
    /// An agent that never speaks.
    #[error("the agent {name} is never in the order")]
    AgentNotInOrder {
        name: String,
        #[label("has no turn")]
        at: SourceSpan,
        #[label("the order")]
        order: SourceSpan,
        #[help]
        help: String,
    },
    /// Agents whose parts do not make a pipeline.
    #[error("a pipeline needs an intent classifier, then a writer, then a judge of replies")]
    WrongParts {
        parts: String,
        #[label("{parts}")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// GRPO for an agent that writes nothing.
    #[error("GRPO trains writers, and {agent} classifies")]
    #[diagnostic(help(
        "write `train.supervised = {{ … }}` instead, or name an agent with `transfer.lora`"
    ))]
    GrpoWithoutTexts {
        agent: String,
        #[label("writes no texts")]
        at: SourceSpan,
    },
    /// A rate for a matrix that is not there.
    #[error("`lora_plus` is for low-rank updates, and this agent has none")]
    #[diagnostic(help("leave it out, or train the agent with `transfer.lora = {{ … }}`"))]
    LoraPlusWithoutLora {
        #[label("no matrices A and B")]
        at: SourceSpan,
    },
    /// A signal that nobody measures.
    #[error("there is no signal {name}")]
    UnknownSignal {
        name: String,
        #[label("not measured")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// A mistake of an ordered fault.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fault(FaultProblem),
    /// A mistake of who meets, and how.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Meeting(MeetingProblem),

    // --- data ----------------------------------------------------------------------------------------
    /// Data that is not there.
    #[error("the data file {path} does not exist")]
    MissingData {
        path: String,
        #[label("no such file")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// Data in a form that is not read.
    #[error("the data file {path} is neither .jsonl nor .csv")]
    #[diagnostic(help(
        "convert it to JSON lines or CSV; the file's ending decides how it is read"
    ))]
    UnknownDataFormat {
        path: String,
        #[label("cannot be read")]
        at: SourceSpan,
    },
    /// A column that the data does not have.
    #[error("{path} has no column {name} for `{role}`")]
    UnknownColumn {
        path: String,
        name: String,
        role: &'static str,
        #[label("has no such column")]
        at: SourceSpan,
        #[help]
        help: String,
    },
    /// A path that leads out of the scenario's folder.
    #[error("{path} leads out of the scenario's folder")]
    #[diagnostic(help(
        "a scenario reads only what is below its own folder, so that it can be shared and trusted; \
         copy the files there, or name them on the command line with --set {key}=PATH"
    ))]
    PathLeavesFolder {
        key: String,
        path: String,
        #[label("leads elsewhere")]
        at: SourceSpan,
    },
}

impl Problem {
    /// The first byte it points at in the scenario's text.
    pub(super) fn offset(&self) -> usize {
        let own_source = self.source_code().is_some();
        let labels = self.labels().filter(|_| !own_source);
        labels.and_then(|all| all.map(|label| label.offset()).min()).unwrap_or(0)
    }
}
