//! What users do in a day.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use call_model::Handle;
use libp2p::PeerId;

use super::stanzas::{Contacts, Others, Sizes};
use super::world::{Authority, Tally, Traffic, Way, World, total, trusted};
use crate::identity::{IdentityError, NodeKey, UserBundle};
use crate::presence::{Availability, Client, PresenceLimits, Refused};
use crate::testing::Pki;

/// The unit of the simulated time.
const TICK: Duration = Duration::from_secs(10);
/// When it begins, in Unix seconds.
const UNIX: u64 = 1_790_000_000;

/// What is simulated. All events of a kind are independent and equally likely at any time.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Users, with one device each.
    pub users: usize,
    /// Contacts of each on average, at random among all users: the least favourable graph, for what
    /// is sent once for several watchers.
    pub contacts: usize,
    /// Supernodes. To XMPP and SIP they are servers, with the same users.
    pub supernodes: usize,
    /// Users who are on at any time, of 100.
    pub on_percent: u64,
    /// Log-ins of each user in a day; as many log-outs.
    pub logins_per_day: f64,
    /// Changes of availability in an hour of being on.
    pub changes_per_hour: f64,
    /// Changes of the note, or announcements made anew, in an hour of being on.
    pub notes_per_hour: f64,
    /// Connections lost and made again in an hour of being on: half of them with the same supernode.
    pub moves_per_hour: f64,
    /// Restarts of each supernode in a day, evenly spread over all: its users go to others.
    pub restarts_per_day: f64,
    /// Certificates made anew for each user in a day: they last 90 days and are renewed at half.
    pub certificates_per_day: f64,
    /// How long is measured.
    pub measured: Duration,
    /// The seed of all chance.
    pub seed: u64,
}

impl Scenario {
    /// A day of telephone and chat users: on for eight hours in three sessions, 30 contacts, a change
    /// every half hour (idle, back, in a call), a new network or a tunnel every hour.
    pub fn usual(users: usize, supernodes: usize) -> Self {
        Self {
            users,
            contacts: 30,
            supernodes,
            on_percent: 33,
            logins_per_day: 3.0,
            changes_per_hour: 2.0,
            notes_per_hour: 0.1,
            moves_per_hour: 1.0,
            restarts_per_day: 1.0,
            certificates_per_day: 1.0 / 45.0,
            measured: Duration::from_secs(3600),
            seed: 1,
        }
    }
}

/// How often each thing happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// Log-ins.
    pub logins: u64,
    /// Log-outs.
    pub logouts: u64,
    /// Changes of availability.
    pub changes: u64,
    /// Changes of notes.
    pub notes: u64,
    /// Lost connections that came back at the same supernode.
    pub returns: u64,
    /// Those that came back at another.
    pub moves: u64,
    /// Restarts of supernodes.
    pub restarts: u64,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What was simulated.
    pub scenario: Scenario,
    /// Frames of this protocol by way and kind.
    pub traffic: Traffic,
    /// All of them.
    pub sum: Tally,
    /// News of supernodes that come and go, which every supernode has to have.
    pub membership: Tally,
    /// The same behaviour under other protocols.
    pub others: Others,
    /// How often each thing happened.
    pub happened: Happened,
    /// Contacts shown as they are, and all that were looked at, in the end.
    pub right: (usize, usize),
}

impl Measured {
    /// Returns the bytes of this protocol, membership included, as a part of those of XMPP.
    pub fn ratio_to_xmpp(&self) -> f64 {
        self.bytes() / self.others.xmpp.bytes.max(1) as f64
    }

    /// The same where XMPP resumes every lost connection.
    pub fn ratio_to_xmpp_resumed(&self) -> f64 {
        self.bytes() / self.others.xmpp_resumed.bytes.max(1) as f64
    }

    /// The same as a part of those of SIP.
    pub fn ratio_to_sip(&self) -> f64 {
        self.bytes() / self.others.sip.bytes.max(1) as f64
    }

    fn bytes(&self) -> f64 {
        (self.sum.bytes + self.membership.bytes) as f64
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seeded, and good enough for who calls whom.
#[derive(Clone, Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// Draws how often something happens that is expected so often: Poisson, by Knuth's product.
    fn times(&mut self, expected: f64) -> usize {
        let mut left = expected;
        let mut count = 0;
        // In parts, so that the exponential does not vanish.
        while left > 0.0 {
            let part = left.min(30.0);
            let (limit, mut product) = ((-part).exp(), 1.0);
            loop {
                product *= (self.next() >> 11) as f64 / (1u64 << 53) as f64;
                if product <= limit {
                    break;
                }
                count += 1;
            }
            left -= part;
        }
        count
    }
}

struct Run {
    scenario: Scenario,
    chance: Chance,
    world: World,
    sizes: Sizes,
    contacts: Vec<Vec<usize>>,
    /// The server of each user under the other protocols.
    servers: Vec<PeerId>,
    on: Vec<bool>,
    shown: Vec<Availability>,
    others: Others,
    happened: Happened,
    membership: Tally,
    measured: Duration,
}

/// Simulates a scenario and measures it. Its time begins at `start` and goes on by itself.
///
/// # Errors
/// When no certificates can be made, or a bound of the state machines is met.
pub fn measure(scenario: Scenario, start: Instant) -> Result<Measured, MeasureError> {
    let mut run = Run::new(scenario, start)?;
    run.warm_up()?;
    run.world.traffic.clear();
    (run.others, run.happened, run.membership) = (Others::default(), Happened::default(), Tally::default());
    let ticks = scenario.measured.as_secs() / TICK.as_secs();
    for _ in 0..ticks {
        run.tick()?;
    }
    let traffic = std::mem::take(&mut run.world.traffic);
    // What is still on its way is not late yet.
    run.world.advance(Duration::from_secs(120));
    let right = run.check();
    Ok(Measured {
        scenario,
        sum: total(&traffic, &[Way::Up, Way::Down, Way::ToHome, Way::FromHome]),
        traffic,
        membership: run.membership,
        others: run.others,
        happened: run.happened,
        right,
    })
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// No certificates.
    #[error("certificates: {0}")]
    Identity(#[from] IdentityError),
    /// A bound of the state machines is met.
    #[error("refused: {}", .0.as_str())]
    Refused(Refused),
    /// A handle is malformed.
    #[error("a handle is malformed")]
    Handle,
}

impl From<Refused> for MeasureError {
    fn from(reason: Refused) -> Self {
        MeasureError::Refused(reason)
    }
}

fn name(user: usize) -> String {
    format!("user{user:06}")
}

fn key_of(user: usize, kind: u8) -> NodeKey {
    let mut seed = [kind; 32];
    seed.iter_mut().zip(user.to_be_bytes()).for_each(|(to, from)| *to = from);
    NodeKey::from_seed(seed)
}

impl Run {
    fn new(scenario: Scenario, now: Instant) -> Result<Self, MeasureError> {
        let mut chance = Chance(scenario.seed);
        let limits = PresenceLimits {
            clients: scenario.users,
            handles: scenario.users,
            subscriptions: scenario.users,
            ..PresenceLimits::default()
        };
        let mut world = World::new(Authority::Trusting, limits.clone(), now, UNIX * 1000, scenario.seed);
        let peers: Vec<PeerId> = (0..scenario.supernodes).map(|at| key_of(at, 0xee).peer_id()).collect();
        world.start(&peers);
        let mut pairs: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); scenario.users];
        for _ in 0..scenario.users * scenario.contacts / 2 {
            let (one, other) = (chance.below(scenario.users), chance.below(scenario.users));
            if one != other {
                pairs[one].insert(other);
                pairs[other].insert(one);
            }
        }
        let contacts: Vec<Vec<usize>> = pairs.into_iter().map(|set| set.into_iter().collect()).collect();
        let handles: Result<Vec<Handle>, _> = (0..scenario.users).map(|user| name(user).parse()).collect();
        let handles = handles.map_err(|_| MeasureError::Handle)?;
        let pki = Pki::new(UNIX)?;
        let mut certificates = Vec::with_capacity(scenario.users);
        for (user, handle) in handles.iter().enumerate() {
            certificates.push(pki.handle(handle, &[&key_of(user, 0xdd)], user as u64)?);
        }
        let hours = scenario.measured.as_secs_f64() / 3600.0;
        // Of a million: contacts whose certificate is another than when they were seen last.
        let renewed = (scenario.certificates_per_day * hours / 24.0 * 1e6) as u64;
        for user in 0..scenario.users {
            let key = key_of(user, 0xdd);
            let peer = key.peer_id();
            let bundle = UserBundle { key, certificate: certificates[user].clone() };
            let mut secret = [0; 32];
            secret.chunks_mut(8).for_each(|part| part.copy_from_slice(&chance.next().to_be_bytes()));
            let mut client = Client::new(bundle, secret, limits.clone(), now)?;
            let friends: BTreeSet<Handle> = contacts[user].iter().map(|at| handles[*at].clone()).collect();
            let rules = client.set_rules(UNIX * 1000, false, friends.clone(), BTreeSet::new());
            rules.and_then(|()| client.set_contacts(&friends)).map_err(|_| Refused::Subscriptions)?;
            for friend in &contacts[user] {
                if chance.next() % 1_000_000 >= renewed {
                    client.know(trusted(&certificates[*friend]));
                }
            }
            world.add(client, peer, certificates[user].clone());
        }
        let servers = (0..scenario.users).map(|_| peers[chance.below(peers.len())]).collect();
        Ok(Self {
            scenario,
            chance,
            world,
            sizes: Sizes::of(&name(0), &name(1)),
            contacts,
            servers,
            on: vec![false; scenario.users],
            shown: vec![Availability::Available; scenario.users],
            others: Others::default(),
            happened: Happened::default(),
            membership: Tally::default(),
            measured: Duration::ZERO,
        })
    }

    /// Lets everybody be on once, so that what is remembered from the days before is there.
    fn warm_up(&mut self) -> Result<(), MeasureError> {
        for user in 0..self.scenario.users {
            let set = |client: &mut Client, now, unix| client.set(now, unix, Availability::Available, "");
            self.world.device(user, set).map_err(|_| Refused::Oversize)?;
            self.world.connect(user, &self.servers[user].clone())?;
            self.world.settle();
            self.on[user] = true;
        }
        for user in 0..self.scenario.users {
            if self.chance.next() % 100 >= self.scenario.on_percent {
                self.world.disconnect(user);
                self.on[user] = false;
            }
        }
        self.world.advance(Duration::from_secs(900));
        Ok(())
    }

    fn tick(&mut self) -> Result<(), MeasureError> {
        self.world.advance(TICK);
        let scenario = self.scenario;
        let (days, hours) = (TICK.as_secs_f64() / 86_400.0, TICK.as_secs_f64() / 3600.0);
        let users = scenario.users as f64;
        let on = users * scenario.on_percent as f64 / 100.0;
        for _ in 0..self.chance.times(users * scenario.logins_per_day * days) {
            let user = self.someone(false);
            self.connect(user)?;
            self.on[user] = true;
            self.happened.logins += 1;
            self.others.login(&self.sizes, self.around(user));
        }
        for _ in 0..self.chance.times(users * scenario.logins_per_day * days) {
            let user = self.someone(true);
            self.others.logout(&self.sizes, self.around(user));
            self.world.disconnect(user);
            self.on[user] = false;
            self.happened.logouts += 1;
        }
        for _ in 0..self.chance.times(on * scenario.changes_per_hour * hours) {
            let user = self.someone(true);
            let now = Availability::SHOWN[self.chance.below(3)];
            if now != self.shown[user] {
                self.set(user, now, None)?;
                self.happened.changes += 1;
            }
        }
        for _ in 0..self.chance.times(on * scenario.notes_per_hour * hours) {
            let user = self.someone(true);
            let note = format!("note {}", self.chance.below(1000));
            self.set(user, self.shown[user], Some(note))?;
            self.happened.notes += 1;
        }
        for _ in 0..self.chance.times(on * scenario.moves_per_hour * hours) {
            let user = self.someone(true);
            self.others.moved(&self.sizes, self.around(user));
            let at = self.world.agent_of(user);
            self.world.disconnect(user);
            if self.chance.next().is_multiple_of(2)
                && let Some(at) = at
            {
                self.world.connect(user, &at)?;
                self.happened.returns += 1;
            } else {
                self.connect(user)?;
                self.happened.moves += 1;
            }
        }
        // The first after half of the time between two.
        self.measured += TICK;
        let of_all = scenario.supernodes as f64 * scenario.restarts_per_day / 86_400.0;
        let restarts = (self.measured.as_secs_f64() * of_all + 0.5) as u64;
        if self.happened.restarts < restarts {
            self.restart()?;
        }
        // The hourly refreshes, spread over the hour.
        for _ in 0..self.chance.times(on * hours) {
            let user = self.someone(true);
            self.others.hour(&self.sizes, self.around(user));
        }
        Ok(())
    }

    fn someone(&mut self, on: bool) -> usize {
        loop {
            let user = self.chance.below(self.scenario.users);
            if self.on[user] == on {
                return user;
            }
        }
    }

    fn connect(&mut self, user: usize) -> Result<(), MeasureError> {
        let nodes = self.world.supernodes();
        let at = nodes[self.chance.below(nodes.len())];
        Ok(self.world.connect(user, &at)?)
    }

    fn set(&mut self, user: usize, shown: Availability, note: Option<String>) -> Result<(), MeasureError> {
        self.others.change(&self.sizes, self.around(user));
        self.shown[user] = shown;
        let note = note.unwrap_or_default();
        let set = |client: &mut Client, now, unix| client.set(now, unix, shown, &note);
        self.world.device(user, set).map_err(|_| Refused::Oversize)?;
        Ok(())
    }

    /// A supernode goes and is back a minute later. XMPP and SIP are spared this.
    fn restart(&mut self) -> Result<(), MeasureError> {
        let nodes = self.world.supernodes();
        let gone = nodes[self.chance.below(nodes.len())];
        let orphans = self.world.kill(&gone);
        self.world.tell_members();
        for user in orphans {
            self.connect(user)?;
        }
        self.world.advance(Duration::from_secs(60));
        self.world.start(&[gone]);
        self.happened.restarts += 1;
        // Two pieces of news to every other supernode: an id of 38 bytes, an address, a signature.
        let messages = 2 * (nodes.len() as u64 - 1);
        self.membership.messages += messages;
        self.membership.bytes += messages * 150;
        Ok(())
    }

    fn around(&self, user: usize) -> Contacts {
        let (mut on, mut elsewhere, mut on_elsewhere) = (0, 0, 0);
        for contact in &self.contacts[user] {
            let (is_on, is_else) = (self.on[*contact], self.servers[*contact] != self.servers[user]);
            on += u64::from(is_on);
            elsewhere += u64::from(is_else);
            on_elsewhere += u64::from(is_on && is_else);
        }
        Contacts { all: self.contacts[user].len() as u64, elsewhere, on, on_elsewhere }
    }

    /// Looks whether everybody who is on sees every contact as it is.
    fn check(&self) -> (usize, usize) {
        let (mut right, mut all) = (0, 0);
        for user in (0..self.scenario.users).filter(|user| self.on[*user]) {
            for contact in &self.contacts[user] {
                let expected = if self.on[*contact] { self.shown[*contact] } else { Availability::Offline };
                let handle: Option<Handle> = name(*contact).parse().ok();
                let shown = handle.and_then(|handle| self.world.client(user).shown(&handle));
                right += usize::from(shown == Some(expected));
                all += 1;
            }
        }
        (right, all)
    }
}
