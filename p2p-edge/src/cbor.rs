//! Reading and writing the overlay's CBOR (RFC 8949): sizes first, nothing left over.
use minicbor::{Decode, Encode};

use crate::defence::{Defence, holds};
use crate::identity::IdentityError;

/// Reads one value that fills `bytes` exactly.
///
/// # Errors
/// `Oversize` above `limit` bytes, `Malformed` for anything else that is wrong.
pub(crate) fn decode<'b, T: Decode<'b, ()>>(
    what: &'static str,
    bytes: &'b [u8],
    limit: usize,
) -> Result<T, IdentityError> {
    if bytes.len() > limit && holds(Defence::Size) {
        return Err(IdentityError::Oversize { what, size: bytes.len(), limit });
    }
    let mut decoder = minicbor::Decoder::new(bytes);
    match decoder.decode() {
        Ok(value) if decoder.position() == bytes.len() || !holds(Defence::NothingLeftOver) => Ok(value),
        _ => Err(IdentityError::Malformed { what }),
    }
}

/// Reads one value as [`decode`] does, and refuses any encoding of it but the one that [`encode`]
/// writes: two spellings of one record would pass for two records.
pub(crate) fn decode_exact<T>(what: &'static str, bytes: &[u8], limit: usize) -> Result<T, IdentityError>
where
    T: for<'b> Decode<'b, ()> + Encode<()>,
{
    let value: T = decode(what, bytes, limit)?;
    if encode(&value) == bytes || !holds(Defence::OneEncoding) {
        Ok(value)
    } else {
        Err(IdentityError::Malformed { what })
    }
}

/// Writes one value. Derived encodings keep the order of their fields, so equal values give equal bytes.
pub(crate) fn encode<T: Encode<()>>(value: T) -> Vec<u8> {
    let mut bytes = Vec::new();
    match minicbor::encode(value, &mut bytes) {
        Ok(()) => bytes,
        Err(_) => unreachable!("a vector takes all that is written"),
    }
}
