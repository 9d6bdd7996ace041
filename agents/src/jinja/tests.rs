//! Hostile templates end, soon and within memory; mistakes name their line.

use serde_json::{Map, json};

use super::{LARGEST, Result, Template};

fn render(source: &str) -> Result<String> {
    let mut context = Map::new();
    context.insert("words".to_owned(), json!(["a", {"b": 1}]));
    Template::parse(source)?.render(&context)
}

fn refusal(source: &str) -> String {
    render(source).unwrap_err().to_string()
}

/// A list that holds itself twice, sixty times over: printed it would be longer than any memory.
fn doubled(use_it: &str) -> String {
    format!(
        "{{% set n = namespace(a=[0]) %}}{{% for i in range(60) %}}{{% set n.a = [n.a, n.a] %}}\
         {{% endfor %}}{use_it}"
    )
}

#[test]
fn what_never_ends_is_stopped() {
    let more = "more than a chat template may";
    for endless in [
        "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{{ range(999999999999) }}",
        "{{ range(0, -999999999999, -1) | length }}",
        "{{ 'x' * 999999999999 }}",
        "{{ [] * 999999999999 }}",
        "{{ '' * 9223372036854775807 }}",
        "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% set n = namespace(s='aa') %}{% for i in range(60) %}\
         {% set n.s = n.s | replace('a', 'aaaa') %}{% endfor %}",
        "{% set n = namespace(s='aa') %}{% for i in range(60) %}\
         {% set n.s = n.s.replace('', 'aaaa') %}{% endfor %}",
        "{% set n = namespace(s='a') %}{% for i in range(60) %}\
         {% set n.s = (n.s ~ n.s).split('b') | join(n.s) %}{% endfor %}",
        "{% macro two() %}{{ caller }}{% endmacro %}{% for a in range(99999) %}\
         {% for b in range(99) %}{{ two() }}{% endfor %}{% endfor %}",
    ] {
        assert!(refusal(endless).contains(more), "{endless}: {}", refusal(endless));
    }
}

#[test]
fn lists_of_lists_cannot_outgrow_the_budget() {
    for use_it in [
        "",
        "{{ n.a }}",
        "{{ n.a | tojson }}",
        "{{ n.a ~ '' }}",
        "{{ n.a | string }}",
        "{{ n.a | join }}",
        "{{ n.a | upper }}",
        "{{ n.a == n.a }}",
        "{{ 1 in n.a }}",
        "{{ {'a': n.a} | dictsort }}",
    ] {
        let refused = refusal(&doubled(use_it));
        assert!(refused.contains("more than a chat template may"), "{use_it}: {refused}");
    }
    let deep =
        "{% set n = namespace(a=0) %}{% for i in range(9999) %}{% set n.a = [n.a] %}{% endfor %}";
    assert!(refusal(deep).contains("deeper than 32"), "{}", refusal(deep));
    let maps = deep.replace("[n.a]", "{'a': n.a}");
    assert!(refusal(&maps).contains("deeper than 32"), "{}", refusal(&maps));
    let keys = "{{ {[1]: 2} }}";
    assert!(refusal(keys).contains("cannot be a key"), "{}", refusal(keys));
}

#[test]
fn a_namespace_in_itself_does_no_harm() {
    let knot =
        "{% set n = namespace() %}{% set n.a = n %}{% set n.b = [n] %}{{ n.a.a.b | length }}";
    assert_eq!(render(knot).unwrap(), "1");
    let printed = knot.replace("n.a.a.b | length", "n.b");
    assert!(refusal(&printed).contains("cannot be printed"), "{}", refusal(&printed));
    assert_eq!(render(&knot.replace("n.a.a.b | length", "n.b == [n.a]")).unwrap(), "True");
}

#[test]
fn recursion_is_bounded() {
    let calls_itself = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    assert!(refusal(calls_itself).contains("deeper than 256"), "{}", refusal(calls_itself));
    let widely = "{% macro m(x) %}{% for i in [1, 2] %}{% if i %}{{ [m(x), (m(x))] | join }}{% endif %}\
                  {% endfor %}{% endmacro %}{{ m(1) }}";
    assert!(refusal(widely).contains("deeper than 256"), "{}", refusal(widely));
    for (open, close) in [("(", ")"), ("[", "]"), ("not ", ""), ("-", ""), ("x[", "]"), ("x(", ")")]
    {
        let nested = format!("{{{{ {}1{} }}}}", open.repeat(20_000), close.repeat(20_000));
        assert!(refusal(&nested).contains("deeper than 64"), "{open}: {}", refusal(&nested));
    }
    let blocks = "{% if 1 %}".repeat(10_000);
    assert!(refusal(&blocks).contains("deeper than 64"), "{}", refusal(&blocks));
    let choices = format!("{{{{ {} 1 }}}}", "0 if 0 else ".repeat(10_000));
    assert!(refusal(&choices).contains("deeper than 64"), "{}", refusal(&choices));
}

#[test]
fn long_rows_are_no_depth() {
    let sum = format!("{{{{ 0{} }}}}", " + 1".repeat(20_000));
    assert_eq!(render(&sum).unwrap(), "20000");
    let filters = format!("{{{{ 'a'{} }}}}", "|trim".repeat(20_000));
    assert_eq!(render(&filters).unwrap(), "a");
    let members = format!("{{{{ words{} }}}}", "[:]".repeat(20_000));
    assert_eq!(render(&members).unwrap(), "['a', {'b': 1}]");
    let branches = format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(10_000));
    assert_eq!(render(&branches).unwrap(), "");
    assert!(refusal(&" ".repeat(LARGEST + 1)).contains("bytes are more"));
}

#[test]
fn odd_numbers_are_refused() {
    for (source, reason) in [
        ("{{ 2 ** 9999 }}", "too large"),
        ("{{ 9223372036854775807 + 1 }}", "too large"),
        ("{{ (-9223372036854775807 - 1) // -1 }}", "too large"),
        ("{{ (-9223372036854775807 - 1) % -1 }}", "too large"),
        ("{{ 99999999999999999999 }}", "too large"),
        ("{{ 1 % 0 }}", "divides by zero"),
        ("{{ 'a'[::0] }}", "step is zero"),
        ("{{ range(1, 2, 0) }}", "step is zero"),
        ("{{ 'a' + 1 }}", "a text and a number"),
        ("{{ words | tojson(indent=2, separators=(',', ':')) }}", "separators"),
    ] {
        assert!(refusal(source).contains(reason), "{source}: {}", refusal(source));
    }
    let wide = "{{ [1] | tojson(indent=99999999) }}";
    assert_eq!(render(wide).unwrap(), format!("[\n{}1\n]", " ".repeat(16)));
    let far = "{{ 'abc'[::9223372036854775807] }}{{ 'abc'[-9223372036854775807:] }}";
    assert_eq!(render(far).unwrap(), "aabc");
}

#[test]
fn mistakes_name_their_line() {
    for (source, reason) in [
        ("a\nb\n{% if %}", "line 3: expected a value, found the end of the tag"),
        ("\n{{ x | nosuch }}", "line 2: filter `nosuch` is not known here"),
        ("{{ 1 is nosuch }}", "line 1: test `nosuch` is not known here"),
        ("{{ 'a'.nosuch() }}", "line 1: a text has no method `nosuch` that is known here"),
        ("\n\n{% include 'x' %}", "line 3: tag `include` is unknown"),
        ("{{ x.y }}", "line 1: an undefined value is asked for its `y`"),
        ("{{ nosuch() }}", "line 1: an undefined value cannot be called"),
        ("{% for x in words %}", "line 1: `for` without `endfor`"),
        ("{% break %}", "line 1: `break` outside of a loop"),
        ("\n{# ", "line 2: a comment without end"),
        ("{{ 'a", "line 1: a text without end"),
        ("{{ ) }}", "line 1: `)` closes nothing"),
        ("\n{{ raise_exception('no') }}", "line 2: it refuses the conversation: no"),
        ("{{ strftime_now('%Q') }}", "line 1: strftime_now does not know `%Q`"),
    ] {
        assert!(refusal(source).starts_with(reason), "{source}: {}", refusal(source));
    }
}
