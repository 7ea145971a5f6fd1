//! Moves the bytes of one stream of a call or of presence between the network and the node's task.
//!
//! One small task per stream, for as long as it lasts. Both of its queues are bounded: a
//! node that is busy stops reading, and a far end that does not read loses its stream.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::streams::CallStream;

/// Chunks waiting to be written to one stream.
const WRITE_QUEUE: usize = 64;
/// Bytes read at a time.
const READ_CHUNK: usize = 4096;
/// How long one write may take before the stream counts as lost.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the far end may take to close its side after this one has closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Names one stream within the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u64);

/// What a stream brought.
pub(super) enum StreamInput {
    Data(Vec<u8>),
    /// The stream is gone: lost, closed by the far end, or closed by this one with everything
    /// written. Always the last.
    Closed,
}

/// The writing end of a stream. Dropping it closes the stream after what is queued was written.
pub(super) struct StreamOutput(mpsc::Sender<Vec<u8>>);

impl StreamOutput {
    /// Queues bytes. `false` when the queue is full: the far end has stopped reading.
    pub(super) fn write(&self, bytes: Vec<u8>) -> bool {
        self.0.try_send(bytes).is_ok()
    }

    /// Queues bytes, or gives them back while the queue is full. A stream that is gone takes all.
    pub(super) fn offer(&self, bytes: Vec<u8>) -> Result<(), Vec<u8>> {
        match self.0.try_send(bytes) {
            Err(mpsc::error::TrySendError::Full(bytes)) => Err(bytes),
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }
}

/// Starts the task of a stream.
pub(super) fn start(
    id: StreamId,
    stream: CallStream,
    inputs: mpsc::Sender<(StreamId, StreamInput)>,
) -> StreamOutput {
    let (sender, receiver) = mpsc::channel(WRITE_QUEUE);
    tokio::spawn(run(id, stream, inputs, receiver));
    StreamOutput(sender)
}

async fn run(
    id: StreamId,
    stream: CallStream,
    inputs: mpsc::Sender<(StreamId, StreamInput)>,
    mut outputs: mpsc::Receiver<Vec<u8>>,
) {
    let CallStream { mut stream, _permit } = stream;
    let mut chunk = vec![0; READ_CHUNK];
    loop {
        tokio::select! {
            output = outputs.recv() => match output {
                Some(bytes) => {
                    let written = timeout(WRITE_TIMEOUT, async {
                        stream.write_all(&bytes).await?;
                        // What else is queued goes out in the same flush.
                        while let Ok(more) = outputs.try_recv() {
                            stream.write_all(&more).await?;
                        }
                        stream.flush().await
                    });
                    if !matches!(written.await, Ok(Ok(()))) {
                        break;
                    }
                }
                None => {
                    // Waiting for the far end's close lets it read everything first.
                    let closing = async {
                        if stream.close().await.is_ok() {
                            while matches!(stream.read(&mut chunk).await, Ok(1..)) {}
                        }
                    };
                    let _ = timeout(CLOSE_TIMEOUT, closing).await;
                    break;
                }
            },
            read = stream.read(&mut chunk) => match read {
                Ok(0) | Err(_) => break,
                Ok(length) => {
                    if inputs.send((id, StreamInput::Data(chunk[..length].to_vec()))).await.is_err() {
                        break;
                    }
                }
            },
        }
    }
    drop(stream);
    // Errs when the node has stopped.
    let _ = inputs.send((id, StreamInput::Closed)).await;
}
