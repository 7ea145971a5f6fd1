#![allow(clippy::unwrap_used)]
mod certified;
mod plain;
mod web;

use super::*;

/// What connections need where nothing is said of TLS.
fn settings(own: &[&str]) -> StreamSettings {
    StreamSettings {
        own: own.iter().map(|ip| ip.parse().unwrap()).collect(),
        tls: Arc::new(TlsStore::of(None, &[]).unwrap()),
        origins: vec!["https://phone.example.com".into()],
        dscp: 24,
    }
}

/// The next report, or a failed test.
async fn next(inbox: &mut mpsc::Receiver<StreamReport>) -> StreamReport {
    tokio::time::timeout(Duration::from_secs(20), inbox.recv()).await.unwrap().unwrap()
}

/// Takes in the next connection of a listener, as the signalling loop does.
async fn accepted(streams: &mut Streams, inbox: &mut mpsc::Receiver<StreamReport>) -> StreamReport {
    let (transport, stream, local, remote) = loop {
        match next(inbox).await {
            StreamReport::Accepted { transport, stream, local, remote } => {
                break (transport, stream, local, remote);
            }
            // Of those that came before.
            StreamReport::Closed { connection } => streams.close(connection),
            other => panic!("{other:?}"),
        }
    };
    streams.accept(transport, stream, (local, remote)).unwrap();
    next(inbox).await
}
