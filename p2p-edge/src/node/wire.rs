//! Small protocols of one request and one response: who a node is, look-ups and location
//! records for nodes that run no DHT, and offers of gateways.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};
use minicbor::{Decode, Encode};

/// Exchange of certificates.
pub(super) const IDENTITY_PROTOCOL: StreamProtocol = StreamProtocol::new("/causeway/identity/1");
/// Key in, signed records out.
pub(super) const LOOKUP_PROTOCOL: StreamProtocol = StreamProtocol::new("/causeway/lookup/1");
/// The key of an authority in, its signed revocation list out; or what is held of it in, and what
/// was added since out.
pub(super) const REVOCATION_PROTOCOL: StreamProtocol = StreamProtocol::new("/causeway/revocations/1");
/// The signed location record of a client that runs no DHT in, how many nodes hold it out.
pub(super) const PUBLISH_PROTOCOL: StreamProtocol = StreamProtocol::new("/causeway/publish/1");
/// A gateway's signed offers.
pub(super) const OFFER_PROTOCOL: StreamProtocol = StreamProtocol::new("/causeway/offer/1");
/// A credential for the TURN server of a supernode.
pub(super) const TURN_PROTOCOL: StreamProtocol = StreamProtocol::new("/causeway/turn/1");

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

/// Asks for a record to be put into the DHT.
#[derive(Encode, Decode, Debug)]
#[cbor(map)]
pub(super) struct PublishRequest {
    /// The key of a location.
    #[n(0)]
    pub(super) key: Blob,
    /// The record, signed by its owner.
    #[n(1)]
    pub(super) value: Blob,
}

/// Says what became of a record.
#[derive(Encode, Decode, Debug, Default)]
#[cbor(map)]
pub(super) struct PublishResponse {
    /// Nodes that are known to hold it, this one included; 0 where it was refused.
    #[n(0)]
    pub(super) stored: u32,
    /// Why it was refused.
    #[n(1)]
    pub(super) refused: Option<String>,
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

/// Encodes the answer to a look-up, leaving out what would make it longer than a message may be:
/// the last providers first, records last.
pub(super) fn encode_answers(answers: Vec<Answer>) -> Vec<u8> {
    // What surrounds the parts of each answer, and lengths.
    const FRAME: usize = 16;
    let mut room = MAX_MESSAGE - FRAME - FRAME * answers.len().min(MAX_KEYS);
    let mut fits = |part: usize| match room.checked_sub(part) {
        Some(rest) => {
            room = rest;
            true
        }
        None => false,
    };
    let mut fitted: Vec<Answer> = Vec::with_capacity(answers.len());
    let mut providers = Vec::with_capacity(answers.len());
    for answer in answers {
        let records = answer.records.into_iter().filter(|record| fits(encode(record).len())).collect();
        fitted.push(Answer { records, providers: Vec::new() });
        providers.push(answer.providers.into_iter());
    }
    // In turns, so that no key takes the room of all others.
    for _ in 0..MAX_ANSWERS {
        for (answer, providers) in fitted.iter_mut().zip(&mut providers) {
            answer.providers.extend(providers.next().filter(|provider| fits(encode(provider).len())));
        }
    }
    encode(&LookupResponse { answers: fitted })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_answer_never_exceeds_a_message() {
        let long = "/dns4/".to_owned() + &"x".repeat(250);
        let provider = |n| Provider { peer: vec![n; 38], addresses: vec![long.clone(); MAX_ANSWERS] };
        let full = Answer {
            records: vec![Blob(vec![7; 1000])],
            providers: (0..MAX_ANSWERS as u8).map(provider).collect(),
        };
        let all = vec![full.clone(); MAX_KEYS];
        assert!(encode(&LookupResponse { answers: all.clone() }).len() > MAX_MESSAGE);
        let bytes = encode_answers(all);
        assert!(bytes.len() <= MAX_MESSAGE && bytes.len() > MAX_MESSAGE / 2, "{}", bytes.len());
        let LookupResponse { answers } = decode(&bytes).unwrap();
        assert_eq!(answers.len(), MAX_KEYS);
        assert!(answers.iter().all(|answer| answer.records.len() == 1), "records go before providers");

        let records = vec![Answer { records: vec![Blob(vec![7; 4000])], providers: Vec::new() }; MAX_KEYS];
        assert!(encode_answers(records).len() <= MAX_MESSAGE);
        let small = vec![Answer { providers: vec![provider(1)], ..Answer::default() }];
        let LookupResponse { answers } = decode(&encode_answers(small)).unwrap();
        assert_eq!(answers[0].providers[0].addresses, vec![long; MAX_ANSWERS]);
    }
}
