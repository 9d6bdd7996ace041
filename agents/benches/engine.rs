//! The engine on the embedded backbone: writing under one, none and many adapters, and learning together.
//!
//! `cargo bench -p polylogue-agents`; for a model and a machine of your own, `polylogue bench`.

use std::hint::black_box;
use std::sync::Arc;

use agents::backbone::builtin;
use agents::bench::{Mix, jobs};
use agents::device::DeviceKind;
use agents::learning::together;
use agents::session::{Part, Session, Slot};
use criterion::Criterion;

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
            let part = |&slot: &Slot| Part { slot, tokens: &[7], logits: true };
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

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    writing(&mut criterion);
    learning(&mut criterion);
    criterion.final_summary();
}
