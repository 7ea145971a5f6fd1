//! Small protocols of one request and one response: who a node is, look-ups for nodes that run no
//! DHT, and offers of gateways.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};
use minicbor::{Decode, Encode};

/// Exchange of certificates.
pub(super) const IDENTITY_PROTOCOL: StreamProtocol = StreamProtocol::new("/causeway/identity/1");
/// Key in, signed records out.
pub(super) const LOOKUP_PROTOCOL: StreamProtocol = StreamProtocol::new("/causeway/lookup/1");
/// The key of an authority in, its signed revocation list out.
pub(super) const REVOCATION_PROTOCOL: StreamProtocol = StreamProtocol::new("/causeway/revocations/1");
/// A gateway's signed offers.
pub(super) const OFFER_PROTOCOL: StreamProtocol = StreamProtocol::new("/causeway/offer/1");

/// Longest message of these protocols, in bytes.
pub(super) const MAX_MESSAGE: usize = 32 * 1024;
/// Most keys in one look-up.
pub(super) const MAX_KEYS: usize = 16;
/// Most records and most providers under one key in one answer.
pub(super) const MAX_ANSWERS: usize = 8;
/// Longest key that is looked up, in bytes.
pub(super) const MAX_KEY: usize = 96;

/// Says who a node is and which revocation lists it holds; both sides of a connection send one.
#[derive(Encode, Decode, Debug, Default)]
#[cbor(map)]
pub(super) struct Hello {
    /// An encoded handle certificate or node chain.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) credential: Vec<u8>,
    /// At most [`crate::identity::MAX_LISTS`].
    #[n(1)]
    pub(super) lists: Vec<ListVersion>,
}

/// The version of the revocation list of one authority.
#[derive(Encode, Decode, Debug)]
#[cbor(map)]
pub(super) struct ListVersion {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) issuer: Vec<u8>,
    #[n(1)]
    pub(super) version: u64,
}

/// Asks for what is stored under some keys.
#[derive(Encode, Decode, Debug, Default)]
#[cbor(map)]
pub(super) struct LookupRequest {
    /// At most [`MAX_KEYS`] keys of at most [`MAX_KEY`] bytes.
    #[n(0)]
    pub(super) keys: Vec<Blob>,
    /// Whether only the store of the node itself is meant. Otherwise it asks the DHT for what it
    /// does not have, on behalf of a client that runs none.
    #[n(1)]
    pub(super) local_only: bool,
}

/// Answers a look-up, one entry per key in the order of the request.
#[derive(Encode, Decode, Debug, Default)]
#[cbor(map)]
pub(super) struct LookupResponse {
    #[n(0)]
    pub(super) answers: Vec<Answer>,
}

/// What is stored under one key. Records are signed by their writers: whoever asked validates
/// them. Providers prove themselves when they are asked for their offers.
#[derive(Encode, Decode, Debug, Default, Clone)]
#[cbor(map)]
pub(super) struct Answer {
    /// At most [`MAX_ANSWERS`].
    #[n(0)]
    pub(super) records: Vec<Blob>,
    /// At most [`MAX_ANSWERS`].
    #[n(1)]
    pub(super) providers: Vec<Provider>,
}

/// Asks a gateway for its offers that cover a number.
#[derive(Encode, Decode, Debug)]
#[cbor(map)]
pub(super) struct OfferRequest {
    /// The digits of the number, without `+`.
    #[n(0)]
    pub(super) digits: String,
}

/// The offers of a gateway, each signed.
#[derive(Encode, Decode, Debug, Default)]
#[cbor(map)]
pub(super) struct OfferResponse {
    #[n(0)]
    pub(super) offers: Vec<Blob>,
}

/// Bytes in a list.
#[derive(Encode, Decode, Debug, Clone, PartialEq, Eq)]
#[cbor(transparent)]
pub(super) struct Blob(#[cbor(n(0), with = "minicbor::bytes")] pub(super) Vec<u8>);

/// Who provides what a key stands for, and where it listens.
#[derive(Encode, Decode, Debug, Clone)]
#[cbor(map)]
pub(super) struct Provider {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) peer: Vec<u8>,
    #[n(1)]
    pub(super) addresses: Vec<String>,
}

/// Encodes a message of this module.
pub(super) fn encode<T: Encode<()>>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    match minicbor::encode(message, &mut bytes) {
        Ok(()) => bytes,
        // Writing to a vector does not fail and the types have no failing encoder.
        Err(_) => Vec::new(),
    }
}

/// Decodes a message of this module. Anything malformed is `None`.
pub(super) fn decode<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Option<T> {
    minicbor::decode(bytes).ok()
}

/// Carries bytes as they are, one message per direction of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct BytesCodec {
    /// Longest message, in bytes.
    pub(super) limit: usize,
}

impl request_response::Codec for BytesCodec {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_all(io, self.limit).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_all(io, self.limit).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }
}

async fn read_all<T: AsyncRead + Unpin + Send>(io: &mut T, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io.take(limit as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
    }
    Ok(bytes)
}
