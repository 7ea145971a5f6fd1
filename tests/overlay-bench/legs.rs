//! What it takes of the processor to set a media leg up: ICE and DTLS at the gateway's end, in virtual time, without
//! sockets. The user's end runs on the same thread and is counted apart.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::time::{ClockId, clock_gettime};
use tests::lab::usage::median;
use transcoder::{DtlsIdentity, WebRtcConfig, WebRtcLeg};

/// Legs of one turn.
const LEGS: usize = 100;
const TURNS: usize = 5;
/// Rounds of virtual time after which a leg that is not up never will be.
const MOST_ROUNDS: usize = 1_000;

/// Milliseconds of one processor for one leg.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// All of it, at the gateway's end.
    pub(crate) gateway: f64,
    /// The part of that for the session description: parsing the offer, writing the answer.
    pub(crate) description: f64,
    /// Then until there are keys for SRTP.
    pub(crate) handshake: f64,
    /// The user's end, all of it.
    pub(crate) user: f64,
}

/// Processor time of this thread, in milliseconds.
fn spent() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// Adds the processor time of some work.
fn timed<T>(sum: &mut f64, work: impl FnOnce() -> T) -> T {
    let before = spent();
    let done = work();
    *sum += spent() - before;
    done
}

/// The medians of some turns.
pub(crate) fn measure() -> Result<Cost> {
    let identities = [DtlsIdentity::generate()?, DtlsIdentity::generate()?];
    let mut turns = Vec::new();
    for _ in 0..TURNS {
        let mut sum = Cost { gateway: 0.0, description: 0.0, handshake: 0.0, user: 0.0 };
        for _ in 0..LEGS {
            set_up(&identities, &mut sum)?;
        }
        turns.push(sum);
    }
    let each = |part: fn(&Cost) -> f64| median(turns.iter().map(|turn| part(turn) / LEGS as f64).collect());
    Ok(Cost {
        gateway: each(|turn| turn.description + turn.handshake),
        description: each(|turn| turn.description),
        handshake: each(|turn| turn.handshake),
        user: each(|turn| turn.user),
    })
}

/// Sets one leg up, as the daemon does: ICE-lite, the certificate shared by all legs, the user offers.
fn set_up([of_user, of_gateway]: &[DtlsIdentity; 2], sum: &mut Cost) -> Result<()> {
    let addresses: [SocketAddr; 2] = ["192.0.2.1:4000".parse()?, "192.0.2.2:5000".parse()?];
    let mut now = Instant::now();
    let config = |at: usize| WebRtcConfig {
        local: vec![addresses[at]],
        ice_lite: at == 1,
        g711: false,
        redundancy: false,
    };
    let mut user = timed(&mut sum.user, || WebRtcLeg::new(config(0), of_user, now))?;
    let offer = timed(&mut sum.user, || user.create_offer())?;
    let mut gateway = timed(&mut sum.description, || WebRtcLeg::new(config(1), of_gateway, now))?;
    let answer = timed(&mut sum.description, || gateway.accept_offer(&offer))?;
    timed(&mut sum.user, || user.accept_answer(&answer))?;
    let (mut to_user, mut to_gateway): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
    for _ in 0..MOST_ROUNDS {
        timed(&mut sum.user, || user.handle_timeout(now, &mut |_, _, b| to_gateway.push(b.to_vec())));
        timed(&mut sum.handshake, || {
            gateway.handle_timeout(now, &mut |_, _, bytes| to_user.push(bytes.to_vec()));
            for packet in to_gateway.drain(..) {
                let emit = &mut |_: SocketAddr, _: SocketAddr, bytes: &[u8]| to_user.push(bytes.to_vec());
                gateway.handle_datagram(now, addresses[1], addresses[0], &packet, emit);
            }
            while gateway.poll_event().is_some() {}
        });
        timed(&mut sum.user, || {
            for packet in to_user.drain(..) {
                let emit = &mut |_: SocketAddr, _: SocketAddr, bytes: &[u8]| to_gateway.push(bytes.to_vec());
                user.handle_datagram(now, addresses[0], addresses[1], &packet, emit);
            }
            while user.poll_event().is_some() {}
        });
        if user.is_connected() && gateway.is_connected() {
            return Ok(());
        }
        now += Duration::from_millis(5);
    }
    bail!("a leg does not come up")
}
