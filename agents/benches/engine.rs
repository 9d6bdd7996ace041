//! The engine on the embedded backbone: writing under one, none and many adapters, learning together,
//! learning from rewards, and as many requests waiting as may.
//!
//! `cargo bench --workspace --bench engine`; for a model and a machine of your own, `polylogue bench`.

use std::hint::black_box;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use agents::adapter::{Adapter, AdapterSpec, Method};
use agents::backbone::builtin;
use agents::bench::{Mix, jobs};
use agents::device::DeviceKind;
use agents::engine::Engine;
use agents::engine::queue::{Answer, Request, Want};
use agents::learning::job::{Job, JobSpec, Lesson, Settings};
use agents::learning::objective::grpo::{Grpo, Prompt};
use agents::learning::together;
use agents::name::AgentName;
use agents::seed::Seed;
use agents::session::{Part, Session, Slot};
use agents::writing::{Draw, Row, write};
use criterion::Criterion;

/// Requests that wait at once, as many as may, and who asks.
const WAITING: u64 = 65_536;
const AGENTS: u64 = 1_000;
/// More steps than are taken.
const STEPS: usize = 1_000_000;

fn writing(criterion: &mut Criterion) {
    let device = DeviceKind::Cpu.open().expect("there is a CPU");
    let backbone = Arc::new(builtin::polylogue_tiny(&device).expect("it is embedded"));
    for (name, sequences, mix) in [
        ("1", 1, Mix::None),
        ("16", 16, Mix::None),
        ("16_lora_qv", 16, Mix::Attention),
        ("16_lora_all", 16, Mix::All),
    ] {
        let mut session = Session::new(Arc::clone(&backbone)).expect("it writes");
        let adapters = (0..sequences).map(|n| mix.adapter(&backbone, n).expect("it suits"));
        let adapters: Vec<_> = adapters.collect();
        let step = |session: &mut Session, slots: &[Slot]| {
            let part = |&slot: &Slot| Part::new(slot, &[7], true);
            let parts: Vec<Part<'_>> = slots.iter().map(part).collect();
            black_box(session.step(&parts).expect("there is room"));
        };
        criterion.bench_function(&format!("writing_16_tokens/{name}"), |bencher| {
            bencher.iter(|| {
                let slots: Vec<Slot> = adapters.iter().map(|a| session.open(a.clone())).collect();
                (0..16).for_each(|_| step(&mut session, &slots));
                slots.into_iter().for_each(|slot| session.close(slot));
            });
        });
    }
}

fn learning(criterion: &mut Criterion) {
    let device = DeviceKind::Cpu.open().expect("there is a CPU");
    let backbone = Arc::new(builtin::polylogue_tiny(&device).expect("it is embedded"));
    let mut group = criterion.benchmark_group("a_step_of_8_jobs");
    group.sample_size(10);
    let mut all = jobs(&backbone, Mix::Attention, STEPS).expect("it suits");
    group.bench_function("one_after_the_other", |bencher| {
        bencher.iter(|| all.iter_mut().for_each(|job| drop(black_box(job.step()))));
    });
    group.bench_function("together", |bencher| {
        bencher.iter(|| black_box(together::step(&mut all)));
    });
    group.finish();
}

/// A step of a GRPO job: 8 prompts of 12 tokens, 8 replies of 24 tokens to each, and what they teach; and the
/// same replies by themselves.
fn rewards(criterion: &mut Criterion) {
    let device = DeviceKind::Cpu.open().expect("there is a CPU");
    let backbone = Arc::new(builtin::polylogue_tiny(&device).expect("it is embedded"));
    let prompt = |key: usize| {
        let tokens = (0..12).map(|place| (20 + 31 * key + 7 * place) as u32).collect();
        Prompt { key, tokens }
    };
    let prompts: Vec<Prompt> = (0..8).map(prompt).collect();
    let grpo = Grpo {
        prompts: prompts.clone(),
        group: 8,
        temperature: 1.0,
        max_tokens: 24,
        stop: Vec::new(),
        reward: Arc::new(|_, reply| reply.len() as f64 / 200.0),
    };
    let from = Mix::Attention.adapter(&backbone, 1).expect("it suits").expect("it is one");
    let spec = JobSpec {
        lesson: Lesson::Grpo(grpo),
        steps: STEPS,
        batch: 8,
        // Every step is as long as the first.
        learning_rate: 0.0,
        settings: Settings::default(),
        seed: Seed::new(1),
    };
    let rows = || {
        let draw = |member: u64| {
            let stream = Box::new(Seed::new(1).index(member).stream());
            Draw { temperature: 1.0, stream, ..Draw::likeliest(24, Vec::new()) }
        };
        let row = |(prompt, member): (usize, u64)| {
            let (adapter, prompt) = (Some(Arc::clone(&from)), prompts[prompt].tokens.clone());
            Row { adapter, prompt, draw: draw(member) }
        };
        (0..64).map(|place| row((place / 8, place as u64))).collect()
    };
    let mut group = criterion.benchmark_group("a_step_of_grpo");
    group.sample_size(20);
    group.bench_function("its_replies", |bencher| {
        bencher.iter(|| write(&backbone, rows()).expect("there is room"));
    });
    let mut job = Job::new(Arc::clone(&backbone), Arc::clone(&from), spec).expect("it suits");
    group.bench_function("8_prompts_8_replies", |bencher| {
        bencher.iter(|| job.step().expect("it learns"));
    });
    group.finish();
}

/// Requests of many agents, sent while the engine is held up: how long it takes until all have begun, or until
/// the second half of what was sent has taken back the first. Their texts have no length, so nothing is read.
fn waiting(criterion: &mut Criterion) {
    let device = DeviceKind::Cpu.open().expect("there is a CPU");
    let backbone = Arc::new(builtin::polylogue_tiny(&device).expect("it is embedded"));
    let spec = AdapterSpec { method: Method::Frozen, head: None };
    let adapter = Adapter::initial(spec, &backbone, Seed::new(1)).expect("it suits");
    let adapter = Arc::new(adapter);
    let engine = Engine::start().expect("a thread");
    let handle = engine.handle();
    let names: Vec<AgentName> = (0..AGENTS)
        .map(|agent| AgentName::new(&format!("agent_{agent}")).expect("it is a name"))
        .collect();
    let key = |number: u64| (0, names[(number % AGENTS) as usize].clone(), number / AGENTS);
    let request = |number: u64, answer| Request {
        key: key(number),
        backbone: Arc::clone(&backbone),
        adapter: Arc::clone(&adapter),
        tokens: vec![7],
        want: Want::Text(Draw::likeliest(0, Vec::new())),
        answer,
    };
    let once = |asked: u64, taken_back: u64| {
        let held = Arc::new(Barrier::new(2));
        let hold = Arc::clone(&held);
        let stop = Answer::new(move |_| {
            hold.wait();
            hold.wait();
        });
        handle.infer(request(WAITING, stop)).expect("there is room");
        held.wait();
        let (send, receive) = channel();
        for number in 0..asked {
            let send = send.clone();
            let answer = Answer::new(move |got| send.send(got.is_ok()).expect("it is counted"));
            handle.infer(request(number, answer)).expect("there is room");
        }
        // The latest first.
        (0..taken_back).rev().for_each(|n| handle.cancel(key(n)).expect("there is room"));
        held.wait();
        let start = Instant::now();
        let answered = receive.iter().take(asked as usize).filter(|&got| got).count() as u64;
        let taken = start.elapsed();
        assert_eq!(answered, asked - taken_back);
        taken
    };
    let mut group = criterion.benchmark_group("65536_waiting_of_1000_agents");
    group.sample_size(10).warm_up_time(Duration::from_millis(1));
    for (name, asked, taken_back) in
        [("begin", WAITING - 1, 0), ("taken_back", WAITING / 2, WAITING / 2)]
    {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| once(asked, taken_back)).sum());
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    writing(&mut criterion);
    learning(&mut criterion);
    rewards(&mut criterion);
    waiting(&mut criterion);
    criterion.final_summary();
}
