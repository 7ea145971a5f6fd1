//! `make bench-media`: what the media of a call costs in each of the ways it may go, beside libopus alone and rtpengine.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ::tests::lab::Folder;
use ::tests::lab::overlay::User;
use anyhow::{Context as _, Result, ensure};
use tokio::runtime::Runtime;
use transcoder::codec::g711::Law;

use crate::Arguments;
use crate::daemon::{Settings, Stage};
use crate::generator::{Generator, Kind};
use crate::pbx::Pbx;
use crate::rtpengine::{self, Rtpengine};
use crate::speech::{self, Speech};
use crate::usage::{Round, median};
use crate::{libopus, per_core};

/// One way that media goes.
struct Way {
    name: &'static str,
    settings: Settings,
    /// What the trunk speaks.
    trunk: Kind,
    conversation: bool,
}

const ALWAYS: Way = Way { name: "cx5", settings: Settings::ALWAYS, trunk: Kind::Alaw, conversation: false };

/// Every frame is encoded, at the least effort.
const CHEAP: Way = Way {
    name: "cx0",
    settings: Settings { media: "opus_complexity = 0\nsuppress_silence = false", ..Settings::ALWAYS },
    trunk: Kind::Alaw,
    conversation: false,
};

/// People talk, and nobody encodes their silence.
const CONVERSATION: Way = Way {
    name: "conversation",
    settings: Settings { media: "opus_complexity = 5\nsuppress_silence = true", ..Settings::ALWAYS },
    trunk: Kind::Alaw,
    conversation: true,
};

/// The trunk speaks what the overlay speaks.
const PASSING: Way = Way {
    name: "passing",
    settings: Settings { media: "opus_complexity = 5", codecs: "[\"opus\"]", edge: false },
    trunk: Kind::Opus,
    conversation: false,
};

/// Overlay users speak G.711 themselves.
const EDGE: Way = Way {
    name: "edge",
    settings: Settings { media: "edge_codec = \"always\"", edge: true, ..Settings::ALWAYS },
    trunk: Kind::Alaw,
    conversation: false,
};

/// All of it on one thread, which is what a core carries.
const LATENESS: Way = Way {
    name: "one thread",
    settings: Settings {
        media: "threads = 1\nopus_complexity = 5\nsuppress_silence = false",
        ..Settings::ALWAYS
    },
    trunk: Kind::Alaw,
    conversation: false,
};

/// So many times the calls go where nothing is encoded: a daemon that is idle most of the time pays more for each call.
const UNENCODED: usize = 2;

/// The part of a core at which lateness is measured.
const LOAD: f64 = 0.8;

/// A gateway that is set up for one way, and all that calls through it.
struct Scene<'a> {
    stage: Stage,
    pbx: Pbx,
    callers: Vec<User>,
    runtime: &'a Runtime,
    generator: &'a Generator,
    speech: Speech,
}

impl<'a> Scene<'a> {
    fn set(
        way: &Way,
        calls: usize,
        folder: &Path,
        runtime: &'a Runtime,
        generator: &'a Generator,
        speech: &Speech,
    ) -> Result<Self> {
        let speech = if way.conversation { speech::conversation(speech) } else { speech.clone() };
        let stage = Stage::set(&folder.join(way.name.replace(' ', "-")), way.settings)?;
        let pbx = Pbx::start(stage.pbx, stage.gateway_sip(), generator.handle(), &speech, way.trunk)?;
        let callers = runtime.block_on(stage.callers(calls))?;
        Ok(Self { stage, pbx, callers, runtime, generator, speech })
    }

    /// A round of whole turns of the conversation.
    fn round(&mut self, calls: usize, seconds: u64) -> Result<Round> {
        let seconds = seconds.next_multiple_of(speech::TURN_SECONDS);
        self.stage.round(self.runtime, &self.callers, &self.pbx, self.generator, &self.speech, calls, seconds)
    }
}

/// The ways that can be measured one by one, and how many times the calls go each.
const WAYS: [(&Way, usize); 5] =
    [(&ALWAYS, 1), (&CHEAP, 1), (&CONVERSATION, 1), (&PASSING, UNENCODED), (&EDGE, UNENCODED)];

/// A round, and the 99th percentile of how late calls were served in it, in milliseconds.
fn lateness(scene: &mut Scene<'_>, name: &str, calls: usize, seconds: u64) -> Result<(Round, f64)> {
    let before = scene.stage.lateness()?;
    let round = scene.round(calls, seconds).with_context(|| name.to_owned())?;
    println!("{round}  {name}");
    let after = scene.stage.lateness()?;
    println!("{}", picture(&before, &after));
    Ok((round, 1000.0 * quantile(&before, &after, 0.99)?))
}

/// Measures one way and prints `RESULT media_way`.
pub(crate) fn run_one(arguments: &Arguments, name: &str) -> Result<()> {
    let names = WAYS.map(|(way, _)| way.name);
    let found = WAYS.into_iter().chain([(&LATENESS, 1)]).find(|(way, _)| way.name == name);
    let (way, times) =
        found.with_context(|| format!("--only takes one of {}, {}", names.join(", "), LATENESS.name))?;
    let folder = Folder::new("bench-media")?;
    let speech = speech::active()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let generator = Generator::start()?;
    let calls = times * arguments.calls;
    let mut scene = Scene::set(way, calls, folder.path(), &runtime, &generator, &speech)?;
    println!("{}", Round::HEADER);
    let (mut rounds, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds.max(1) {
        let (round, p99_ms) = lateness(&mut scene, name, calls, arguments.seconds)?;
        rounds.push(round);
        p99.push(p99_ms);
    }
    let per_core = per_core(&rounds)?;
    println!(
        "\nRESULT media_way name={} calls_per_core={per_core:.1} p99_ms={:.2}",
        name.replace(' ', "-"),
        median(p99)
    );
    Ok(())
}

/// Measures and prints `RESULT media`.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folder = Folder::new("bench-media")?;
    let speech = speech::active()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let generator = Generator::start()?;
    let set = |way: &Way, calls: usize| {
        let scene = Scene::set(way, calls, folder.path(), &runtime, &generator, &speech);
        scene.with_context(|| way.name.to_owned())
    };
    let (calls, seconds) = (arguments.calls, arguments.seconds);
    let g711 = g711_ns();
    println!(
        "G.711, a frame of 20 ms: encoding {:.1} ns, decoding {:.1} ns\n\n{}",
        g711.0,
        g711.1,
        Round::HEADER
    );

    let anchor = if arguments.alone { None } else { Some(Rtpengine::start(folder.path())?) };
    let (mut own, mut others, mut floor, mut codec) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut anchor_calls = rtpengine::calls_beside(calls);
    let memory = {
        let mut scene = set(&ALWAYS, calls)?;
        // Memory is measured between few calls and many, so that what the daemon has anyway is in neither.
        let few = scene.round((calls / 4).max(2), speech::TURN_SECONDS)?;
        for _ in 0..arguments.rounds.max(1) {
            let round = scene.round(calls, seconds).context("causewayd")?;
            println!("{round}");
            own.push(round);
            floor.push(libopus::calls_per_core(&scene.speech, calls, seconds, 5, false)?);
            codec.push(libopus::calls_per_core(&scene.speech, calls, seconds, 5, true)?);
            if let Some(anchor) = &anchor {
                let round = anchor.round_or_fewer(&generator, &speech, &mut anchor_calls, seconds)?;
                println!("{round}");
                others.push(round);
            }
        }
        let many = own.first().context("no round")?.memory();
        let few = few.memory();
        (many.0 - few.0) * 1000.0 / (many.1 - few.1) as f64
    };
    let per_core_always = per_core(&own)?;
    let (floor, codec) = (median(floor), median(codec));
    println!("libopus alone: {floor:.1} calls per core as it comes, {codec:.1} with the daemon's loops");

    let mut other_ways = Vec::new();
    for &(way, times) in &WAYS[1..] {
        let calls = times * calls;
        let mut scene = set(way, calls)?;
        let mut rounds = Vec::new();
        for _ in 0..arguments.rounds.max(1) {
            let round = scene.round(calls, seconds).with_context(|| way.name.to_owned())?;
            println!("{round}  {}", way.name);
            rounds.push(round);
        }
        other_ways.push(per_core(&rounds)?);
    }
    let cheap_floor = libopus::calls_per_core(&speech, calls, seconds, 0, false)?;
    println!("libopus alone at complexity 0: {cheap_floor:.1} calls per core");

    let loaded = ((per_core_always * LOAD) as usize).max(2);
    let p99_ms = {
        let mut scene = set(&LATENESS, loaded)?;
        lateness(&mut scene, LATENESS.name, loaded, seconds)?.1
    };

    let figure = |value: Result<f64>, digits: usize| match value {
        Ok(value) => format!("{value:.digits$}"),
        Err(_) => "none".to_owned(),
    };
    let [cheap, conversation, passing, edge] = other_ways[..] else { unreachable!("four ways") };
    println!(
        "\nRESULT media calls_per_core={per_core_always:.1} vs_rtpengine={} vs_libopus={:.2} cx0={cheap:.1} \
         conversational={conversation:.1} passthrough={passing:.0} edge={edge:.0} outside_libopus_pct={:.1} p99_ms={p99_ms:.2} \
         kb_per_call={memory:.0} g711_ns={:.1} libopus_calls_per_core={floor:.1} libopus_cx0={cheap_floor:.1} \
         loaded_calls={loaded}",
        figure(per_core(&others).map(|anchor| per_core_always / anchor), 2),
        per_core_always / floor,
        100.0 * (1.0 - per_core_always / codec),
        g711.0.max(g711.1),
    );
    Ok(())
}

/// Nanoseconds to encode and to decode a frame of 160 samples of G.711, each the least of many batches.
fn g711_ns() -> (f64, f64) {
    const FRAMES: usize = 2_000;
    const BATCHES: usize = 200;
    let pcm: [i16; 160] = std::array::from_fn(|n| (9_000.0 * (n as f64 * 0.7).sin()) as i16);
    let (mut codes, mut back) = ([0; 160], [0; 160]);
    let mut least = (f64::MAX, f64::MAX);
    let per_frame = |began: Instant| began.elapsed().as_nanos() as f64 / FRAMES as f64;
    for _ in 0..BATCHES {
        let began = Instant::now();
        for _ in 0..FRAMES {
            Law::A.encode_into(std::hint::black_box(&pcm), &mut codes);
            std::hint::black_box(&codes);
        }
        least.0 = least.0.min(per_frame(began));
        let began = Instant::now();
        for _ in 0..FRAMES {
            Law::A.decode_into(std::hint::black_box(&codes), &mut back);
            std::hint::black_box(&back);
        }
        least.1 = least.1.min(per_frame(began));
    }
    least
}

/// The counts of classes between two looks: upper bound in seconds, and how many fell into it.
fn between(before: &[(f64, f64)], after: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let grown: Vec<_> =
        before.iter().zip(after).map(|(before, after)| (after.0, after.1 - before.1)).collect();
    let below = |index: usize| if index == 0 { 0.0 } else { grown[index - 1].1 };
    grown.iter().enumerate().map(|(index, &(bound, count))| (bound, count - below(index))).collect()
}

/// The value in seconds below which the share `q` lies, as if each class were filled evenly.
fn quantile(before: &[(f64, f64)], after: &[(f64, f64)], q: f64) -> Result<f64> {
    let classes = between(before, after);
    let total: f64 = classes.iter().map(|(_, count)| count).sum();
    ensure!(total > 0.0, "no call was served");
    let (mut seen, mut lower) = (0.0, 0.0);
    for (bound, count) in classes {
        if seen + count >= q * total {
            // What is beyond the last bound is that bound at least.
            let upper = if bound.is_finite() { bound } else { lower };
            return Ok(lower + (upper - lower) * (q * total - seen) / count.max(1.0));
        }
        (seen, lower) = (seen + count, bound);
    }
    Ok(lower)
}

/// Lateness as bars.
fn picture(before: &[(f64, f64)], after: &[(f64, f64)]) -> String {
    let classes = between(before, after);
    let total: f64 = classes.iter().map(|(_, count)| count).sum::<f64>().max(1.0);
    let mut out = String::from("How long after its time a call was served\n");
    for (bound, count) in classes {
        let share = count / total;
        let bar = "#".repeat((share * 50.0).round() as usize);
        let bound =
            Duration::try_from_secs_f64(bound).map_or("more".to_owned(), |bound| format!("{bound:?}"));
        // A String takes all that is written to it.
        let _ = writeln!(out, "  {bound:>8}  {:>6.2} %  {bar}", 100.0 * share);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_in_the_class_that_holds_it() {
        let before = [(0.001, 10.0), (0.002, 10.0), (f64::INFINITY, 10.0)];
        let after = [(0.001, 60.0), (0.002, 110.0), (f64::INFINITY, 111.0)];
        assert!((quantile(&before, &after, 0.5).unwrap() - 0.00101).abs() < 1e-6);
        assert!((quantile(&before, &after, 0.995).unwrap() - 0.002).abs() < 1e-9);
        assert!(quantile(&before, &before, 0.5).is_err());
    }
}
