//! Gateways that die, freeze, are full or lose their path while a call is made by them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use call_model::Cause;
use p2p_edge::calling::{EndedBy, SessionCommand, SessionEvent};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::support::{Running, gateway, pki, start, three_supernodes, user};

async fn ringing_at(cheap: &mut Running, alice: &mut Running) -> call_model::CallId {
    let call = alice.invite(1, "+442079460018").await;
    assert_eq!(cheap.incoming().await.0, call);
    cheap.command(call, SessionCommand::Ringing).await;
    alice.call_event(call, "Ringing", |event| (event == SessionEvent::Ringing).then_some(())).await;
    call
}

/// Whether it says so or not: a gateway that dies before the answer makes room for the next soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_that_dies_or_freezes_while_it_rings_makes_way_within_seconds() {
    for freezes in [false, true] {
        let pki = pki();
        let [first, second, _third] = three_supernodes(&pki).await;
        let mut cheap = start(gateway(&pki, 22, &[("+44", 100)], &[], &[&second])).await;
        let mut dear = start(gateway(&pki, 21, &[("+44", 900)], &[], &[&first])).await;
        let mut alice = start(user(&pki, "alice", 11, &[&second])).await;
        for node in [&mut cheap, &mut dear, &mut alice] {
            node.online().await;
        }
        let call = ringing_at(&mut cheap, &mut alice).await;
        let begin = Instant::now();
        // Its sockets stay as they are and nobody reads them.
        let thaw = freezes.then(|| cheap.freeze());
        if !freezes {
            cheap.vanish();
        }
        assert_eq!(dear.incoming().await.0, call);
        let (took, limit) = (begin.elapsed(), Duration::from_secs(if freezes { 7 } else { 3 }));
        assert!(took < limit, "frozen: {freezes}, {took:?}");
        assert!(!freezes || took > Duration::from_secs(2), "given time to answer a ping: {took:?}");
        dear.take(call).await;
        alice.answered(call).await;
        drop(thaw);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_beyond_what_two_nodes_have_room_for_say_so() {
    let pki = pki();
    let [first, second, _third] = three_supernodes(&pki).await;
    let mut gateway = start(gateway(&pki, 22, &[("+44", 100)], &[], &[&second])).await;
    let mut config = user(&pki, "alice", 11, &[&first]);
    (config.limits.streams_per_peer, config.limits.streams_per_gateway) = (2, 3);
    let mut alice = start(config).await;
    gateway.online().await;
    alice.online().await;
    for serial in 1..=3 {
        let call = alice.invite(serial, "+442079460018").await;
        assert_eq!(gateway.incoming().await.0, call, "a gateway has more room than another peer");
    }
    let call = alice.invite(4, "+442079460018").await;
    let said = alice
        .call_event(call, "Ended", |event| match event {
            SessionEvent::Ended { cause, sip_status, text, .. } => Some((cause, sip_status, text)),
            _ => None,
        })
        .await;
    let text = "no more than 3 calls with one node at one time".to_owned();
    assert_eq!(said, (Cause::SWITCHING_EQUIPMENT_CONGESTION, Some(503), text));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_number_whose_gateways_are_full_is_not_said_to_have_none() {
    let pki = pki();
    let [first, second, _third] = three_supernodes(&pki).await;
    // The offers of these tests have a capacity of ten calls.
    let mut gateway = start(gateway(&pki, 22, &[("+44", 100)], &[], &[&second])).await;
    let mut alice = start(user(&pki, "alice", 11, &[&first])).await;
    gateway.online().await;
    alice.online().await;
    for serial in 1..=10 {
        let call = alice.invite(serial, "+442079460018").await;
        assert_eq!(gateway.incoming().await.0, call);
    }
    let call = alice.invite(11, "+442079460018").await;
    assert_eq!(alice.ended(call).await, (34, Some(503), EndedBy::Far));
}

/// A way to a node whose connections can be cut.
struct Path {
    address: String,
    carried: Arc<AtomicUsize>,
    cuts: watch::Sender<()>,
}

impl Path {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
        let carried = Arc::new(AtomicUsize::new(0));
        let (cuts, cut) = watch::channel(());
        let count = carried.clone();
        tokio::spawn(async move {
            while let Ok((mut inside, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let mut cut = cut.clone();
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut outside) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut inside, &mut outside) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, carried, cuts }
    }

    fn has_carried(&self) -> bool {
        self.carried.load(Ordering::Relaxed) > 0
    }

    /// Cuts every connection. Others may be made.
    fn cut(&self) {
        self.cuts.send_replace(());
    }
}

/// A port that nobody listens on at present.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_with_a_gateway_goes_on_when_its_path_is_cut() {
    let pki = pki();
    let port = free_port();
    let paths = [Path::to(port).await, Path::to(port).await];
    let mut config = gateway(&pki, 22, &[("+44", 100)], &[], &[]);
    config.listen = vec![format!("/ip4/127.0.0.1/tcp/{port}")];
    config.external = paths.iter().map(|path| path.address.clone()).collect();
    let mut gateway = start(config).await;
    gateway.online().await;
    // She knows no other way to it.
    let mut config = user(&pki, "alice", 11, &[]);
    config.bootstrap =
        paths.iter().map(|path| format!("{}/p2p/{}", path.address, gateway.handle.peer_id())).collect();
    let mut alice = start(config).await;
    alice.online().await;
    let call = alice.invite(1, "+442079460018").await;
    assert_eq!(gateway.incoming().await.0, call);
    gateway.take(call).await;
    alice.answered(call).await;
    assert!(paths.iter().any(Path::has_carried));
    for path in &paths {
        path.cut();
    }
    alice.command(call, SessionCommand::Hold { on: true }).await;
    gateway
        .call_event(call, "Hold", |event| match event {
            SessionEvent::Hold { on: true } => Some(()),
            SessionEvent::Ended { .. } => panic!("{event:?}"),
            _ => None,
        })
        .await;
    gateway.command(call, SessionCommand::Message { text: "still here".into() }).await;
    let heard = SessionEvent::Message { text: "still here".into() };
    alice.call_event(call, "Message", |event| (event == heard).then_some(())).await;
    gateway.command(call, SessionCommand::Hold { on: true }).await;
    let held = |event| matches!(event, SessionEvent::Hold { on: true }).then_some(());
    alice.call_event(call, "Hold", held).await;
    alice
        .command(call, SessionCommand::Bye { cause: Cause::NORMAL_CALL_CLEARING, text: String::new() })
        .await;
    assert_eq!(gateway.ended(call).await, (16, None, EndedBy::Far));
}

/// Holds a frozen node until it is dropped.
pub(crate) struct Thaw(
    #[expect(dead_code, reason = "dropping it is what it is for")] pub(crate) mpsc::Sender<()>,
);
