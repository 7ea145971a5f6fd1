//! The network between parties: how long a message takes, what a loss costs, how many bytes things have.

use std::time::Duration;

use crate::random::Random;
use crate::world::Party;

/// Kilometres that light in glass goes in a millisecond, and how much longer than the great circle its way is.
const GLASS: f64 = 200.0;
const DETOUR: f64 = 1.5;
const EARTH: f64 = 6371.0;
/// The least time until TCP sends again what was lost (RFC 6298 says 1 s; Linux has 200 ms).
const RESEND: f64 = 200.0;

/// Round trips of a new connection before the first request: TCP, then Noise. What they are for is negotiated along
/// with them.
pub(crate) const CONNECT_TRIPS: f64 = 2.0;
/// Round trips of one request: what its stream is for goes along with it.
pub(crate) const REQUEST_TRIPS: f64 = 1.0;
/// A request or dial that nobody answers is given up.
pub(crate) const GIVEN_UP: Duration = Duration::from_secs(5);
/// How long a connection without traffic lasts, unless it is kept.
pub(crate) const IDLE: Duration = Duration::from_secs(60);
/// How long until the other end of a connection is known to be gone: a ping every 15 s, of which the answer may take 10.
pub(crate) const NOTICED: Duration = Duration::from_secs(25);

/// Bytes on the wire, both directions, with the headers of TCP and IP, as `make bench-overlay` measures them of real nodes.
pub(crate) mod bytes {
    /// A connection: handshakes, certificates, what each end says of itself.
    pub(crate) const CONNECT: u64 = 7_294;
    /// A request and its answer that names nobody.
    pub(crate) const REQUEST: u64 = 758;
    /// A peer in an answer: its id and two addresses, reckoned from their encoding.
    pub(crate) const PEER: u64 = 75;
    /// A ping of each end, and the answers, on every connection; and as much again by which the multiplexer measures the
    /// round trip whenever something goes over it.
    pub(crate) const PING: u64 = 992;
    pub(crate) const PING_EVERY: f64 = 15.0;
}

/// How the network is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    /// Of messages, how many are lost and sent again.
    pub(crate) loss: f64,
    /// Every round trip takes as long, in milliseconds, instead of what distance makes of it.
    pub(crate) fixed: Option<f64>,
}

impl Network {
    /// How long so many round trips take.
    pub(crate) fn trips(&self, from: &Party, to: &Party, trips: f64, random: &mut Random) -> Duration {
        let trip = self.fixed.unwrap_or_else(|| round_trip(from, to));
        let mut whole = trip * trips * (1.0 + random.exponential(0.1));
        for _ in 0..(2.0 * trips) as usize {
            let mut wait = RESEND.max(2.0 * trip);
            while random.chance(self.loss) {
                whole += wait;
                wait *= 2.0;
            }
        }
        Duration::from_secs_f64(whole / 1000.0)
    }
}

/// In milliseconds, without queues and losses.
fn round_trip(from: &Party, to: &Party) -> f64 {
    let cosine: f64 = from.place.iter().zip(to.place).map(|(a, b)| a * b).sum();
    let way = EARTH * cosine.clamp(-1.0, 1.0).acos() * DETOUR / GLASS;
    2.0 * (way + from.access + to.access)
}
