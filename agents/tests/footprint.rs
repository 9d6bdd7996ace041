//! Memory per additional agent: its adapter, its keys and values, and hardly anything else.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agents::adapter::lora::LoraSpec;
use agents::adapter::{Adapter, AdapterSpec, Method};
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

/// Tokens that each agent has read.
const TOKENS: usize = 96;

#[test]
fn an_agent_more_takes_its_adapter_and_its_cache() {
    let backbone = Arc::new(builtin::polylogue_tiny(&DeviceKind::Cpu.open().unwrap()).unwrap());
    let method = Method::Lora(LoraSpec::new(8, 16.0, &["q_proj", "v_proj"]));
    let architecture = Arc::clone(backbone.network.architecture());
    let own =
        of_adapter(&architecture, &method) + of_cache(&architecture, Precision::F32, 1, TOKENS);
    let mut session = Session::new(Arc::clone(&backbone)).unwrap();
    let tokens: Vec<u32> = (0..TOKENS as u32).map(|i| 20 + i % 60).collect();
    let mut join = |number: u64| {
        let spec = AdapterSpec { method: method.clone(), head: None };
        let adapter = Adapter::initial(spec, &backbone, Seed::new(number)).unwrap();
        let slot = session.open(Some(Arc::new(adapter)));
        session.step(&[Part { slot, tokens: &tokens, logits: true }]).unwrap();
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
        println!("{agents} agents: {each:.0} bytes each, {own} of adapter and cache: {ratio:.3}");
        assert!(ratio <= 1.2, "{agents} agents take {each} bytes each, {ratio:.3} of {own}");
        assert!(ratio >= 0.9, "something is not counted: {ratio:.3}");
        (joined, before) = (agents, after);
    }
}
