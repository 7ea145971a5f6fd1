//! Prints what calls cost: CPU of a call through two legs (INVITE, 100, 180, 200, ACK, BYE, 200 on an
//! outgoing and an incoming leg) and memory of an open leg. `cargo run --release --example cost [CALLS]`; with
//! fewer calls it is short enough to have its instructions counted (`valgrind --tool=callgrind`).
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{Address, CallId, Caller, Cause};
use sip_trunk::{
    Command, Endpoint, EndpointConfig, Event, Listener, LocalMedia, Transmit, Transport, TrunkConfig,
};

fn endpoint(own: SocketAddr, far: SocketAddr, seed: u8, now: Instant) -> Endpoint {
    let mut trunk = TrunkConfig::new("far".parse().unwrap(), far);
    trunk.max_calls = 100_000;
    let mut config =
        EndpointConfig::new(vec![Listener { transport: Transport::Udp, local: own }], vec![trunk]);
    config.limits.calls = 100_000;
    config.limits.transactions = 1_000_000;
    config.limits.transactions_per_source = 1_000_000;
    Endpoint::new(config, [seed; 32], now, 1_700_000_000_000).unwrap()
}

/// Carries datagrams between the two until neither has any.
fn exchange(a: &mut Endpoint, b: &mut Endpoint, now: Instant) {
    loop {
        let mut idle = true;
        while let Some(Transmit::Datagram { local, remote, bytes }) = a.poll_transmit() {
            b.handle_datagram(now, remote, local, &bytes);
            idle = false;
        }
        while let Some(Transmit::Datagram { local, remote, bytes }) = b.poll_transmit() {
            a.handle_datagram(now, remote, local, &bytes);
            idle = false;
        }
        if idle {
            return;
        }
    }
}

fn place(a: &mut Endpoint, b: &mut Endpoint, n: u64, now: Instant) -> CallId {
    let call = CallId::new(n, 0);
    let number = |text: &str| Address::Number(text.parse().unwrap());
    let caller = Caller { address: Some(number("+12025550100")), display_name: None, private: false };
    let media = LocalMedia { rtp: "10.0.0.1:20000".parse().unwrap() };
    let trunk = "far".parse().unwrap();
    a.handle_command(now, Command::Invite { call, trunk, called: number("+442079460018"), caller, media })
        .unwrap();
    exchange(a, b, now);
    let mut theirs = None;
    while let Some(event) = b.poll_event() {
        if let Event::Incoming { call, .. } = event {
            theirs = Some(call);
        }
    }
    let theirs = theirs.unwrap();
    b.handle_command(now, Command::Ringing { call: theirs }).unwrap();
    exchange(a, b, now);
    b.handle_command(now, Command::Answer { call: theirs, media }).unwrap();
    exchange(a, b, now);
    call
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or("").split(' ').skip(12).take(2);
    Duration::from_millis(after.map(|t| t.parse::<u64>().unwrap_or(0) * 10).sum())
}

fn main() {
    let mut now = Instant::now();
    let (one, two) = ("10.0.0.1:5060".parse().unwrap(), "10.0.0.2:5060".parse().unwrap());
    let (mut a, mut b) = (endpoint(one, two, 1, now), endpoint(two, one, 2, now));
    let calls = std::env::args().nth(1).and_then(|calls| calls.parse().ok()).unwrap_or(20_000u64);
    let start = cpu();
    for n in 0..calls {
        let call = place(&mut a, &mut b, n, now);
        a.handle_command(now, Command::Release { call, cause: Cause::NORMAL_CALL_CLEARING }).unwrap();
        exchange(&mut a, &mut b, now);
        while a.poll_event().is_some() {}
        while b.poll_event().is_some() {}
        // 200 calls in a second of virtual time.
        now += Duration::from_millis(5);
        a.handle_timeout(now);
        b.handle_timeout(now);
        exchange(&mut a, &mut b, now);
    }
    let per_call = (cpu() - start).as_micros() as f64 / calls as f64;
    println!("CPU of a call, two legs: {per_call:.1} us");

    let before = resident_bytes();
    for n in 0..calls {
        place(&mut a, &mut b, calls + n, now);
        while a.poll_event().is_some() {}
        while b.poll_event().is_some() {}
        now += Duration::from_millis(5);
        a.handle_timeout(now);
        b.handle_timeout(now);
        exchange(&mut a, &mut b, now);
    }
    // Let the transactions of the set-up go.
    for _ in 0..400 {
        now += Duration::from_millis(250);
        a.handle_timeout(now);
        b.handle_timeout(now);
        exchange(&mut a, &mut b, now);
    }
    let grown = resident_bytes().saturating_sub(before) as f64 / (2.0 * calls as f64);
    println!("memory of an open leg: {grown:.0} bytes ({} open)", a.counters().open_calls);
}
