//! The STUN keep-alive of flows over UDP, as their server (RFC 5626 8, RFC 5389 10).

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];

/// Answers a Binding request with the address it came from. `None` if it is none, or is malformed.
pub(crate) fn stun_answer(bytes: &[u8], source: SocketAddr) -> Option<Bytes> {
    let head = bytes.get(..20)?;
    let length = usize::from(u16::from_be_bytes([*head.get(2)?, *head.get(3)?]));
    if head.get(..2)? != BINDING_REQUEST || head.get(4..8)? != MAGIC || bytes.len() != 20 + length {
        return None;
    }
    // XOR-MAPPED-ADDRESS (RFC 5389 15.2).
    let mask = head.get(4..20)?;
    let (family, address) = match source.ip().to_canonical() {
        IpAddr::V4(address) => (1, address.octets().to_vec()),
        IpAddr::V6(address) => (2, address.octets().to_vec()),
    };
    let port = source.port() ^ u16::from_be_bytes([MAGIC[0], MAGIC[1]]);
    let length = address.len() as u16 + 4;
    let mut answer = vec![0x01, 0x01];
    answer.extend((length + 4).to_be_bytes());
    answer.extend(mask);
    answer.extend([0x00, 0x20]);
    answer.extend(length.to_be_bytes());
    answer.extend([0, family]);
    answer.extend(port.to_be_bytes());
    answer.extend(address.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    Some(Bytes::from(answer))
}
