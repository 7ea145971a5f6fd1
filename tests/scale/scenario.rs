//! What is done to the network, and what is seen then.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::net::Network;
use crate::random::Sessions;
use crate::sim::{Defences, Settings, Sim};
use crate::tally::{Census, Effort, Finished, KINDS, Kind, Summary, percent, quantile};
use crate::world::{Around, Attack, Population, World};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
/// By then all have published, and look for each other.
const WARM_UP: u32 = 6;
/// Supernodes that exist for each one that is up: the others are away, and come back.
const AWAY: f64 = 1.25;
/// Servers that a fresh package names.
const FIRST: u32 = 16;

/// Points of a curve: minutes, and a value.
pub(crate) type Curve = Vec<(f64, f64)>;

/// How big everything is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) supernodes: usize,
    pub(crate) users: usize,
    pub(crate) minutes: u32,
    pub(crate) seed: u64,
    pub(crate) copies: usize,
    pub(crate) settings: Settings,
}

impl Plan {
    fn population(&self) -> Population {
        let supernodes = (self.supernodes as f64 * AWAY) as usize;
        Population { supernodes, users: self.users, copies: self.copies }
    }

    /// A network that has been up for a while.
    pub(crate) fn warm(&self, attack: Option<Attack>) -> Result<Sim> {
        let world = Arc::new(World::new(self.population(), attack, self.seed)?);
        let mut sim = Sim::new(world, self.settings, self.supernodes, self.seed)?;
        sim.run_until(MINUTE * WARM_UP)?;
        sim.forget();
        Ok(sim)
    }
}

/// A quiet network, but for those who come and go.
#[derive(Debug)]
pub(crate) struct Steady {
    pub(crate) supernodes: usize,
    pub(crate) users: usize,
    pub(crate) seconds: f64,
    pub(crate) look_ups: Summary,
    pub(crate) efforts: Vec<(Kind, &'static str, Effort)>,
    pub(crate) census: Vec<Census>,
    pub(crate) unconfirmed: u64,
    /// Of each supernode: requests a second, bytes a second, records verified a second.
    pub(crate) requests: Vec<f64>,
    pub(crate) bytes: Vec<f64>,
    pub(crate) verified: Vec<f64>,
    /// Bytes a second that open connections of a supernode take, in the middle.
    pub(crate) keep_alive: f64,
    pub(crate) table: f64,
    pub(crate) user_links: f64,
    /// What has happened in the model.
    pub(crate) events: u64,
}

impl Steady {
    pub(crate) fn effort(&self, wanted: Kind) -> Effort {
        self.efforts.iter().find(|(kind, ..)| *kind == wanted).map(|(.., effort)| *effort).unwrap_or_default()
    }

    /// Records that nobody held any more, of all that were looked for, in percent.
    pub(crate) fn lost_percent(&self) -> f64 {
        let (lost, all) = self.census.iter().fold((0, 0), |(l, a), one| (l + one.lost, a + one.confirmed));
        percent(lost, all)
    }

    pub(crate) fn holders(&self) -> f64 {
        self.census.iter().map(|one| one.holders).sum::<f64>() / self.census.len().max(1) as f64
    }

    /// Bytes a second that the work of one user takes, look-ups apart: those depend on how often it calls.
    pub(crate) fn user_bytes(&self, look_ups_a_second: f64) -> f64 {
        let each = |kind| self.effort(kind).bytes as f64 / self.seconds / self.users as f64;
        let look_up = self.effort(Kind::LookUp);
        each(Kind::Publish)
            + each(Kind::UserRefresh)
            + look_up.each(look_up.bytes) * look_ups_a_second
            + self.user_links * crate::net::bytes::PING as f64 / crate::net::bytes::PING_EVERY
    }
}

/// Measures a quiet network, and gives it back as it is then.
pub(crate) fn steady(plan: &Plan) -> Result<(Steady, Sim)> {
    let mut sim = plan.warm(None)?;
    let begin = sim.now;
    let before = sim.events;
    sim.run_until(begin + MINUTE * plan.minutes)?;
    let seconds = (sim.now - begin).as_secs_f64();
    let up: Vec<u32> = (0..sim.world.supernodes as u32).filter(|node| sim.nodes[*node as usize].up).collect();
    let of = |what: &dyn Fn(u32) -> f64| {
        let mut values: Vec<f64> = up.iter().map(|node| what(*node)).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let users = sim.world.users.len();
    let user_links = (0..users).map(|user| sim.linked_servers(sim.world.node_of(user)).len()).sum::<usize>();
    let steady = Steady {
        supernodes: plan.supernodes,
        users,
        seconds,
        look_ups: sim.tally.all(),
        efforts: KINDS.iter().map(|(kind, name)| (*kind, *name, sim.tally.effort(*kind))).collect(),
        census: sim.tally.census.clone(),
        unconfirmed: sim.tally.unconfirmed,
        requests: of(&|node| sim.nodes[node as usize].load.requests as f64 / seconds),
        bytes: of(&|node| sim.nodes[node as usize].load.bytes as f64 / seconds),
        verified: of(&|node| sim.nodes[node as usize].load.records as f64 / seconds),
        keep_alive: quantile(&of(&|node| sim.keep_alive_rate(node)), 0.5),
        table: quantile(&of(&|node| sim.nodes[node as usize].table.len() as f64), 0.5),
        user_links: user_links as f64 / users.max(1) as f64,
        events: sim.events - before,
    };
    Ok((steady, sim))
}

/// What was seen in a span of time around something that happened.
#[derive(Debug)]
pub(crate) struct Upset {
    pub(crate) name: &'static str,
    pub(crate) before: Summary,
    /// The worst half minute.
    pub(crate) worst: f64,
    /// The last two minutes.
    pub(crate) after: Summary,
    /// Minutes from then until 99 of 100 look-ups found the callee again, if they did.
    pub(crate) recovered: Option<f64>,
    pub(crate) found: Curve,
    pub(crate) reachable: Curve,
    pub(crate) lost_percent: f64,
}

const STEP: Duration = Duration::from_secs(30);

fn curve(
    sim: &Sim,
    from: Duration,
    wanted: impl Fn(&Finished) -> bool,
    value: impl Fn(&Summary) -> f64,
) -> Curve {
    let steps = ((sim.now - from).as_secs() / STEP.as_secs()) as u32;
    let at = |step: u32| {
        let (begin, end) = (from + STEP * step, from + STEP * (step + 1));
        let some =
            sim.tally.look_ups.iter().filter(|one| one.began >= begin && one.began < end && wanted(one));
        let summary = Summary::of(some);
        (summary.count > 0).then(|| ((end - from).as_secs_f64() / 60.0, value(&summary)))
    };
    (0..steps).filter_map(at).collect()
}

fn upset(name: &'static str, sim: &Sim, from: Duration, event: Duration) -> Upset {
    let found = curve(sim, from, |_| true, Summary::found_percent);
    let event_minute = (event - from).as_secs_f64() / 60.0;
    let since: Vec<(f64, f64)> = found.iter().copied().filter(|(minute, _)| *minute > event_minute).collect();
    let last_bad = since.iter().rposition(|(_, value)| *value < 99.0);
    let recovered = match last_bad {
        None => Some(0.0),
        Some(at) if at + 1 < since.len() => Some(since[at].0 - event_minute),
        Some(_) => None,
    };
    Upset {
        name,
        before: sim.tally.between(from, event),
        worst: since.iter().map(|(_, value)| *value).fold(100.0, f64::min),
        after: sim.tally.between(sim.now.saturating_sub(MINUTE * 2), sim.now),
        recovered,
        reachable: curve(sim, from, |_| true, Summary::reachable_percent),
        lost_percent: sim.tally.census.iter().map(|one| percent(one.lost, one.confirmed)).fold(0.0, f64::max),
        found,
    }
}

/// Half of all supernodes are gone at once, and nobody comes in their place.
pub(crate) fn half_killed(mut sim: Sim) -> Result<Upset> {
    sim.forget();
    let from = sim.now;
    sim.run_until(from + MINUTE)?;
    let event = sim.now;
    let up: Vec<u32> = (0..sim.world.supernodes as u32).filter(|node| sim.nodes[*node as usize].up).collect();
    for node in up {
        if sim.random.chance(0.5) {
            sim.take_down(node);
        }
    }
    sim.run_until(event + MINUTE * 7)?;
    Ok(upset("half of all supernodes killed", &sim, from, event))
}

/// A network that is cut in two for a while, and what callers on the other side saw.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) all: Upset,
    pub(crate) within: Curve,
    pub(crate) across: Curve,
    /// Of the peers in tables, how many are on the other side: when it is cut, when it is joined, in the end.
    pub(crate) tables: [f64; 3],
}

/// Cuts the network in two for ten minutes, longer than a record lives.
pub(crate) fn partition(mut sim: Sim) -> Result<Partition> {
    sim.forget();
    let from = sim.now;
    sim.run_until(from + MINUTE * 2)?;
    let event = sim.now;
    // Two in three users and supernodes on one side, as where an ocean cable is cut.
    let side = |node: u32| u8::from(node.wrapping_mul(2_654_435_761).is_multiple_of(3));
    let other_side = |sim: &Sim| {
        let (mut other, mut all) = (0, 0);
        for node in (0..sim.world.supernodes as u32).filter(|node| sim.nodes[*node as usize].up) {
            for peer in sim.nodes[node as usize].table.peers() {
                all += 1;
                other += usize::from(side(peer.node) != side(node));
            }
        }
        percent(other, all)
    };
    let cut = other_side(&sim);
    sim.divide(side);
    sim.run_until(event + MINUTE * 10)?;
    let joined = other_side(&sim);
    sim.divide(|_| 0);
    sim.run_until(event + MINUTE * 22)?;
    let world = Arc::clone(&sim.world);
    let same = move |one: &Finished| side(one.by) == side(world.node_of(one.callee));
    let tables = [cut, joined, other_side(&sim)];
    Ok(Partition {
        within: curve(&sim, from, &same, Summary::found_percent),
        across: curve(&sim, from, |one| !same(one), Summary::found_percent),
        all: upset("cut in two for 10 minutes", &sim, from, event),
        tables,
    })
}

/// Nodes that were on yesterday join while the first supernodes are gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rejoin {
    /// Of those on the list of yesterday, how many are up, in percent.
    pub(crate) alive: f64,
    pub(crate) joined: f64,
    pub(crate) found: f64,
}

/// Lets nodes join with nothing but a list of which so many are up. Those of the package are gone.
pub(crate) fn without_the_first(mut sim: Sim, alive: f64) -> Result<Rejoin> {
    sim.forget();
    // Nobody else comes or goes meanwhile.
    sim.settings.sessions = None;
    for node in 0..FIRST {
        sim.take_down(node);
    }
    let of_world = sim.world.supernodes as u32;
    let (up, down): (Vec<u32>, Vec<u32>) = (FIRST..of_world).partition(|node| sim.nodes[*node as usize].up);
    let mut joining = Vec::new();
    for _ in 0..100.min(down.len() / 2) {
        let Some(node) = sim.random.pick(&down).filter(|node| !joining.contains(node)) else { continue };
        // Those of the list who are gone are as the first: they do not answer.
        let mut list: Vec<u32> = (0..FIRST).collect();
        for _ in 0..p2p_edge::routing::MAX_KNOWN {
            let other = if sim.random.chance(alive) { sim.random.pick(&up) } else { None };
            list.extend(other);
        }
        sim.remember(node, list);
        sim.bring_up(node);
        joining.push(node);
    }
    let began = sim.now;
    sim.run_until(began + MINUTE)?;
    let joined = joining.iter().filter(|node| !sim.linked_servers(**node).is_empty()).count();
    for node in &joining {
        let callee = sim.random.below(sim.world.users.len());
        sim.begin_look_up(*node, callee, None);
    }
    let asked = sim.now;
    sim.run_until(asked + Duration::from_secs(10))?;
    let by_them = sim.tally.look_ups.iter().filter(|one| joining.contains(&one.by));
    let found = Summary::of(by_them).found_percent();
    Ok(Rejoin { alive: 100.0 * alive, joined: percent(joined, joining.len()), found })
}

/// What an attack came to under some defences.
#[derive(Debug)]
pub(crate) struct Assault {
    pub(crate) name: String,
    /// Of the look-ups of the victim's record, or those by the victim.
    pub(crate) found: f64,
    /// Of those that the supernode nearest to the record names, or of the victim's table: how many are attackers.
    pub(crate) captured: f64,
    pub(crate) refused: u64,
}

/// The defences that are on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard {
    pub(crate) name: &'static str,
    pub(crate) certificates: bool,
    pub(crate) diversity: bool,
    pub(crate) paths: bool,
    pub(crate) copies: usize,
    /// The attackers have certificates all the same.
    pub(crate) bought: bool,
}

/// Keys of a location record.
pub(crate) const KEYS: usize = p2p_edge::record::COPIES as usize;

pub(crate) const GUARDS: [Guard; 7] = [
    Guard { name: "nothing", certificates: false, diversity: false, paths: false, copies: 1, bought: false },
    Guard {
        name: "disjoint paths",
        certificates: false,
        diversity: false,
        paths: true,
        copies: 1,
        bought: false,
    },
    Guard {
        name: "networks of a bucket",
        certificates: false,
        diversity: true,
        paths: false,
        copies: 1,
        bought: false,
    },
    Guard {
        name: "two salted keys",
        certificates: false,
        diversity: false,
        paths: true,
        copies: KEYS,
        bought: false,
    },
    Guard {
        name: "certificates",
        certificates: true,
        diversity: false,
        paths: false,
        copies: 1,
        bought: false,
    },
    Guard { name: "all", certificates: true, diversity: true, paths: true, copies: KEYS, bought: false },
    Guard {
        name: "all, and certificates bought",
        certificates: true,
        diversity: true,
        paths: true,
        copies: KEYS,
        bought: true,
    },
];

impl Guard {
    fn plan(&self, plan: &Plan) -> Plan {
        let mut plan = *plan;
        plan.copies = self.copies;
        plan.settings.paths = if self.paths { plan.settings.paths } else { 1 };
        plan.settings.defences = Defences {
            certificates: self.certificates,
            same_network: if self.diversity { plan.settings.defences.same_network } else { usize::MAX },
        };
        plan
    }
}

/// Attackers with PeerIds nearer to the record of the first user than any supernode tell it to everybody near.
pub(crate) fn sybils(plan: &Plan, guard: &Guard, sybils: usize, networks: usize) -> Result<Assault> {
    let plan = guard.plan(plan);
    let attack = Attack { sybils, networks, certified: guard.bought, around: Around::Record };
    let mut sim = plan.warm(Some(attack))?;
    let target = sim.world.users[0].targets[0];
    let first = (sim.world.supernodes + sim.world.users.len()) as u32;
    let all: Vec<u32> = (first..first + sybils as u32).collect();
    sim.wake(&all);
    let begin = sim.now;
    for minute in 1..=12 {
        let mut near: Vec<u32> =
            (0..sim.world.supernodes as u32).filter(|node| sim.nodes[*node as usize].up).collect();
        near.sort_by_key(|node| sim.world.parties[*node as usize].id ^ target);
        for sybil in &all {
            for _ in 0..20 {
                let to = if sim.random.chance(0.5) { &near[..near.len().min(60)] } else { &near[..] };
                if let Some(to) = sim.random.pick(to) {
                    sim.connect(*sybil, to, false, Kind::Upkeep);
                }
            }
        }
        sim.run_until(begin + MINUTE * minute)?;
    }
    // The record of before has ended by now: what is found was published among the attackers.
    sim.forget();
    for _ in 0..300 {
        let user = 1 + sim.random.below(sim.world.users.len() - 1);
        let node = sim.world.node_of(user);
        sim.begin_look_up(node, 0, None);
        let now = sim.now;
        sim.run_until(now + Duration::from_millis(500))?;
    }
    let now = sim.now;
    sim.run_until(now + Duration::from_secs(10))?;
    let of_victim = sim.tally.look_ups.iter().filter(|one| one.callee == 0);
    let found = Summary::of(of_victim).found_percent();
    let up = (0..sim.world.supernodes as u32).filter(|node| sim.nodes[*node as usize].up);
    let node = up.min_by_key(|node| sim.world.parties[*node as usize].id ^ target).unwrap_or(0);
    let nearest = sim.nodes[node as usize].table.closest(target);
    let captured = nearest.iter().filter(|peer| sim.world.is_sybil(peer.node)).count();
    Ok(Assault {
        name: guard.name.to_owned(),
        found,
        captured: percent(captured, nearest.len()),
        refused: sim.tally.refused,
    })
}

/// A supernode starts anew while attackers connect to it before it finds anybody else.
pub(crate) fn eclipse(plan: &Plan, guard: &Guard, sybils: usize, networks: usize) -> Result<Assault> {
    let plan = guard.plan(plan);
    let attack = Attack { sybils, networks, certified: guard.bought, around: Around::Everywhere };
    let mut sim = plan.warm(Some(attack))?;
    let first = (sim.world.supernodes + sim.world.users.len()) as u32;
    let all: Vec<u32> = (first..first + sybils as u32).collect();
    sim.wake(&all);
    let down = (0..sim.world.supernodes as u32).find(|node| !sim.nodes[*node as usize].up);
    let victim = down.unwrap_or(0);
    // Whoever it knew before it went is not up any more: it has to take whom it meets.
    sim.remember(victim, Vec::new());
    // It stays for as long as it is looked at.
    let sessions = sim.settings.sessions.take();
    sim.bring_up(victim);
    sim.settings.sessions = sessions;
    for sybil in &all {
        sim.connect(*sybil, victim, true, Kind::Upkeep);
    }
    let honest: Vec<u32> =
        (0..sim.world.supernodes as u32).filter(|node| sim.nodes[*node as usize].up).collect();
    for _ in 0..p2p_edge::routing::WANTED_BY_SERVERS {
        if let Some(node) = sim.random.pick(&honest).filter(|node| *node != victim) {
            sim.connect(victim, node, false, Kind::Upkeep);
        }
    }
    let now = sim.now;
    sim.run_until(now + MINUTE * 3)?;
    sim.forget();
    let own: Vec<_> = sim.nodes[victim as usize].table.peers().collect();
    let captured = own.iter().filter(|peer| sim.world.is_sybil(peer.node)).count();
    for _ in 0..300 {
        let callee = sim.random.below(sim.world.users.len());
        sim.begin_look_up(victim, callee, None);
        let now = sim.now;
        sim.run_until(now + Duration::from_millis(100))?;
    }
    let now = sim.now;
    sim.run_until(now + Duration::from_secs(10))?;
    let by_victim = sim.tally.look_ups.iter().filter(|one| one.by == victim);
    let found = Summary::of(by_victim).found_percent();
    Ok(Assault {
        name: guard.name.to_owned(),
        found,
        captured: percent(captured, own.len()),
        refused: sim.tally.refused,
    })
}

/// A network of nodes that stay, all of it as it is where real ones run in one process.
pub(crate) fn still(
    supernodes: usize,
    users: usize,
    trip_ms: f64,
    look_ups: usize,
    plan: &Plan,
) -> Result<(Summary, Sim)> {
    let mut settings = plan.settings;
    settings.network = Network { loss: 0.0, fixed: Some(trip_ms) };
    settings.sessions = None;
    // Loopback says nothing about who owns a network.
    settings.defences.same_network = usize::MAX;
    let world = Arc::new(World::new(Population { supernodes, users, copies: 1 }, None, plan.seed)?);
    let mut sim = Sim::new(world, settings, supernodes, plan.seed)?;
    sim.run_until(MINUTE * WARM_UP)?;
    sim.forget();
    for at in 0..look_ups {
        let by = (at % supernodes) as u32;
        sim.begin_look_up(by, at % users, None);
        let now = sim.now;
        sim.run_until(now + Duration::from_millis(200))?;
    }
    let now = sim.now;
    sim.run_until(now + Duration::from_secs(10))?;
    let by_supernodes = sim.tally.look_ups.iter().filter(|one| (one.by as usize) < supernodes);
    Ok((Summary::of(by_supernodes), sim))
}

/// Of a list made some time ago, how many have not left since.
pub(crate) fn still_there(sessions: Sessions, age: Duration, seed: u64) -> f64 {
    let mut random = crate::random::Random::new(seed);
    let rounds = 2_000;
    let there = (0..rounds).filter(|_| sessions.rest(&mut random) > age).count();
    there as f64 / f64::from(rounds)
}
