//! Memory that is really taken, beside what is predicted: of an adapter of every kind, and of an agent more,
//! which has its adapter, its keys and values, and hardly anything else.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use agents::adapter::ia3::Ia3Spec;
use agents::adapter::lora::{Init, LoraSpec};
use agents::adapter::vera::VeraSpec;
use agents::adapter::{Adapter, AdapterSpec, Method};
use agents::backbone::architecture::Family;
use agents::backbone::{Precision, builtin};
use agents::device::DeviceKind;
use agents::engine::memory::{of_adapter, of_cache};
use agents::seed::Seed;
use agents::session::{Part, Session};

/// Counts the bytes that are in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator is what counts every byte")]
// SAFETY: everything is handed to the system's allocator as it came; counting does not touch it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Held by a test while it counts.
static COUNTS: Mutex<()> = Mutex::new(());

/// Tokens that each agent has read.
const TOKENS: usize = 96;

#[test]
fn an_agent_more_takes_its_adapter_and_its_cache() {
    let _alone = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let backbone = Arc::new(builtin::polylogue_tiny(&DeviceKind::Cpu.open().unwrap()).unwrap());
    let architecture = Arc::clone(backbone.network.architecture());
    for method in [
        Method::Lora(LoraSpec::new(8, 16.0, &["q_proj", "v_proj"])),
        Method::Prefix { tokens: 40 },
        Method::Prompt { tokens: 70 },
    ] {
        let adapter = of_adapter(&architecture, Precision::F32, &method).total();
        let kept = TOKENS + method.virtual_tokens();
        let own = adapter + of_cache(&architecture, Precision::F32, 1, kept);
        let mut session = Session::new(Arc::clone(&backbone)).unwrap();
        let tokens: Vec<u32> = (0..TOKENS as u32).map(|i| 20 + i % 60).collect();
        let mut join = |number: u64| {
            let spec = AdapterSpec { method: method.clone(), head: None };
            let adapter = Adapter::initial(spec, &backbone, Seed::new(number)).unwrap();
            let slot = session.open(Some(Arc::new(adapter)));
            session.step(&[Part::new(slot, &tokens, true)]).unwrap();
        };
        // What is made once, by the first agents, is not theirs.
        (0..4).for_each(&mut join);
        let mut before = IN_USE.load(Ordering::Relaxed);
        let mut joined = 4;
        for agents in [64, 256] {
            (joined..agents).for_each(&mut join);
            let after = IN_USE.load(Ordering::Relaxed);
            let each = (after - before) as f64 / (agents - joined) as f64;
            let ratio = each / own as f64;
            println!(
                "{method:?}, {agents} agents: {each:.0} bytes each, {own} of adapter and cache: {ratio:.3}"
            );
            assert!(ratio <= 1.2, "{agents} agents take {each} bytes each, {ratio:.3} of {own}");
            assert!(ratio >= 0.9, "something is not counted: {ratio:.3}");
            (joined, before) = (agents, after);
        }
    }
}

#[test]
fn an_adapter_takes_what_is_predicted() {
    let _alone = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let lora = LoraSpec::new(32, 16.0, &["q_proj", "v_proj"]);
    let dora = LoraSpec { dora: true, ..lora.clone() };
    let pissa = LoraSpec { init: Init::Pissa, ..lora.clone() };
    let vera = |targets: &[&str]| {
        let targets = targets.iter().map(|&target| target.to_owned()).collect();
        Method::Vera(VeraSpec { rank: 64, targets, d_initial: 0.1, dropout: 0.0 })
    };
    let methods = [
        Method::Lora(lora),
        Method::Lora(dora),
        Method::Lora(pissa),
        Method::Ia3(Ia3Spec::usual(Family::Llama)),
        vera(&["q_proj"]),
        vera(&["all-linear"]),
        Method::Prompt { tokens: 100 },
        Method::Prefix { tokens: 50 },
        Method::Layers { freeze_layers: 1 },
        Method::Full,
    ];
    let device = DeviceKind::Cpu.open().unwrap();
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        let backbone = builtin::polylogue_tiny_as(precision.dtype(), &device).unwrap();
        let architecture = Arc::clone(backbone.network.architecture());
        for method in &methods {
            let make = |number: u64| {
                let spec = AdapterSpec { method: method.clone(), head: None };
                Adapter::initial(spec, &backbone, Seed::new(number)).unwrap()
            };
            // What is made once, by the first, is not theirs.
            let mut all = vec![make(0)];
            all.reserve(4);
            let before = IN_USE.load(Ordering::Relaxed);
            all.extend((1..5).map(make));
            let each = (IN_USE.load(Ordering::Relaxed) - before) as f64 / 4.0;
            let predicted = of_adapter(&architecture, precision, method).total() as f64;
            // Names, shapes and the like are not counted.
            let room = 4096.0 + 1024.0 * all[0].tensors().len() as f64;
            let beside = each - predicted;
            println!("{precision:?} {method:?}: {each} bytes, {predicted} predicted");
            let right = (0.0..=room).contains(&beside);
            assert!(
                right,
                "{precision:?} {method:?} takes {each} bytes, {predicted} are predicted"
            );
        }
    }
}
