//! How many round trips things take: a node behind a path on which every octet takes its time.

use std::time::Duration;

use p2p_edge::record::{RecordKey, ValidRecord};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, sleep_until};

use super::support::{handle, pki, start, supernode, user};

/// Each way. Long beside what a busy machine adds.
const DELAY: Duration = Duration::from_millis(400);

/// Carries octets on after [`DELAY`].
async fn carry(
    mut from: impl AsyncReadExt + Unpin + Send + 'static,
    mut to: impl AsyncWriteExt + Unpin + Send + 'static,
) {
    let (sender, mut receiver) = unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((due, octets)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&octets).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if sender.send((Instant::now() + DELAY, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

/// Listens for a node, and leads to it. Returns the port.
async fn slow_path(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(carry(near_in, far_out));
            tokio::spawn(carry(far_in, near_out));
        }
    });
    own
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_at_a_connected_server_takes_one_round_trip() {
    let pki = pki();
    let mut first = start(supernode(&pki, 1, &[])).await;
    let mut bob = start(user(&pki, "bob", 11, &[&first])).await;
    bob.online().await;
    let port: u16 = first.address.split('/').nth(4).unwrap().parse().unwrap();
    let slow = slow_path(port).await;
    first.address = first.address.replace(&format!("/tcp/{port}/"), &format!("/tcp/{slow}/"));
    let mut alice = start(user(&pki, "alice", 12, &[&first])).await;
    alice.online().await;
    let looked = alice.handle.look_up(RecordKey::Location(handle("bob"))).await.unwrap();
    assert!(matches!(looked.record, Some(ValidRecord::Location(_))));
    let trips = looked.first.unwrap().as_secs_f64() / (2 * DELAY).as_secs_f64();
    assert!((0.9..1.6).contains(&trips), "{trips} round trips");
}
