//! A random society: a scenario file whose every choice follows from its seed.

use agents::seed::{Seed, Stream};
use rand::Rng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

/// A society as a scenario file, and the faults that shall leave no trace.
pub(super) struct Society {
    pub(super) calm: String,
    pub(super) faults: String,
}

impl Society {
    /// The society of a seed.
    pub(super) fn new(seed: u64) -> Self {
        let mut stream = Seed::new(seed).child("society").stream();
        let random = &mut stream;
        let count = random.random_range(1..8);
        let mut names: Vec<String> = (0..count).map(|index| format!("a{index}")).collect();
        let (episodes, width) = (random.random_range(1..7), random.random_range(1..5));
        let agents: String = names
            .iter()
            .map(|name| format!("[agents.{name}]\nscript = {}\n", script(random)))
            .collect();
        let openings = one_of(random, &["[\"x\"]", "[\"x\", \"\", \"what is it about?\"]"]);
        names.shuffle(random);
        let calm = [
            format!("seed = {seed}\nepisodes = {episodes}\nconcurrent_episodes = {width}\n"),
            agents,
            format!("[task.talk]\nopenings = {openings}\n"),
            meeting(random, &names),
            channel(random),
            keeping(random, seed),
        ];
        let faults = (0..random.random_range(0..4)).map(|_| fault(random, &names)).collect();
        Self { calm: calm.concat(), faults }
    }
}

fn one_of<'a>(random: &mut Stream, all: &[&'a str]) -> &'a str {
    all.choose(random).copied().unwrap_or_default()
}

fn script(random: &mut Stream) -> String {
    let opinions = "among = [\"red\", \"green and blue\", \"a b c d e\"]";
    match random.random_range(0..6) {
        0 => "{ echo = {} }".to_owned(),
        1 => "{ fixed = { text = \"I\\u202E said\\u0007 so\" } }".to_owned(),
        2 => {
            let answers = "{ \"x\" = \"y\", \"y\" = \"x y z\" }";
            format!("{{ table = {{ answers = {answers}, otherwise = \"x\" }} }}")
        }
        3 => {
            let length = random.random_range(1..12);
            format!("{{ random_words = {{ words = [\"x\", \"y\", \"z\"], length = {length} }} }}")
        }
        4 => format!("{{ voter = {{ {opinions} }} }}"),
        _ => format!("{{ majority = {{ {opinions} }} }}"),
    }
}

/// Who speaks when, and who hears it.
fn meeting(random: &mut Stream, names: &[String]) -> String {
    let rounds = random.random_range(1..6);
    let protocol = match random.random_range(0..5) {
        0 => return format!("[protocol.pipeline]\norder = {names:?}\n"),
        1 => format!("[protocol.round_robin]\nrounds = {rounds}\norder = {names:?}\n"),
        2 => format!("[protocol.round_robin]\nrounds = {rounds}\n"),
        3 => format!("[protocol.broadcast]\nrounds = {rounds}\n"),
        _ => {
            let fanout = random.random_range(1..4);
            format!("[protocol.gossip]\nrounds = {rounds}\nfanout = {fanout}\n")
        }
    };
    let topology = match random.random_range(0..7) {
        0 => "[topology.complete]\n".to_owned(),
        1 => "[topology.ring]\n".to_owned(),
        2 => "[topology.line]\n".to_owned(),
        3 => format!("[topology.star]\nhub = {:?}\n", names[0]),
        4 => format!("[topology.random]\nprobability = {:.2}\n", random.random::<f64>()),
        5 if names.len() > 1 => {
            let both_ways = random.random::<bool>();
            let pair = &names[..2];
            format!("[topology.edges]\npairs = [{pair:?}]\nboth_ways = {both_ways}\n")
        }
        _ => String::new(),
    };
    protocol + &topology
}

fn channel(random: &mut Stream) -> String {
    let (tokens, credits) = (random.random_range(1..9), random.random_range(1..5));
    let loss = one_of(random, &["0.0", "0.0", "0.3", "1.0"]);
    let delay = one_of(random, &["0", "0", "1", "4"]);
    let impair = format!("impair = {{ loss = {loss}, delay_ticks = {delay} }}");
    let channel = format!("[channel.text]\nmax_tokens = {tokens}\ncredits = {credits}\n{impair}\n");
    if random.random_bool(0.6) {
        return channel;
    }
    let silence = random.random_range(0..4);
    let limits = [("messages_per_tick", 4), ("tokens_per_tick", 12), ("repeats_per_tick", 4)];
    let limits: String = limits
        .into_iter()
        .filter_map(|(limit, most)| {
            let given = random.random::<bool>();
            given.then(|| format!("{limit} = {}\n", random.random_range(1..most)))
        })
        .collect();
    format!("{channel}[flood]\nsilence_ticks = {silence}\n{limits}")
}

/// Checkpoints and supervision; every eighth society keeps checkpoints, which cost the most time.
fn keeping(random: &mut Stream, seed: u64) -> String {
    let (every, keep) = (random.random_range(1..4), u8::from(seed.is_multiple_of(8)));
    let strategy = one_of(random, &["one_for_one", "one_for_all", "rest_for_one"]);
    format!(
        "[checkpoints]\nevery_ticks = {every}\nkeep = {keep}\n\
         [supervision]\nrestarts = 100000\nstrategy = \"{strategy}\"\n"
    )
}

fn fault(random: &mut Stream, names: &[String]) -> String {
    let kinds = ["panic", "hang", "slow_reply", "malformed_reply", "out_of_memory", "disk_full"];
    let kind = one_of(random, &kinds);
    let whose = match kind {
        "disk_full" => String::new(),
        _ => format!("agent = {:?}\n", names[random.random_range(0..names.len())]),
    };
    let when = if random.random::<bool>() {
        let (tick, times) = (random.random_range(0..8), random.random_range(1..4));
        format!("at_tick = {tick}\ntimes = {times}")
    } else {
        format!("probability = {:.2}", random.random_range(0.01..1.0))
    };
    format!("[[faults]]\nkind = \"{kind}\"\n{whose}{when}\n")
}
