//! Requests in any order and company get the same answers; nobody waits for ever, and memory has a bound.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};

use candle_core::Device;

use super::*;
use crate::adapter::head::HeadSpec;
use crate::adapter::ia3::Ia3Spec;
use crate::adapter::lora::LoraSpec;
use crate::adapter::{Adapter, AdapterSpec, Generation, Method};
use crate::backbone::{builtin, normal};
use crate::engine::queue::Answer;
use crate::name::AgentName;
use crate::sampler::Filter;
use crate::seed::Seed;
use crate::writing::{Draw, Row, write};

type Answers = Receiver<(Key, Result<Got>)>;

fn backbone() -> Arc<Backbone> {
    Arc::new(builtin::polylogue_tiny(&Device::Cpu).unwrap())
}

fn meter() -> Arc<Meter> {
    Arc::new(Meter::new(|| 0, Limits::default()))
}

fn adapter(backbone: &Backbone, method: Method, classes: bool, seed: u64) -> Arc<Adapter> {
    let head = classes.then(|| HeadSpec::new(vec!["a".to_owned(), "b".to_owned()]));
    let spec = AdapterSpec { method, head };
    let first = Adapter::initial(spec.clone(), backbone, Seed::new(seed)).unwrap();
    let moved = |(name, tensor): (&String, &candle_core::Tensor)| {
        let noise = normal(tensor.dims(), 0.05, Seed::new(seed).child(name), &Device::Cpu);
        (name.clone(), (tensor + noise.unwrap()).unwrap())
    };
    let tensors = first.tensors().iter().map(moved).collect();
    Arc::new(Adapter::assemble(spec, Generation(1), tensors, backbone).unwrap())
}

/// An agent for each kind of adapter; the last one classifies.
fn agents(backbone: &Backbone) -> Vec<(AgentName, Arc<Adapter>)> {
    let lora = |rank, targets: &[&str]| Method::Lora(LoraSpec::new(rank, 8.0, targets));
    let family = backbone.network.architecture().family;
    let kinds = [
        lora(4, &["q_proj", "v_proj"]),
        lora(2, &["all-linear"]),
        Method::Ia3(Ia3Spec::usual(family)),
        Method::Prefix { tokens: 3 },
        Method::Frozen,
        lora(3, &["k_proj"]),
    ];
    let count = kinds.len();
    let agent = |(index, method): (usize, Method)| {
        let name = AgentName::new(&format!("agent_{index}")).unwrap();
        (name, adapter(backbone, method, index + 1 == count, index as u64))
    };
    kinds.into_iter().enumerate().map(agent).collect()
}

fn request(
    backbone: &Arc<Backbone>,
    (name, adapter): &(AgentName, Arc<Adapter>),
    episode: u64,
    max_tokens: usize,
) -> (Request, Answers) {
    // The first half of every prompt is the agent's, the rest the episode's.
    let own = name.as_str().len() as u32 + name.as_str().bytes().last().map_or(0, u32::from);
    let mut tokens: Vec<u32> = (0..12).map(|i| 20 + (own + 3 * i) % 60).collect();
    tokens.extend((0..1 + episode as u32 % 5).map(|i| 20 + (episode as u32 + 7 * i) % 60));
    let filter = Filter { top_p: Some(0.95), ..Filter::default() };
    let stream = Box::new(Seed::new(5).child(name.as_str()).index(episode).stream());
    let want = if adapter.head().is_some() {
        Want::Classes
    } else {
        Want::Text(Draw { max_tokens, temperature: 1.0, filter, stop: vec![40, 41], stream })
    };
    let key = (0, name.clone(), episode);
    let (send, receive) = channel();
    let answer = {
        let key = key.clone();
        Answer::new(move |got| drop(send.send((key, got))))
    };
    let (backbone, adapter) = (Arc::clone(backbone), Arc::clone(adapter));
    (Request { key, backbone, adapter, tokens, want, answer }, receive)
}

fn finish(scheduler: &mut Scheduler) {
    for _ in 0..10_000 {
        if !scheduler.has_work() {
            return;
        }
        scheduler.step();
    }
    panic!("the requests do not come to an end");
}

fn gather(answers: Vec<Answers>) -> BTreeMap<Key, String> {
    let got = |answer: Answers| {
        let (key, got) = answer.recv().unwrap();
        // `Debug` of an f64 is exact.
        (key, format!("{:?}", got.unwrap()))
    };
    answers.into_iter().map(got).collect()
}

#[test]
fn answers_depend_on_neither_order_nor_company() {
    let backbone = backbone();
    let agents = agents(&backbone);
    let all: Vec<(usize, u64)> =
        (0..5).flat_map(|episode| (0..agents.len()).map(move |agent| (agent, episode))).collect();
    let mut alone = BTreeMap::new();
    for &(agent, episode) in &all {
        let mut scheduler = Scheduler::new(Limits::default(), meter());
        let (asked, answers) = request(&backbone, &agents[agent], episode, 9);
        scheduler.add(asked);
        finish(&mut scheduler);
        alone.extend(gather(vec![answers]));
    }
    let cramped = Limits { sequences: 5, prompt_tokens: 7, classes: 2, cache_bytes: None };
    for (limits, stride, pause) in [(Limits::default(), 1, 0), (cramped, 7, 2), (cramped, 11, 1)] {
        let counted = meter();
        let mut scheduler = Scheduler::new(limits, Arc::clone(&counted));
        let mut answers = Vec::new();
        for place in 0..all.len() {
            let (agent, episode) = all[place * stride % all.len()];
            let (asked, answer) = request(&backbone, &agents[agent], episode, 9);
            scheduler.add(asked);
            answers.push(answer);
            for _ in 0..pause {
                scheduler.step();
            }
        }
        finish(&mut scheduler);
        let found = gather(answers);
        assert_eq!(found, alone, "{limits:?}");
        let usage = counted.read();
        assert!(pause == 0 || usage.shared_tokens > 0, "beginnings are shared: {usage:?}");
        assert_eq!((usage.waiting, usage.running, usage.classes), (0, 0, 5));
    }
}

/// Steps begin before the tokens of the last one have come; texts are taken back in between.
#[test]
fn answers_are_the_same_where_tokens_come_late() {
    let backbone = backbone();
    let agents = agents(&backbone);
    let cramped = Limits { sequences: 5, prompt_tokens: 7, classes: 2, cache_bytes: None };
    let run = |is_late: bool| {
        let mut scheduler = Scheduler::new(cramped, meter());
        if is_late {
            let desk = Desk::new(Arc::clone(&backbone), cramped.sequences).unwrap();
            scheduler.desks.push(desk.late());
        }
        let mut answers = Vec::new();
        for (episode, agent) in (0..8).flat_map(|n| agents.iter().map(move |agent| (n, agent))) {
            let (asked, answer) = request(&backbone, agent, episode, 9);
            let key = asked.key.clone();
            scheduler.add(asked);
            scheduler.step();
            if episode % 3 == 1 && agent.1.head().is_none() {
                scheduler.cancel(&key);
                assert!(answer.recv().unwrap().1.is_err(), "it has nine tokens to write");
            } else {
                answers.push(answer);
            }
        }
        finish(&mut scheduler);
        assert_eq!(scheduler.desks.len(), 1);
        gather(answers)
    };
    let found = run(true);
    assert!(found.len() == 8 * 6 - 3 * 5 && found == run(false), "{}", found.len());
}

#[test]
fn a_text_is_the_one_that_is_written_without_an_engine() {
    let backbone = backbone();
    let agents = agents(&backbone);
    let mut scheduler = Scheduler::new(Limits::default(), meter());
    let (mut answers, mut rows) = (Vec::new(), Vec::new());
    for (agent, episode) in agents.iter().zip(0..).flat_map(|(a, n)| [(a, n), (a, n + 9)]) {
        let (asked, _) = request(&backbone, agent, episode, 9);
        let Want::Text(draw) = asked.want else { continue };
        rows.push(Row { adapter: Some(asked.adapter), prompt: asked.tokens, draw });
        let (asked, answer) = request(&backbone, agent, episode, 9);
        scheduler.add(asked);
        answers.push(answer);
    }
    finish(&mut scheduler);
    let texts = write(&backbone, rows).unwrap();
    assert!(texts.len() == 10 && texts.iter().any(|text| text.tokens.len() == 9), "{texts:?}");
    for (answer, text) in answers.into_iter().zip(texts) {
        assert_eq!(answer.recv().unwrap().1.unwrap(), Got::Text(text));
    }
}

#[test]
fn hundreds_of_requests_come_to_an_end_and_one_agent_does_not_shut_out_another() {
    let backbone = backbone();
    let agents = agents(&backbone);
    let limits = Limits { sequences: 8, ..Limits::default() };
    let mut scheduler = Scheduler::new(limits, meter());
    let mut answers = Vec::new();
    for episode in 0..300 {
        let (asked, answer) = request(&backbone, &agents[0], episode, 2);
        scheduler.add(asked);
        answers.push(answer);
    }
    let (late, answer) = request(&backbone, &agents[1], 0, 1);
    scheduler.add(late);
    for _ in 0..4 {
        scheduler.step();
    }
    assert!(answer.try_recv().is_ok(), "the other agent was served among the first");
    finish(&mut scheduler);
    assert_eq!(gather(answers).len(), 300);
}

/// Texts of two generations of an agent at once: each reads under its own, whoever began a prompt first.
#[test]
fn what_was_read_under_one_generation_is_never_read_under_another() {
    let backbone = backbone();
    let name = AgentName::new("agent").unwrap();
    let lora = || Method::Lora(LoraSpec::new(4, 8.0, &["all-linear"]));
    let old = (name.clone(), adapter(&backbone, lora(), false, 1));
    let (spec, tensors) = (old.1.spec().clone(), adapter(&backbone, lora(), false, 2));
    let new = Adapter::assemble(spec, Generation(2), tensors.tensors().clone(), &backbone);
    let new = (name, Arc::new(new.unwrap()));
    let alone = |agent: &(AgentName, Arc<Adapter>), episode| {
        let mut scheduler = Scheduler::new(Limits::default(), meter());
        let (asked, answer) = request(&backbone, agent, episode, 9);
        scheduler.add(asked);
        finish(&mut scheduler);
        gather(vec![answer])
    };
    // The generations take turns; a step reads a part of one prompt only.
    let rounds = [(&old, [1, 2]), (&new, [3, 4]), (&old, [5, 6]), (&new, [7, 8])];
    let limits = Limits { prompt_tokens: 5, ..Limits::default() };
    for pause in 0..5 {
        let counted = meter();
        let mut scheduler = Scheduler::new(limits, Arc::clone(&counted));
        let mut answers = Vec::new();
        let mut expected = BTreeMap::new();
        for (agent, episodes) in rounds {
            for episode in episodes {
                let (asked, answer) = request(&backbone, agent, episode, 9);
                scheduler.add(asked);
                answers.push(answer);
                expected.extend(alone(agent, episode));
            }
            (0..pause).for_each(|_| scheduler.step());
        }
        finish(&mut scheduler);
        // Once all have been read, what is kept is of use to the next.
        let (asked, answer) = request(&backbone, &new, 9, 9);
        scheduler.add(asked);
        answers.push(answer);
        expected.extend(alone(&new, 9));
        finish(&mut scheduler);
        assert_eq!(gather(answers), expected, "{pause}");
        assert!(counted.read().shared_tokens > 0, "{pause}");
    }
}

/// A classifier's answer is in its own classes, whoever is answered in the same step.
#[test]
fn classes_are_those_of_the_network_and_a_bad_text_spoils_no_other() {
    let backbone = backbone();
    let name = AgentName::new("agent").unwrap();
    let mut scheduler = Scheduler::new(Limits::default(), meter());
    let mut expected = Vec::new();
    let mut answers = Vec::new();
    for (episode, method) in
        [Method::Frozen, Method::Layers { freeze_layers: 2 }, Method::Full].into_iter().enumerate()
    {
        let adapter = adapter(&backbone, method, true, episode as u64);
        for bad in [false, true] {
            let key = 2 * episode as u64 + u64::from(bad);
            let (mut asked, answer) = request(&backbone, &(name.clone(), adapter.clone()), key, 0);
            if bad {
                asked.tokens.clear();
            }
            let text = [asked.tokens.clone()];
            expected.push(classifying::classify(&backbone, &adapter, &text).ok());
            scheduler.add(asked);
            answers.push(answer);
        }
    }
    scheduler.step();
    for (expected, answer) in expected.into_iter().zip(answers) {
        let found = answer.recv().unwrap().1;
        let Some([expected]) = expected.as_deref() else {
            assert!(found.is_err());
            continue;
        };
        let Got::Classes(found) = found.unwrap() else { panic!("a text") };
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
        assert!((found[0] - 0.5).abs() > 1e-4, "a head that tells nothing: {found:?}");
    }
}

#[test]
fn classifiers_have_classes_of_their_own() {
    let backbone = backbone();
    let agent = |name: &str, labels: &[&str]| {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        let spec = AdapterSpec { method: Method::Frozen, head: Some(HeadSpec::new(labels)) };
        let adapter = Adapter::initial(spec, &backbone, Seed::new(1)).unwrap();
        (AgentName::new(name).unwrap(), Arc::new(adapter))
    };
    let agents = [agent("two", &["a", "b"]), agent("four", &["b", "c", "d", "a"])];
    let counted = meter();
    let mut scheduler = Scheduler::new(Limits::default(), Arc::clone(&counted));
    let mut answers = Vec::new();
    for agent in &agents {
        let (asked, answer) = request(&backbone, agent, 1, 0);
        scheduler.add(asked);
        answers.push(answer);
    }
    scheduler.step();
    for (answer, (_, adapter)) in answers.iter().zip(&agents) {
        let Got::Classes(found) = answer.recv().unwrap().1.unwrap() else { panic!("a text") };
        assert_eq!(found.len(), adapter.labels().len());
        assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{found:?}");
    }
    assert_eq!(counted.read().classes, 2);
}

#[test]
fn a_request_is_taken_back_wherever_it_is_and_one_that_comes_again_replaces_the_first() {
    let backbone = backbone();
    let agents = agents(&backbone);
    let mut scheduler = Scheduler::new(Limits::default(), meter());
    let (first, gone) = request(&backbone, &agents[0], 1, 50);
    let (other, stays) = request(&backbone, &agents[1], 1, 3);
    scheduler.add(first);
    scheduler.add(other);
    scheduler.step();
    scheduler.cancel(&(0, agents[0].0.clone(), 1));
    assert!(matches!(gone.recv().unwrap().1, Err(ModelError::Cancelled)));
    let (again, replaced) = request(&backbone, &agents[0], 2, 3);
    let (anew, answered) = request(&backbone, &agents[0], 2, 3);
    scheduler.add(again);
    scheduler.add(anew);
    assert!(matches!(replaced.recv().unwrap().1, Err(ModelError::Cancelled)));
    finish(&mut scheduler);
    assert!(answered.recv().unwrap().1.is_ok() && stays.recv().unwrap().1.is_ok());
}

#[test]
fn the_cache_keeps_to_its_budget_and_a_text_that_can_never_fit_is_refused() {
    let backbone = backbone();
    let agents = agents(&backbone);
    let block = of_one_block(&backbone);
    let limits = Limits { cache_bytes: Some(3 * block), ..Limits::default() };
    let counted = meter();
    let mut scheduler = Scheduler::new(limits, Arc::clone(&counted));
    let mut answers = Vec::new();
    for episode in 0..12 {
        let (asked, answer) = request(&backbone, &agents[episode as usize % 4], episode, 6);
        scheduler.add(asked);
        answers.push(answer);
    }
    let (long, refused) = request(&backbone, &agents[0], 99, 96);
    scheduler.add(long);
    while scheduler.has_work() {
        scheduler.step();
        assert!(counted.read().cache_bytes <= 3 * block, "{:?}", counted.read());
    }
    assert_eq!(gather(answers).len(), 12);
    let error = refused.recv().unwrap().1.unwrap_err().to_string();
    assert!(error.contains("max_tokens"), "{error}");
}

/// Also of prefixes, which nobody's prompt has, and of kept beginnings, whose last blocks are copied.
#[test]
fn no_more_is_held_than_is_promised() {
    let backbone = backbone();
    let agents = agents(&backbone);
    let limits = Limits { sequences: 6, ..Limits::default() };
    let counted = meter();
    let mut scheduler = Scheduler::new(limits, Arc::clone(&counted));
    let mut answers = Vec::new();
    for episode in 0..20 {
        // From a token to three blocks.
        let tokens = 1 + episode as usize * 5;
        let (asked, answer) = request(&backbone, &agents[episode as usize % 5], episode, tokens);
        scheduler.add(asked);
        answers.push(answer);
    }
    let mut most = 0;
    while scheduler.has_work() {
        scheduler.step();
        let desk = &scheduler.desks[0];
        let (held, promised) = (desk.session().held() as u64, desk.bytes());
        assert!(held <= promised, "{held} bytes are held, {promised} promised");
        most = most.max(held);
    }
    assert!(most > 0 && counted.read().shared_tokens > 0 && gather(answers).len() == 20);
    // What is left is what is kept.
    let desk = &scheduler.desks[0];
    assert_eq!(desk.session().held() as u64, desk.bytes());
    let of = |tokens| {
        let architecture = backbone.network.architecture();
        crate::engine::memory::of_cache(architecture, crate::backbone::Precision::F32, 1, tokens)
    };
    assert!([1, 31, 32, 33, 96].iter().all(|&n| of(n) == desk.session().bytes(n) as u64));
}

fn of_one_block(backbone: &Backbone) -> u64 {
    let architecture = backbone.network.architecture();
    crate::engine::memory::of_cache(architecture, crate::backbone::Precision::F32, 1, 1)
}

#[test]
fn a_prompt_that_is_too_long_fails_by_itself() {
    let backbone = backbone();
    let agents = agents(&backbone);
    let mut scheduler = Scheduler::new(Limits::default(), meter());
    let (mut long, refused) = request(&backbone, &agents[0], 1, 3);
    long.tokens = vec![20; backbone.network.architecture().positions + 1];
    let (short, fine) = request(&backbone, &agents[1], 1, 3);
    scheduler.add(long);
    scheduler.add(short);
    finish(&mut scheduler);
    assert!(matches!(refused.recv().unwrap().1, Err(ModelError::TooLong { .. })));
    assert!(fine.recv().unwrap().1.is_ok());
}

#[test]
fn a_new_announcement_sends_back_what_was_asked_before() {
    let backbone = backbone();
    let agents = agents(&backbone);
    let mut scheduler = Scheduler::new(Limits::default(), meter());
    let (first, old) = request(&backbone, &agents[0], 1, 50);
    let (late, stale) = request(&backbone, &agents[1], 1, 3);
    let (mut second, new) = request(&backbone, &agents[1], 2, 3);
    second.key.0 = 1;
    scheduler.add(first);
    scheduler.step();
    scheduler.expect(&[second.key.clone()]);
    scheduler.add(late);
    scheduler.add(second);
    assert!(matches!(old.recv().unwrap().1, Err(ModelError::Cancelled)));
    assert!(matches!(stale.recv().unwrap().1, Err(ModelError::Cancelled)));
    finish(&mut scheduler);
    assert!(new.recv().unwrap().1.is_ok());
}
