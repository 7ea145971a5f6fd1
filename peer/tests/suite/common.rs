//! An overlay of one supernode on loopback, identities for its users, and an ear for tones.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use p2p_edge::identity::{NodeKey, UserBundle};
use p2p_edge::node::{Node, NodeConfig, NodeEvent, NodeHandle, NodeRole};
use p2p_edge::testing::Pki;
use peer::event::{Ended, Event};
use peer::{AnswerPolicy, Command, Softphone, SoftphoneConfig};
use tokio::sync::mpsc;

pub(crate) const RATE: u32 = 16_000;
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A supernode and the authority of its overlay.
pub(crate) struct Overlay {
    pub(crate) pki: Pki,
    pub(crate) bootstrap: String,
    /// The node stops with its last handle.
    _node: NodeHandle,
}

impl Overlay {
    pub(crate) async fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let pki = Pki::new(unix).unwrap();
        let bundle = pki.supernode(1).unwrap();
        let role = NodeRole::Supernode { chain: bundle.chain };
        let config = NodeConfig {
            listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()],
            ..NodeConfig::new(bundle.key, pki.trust().unwrap(), role)
        };
        let (node, mut events) = Node::spawn(config).await.unwrap();
        let address = loop {
            let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
            if let NodeEvent::Listening { address } = event.expect("it listens").unwrap() {
                break address;
            }
        };
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        let suffix = format!("/p2p/{}", node.peer_id());
        let bootstrap = if address.ends_with(&suffix) { address } else { address + &suffix };
        Self { pki, bootstrap, _node: node }
    }

    /// The node of somebody who joins here and listens nowhere.
    pub(crate) fn config(&self, key: NodeKey, role: NodeRole) -> NodeConfig {
        let bootstrap = vec![self.bootstrap.clone()];
        NodeConfig { bootstrap, ..NodeConfig::new(key, self.pki.trust().unwrap(), role) }
    }

    /// Starts a softphone that is online.
    pub(crate) async fn user(&self, handle: &str, number: u8, policy: AnswerPolicy) -> User {
        let UserBundle { key, certificate } = self.pki.user(&handle.parse().unwrap(), number).unwrap();
        let config = SoftphoneConfig {
            node: self.config(key, NodeRole::User { certificate }),
            media_address: LOOPBACK.into(),
            ice_servers: Vec::new(),
            sample_rate: RATE,
            policy,
        };
        let (softphone, events) = Softphone::start(config).await.unwrap();
        let mut user = User { softphone, events, seen: Vec::new() };
        user.wait("online", |event| (*event == Event::Online).then_some(())).await;
        user
    }

    /// Writes an identity directory.
    pub(crate) fn write_identity(&self, directory: &Path, handle: &str, number: u8) {
        use std::os::unix::fs::PermissionsExt;
        let bundle = self.pki.user(&handle.parse().unwrap(), number).unwrap();
        std::fs::create_dir_all(directory).unwrap();
        let key = directory.join("key.pem");
        std::fs::write(&key, bundle.key.to_pem()).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(directory.join("certificate.pem"), bundle.certificate.to_pem()).unwrap();
        std::fs::write(directory.join("root.pem"), self.pki.trust().unwrap().to_pem()).unwrap();
    }
}

pub(crate) struct User {
    pub(crate) softphone: Softphone,
    events: mpsc::Receiver<Event>,
    pub(crate) seen: Vec<Event>,
}

impl User {
    pub(crate) async fn send(&self, command: Command) {
        self.softphone.send(command).await.unwrap();
    }

    /// Waits for an event that `pick` takes.
    pub(crate) async fn wait<T>(&mut self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        let limit = Duration::from_secs(40);
        let waiting = async {
            loop {
                let event = self.events.recv().await.expect("the softphone runs");
                let picked = pick(&event);
                self.seen.push(event);
                if let Some(picked) = picked {
                    return picked;
                }
            }
        };
        let result = tokio::time::timeout(limit, waiting).await;
        result.unwrap_or_else(|_| panic!("no `{what}` in {limit:?}; seen: {:#?}", self.seen))
    }

    pub(crate) async fn wait_ended(&mut self) -> Ended {
        self.wait("ended", |event| match event {
            Event::Ended(ended) => Some(ended.clone()),
            _ => None,
        })
        .await
    }

    /// Names of the events seen since the call began, for comparison.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |event: &Event| {
            let json: serde_json::Value = serde_json::from_str(&event.to_line()).unwrap();
            json["event"].as_str().unwrap().to_owned()
        };
        self.seen.iter().map(name).collect()
    }

    pub(crate) fn digits(&self) -> String {
        let digit = |event: &Event| match event {
            Event::Dtmf { digit, .. } => Some(*digit),
            _ => None,
        };
        self.seen.iter().filter_map(digit).collect()
    }
}

pub(crate) fn tone(hertz: f64, seconds: f64) -> Vec<i16> {
    let count = (f64::from(RATE) * seconds) as usize;
    let step = std::f64::consts::TAU * hertz / f64::from(RATE);
    (0..count).map(|n| (9_000.0 * (step * n as f64).sin()) as i16).collect()
}

/// The share of the power that lies at a frequency, 0 to 1, in that half of a second in which it is most: the median over
/// its tenths. A machine that stands still for a moment tears holes, and what surrounds them decides nothing.
pub(crate) fn share_of(samples: &[i16], hertz: f64) -> f64 {
    let power = |part: &[i16]| part.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
    let loudest = samples.chunks_exact(RATE as usize / 10).map(power).fold(0.0, f64::max);
    let share = |part: &[i16]| match power(part) {
        quiet if quiet < loudest / 4.0 => 0.0,
        loud => goertzel(part, hertz) / loud.max(1.0),
    };
    let shares: Vec<f64> = samples.chunks_exact(RATE as usize / 10).map(share).collect();
    let median = |stretch: &[f64]| {
        let mut sorted = stretch.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    assert!(shares.len() >= 5, "{} tenths of a second were recorded", shares.len());
    shares.windows(5).map(median).fold(0.0, f64::max)
}

/// The power at a frequency (Goertzel).
fn goertzel(samples: &[i16], hertz: f64) -> f64 {
    let coefficient = 2.0 * (std::f64::consts::TAU * hertz / f64::from(RATE)).cos();
    let (mut s1, mut s2) = (0.0, 0.0);
    for sample in samples {
        (s1, s2) = (f64::from(*sample) + coefficient * s1 - s2, s1);
    }
    2.0 * (s1 * s1 + s2 * s2 - coefficient * s1 * s2) / samples.len() as f64
}

pub(crate) fn read_wav(path: &Path) -> Vec<i16> {
    let reader = hound::WavReader::open(path).unwrap();
    assert_eq!((reader.spec().channels, reader.spec().sample_rate), (1, RATE));
    reader.into_samples().map(Result::unwrap).collect()
}

pub(crate) fn write_wav(path: &Path, samples: &[i16]) {
    let mut recorder = peer::audio::Recorder::create(path, RATE).unwrap();
    recorder.write(samples).unwrap();
    recorder.finish().unwrap();
}

/// A directory of its own for each test.
pub(crate) fn scratch() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("causeway-peer-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}
