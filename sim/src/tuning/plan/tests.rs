//! What recipes become: the usual numbers, those that are typed, and what is refused.

use agents::learning::optimizer::{OptimizerSpec, Sgd};

use super::*;

fn plan(text: &str) -> Result<Plan, TuneError> {
    Plan::of(&toml::from_str(text).unwrap())
}

#[test]
fn silence_means_the_usual() {
    let plan = plan("model = 'm'\ndata = { train = ['a.csv'], folds = 5 }\nmethod.lora = {}");
    let plan = plan.unwrap();
    let MethodPlan::Lora(lora) = &plan.method else { panic!() };
    assert_eq!((lora.rank, lora.alpha), (16, 32.0));
    assert_eq!((plan.data.split, plan.pooling), (Split::Folds(5), Pooling::Mean));
    assert_eq!(plan.training.steps(32 * 1000), 5000);
    assert_eq!(plan.training.steps(40), FEWEST_STEPS);
}

#[test]
fn settings_of_a_training_reach_the_plan() {
    let base = "model = 'm'\ndata = { train = ['a.csv'], folds = 5 }\nmethod.lora = {}\n";
    let usual = plan(base).unwrap().training.settings;
    assert_eq!(usual, Settings::default());
    let typed = "optimizer.lion = { beta2 = 0.9 }\nweight_decay = 0.2\nclip = 0.5\n\
                 lora_plus = 16.0\nschedule.linear = { floor = 0.0 }\nrise = 0.25\n\
                 label_smoothing = 0.1\nhidden_dropout = 0.2\nlogit_adjustment = 1.0\nmicro_batch_tokens = 64\nrecompute = true\n";
    let found = plan(&format!("{base}[probe]\n[training]\n{typed}")).unwrap();
    let wanted = Settings {
        optimizer: OptimizerSpec {
            method: Optimizer::Lion(Lion { beta1: 0.9, beta2: 0.9 }),
            weight_decay: 0.2,
            clip: Some(0.5),
            lora_plus: Some(LoraPlus { ratio: 16.0 }),
        },
        shape: Shape::Linear { floor: 0.0 },
        warm_up: WarmUp::Share(0.25),
        label_smoothing: 0.1,
        hidden_dropout: 0.2,
        logit_adjustment: 1.0,
        micro_batch_tokens: 64,
        recompute: true,
        guard: agents::learning::guard::Guard::default(),
    };
    assert_eq!(found.training.settings, wanted);
    // The probe has settings of its own.
    assert!((found.probe.unwrap().settings.optimizer.weight_decay - 0.5).abs() < 1e-12);
    let words = "schedule = 'inverse_square_root'\noptimizer.sgd = {}\n";
    let found = plan(&format!("{base}[probe]\n{words}")).unwrap().probe.unwrap().settings;
    assert_eq!(found.optimizer.method, Optimizer::Sgd(Sgd::USUAL));
    assert_eq!(found.shape, Shape::InverseSquareRoot);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let data = "model = 'm'\ndata = { train = ['a.csv'], test = ['b.csv'] }\n";
    let refused = |text: &str, part: &str| {
        let error = plan(text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused("method.frozen = {}", "model");
    refused("model = 'm'\nmethod.frozen = {}", "learn from");
    refused(data, "method");
    refused(&format!("{data}method.lora = {{ rank = 0 }}"), "rank is 0");
    refused(&format!("{data}method.lora = {{ targets = [] }}"), "targets");
    refused(&format!("{data}method.lora = {{ dropout = 1.0 }}"), "dropout");
    refused(&format!("{data}method.frozen = {{}}\nprobe = {{}}"), "probe");
    refused(&format!("{data}method.full = {{}}\ntraining.learning_rate = nan"), "NaN");
    refused("model = 'm'\nmethod.full = {}\ndata.train = ['a']", "measure");
    for (typed, part) in [
        ("clip = 0.0", "clip is 0"),
        ("clip = nan", "clip is NaN"),
        ("lora_plus = 0.5", "lora_plus is 0.5"),
        ("lora_plus = inf", "lora_plus is inf"),
        ("rise = 1.5", "rise is 1.5"),
        ("label_smoothing = 1.0", "label_smoothing is 1"),
        ("hidden_dropout = 1.0", "hidden_dropout is 1"),
        ("logit_adjustment = 2.5", "logit_adjustment is 2.5"),
        ("micro_batch_tokens = 0", "micro_batch_tokens is 0"),
        ("weight_decay = -1.0", "weight decay is -1"),
        ("schedule.linear = { floor = 2.0 }", "floor is 2"),
        ("schedule.cosine = { floor = nan }", "floor is NaN"),
        ("optimizer.adamw = { beta1 = 1.0 }", "beta1 is 1"),
        ("optimizer.adamw = { epsilon = 0.0 }", "epsilon is 0"),
        ("optimizer.sgd = { momentum = -0.1 }", "momentum is -0.1"),
        ("optimizer.lion = { beta2 = nan }", "beta2 is NaN"),
    ] {
        refused(&format!("{data}method.lora = {{}}\n[training]\n{typed}"), part);
    }
    let low_rank = |text: &str| refused(&format!("{data}{text}"), "low-rank");
    low_rank("method.ia3 = {}\ntraining.lora_plus = 4.0");
    low_rank("method.lora = {}\nprobe.lora_plus = 4.0");
}
