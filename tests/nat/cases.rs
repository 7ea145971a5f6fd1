//! The cases, one after the other, and what is heard in each.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::audio::{Audio, correlation};
use tests::lab::{Originate, Phone};

use crate::sites::{PAIRS, SITES, Site, Way};
use crate::stage::{PBX, Stage, VOICE, number};

const SOON: Duration = Duration::from_secs(15);
/// Waveform correlation below which a voice does not count as heard.
const HEARD: f64 = 0.90;
/// The same for a voice that came back from an echo: less is left of it.
const HEARD_TWICE: f64 = 0.80;
/// How often a case is tried: a machine that stands still for a moment tears holes into a voice.
const ATTEMPTS: usize = 3;
/// How soon a call has to go on after a NAT has forgotten it: with a gateway, and through a relay.
const RECOVERY: Duration = Duration::from_secs(14);
/// The same for two users without one: candidates have to be told first, and QUIC takes 10 s to give a path up.
const RECOVERY_OF_SIGNALLING: Duration = Duration::from_secs(32);

/// What a case is about; the page has a table of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A user calls a telephone.
    ToNumber,
    /// A telephone calls a user.
    FromNumber,
    /// A user calls a user.
    Users,
    /// A NAT forgets its mappings during a call.
    Rebind,
}

/// What became of a case.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) kind: Kind,
    pub(crate) caller: String,
    pub(crate) called: String,
    pub(crate) relayed: bool,
    /// How media went, in words.
    pub(crate) way: String,
    /// From the command to call until media could flow, in milliseconds.
    pub(crate) setup_ms: u128,
    /// How well the caller was heard, and how well the called.
    pub(crate) voices: Vec<f64>,
    enough: f64,
    pub(crate) wrong: Option<String>,
}

impl Outcome {
    fn new(kind: Kind, caller: &str, called: &str) -> Self {
        Self {
            kind,
            caller: caller.to_owned(),
            called: called.to_owned(),
            relayed: false,
            way: "none".to_owned(),
            setup_ms: 0,
            voices: Vec::new(),
            enough: HEARD,
            wrong: None,
        }
    }

    /// Says whether all voices were heard.
    pub(crate) fn heard(&self) -> bool {
        !self.voices.is_empty() && self.voices.iter().all(|voice| *voice >= self.enough)
    }

    fn took(&mut self, ways: &[&Value]) {
        let by =
            |way: &&&Value| Some(format!("{} {}", way["relay_transport"].as_str()?, way["relay"].as_str()?));
        let relays: Vec<String> = ways.iter().filter_map(|way| by(&way)).collect();
        self.relayed = !relays.is_empty();
        self.way = if self.relayed { relays.join(" and ") } else { "direct".to_owned() };
    }

    fn print(&self) {
        let voices: Vec<String> = self.voices.iter().map(|voice| format!("{voice:.3}")).collect();
        println!(
            "  {:<10} -> {:<10} {:<44} {:>5} ms  {:<12} {}",
            self.caller,
            self.called,
            self.way,
            self.setup_ms,
            voices.join(" "),
            self.wrong.as_deref().unwrap_or("ok")
        );
    }
}

/// A case: what is done, and what has to come of it.
type Act<'a> = &'a dyn Fn(&mut Stage, &mut Outcome) -> Result<()>;

/// Who is called, or calls, where it is no user.
pub(crate) const TELEPHONE: &str = "telephone";

/// Plays the cases that are wanted and whose users are there.
pub(crate) fn play(stage: &mut Stage, wanted: impl Fn(Kind, &str, &str) -> bool) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let sites: Vec<Site> = SITES.into_iter().filter(|site| stage.phones.contains_key(site.user)).collect();
    println!("\nUsers call a telephone, and are called by it: way, set-up, how well each was heard");
    for site in sites.iter().filter(|site| site.calls_numbers) {
        if wanted(Kind::ToNumber, site.user, TELEPHONE) {
            let act = |stage: &mut Stage, outcome: &mut Outcome| to_number(stage, site, outcome);
            outcomes.push(attempt(stage, Kind::ToNumber, site.user, TELEPHONE, &act)?);
        }
        if wanted(Kind::FromNumber, TELEPHONE, site.user) {
            let act = |stage: &mut Stage, outcome: &mut Outcome| from_number(stage, site, outcome);
            outcomes.push(attempt(stage, Kind::FromNumber, TELEPHONE, site.user, &act)?);
        }
    }
    println!("\nUsers call users");
    for (caller, called, way) in PAIRS {
        if stage.has(caller, called) && wanted(Kind::Users, caller, called) {
            let act =
                |stage: &mut Stage, outcome: &mut Outcome| between_users(stage, caller, called, way, outcome);
            outcomes.push(attempt(stage, Kind::Users, caller, called, &act)?);
        }
    }
    println!("\nA NAT forgets its mappings in the middle of a call");
    for site in sites.iter().filter(|site| ["prest", "sym"].contains(&site.user)) {
        if wanted(Kind::Rebind, site.user, TELEPHONE) {
            let act = |stage: &mut Stage, outcome: &mut Outcome| rebound(stage, site, outcome);
            outcomes.push(attempt(stage, Kind::Rebind, site.user, TELEPHONE, &act)?);
        }
    }
    for (caller, called, recovery) in [("prest", "prest2", RECOVERY_OF_SIGNALLING), ("sym", "sym2", RECOVERY)]
    {
        if stage.has(caller, called) && wanted(Kind::Rebind, caller, called) {
            let act = |stage: &mut Stage, outcome: &mut Outcome| {
                rebound_between_users(stage, [caller, called], recovery, outcome)
            };
            outcomes.push(attempt(stage, Kind::Rebind, caller, called, &act)?);
        }
    }
    println!();
    Ok(outcomes)
}

fn attempt(stage: &mut Stage, kind: Kind, caller: &str, called: &str, act: Act<'_>) -> Result<Outcome> {
    for attempt in 1.. {
        let mut outcome = Outcome::new(kind, caller, called);
        if let Err(error) = act(stage, &mut outcome) {
            outcome.wrong = Some(format!("{error:#}").lines().next().unwrap_or_default().to_owned());
            if std::env::var_os("NAT_DEBUG").is_some() {
                println!("{error:#}");
            }
        }
        outcome.print();
        if outcome.wrong.is_none() || attempt == ATTEMPTS {
            return Ok(outcome);
        }
        for user in [caller, called] {
            if let Some(phone) = stage.phones.get_mut(user) {
                phone.hang_up()?;
            }
        }
        stage.pbx.iter().try_for_each(tests::lab::Asterisk::hang_up_all)?;
        thread::sleep(Duration::from_secs(2));
    }
    unreachable!("the last attempt returns")
}

/// The phone of a user, with all its events so far passed over.
fn phone<'a>(stage: &'a mut Stage, user: &str) -> Result<&'a mut Phone> {
    let phone = stage.phones.get_mut(user).with_context(|| format!("{user} has no phone"))?;
    phone.forget();
    Ok(phone)
}

/// The latest way that media took in a call.
fn latest_way(phone: &Phone, call: &Value) -> Result<Value> {
    phone.events("path").into_iter().rfind(|path| &path["call"] == call).context("no path was told")
}

fn heard(reference: &Audio, got: &Audio) -> f64 {
    correlation(reference, got).median_block
}

fn judge(outcome: &Outcome) -> Result<()> {
    ensure!(outcome.heard(), "a voice was not heard well: {:.3?}", outcome.voices);
    Ok(())
}

fn only_blocked_users_are_relayed(site: &Site, outcome: &Outcome) -> Result<()> {
    ensure!(outcome.relayed == site.udp_blocked, "media went {}", outcome.way);
    Ok(())
}

/// How many finished recordings a PBX has.
fn recordings(stage: &Stage, site: &Site) -> Result<usize> {
    Ok(stage.pbx[usize::from(site.ipv6)].recordings("620", 0, SOON)?.len())
}

fn finish_with_pbx(stage: &mut Stage, site: &Site, before: usize, outcome: &mut Outcome) -> Result<()> {
    let (voice, speech) = (stage.voices[0].0.clone(), stage.speech.slice(0.0, VOICE));
    let phone = stage.phones.get_mut(site.user).context("no phone")?;
    phone.wait_for("played", SOON)?;
    // What is on the way arrives; and the PBX has said as much.
    thread::sleep(Duration::from_millis(1_200));
    phone.hang_up()?;
    let ended = phone.wait_for("ended", SOON)?;
    let way = latest_way(phone, &ended["call"])?;
    outcome.took(&[&way]);
    let there = stage.pbx[usize::from(site.ipv6)].recordings("620", before + 1, SOON)?;
    let there = heard(&voice, there.last().context("the PBX recorded nothing")?);
    let here = heard(&speech, &stage.phones[site.user].recording()?);
    outcome.voices = vec![there, here];
    judge(outcome)?;
    only_blocked_users_are_relayed(site, outcome)
}

/// The number by which a user reaches an extension, through the gateway whose media is of the user's family.
fn telephone(site: &Site, extension: &str) -> String {
    if site.ipv6 { tests::lab::Asterisk::number(extension) } else { format!("+44207946{extension:0>4}") }
}

fn to_number(stage: &mut Stage, site: &Site, outcome: &mut Outcome) -> Result<()> {
    let before = recordings(stage, site)?;
    let file = stage.voices[0].1.clone();
    let phone = phone(stage, site.user)?;
    let began = Instant::now();
    phone.call(&telephone(site, "620"), Some(&file))?;
    phone.wait_for("media_up", SOON)?;
    outcome.setup_ms = began.elapsed().as_millis();
    finish_with_pbx(stage, site, before, outcome)
}

fn from_number(stage: &mut Stage, site: &Site, outcome: &mut Outcome) -> Result<()> {
    let before = recordings(stage, site)?;
    let file = stage.voices[0].1.clone();
    phone(stage, site.user)?;
    let call =
        Originate { to: &number(site.user), caller: PBX, extension: "620", ring: Duration::from_secs(20) };
    stage.pbx[usize::from(site.ipv6)].originate(&call)?;
    let phone = stage.phones.get_mut(site.user).context("no phone")?;
    let incoming = phone.wait_for("incoming", SOON)?;
    ensure!(incoming["from"] == PBX, "the caller was not shown: {incoming}");
    let began = Instant::now();
    phone.answer(Some(&file))?;
    phone.wait_for("media_up", SOON)?;
    outcome.setup_ms = began.elapsed().as_millis();
    finish_with_pbx(stage, site, before, outcome)
}

/// One user calls another; returns once media is up on both sides.
fn connect(stage: &mut Stage, caller: &str, called: &str, outcome: &mut Outcome) -> Result<()> {
    let [(_, first), (_, second)] = &stage.voices;
    let (first, second) = (first.clone(), second.clone());
    phone(stage, called)?;
    let there = phone(stage, caller)?;
    let began = Instant::now();
    there.call(called, Some(&first))?;
    let here = stage.phones.get_mut(called).context("no phone")?;
    let incoming = here.wait_for("incoming", SOON)?;
    ensure!(incoming["from"] == caller, "the caller was not shown: {incoming}");
    here.answer(Some(&second))?;
    here.wait_for("media_up", SOON).context("the called user")?;
    let there = stage.phones.get_mut(caller).context("no phone")?;
    there.wait_for("media_up", SOON).context("the caller")?;
    outcome.setup_ms = began.elapsed().as_millis();
    Ok(())
}

/// Waits until both have said what they say.
fn both_said(stage: &mut Stage, users: [&str; 2]) -> Result<()> {
    for user in users {
        stage
            .phones
            .get_mut(user)
            .context("no phone")?
            .wait_for("played", SOON)
            .with_context(|| user.to_owned())?;
    }
    thread::sleep(Duration::from_millis(800));
    Ok(())
}

fn hang_up(stage: &mut Stage, caller: &str, called: &str, outcome: &mut Outcome) -> Result<()> {
    stage.phones.get_mut(caller).context("no phone")?.hang_up()?;
    let mut ways = Vec::new();
    for user in [caller, called] {
        let phone = stage.phones.get_mut(user).context("no phone")?;
        let ended = phone.wait_for("ended", SOON)?;
        ways.push(latest_way(phone, &ended["call"])?);
    }
    outcome.took(&ways.iter().collect::<Vec<_>>());
    Ok(())
}

/// Compares the last `seconds` of what each heard with what the other said.
fn compare(stage: &Stage, caller: &str, called: &str, seconds: f64, outcome: &mut Outcome) -> Result<()> {
    let [(first, _), (second, _)] = &stage.voices;
    let last = |user: &str| {
        let all = stage.phones[user].recording()?;
        anyhow::Ok(all.slice(all.seconds() - seconds, all.seconds()))
    };
    outcome.voices = vec![heard(first, &last(called)?), heard(second, &last(caller)?)];
    judge(outcome)
}

fn between_users(
    stage: &mut Stage,
    caller: &str,
    called: &str,
    way: Way,
    outcome: &mut Outcome,
) -> Result<()> {
    connect(stage, caller, called, outcome)?;
    both_said(stage, [caller, called])?;
    hang_up(stage, caller, called, outcome)?;
    compare(stage, caller, called, f64::INFINITY, outcome)?;
    ensure!(
        outcome.relayed == (way == Way::Relayed),
        "media went {}, and should have been {way:?}",
        outcome.way
    );
    Ok(())
}

/// The NAT of a user that has one of its own.
fn nat(user: &str) -> String {
    format!("{user}-nat")
}

/// What a user says again after its NAT has forgotten everything comes back from the telephone's echo.
fn rebound(stage: &mut Stage, site: &Site, outcome: &mut Outcome) -> Result<()> {
    outcome.enough = HEARD_TWICE;
    let file = stage.voices[0].1.clone();
    let there = phone(stage, site.user)?;
    let began = Instant::now();
    there.call(&telephone(site, "600"), None)?;
    there.wait_for("media_up", SOON)?;
    outcome.setup_ms = began.elapsed().as_millis();
    thread::sleep(Duration::from_secs(2));
    stage.lab.rebind(&nat(site.user))?;
    thread::sleep(RECOVERY);
    let there = stage.phones.get_mut(site.user).context("no phone")?;
    there.command(&json!({ "command": "play", "file": file }))?;
    there.wait_for("played", SOON)?;
    thread::sleep(Duration::from_millis(1_200));
    there.hang_up()?;
    let ended = there.wait_for("ended", SOON)?;
    ensure!(ended["by"] == "local", "the call did not last: {ended}");
    let way = latest_way(there, &ended["call"])?;
    outcome.took(&[&way]);
    let all = there.recording()?;
    outcome.voices = vec![heard(&stage.voices[0].0, &all.slice(all.seconds() - VOICE - 3.0, all.seconds()))];
    judge(outcome)
}

fn rebound_between_users(
    stage: &mut Stage,
    [caller, called]: [&str; 2],
    recovery: Duration,
    outcome: &mut Outcome,
) -> Result<()> {
    connect(stage, caller, called, outcome)?;
    both_said(stage, [caller, called])?;
    stage.lab.rebind(&nat(caller))?;
    thread::sleep(recovery);
    for (user, voice) in [(caller, 0), (called, 1)] {
        let file = stage.voices[voice].1.clone();
        phone(stage, user)?.command(&json!({ "command": "play", "file": file }))?;
    }
    both_said(stage, [caller, called])?;
    hang_up(stage, caller, called, outcome)?;
    compare(stage, caller, called, VOICE + 3.0, outcome)
}
