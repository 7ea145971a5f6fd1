//! What happens to the network, act by act.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::lab::Folder;

use crate::Arguments;
use crate::net::{Half, Net};
use crate::page::{self, Story};
use crate::seat::Seat;
use crate::stage::{Supernode, UsersOf};
use crate::ways::{WAYS, Ways};

/// How long the records of one who has just come may differ.
const SETTLING: Duration = Duration::from_secs(10);
/// Look-ups that may fail, in per cent.
const GOAL_PERCENT: f64 = 0.1;
/// Look-ups are watched for so long before anything happens, and after half of the supernodes are gone.
const BEFORE: Duration = Duration::from_secs(15);
const AFTER_KILL: Duration = Duration::from_secs(45);
/// How soon after the halves are joined again everybody must find everybody.
const HEALING: Duration = Duration::from_secs(150);
/// Telephones of one half begin at this number; those who look up, and those who join, further up.
const PHONES: [u8; 2] = [60, 100];
const LOOKERS: [u8; 2] = [140, 145];
const FRESH: u8 = 150;
const ROAMER: u8 = 249;
/// Nodes that look up, in each half.
const LOOKING: u8 = 2;

/// Look-ups of one act.
#[derive(Default)]
pub(crate) struct Act {
    pub(crate) name: String,
    pub(crate) looked: u64,
    pub(crate) failed: u64,
    /// Milliseconds until there was a record, in order.
    pub(crate) first: Vec<f64>,
}

struct Play<'a> {
    arguments: &'a Arguments,
    net: Net,
    folder: PathBuf,
    unix: u64,
    supernodes: Vec<Supernode>,
    users: Vec<UsersOf>,
    acts: Vec<Act>,
    calls: Calls,
}

/// Telephones in calls, by half, and what has come of the calls.
#[derive(Default)]
pub(crate) struct Calls {
    /// Ends of calls that are up.
    ends: u64,
    pub(crate) lost: u64,
    pub(crate) silent: u64,
    pub(crate) texts_lost: u64,
}

fn at(half: Half) -> usize {
    usize::from(half == Half::South)
}

/// Plays everything. Returns whether the goals are reached.
pub(crate) fn play(arguments: &Arguments) -> Result<bool> {
    let folder = Folder::new("resilience")?;
    let unix = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let phones = 3 * arguments.calls;
    let net = Net::new(arguments.supernodes, phones + LOOKING + 2)?;
    let mut play = Play {
        arguments,
        net,
        folder: folder.path().to_owned(),
        unix,
        supernodes: Vec::new(),
        users: Vec::new(),
        acts: Vec::new(),
        calls: Calls::default(),
    };
    play.set_up()?;
    play.set_up_calls()?;
    play.watch("all is well", BEFORE)?;
    play.kill_half()?;
    let joined = play.join_blocked()?;
    let rejoined = play.rejoin()?;
    let healed = play.partition()?;
    play.hang_up()?;
    let holds = play.tell(&joined, rejoined, healed)?;
    if !holds {
        drop(play);
        folder.keep();
    }
    Ok(holds)
}

impl Play<'_> {
    fn say(&self, text: &str) {
        println!("  {text}");
    }

    fn users(&mut self, half: Half) -> Result<&mut UsersOf> {
        self.users.iter_mut().find(|users| users.half == half).context("no users")
    }

    /// Starts every supernode and every user.
    fn set_up(&mut self) -> Result<()> {
        let each = self.arguments.supernodes;
        println!("{} supernodes, a process each, in two halves; users in one process each half", 2 * each);
        let begin = Instant::now();
        let mut first = Vec::new();
        for number in 1..=each {
            for half in Half::BOTH {
                let mut node = Supernode::new(self.unix, half, number);
                node.seat.bootstrap.clone_from(&first);
                node.seat.peers_file = Some(self.folder.join(format!("peers-{}-{number}", half.name())));
                node.start(&self.net, &self.folder)?;
                if first.len() < 2 {
                    node.wait_until_online()?;
                    first.push(node.multiaddress());
                }
                self.supernodes.push(node);
            }
        }
        for node in self.supernodes.iter_mut().skip(2) {
            node.wait_until_online()?;
        }
        self.say(&format!("supernodes are online after {:.1} s", begin.elapsed().as_secs_f64()));
        // Users know some of both halves, the first among them.
        let known: Vec<String> = self.supernodes.iter().take(6).map(Supernode::multiaddress).collect();
        for half in Half::BOTH {
            let seat = |number: u8, address: u8| Seat {
                unix: self.unix,
                number,
                address: half.user(address),
                bootstrap: known.clone(),
                peers_file: None,
            };
            let phones: Vec<Seat> =
                (0..3 * self.arguments.calls).map(|n| seat(PHONES[at(half)] + n, 1 + n)).collect();
            let last = 1 + 3 * self.arguments.calls;
            let lookers = (0..LOOKING).map(|n| seat(LOOKERS[at(half)] + n, last + n)).collect();
            self.users.push(UsersOf::start(&self.net, half, &self.folder, (phones, lookers))?);
        }
        for users in &mut self.users {
            users.wait_until_online()?;
        }
        self.say(&format!("users are online after {:.1} s", begin.elapsed().as_secs_f64()));
        self.look_up_all()
    }

    fn handles(&self, half: Half) -> Vec<String> {
        (0..3 * self.arguments.calls).map(|n| Seat::handle(PHONES[at(half)] + n)).collect()
    }

    /// Everybody looks up everybody.
    fn look_up_all(&mut self) -> Result<()> {
        let all: Vec<String> = Half::BOTH.iter().flat_map(|half| self.handles(*half)).collect();
        for users in &mut self.users {
            users.speaker.ask(&json!({ "do": "handles", "handles": all }))?;
        }
        Ok(())
    }

    /// Calls within each half, and from one half to the other: all through relays, for nobody listens.
    fn set_up_calls(&mut self) -> Result<()> {
        let calls = self.arguments.calls;
        for n in 0..calls {
            for half in Half::BOTH {
                let to = Seat::handle(PHONES[at(half)] + calls + n);
                self.users(half)?.speaker.ask(&json!({ "do": "call", "from": n, "to": to }))?;
            }
            // The last third of one half calls that of the other.
            let to = Seat::handle(PHONES[1] + 2 * calls + n);
            self.users(Half::North)?
                .speaker
                .ask(&json!({ "do": "call", "from": 2 * calls + n, "to": to }))?;
        }
        let expected = 6 * u64::from(calls);
        let end = Instant::now() + Duration::from_secs(30);
        while self.up()? < expected {
            ensure!(Instant::now() < end, "calls: {:?}, and {expected} ends should be up", self.all_calls()?);
            sleep(Duration::from_millis(200));
        }
        self.calls.ends = expected;
        self.say(&format!("{} calls are up, with media", 3 * calls));
        Ok(())
    }

    fn all_calls(&mut self) -> Result<Vec<Value>> {
        self.users.iter_mut().map(|users| users.speaker.ask(&json!({ "do": "calls" }))).collect()
    }

    fn up(&mut self) -> Result<u64> {
        Ok(self.all_calls()?.iter().filter_map(|told| told["up"].as_u64()).sum())
    }

    /// Lets look-ups go on for a while, and counts them as those of an act.
    fn watch(&mut self, name: &str, time: Duration) -> Result<()> {
        self.look_up(true)?;
        sleep(time);
        self.take_tally(name)
    }

    fn look_up(&mut self, on: bool) -> Result<()> {
        for users in &mut self.users {
            users.speaker.ask(&json!({ "do": "look-up", "on": on }))?;
        }
        Ok(())
    }

    fn take_tally(&mut self, name: &str) -> Result<()> {
        let mut act = Act { name: name.to_owned(), ..Act::default() };
        for users in &mut self.users {
            let told = users.speaker.ask(&json!({ "do": "tally" }))?;
            act.looked += told["looked"].as_u64().unwrap_or(0);
            act.failed += told["failed"].as_u64().unwrap_or(0);
            act.first.extend(told["first"].as_array().into_iter().flatten().filter_map(Value::as_f64));
        }
        act.first.sort_by(f64::total_cmp);
        self.say(&format!("{name}: {} look-ups, {} failed", act.looked, act.failed));
        self.acts.push(act);
        Ok(())
    }

    /// Every end of a call sends text, and every one must come: signalling lives.
    fn check_calls(&mut self, when: &str) -> Result<()> {
        let texts = |all: &[Value]| all.iter().filter_map(|told| told["texts"].as_u64()).sum::<u64>();
        let before = texts(&self.all_calls()?);
        for users in &mut self.users {
            users.speaker.ask(&json!({ "do": "text" }))?;
        }
        let end = Instant::now() + Duration::from_secs(25);
        while texts(&self.all_calls()?) < before + self.calls.ends && Instant::now() < end {
            sleep(Duration::from_millis(200));
        }
        let all = self.all_calls()?;
        let came = texts(&all) - before;
        let up: u64 = all.iter().filter_map(|told| told["up"].as_u64()).sum();
        let silent: u64 = all.iter().filter_map(|told| told["silent"].as_u64()).sum();
        let lost = self.calls.ends.saturating_sub(up);
        self.calls.texts_lost += self.calls.ends.saturating_sub(came);
        self.calls.silent = self.calls.silent.max(silent);
        self.say(&format!(
            "{when}: {up} of {} ends of calls are up, {came} texts came, {silent} silent",
            self.calls.ends
        ));
        if lost > 0 || came < self.calls.ends {
            let ended: Vec<&Value> =
                all.iter().filter_map(|told| told["ended"].as_array()).flatten().collect();
            self.say(&format!("ended: {ended:?}"));
        }
        // Both ends of a call end.
        self.calls.lost += lost.div_ceil(2);
        self.calls.ends = up;
        Ok(())
    }

    /// Kills every other supernode of each half at once, the first ones among them.
    fn kill_half(&mut self) -> Result<()> {
        let circuits = self.count("circuits")?;
        let silent = self.arguments.silent;
        for node in self.supernodes.iter_mut().filter(|node| node.number % 2 == 1) {
            if silent {
                self.net.silence(node.half, &node.seat.address)?;
            }
            node.kill()?;
        }
        let left = self.supernodes.iter().filter(|node| node.is_running()).count();
        self.say(&format!(
            "killed half of the supernodes ({circuits} circuits were served): {left} are left"
        ));
        self.watch("half of the supernodes gone", AFTER_KILL)?;
        self.check_calls("after that")
    }

    fn count(&mut self, key: &str) -> Result<u64> {
        let mut sum = 0;
        for node in self.supernodes.iter_mut().filter(|node| node.is_running()) {
            sum += node.status()?[key].as_u64().unwrap_or(0);
        }
        Ok(sum)
    }

    /// Lets fresh nodes join while four of the six ways are blocked. The local network is one of those:
    /// the halves are one; a test of the node shows it.
    fn join_blocked(&mut self) -> Result<Vec<(String, Value)>> {
        let alive = self.supernodes.iter().filter(|node| node.is_running() && node.half == Half::North);
        let nodes: Vec<String> = alive.take(3).map(Supernode::multiaddress).collect();
        let ways = Ways::new(&self.folder, self.unix, &nodes)?;
        let mut joined = Vec::new();
        let open: Vec<&str> = WAYS.into_iter().filter(|way| *way != "lan").collect();
        let mut number = FRESH;
        for (at, first) in open.iter().enumerate() {
            for second in &open[at + 1..] {
                let address = Half::North.user(1);
                let seat = Seat { unix: self.unix, number, address, bootstrap: Vec::new(), peers_file: None };
                let told = self.users(Half::North)?.speaker.ask(&ways.join(seat, &[first, second])?)?;
                ensure!(told["joined"] == true, "nobody joins by {first} and {second} alone: {told}");
                joined.push((format!("{first}, {second}"), told));
                number += 1;
            }
        }
        self.say(&format!("{} nodes have joined, each with four of six ways blocked", joined.len()));
        self.take_tally("fresh nodes join")?;
        Ok(joined)
    }

    /// Starts those again that were killed, but for the two that they were told of: they know others
    /// from disk. Returns the longest time that one took, in seconds.
    fn rejoin(&mut self) -> Result<f64> {
        let mut longest = 0_f64;
        let (net, folder): (&Net, &Path) = (&self.net, &self.folder);
        let mut count = 0;
        for node in self.supernodes.iter_mut().filter(|node| !node.is_running() && node.number > 1) {
            if self.arguments.silent {
                net.restore(node.half, &node.seat.address)?;
            }
            let begin = Instant::now();
            node.start(net, folder)?;
            node.wait_until_online()?;
            longest = longest.max(begin.elapsed().as_secs_f64());
            count += 1;
        }
        self.say(&format!(
            "{count} supernodes of before came back from what they had on disk, the slowest in {longest:.1} s"
        ));
        self.take_tally("supernodes come back")?;
        Ok(longest)
    }

    /// Takes the halves apart and joins them again. Returns after how many seconds a record written in
    /// one half meanwhile has replaced the older one in the other.
    fn partition(&mut self) -> Result<f64> {
        self.hang_up_across()?;
        let roamer = |half: Half, users: u8| Seat {
            unix: self.unix,
            number: ROAMER,
            address: half.user(users),
            bootstrap: Vec::new(),
            peers_file: None,
        };
        let address = 1 + 3 * self.arguments.calls + LOOKING;
        let seats = Half::BOTH.map(|half| roamer(half, address));
        let known = |play: &Self, half: Half| -> Vec<String> {
            let alive = play.supernodes.iter().filter(|node| node.is_running() && node.half == half);
            alive.take(3).map(Supernode::multiaddress).collect()
        };
        let come = |play: &mut Self, half: Half| -> Result<u64> {
            let mut seat = seats[at(half)].clone();
            seat.bootstrap = known(play, half);
            let command = json!({ "do": "roam", "seat": seat.to_json() });
            play.users(half)?.speaker.ask(&command)?;
            play.sequence(half)?.context("the record of who has moved is not found")
        };
        let mut old = come(self, Half::North)?;
        let begin = Instant::now();
        // It is written anew with each relay that is found.
        loop {
            let before = self.sequence(Half::South)?;
            if before == Some(old) {
                break;
            }
            ensure!(begin.elapsed() < SETTLING, "both halves know one record: {old} and {before:?}");
            sleep(Duration::from_millis(200));
            old = self.sequence(Half::North)?.context("the record of who has moved is gone")?;
        }
        self.users(Half::North)?.speaker.ask(&json!({ "do": "roam", "seat": null }))?;
        for half in Half::BOTH {
            let handles = self.handles(half);
            self.users(half)?.speaker.ask(&json!({ "do": "handles", "handles": handles }))?;
        }
        self.look_up(true)?;
        self.net.part()?;
        let begin = Instant::now();
        self.say("the halves are apart");
        // The user turns up in the other half, and is found there.
        let new = come(self, Half::South)?;
        ensure!(new > old, "a later record has a higher sequence");
        sleep(Duration::from_secs(self.arguments.apart).saturating_sub(begin.elapsed()));
        let stale = self.sequence(Half::North)?;
        self.say(&format!(
            "apart for {:.0} s; the record of who has moved is new in the south, and in the north {}",
            begin.elapsed().as_secs_f64(),
            if stale == Some(old) { "the old one" } else { "gone" }
        ));
        self.check_calls("in the halves")?;
        self.take_tally("the halves apart")?;
        self.net.join()?;
        let healed = self.heal(new)?;
        self.take_tally("the halves join")?;
        self.look_up_all()?;
        self.watch("all is well again", BEFORE)?;
        self.check_calls("at the end")?;
        Ok(healed)
    }

    /// Waits until everybody finds everybody, and the record of who has moved is the later one everywhere;
    /// meanwhile each half goes on to look up its own. Returns how many seconds that took.
    fn heal(&mut self, later: u64) -> Result<f64> {
        let joined = Instant::now();
        let all: Vec<String> = Half::BOTH.iter().flat_map(|half| self.handles(*half)).collect();
        loop {
            let mut missing = 0;
            for half in Half::BOTH {
                let told = self.users(half)?.speaker.ask(&json!({ "do": "missing", "handles": all }))?;
                missing += told["missing"].as_array().map_or(0, Vec::len);
                missing += usize::from(self.sequence(half)?.is_none_or(|found| found < later));
            }
            let took = joined.elapsed();
            if missing == 0 {
                let took = took.as_secs_f64();
                self.say(&format!(
                    "joined again: everybody finds everybody, and the later record, after {took:.1} s"
                ));
                return Ok(took);
            }
            ensure!(took < HEALING, "{missing} look-ups fail {HEALING:?} after the halves were joined");
            sleep(Duration::from_secs(1));
        }
    }

    /// Ends the calls from one half to the other: their media could not survive what comes.
    fn hang_up_across(&mut self) -> Result<()> {
        let first = 2 * self.arguments.calls;
        let phones: Vec<u8> = (first..3 * self.arguments.calls).collect();
        self.users(Half::North)?.speaker.ask(&json!({ "do": "hang-up", "phones": phones }))?;
        self.calls.ends -= (2 * u64::from(self.arguments.calls)).min(self.calls.ends);
        sleep(Duration::from_secs(2));
        let up = self.up()?;
        ensure!(up == self.calls.ends, "{up} ends of calls are up, and should be {}", self.calls.ends);
        Ok(())
    }

    fn sequence(&mut self, half: Half) -> Result<Option<u64>> {
        let handle = Seat::handle(ROAMER);
        let told = self.users(half)?.speaker.ask(&json!({ "do": "find", "handle": handle }))?;
        Ok(told["sequence"].as_u64())
    }

    fn hang_up(&mut self) -> Result<()> {
        self.look_up(false)?;
        for users in &mut self.users {
            users.speaker.ask(&json!({ "do": "hang-up" }))?;
        }
        sleep(Duration::from_secs(2));
        let all = self.all_calls()?;
        let ended: Vec<&Value> = all.iter().filter_map(|told| told["ended"].as_array()).flatten().collect();
        let sum = |key: &str| ended.iter().filter_map(|end| end[key].as_u64()).sum::<u64>();
        let (received, lost) = (sum("received"), sum("lost"));
        self.say(&format!(
            "{} ends of calls received {received} packets of voice; {lost} never came",
            ended.len()
        ));
        Ok(())
    }

    /// Prints the table and the result. Returns whether the goals are reached.
    fn tell(&self, joined: &[(String, Value)], rejoined: f64, healed: f64) -> Result<bool> {
        let mut table =
            format!("\n{:<32}{:>9}{:>9}{:>11}{:>11}\n", "act", "look-ups", "failed", "p50 ms", "p99 ms");
        for act in &self.acts {
            let (p50, p99) = (quantile(&act.first, 0.5), quantile(&act.first, 0.99));
            let _ =
                writeln!(table, "{:<32}{:>9}{:>9}{p50:>11.1}{p99:>11.1}", act.name, act.looked, act.failed);
        }
        let _ = writeln!(table, "\n{:<32}{:>9}  by", "ways that were open", "joined s");
        for (open, told) in joined {
            let took = told["took_s"].as_f64().unwrap_or(f64::NAN);
            let _ = writeln!(table, "{open:<32}{took:>9.2}  {}", told["by"]);
        }
        println!("{table}");
        let (looked, failed) = self.acts.iter().fold((0, 0), |(l, f), act| (l + act.looked, f + act.failed));
        let percent = 100.0 * failed as f64 / looked.max(1) as f64;
        let calls = &self.calls;
        println!(
            "RESULT resilience calls_lost={} lookups_failed_pct={percent:.3} rejoin_s={rejoined:.1} healed_s={healed:.1} lookups={looked} texts_lost={} silent={}",
            calls.lost, calls.texts_lost, calls.silent
        );
        let no_call = calls.lost == 0 && calls.silent == 0 && calls.texts_lost == 0;
        let holds = no_call && percent <= GOAL_PERCENT && looked > 0;
        if let Some(path) = self.arguments.page.as_ref().filter(|_| holds) {
            let (arguments, acts) = (self.arguments, self.acts.as_slice());
            page::write(path, &Story { arguments, acts, calls, joined, rejoined, healed })?;
        }
        Ok(holds)
    }
}

/// Returns a quantile of numbers in order.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    // Within the list.
    sorted.get((last as f64 * q).round() as usize).copied().unwrap_or(f64::NAN)
}
