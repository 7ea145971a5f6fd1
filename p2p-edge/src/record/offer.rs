use call_model::Codec;
use minicbor::{Decode, Encode};

use super::envelope::{self, Envelope, Rank, check_expiry};
use super::error::RecordError;
use crate::defence::{Defence, holds};
use crate::identity::{
    Domain, Kind, MAX_PREFIXES, NodeChain, NodeKey, Prefix, Price, RevocationList, Role, Trust, VerifiedNode,
    WirePrice, read_prefixes,
};

/// The longest an offer may last, in seconds.
pub const OFFER_LIFE: u64 = 600;

/// What a gateway offers: calls to numbers, at a price. Fetched from the gateway itself; the
/// overlay stores only which gateways there are for a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayOffer {
    /// The numbers that it takes calls to, 1 to 32 prefixes.
    pub prefixes: Vec<Prefix>,
    /// What a minute costs.
    pub price: Price,
    /// The codecs that it takes from the overlay, the best first.
    pub codecs: Vec<Codec>,
    /// How many calls it takes at once.
    pub capacity: u32,
    /// How many it has.
    pub load: u32,
    /// Counts up with every change; the highest valid one wins. Unix milliseconds do.
    pub sequence: u64,
    /// When the offer ends, in Unix seconds: at most 10 minutes ahead.
    pub expires_unix: u64,
}

/// A gateway's offer that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidOffer {
    /// The offer.
    pub record: GatewayOffer,
    /// Whose it is.
    pub gateway: VerifiedNode,
    pub(super) slot: Prefix,
    pub(super) rank: Rank,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    prefixes: Vec<String>,
    #[n(1)]
    price: WirePrice,
    #[n(2)]
    codecs: Vec<String>,
    #[n(3)]
    capacity: u32,
    #[n(4)]
    load: u32,
    #[n(5)]
    sequence: u64,
    #[n(6)]
    expires_unix: u64,
}

const CODECS: [Codec; 3] = [Codec::Opus, Codec::Pcmu, Codec::Pcma];

impl GatewayOffer {
    /// Signs the offer. Returns the bytes that are handed to whoever asks.
    ///
    /// # Errors
    /// `WrongKey` if the chain is for another key; `Oversize` with too many prefixes.
    pub fn sign(&self, chain: &NodeChain, key: &NodeKey) -> Result<Vec<u8>, RecordError> {
        super::check_own_key(chain, key)?;
        if self.prefixes.len() > MAX_PREFIXES {
            return Err(RecordError::Oversize { size: self.prefixes.len(), limit: MAX_PREFIXES });
        }
        let body = Body {
            prefixes: self.prefixes.iter().map(|prefix| prefix.digits().to_owned()).collect(),
            price: self.price.into(),
            codecs: self.codecs.iter().map(|codec| codec.encoding_name().to_owned()).collect(),
            capacity: self.capacity,
            load: self.load,
            sequence: self.sequence,
            expires_unix: self.expires_unix,
        };
        envelope::seal((Kind::Offer, Domain::Offer), chain.encode(), body, key)
    }
}

/// Verifies an offer for a prefix that the gateway is listed under.
pub(super) fn validate(
    slot: &Prefix,
    value: &[u8],
    trust: &Trust,
    revocations: &RevocationList,
    unix: u64,
) -> Result<ValidOffer, RecordError> {
    let envelope = Envelope::decode(Kind::Offer, value)?;
    let body: Body = envelope.body()?;
    let prefixes = read_prefixes(&body.prefixes).map_err(|_| RecordError::Malformed)?;
    if !prefixes.iter().any(|prefix| prefix.covers(slot)) {
        return Err(RecordError::WrongSlot);
    }
    check_expiry(body.expires_unix, OFFER_LIFE, unix)?;
    let gateway = NodeChain::decode(&envelope.credential)?.verify(trust, revocations, unix)?;
    let permitted = |prefix: &Prefix| gateway.prefixes.iter().any(|certified| certified.covers(prefix));
    if (gateway.role != Role::Gateway || !prefixes.iter().all(permitted)) && holds(Defence::OfferPrefix) {
        return Err(RecordError::NotPermitted { subject: gateway.name });
    }
    envelope.check_signature(&gateway.key, Domain::Offer)?;
    let price = Price::try_from(body.price).map_err(|_| RecordError::Malformed)?;
    let within = |ceiling: Price| {
        ceiling.currency == price.currency && price.micros_per_minute <= ceiling.micros_per_minute
    };
    if !gateway.rate.is_none_or(within) && holds(Defence::PriceCeiling) {
        return Err(RecordError::PriceAboveCeiling { subject: gateway.name });
    }
    let rank = Rank {
        sequence: body.sequence,
        expires_unix: body.expires_unix.min(gateway.not_after),
        signature: envelope.signed.signature,
    };
    let record = GatewayOffer {
        prefixes,
        price,
        // A codec that came after this version is of no use to it.
        codecs: body.codecs.iter().filter_map(|name| known_codec(name)).take(CODECS.len()).collect(),
        capacity: body.capacity,
        load: body.load,
        sequence: body.sequence,
        expires_unix: body.expires_unix,
    };
    Ok(ValidOffer { record, gateway, slot: slot.clone(), rank })
}

fn known_codec(name: &str) -> Option<Codec> {
    CODECS.into_iter().find(|codec| codec.encoding_name() == name)
}
