//! What a template is made of. Rows of operations are lists and not trees, so that only what stands in
//! brackets or blocks lies deeper.

/// A statement with the line that it begins in.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) line: usize,
    pub(super) what: What,
}

/// What a statement does.
#[derive(Clone, Debug)]
pub(super) enum What {
    Data(String),
    Print(Expression),
    If {
        arms: Vec<(Expression, Vec<Statement>)>,
        otherwise: Vec<Statement>,
    },
    For(Box<Loop>),
    Set(Target, Expression),
    /// `{% set name %}text{% endset %}`.
    SetText(String, Vec<Statement>),
    Macro(Macro),
    /// `{% generation %}`: names that are set inside end with it.
    Scope(Vec<Statement>),
    Break,
    Continue,
}

/// A loop.
#[derive(Clone, Debug)]
pub(super) struct Loop {
    pub(super) names: Vec<String>,
    pub(super) over: Expression,
    pub(super) only_if: Option<Expression>,
    pub(super) body: Vec<Statement>,
    pub(super) otherwise: Vec<Statement>,
}

/// A macro: parameters with their defaults, and its text.
#[derive(Clone, Debug)]
pub(super) struct Macro {
    pub(super) name: String,
    pub(super) parameters: Vec<(String, Option<Expression>)>,
    pub(super) body: Vec<Statement>,
}

/// What is set.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Names(Vec<String>),
    /// A member of a namespace.
    Member(String, String),
}

/// An expression.
#[derive(Clone, Debug)]
pub(super) enum Expression {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Name(String),
    List(Vec<Expression>),
    Tuple(Vec<Expression>),
    Map(Vec<(Expression, Expression)>),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    /// `or` and `and`.
    Any(Vec<Expression>),
    All(Vec<Expression>),
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    Arithmetic(Box<Expression>, Vec<(Operator, Expression)>),
    /// `~`.
    Joined(Vec<Expression>),
    /// Then, condition, else.
    Choice(Box<(Expression, Expression, Option<Expression>)>),
    /// A value and what is done to it.
    Path(Box<Expression>, Vec<Link>),
}

/// One thing that is done to a value.
#[derive(Clone, Debug)]
pub(super) enum Link {
    Member(String),
    Item(Expression),
    Slice([Option<Expression>; 3]),
    Call(Arguments),
    Method(String, Arguments),
    Filter(String, Arguments),
    Test { name: String, arguments: Arguments, negated: bool },
}

/// Arguments of a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Arguments {
    pub(super) plain: Vec<Expression>,
    pub(super) named: Vec<(String, Expression)>,
}

/// A comparison.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

/// An operator on numbers; `+` and `*` also take texts and lists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Floor,
    Remainder,
    Power,
}
