//! Templates say what `transformers` makes of them, and are found in a directory.

use serde_json::Value;

use super::*;
use crate::prompt;
use crate::prompt::provenance::Words;
use crate::tokenizer::Tokenizer;

/// Made by tests/peers/chat.py.
const GOLDEN: &str = include_str!("../../../tests/golden/chat.json");
/// One word, and tokens that begin and end a text.
const TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
    "normalizer":null,"pre_tokenizer":{"type":"WhitespaceSplit"},"post_processor":null,"decoder":null,
    "model":{"type":"WordLevel","unk_token":"<u>","vocab":{"<u>":0,"<b>":1,"<e>":2,"hi":3}}}"#;

fn messages(case: &Value) -> Vec<Message> {
    let turn = |message: &Value| {
        let role = match message["role"].as_str() {
            Some("system") => "system",
            Some("user") => "user",
            _ => "assistant",
        };
        Message::new(role, message["content"].as_str().unwrap())
    };
    case["messages"].as_array().unwrap().iter().map(turn).collect()
}

#[test]
fn says_what_transformers_says() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 24);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let source = golden["templates"][name].as_str().unwrap();
        let template = ChatTemplate::parse(source, Some("<s>"), Some("</s>")).unwrap();
        let prompt = case["add_generation_prompt"].as_bool().unwrap();
        let said = template.render(&messages(case), prompt).unwrap();
        assert_eq!(said, case["text"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn directories_hold_templates_in_three_ways() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("tokenizer.json", TOKENIZER);
    let load = || Tokenizer::from_directory(directory.path());
    let said = || {
        let tokenizer = load().unwrap();
        let text = tokenizer.chat().unwrap().render(&[Message::new("user", "hi")], false).unwrap();
        (text, tokenizer.ends().to_vec())
    };
    assert!(load().unwrap().chat().is_none());
    // Without a name that is usual, the end is known from the files alone, with a template or without.
    assert_eq!((load().unwrap().end(), load().unwrap().ends()), (None, [].as_slice()));
    write("config.json", r#"{"eos_token_id": [99, 2]}"#);
    assert!(load().unwrap().chat().is_none());
    assert_eq!((load().unwrap().end(), load().unwrap().ends()), (Some(2), [2].as_slice()));
    assert!(prompt::stops(&load().unwrap()).unwrap().contains(&2));
    write(
        "tokenizer_config.json",
        r#"{"bos_token": {"content": "<b>"}, "eos_token": null,
            "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"}"#,
    );
    assert_eq!(said(), ("<b>hi".to_owned(), vec![2]));
    write("generation_config.json", r#"{"eos_token_id": [3, 1]}"#);
    write(
        "tokenizer_config.json",
        r#"{"bos_token": null, "eos_token": "<e>", "chat_template": [
            {"name": "tool_use", "template": "no"},
            {"name": "default", "template": "[{{ bos_token }}{{ eos_token }}]"}]}"#,
    );
    assert_eq!(said(), ("[<e>]".to_owned(), vec![3, 1, 2]));
    write("chat_template.jinja", "{{ eos_token }}file");
    assert_eq!(said().0, "<e>file");
}

#[test]
fn a_bad_template_names_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let refusal = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).unwrap();
        // A model with a bad template can still be loaded.
        let loaded = Tokenizer::from_directory(directory.path());
        let error = loaded.and_then(|it| it.chat().unwrap().render(&[], true)).unwrap_err();
        error.to_string().replace(&directory.path().display().to_string(), "")
    };
    std::fs::write(directory.path().join("tokenizer.json"), TOKENIZER).unwrap();
    let config = "tokenizer_config.json";
    assert_eq!(
        refusal(config, r#"{"chat_template": [{"name": "rag", "template": ""}]}"#),
        r#"/tokenizer_config.json is not a valid tokenizer configuration: no chat template named `default`, only ["rag"]"#
    );
    assert_eq!(
        refusal(config, r#"{"chat_template": 7}"#),
        "/tokenizer_config.json is not a valid tokenizer configuration: `chat_template` is neither a text nor a list"
    );
    assert_eq!(
        refusal(config, r#"{"chat_template": "\n{% for %}"}"#),
        "/tokenizer_config.json is not a valid chat template: line 2: expected a name, found the end of the tag"
    );
    let broken = Tokenizer::from_directory(directory.path()).unwrap();
    let hi = Words::of_task("hi");
    assert!(prompt::understand(&broken, hi).is_ok());
    for error in [
        prompt::reply(&broken, hi, None).unwrap_err(),
        prompt::answer(&broken, "hi").unwrap_err(),
        prompt::stops(&broken).unwrap_err(),
    ] {
        assert!(error.to_string().contains("line 2: expected a name"), "{error}");
    }
    assert!(refusal(config, "{").starts_with("/tokenizer_config.json is not a valid JSON file"));
    std::fs::remove_file(directory.path().join(config)).unwrap();
    assert_eq!(
        refusal("chat_template.jinja", "{% extends 'a' %}"),
        "/chat_template.jinja is not a valid chat template: line 1: tag `extends` is unknown; known are if, \
         for, set, macro, generation, break, continue"
    );
}
