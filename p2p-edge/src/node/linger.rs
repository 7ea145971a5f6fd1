//! Streams of QUIC that outlive their last word.
//!
//! A stream is opened together with its first message, before the far end has said that it speaks the
//! protocol. Who has nothing to wait for - a provider is announced, an address pushed - drops such a
//! stream as soon as it is written. QUIC then tells the far end to stop sending, its word about the
//! protocol fails, and with it the message is lost. So the reading half of such a stream stays until
//! the far end has closed its own.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::io::{IoSlice, IoSliceMut};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};

/// How long the far end may take to close a stream that was written and dropped.
const LINGER: Duration = Duration::from_secs(5);
/// What it may say meanwhile: the names of two protocols, and no more.
const MAX_LAST_WORDS: u64 = 1024;

/// A connection whose streams linger.
pub(super) struct Lingering<M>(pub(super) M);

impl<M> StreamMuxer for Lingering<M>
where
    M: StreamMuxer + Unpin,
    M::Substream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Substream = LingeringStream<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, M::Error>> {
        Pin::new(&mut self.get_mut().0).poll_inbound(cx).map_ok(|stream| LingeringStream::new(stream, false))
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, M::Error>> {
        Pin::new(&mut self.get_mut().0).poll_outbound(cx).map_ok(|stream| LingeringStream::new(stream, true))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        Pin::new(&mut self.get_mut().0).poll_close(cx)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        Pin::new(&mut self.get_mut().0).poll(cx)
    }
}

/// A stream that, dropped after it was written and closed and before anything was read, goes on
/// reading for a while.
pub(super) struct LingeringStream<S: AsyncRead + Unpin + Send + 'static> {
    /// Taken when it is dropped.
    stream: Option<S>,
    /// Opened here, closed for writing, and silent so far.
    lingers: bool,
    outbound: bool,
}

impl<S: AsyncRead + Unpin + Send + 'static> LingeringStream<S> {
    fn new(stream: S, outbound: bool) -> Self {
        Self { stream: Some(stream), lingers: false, outbound }
    }

    fn inner(&mut self) -> io::Result<Pin<&mut S>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Something came: whoever reads it knows what it is for.
    fn heard(&mut self, read: &Poll<io::Result<usize>>) {
        if read.is_ready() {
            (self.lingers, self.outbound) = (false, false);
        }
    }
}

impl<S: AsyncRead + Unpin + Send + 'static> AsyncRead for LingeringStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = self.inner()?.poll_read(cx, buffer);
        self.heard(&read);
        read
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let read = self.inner()?.poll_read_vectored(cx, buffers);
        self.heard(&read);
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncWrite for LingeringStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write_vectored(cx, buffers)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = self.inner()?.poll_close(cx);
        if matches!(closed, Poll::Ready(Ok(()))) {
            self.lingers = self.outbound;
        }
        closed
    }
}

impl<S: AsyncRead + Unpin + Send + 'static> Drop for LingeringStream<S> {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take().filter(|_| self.lingers) else { return };
        // Without a runtime the node has stopped, and nobody has anything to say any more.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let mut rest = stream.take(MAX_LAST_WORDS);
            let mut words = [0; 256];
            let until_closed = async { while matches!(rest.read(&mut words).await, Ok(1..)) {} };
            let _ = tokio::time::timeout(LINGER, until_closed).await;
        });
    }
}
