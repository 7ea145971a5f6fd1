//! PEM (RFC 7468): the form of every identity file.
use super::error::IdentityError;

pub(crate) const PRIVATE_KEY: &str = "PRIVATE KEY";
pub(crate) const CERTIFICATE: &str = "CERTIFICATE";
pub(crate) const REQUEST: &str = "CERTIFICATE REQUEST";
pub(crate) const HANDLE: &str = "CAUSEWAY HANDLE CERTIFICATE";
pub(crate) const BOOTSTRAP: &str = "CAUSEWAY BOOTSTRAP LIST";
pub(crate) const ASSIGNMENT: &str = "CAUSEWAY NUMBER ASSIGNMENT";
pub(crate) const REVOCATIONS: &str = "CAUSEWAY REVOCATION LIST";

/// The longest PEM text that is read.
const MAX_PEM: usize = 2 * super::revocation::MAX_LIST_BYTES;

/// Returns the contents of every block with this label, in order.
pub(crate) fn all(pem: &str, label: &'static str) -> Result<Vec<Vec<u8>>, IdentityError> {
    if pem.len() > MAX_PEM {
        return Err(IdentityError::Oversize { what: "the PEM file", size: pem.len(), limit: MAX_PEM });
    }
    let blocks = ::pem::parse_many(pem).map_err(|_| IdentityError::Malformed { what: "the PEM file" })?;
    Ok(blocks.into_iter().filter(|b| b.tag() == label).map(::pem::Pem::into_contents).collect())
}

/// Returns the contents of the first block with this label.
pub(crate) fn first(pem: &str, label: &'static str) -> Result<Vec<u8>, IdentityError> {
    all(pem, label)?.into_iter().next().ok_or(IdentityError::MissingPem { label })
}

/// Writes one block with LF line ends.
pub(crate) fn block(label: &str, contents: Vec<u8>) -> String {
    let config = ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF);
    ::pem::encode_config(&::pem::Pem::new(label, contents), config)
}
