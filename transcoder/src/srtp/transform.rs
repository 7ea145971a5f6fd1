//! Key derivation and the cryptographic transforms.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use call_model::{SrtpKey, SrtpSuite};
use zeroize::Zeroizing;

use super::{MAX_PACKET, RTCP_HEADER_LEN, SrtpError};

const GCM_TAG_LEN: usize = 16;
const HMAC_KEY_LEN: usize = 20;
const INDEX_LEN: usize = 4;
/// The E flag before an SRTCP index: the packet is encrypted (RFC 3711 3.4).
pub(super) const ENCRYPTED: u32 = 1 << 31;

/// Labels of key derivation (RFC 3711 4.3.1, 4.3.2).
struct Labels {
    cipher: u8,
    authentication: u8,
    salt: u8,
}

const RTP: Labels = Labels { cipher: 0, authentication: 1, salt: 2 };
const RTCP: Labels = Labels { cipher: 3, authentication: 4, salt: 5 };

/// The session keys of one master key, for RTP and for RTCP.
pub(super) struct SessionKeys {
    pub(super) rtp: Transform,
    pub(super) rtcp: Transform,
}

impl SessionKeys {
    /// Derives the session keys of a master key.
    pub(super) fn derive(key: &SrtpKey) -> Self {
        Self { rtp: Transform::derive(key, &RTP), rtcp: Transform::derive(key, &RTCP) }
    }
}

/// What protects RTP, or RTCP, under one master key.
pub(super) enum Transform {
    /// AES in counter mode and HMAC-SHA1 (RFC 3711 4.1.1, 4.2.1).
    CounterMode { cipher: EncryptingKey, salt: Zeroizing<[u8; 14]>, mac: hmac::Key, tag_len: usize },
    /// AES in Galois/counter mode (RFC 7714).
    Gcm { key: LessSafeKey, salt: Zeroizing<[u8; 12]> },
}

/// The pseudo-random function of key derivation: the key stream of the master key at the place that
/// label and master salt say (RFC 3711 4.3.3, RFC 6188 3). A salt of 12 octets is filled up with
/// zeros on the right (RFC 7714 11).
pub(super) fn derive(master: &SrtpKey, label: u8, out: &mut [u8]) {
    let mut block = Zeroizing::new([0; 16]);
    block[..master.salt().len()].copy_from_slice(master.salt());
    block[7] ^= label;
    out.fill(0);
    key_stream(&counter_cipher(master.key()), &block, out);
}

// aws-lc-rs refuses a key of a wrong length and nothing else; the lengths are `SrtpKey`'s.
#[allow(clippy::expect_used)]
pub(super) fn counter_cipher(key: &[u8]) -> EncryptingKey {
    let algorithm = if key.len() == 16 { &AES_128 } else { &AES_256 };
    let key = UnboundCipherKey::new(algorithm, key).and_then(EncryptingKey::ctr);
    key.expect("a master key has the length of its suite")
}

#[allow(clippy::expect_used)]
fn gcm_key(key: &[u8]) -> LessSafeKey {
    let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
    LessSafeKey::new(UnboundKey::new(algorithm, key).expect("a master key has the length of its suite"))
}

/// Exclusive-ors the key stream from a first counter block on into `data`.
// Counter mode takes any length; what aws-lc-rs can refuse is a context of another mode.
#[allow(clippy::expect_used)]
pub(super) fn key_stream(cipher: &EncryptingKey, block: &[u8; 16], data: &mut [u8]) {
    let context = EncryptionContext::Iv128(FixedLength::from(block));
    cipher.less_safe_encrypt(data, context).expect("counter mode with a counter block");
}

/// RFC 3711 4.1.1: salt, source and index make the first counter block; the last 16 bits count.
pub(super) fn counter_block(salt: &[u8; 14], ssrc: u32, index: u64) -> [u8; 16] {
    let mut block = [0; 16];
    block[..14].copy_from_slice(salt);
    xor(&mut block[4..8], &ssrc.to_be_bytes());
    xor(&mut block[8..14], &index.to_be_bytes()[2..]);
    block
}

/// RFC 7714 8.1 and 9.1: for RTP the last six octets are rollover counter and sequence number, for
/// RTCP two zeros and the SRTCP index; both are the index in 48 bits.
fn nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], &ssrc.to_be_bytes());
    xor(&mut nonce[6..12], &index.to_be_bytes()[2..]);
    Nonce::assume_unique_for_key(nonce)
}

fn xor(out: &mut [u8], with: &[u8]) {
    for (octet, with) in out.iter_mut().zip(with) {
        *octet ^= with;
    }
}

/// HMAC over the parts, one behind the other (RFC 3711 4.2).
fn mac(key: &hmac::Key, parts: [&[u8]; 2]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    context.sign()
}

fn authentic(_: Unspecified) -> SrtpError {
    SrtpError::Authentication
}

impl Transform {
    fn derive(master: &SrtpKey, labels: &Labels) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        let key = &mut key[..master.suite().key_len()];
        derive(master, labels.cipher, key);
        let short = match master.suite() {
            SrtpSuite::AeadAes128Gcm | SrtpSuite::AeadAes256Gcm => {
                let mut salt = Zeroizing::new([0; 12]);
                derive(master, labels.salt, &mut salt[..]);
                return Self::Gcm { key: gcm_key(key), salt };
            }
            SrtpSuite::AesCm128HmacSha1_32 | SrtpSuite::AesCm256HmacSha1_32 => true,
            SrtpSuite::AesCm128HmacSha1_80 | SrtpSuite::AesCm256HmacSha1_80 => false,
        };
        let mut salt = Zeroizing::new([0; 14]);
        derive(master, labels.salt, &mut salt[..]);
        let mut secret = Zeroizing::new([0; HMAC_KEY_LEN]);
        derive(master, labels.authentication, &mut secret[..]);
        // The short tag is for RTP alone (RFC 4568 6.2.2, RFC 6188 4).
        let tag_len = if short && labels.cipher == RTP.cipher { 4 } else { 10 };
        let mac = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret[..]);
        Self::CounterMode { cipher: counter_cipher(key), salt, mac, tag_len }
    }

    fn tag_len(&self) -> usize {
        match self {
            Self::CounterMode { tag_len, .. } => *tag_len,
            Self::Gcm { .. } => GCM_TAG_LEN,
        }
    }

    /// Returns the octets that protection adds to an RTP packet.
    fn rtp_overhead(&self, mki_len: usize) -> usize {
        self.tag_len() + mki_len
    }

    /// Returns the octets that protection adds to an RTCP packet.
    fn rtcp_overhead(&self, mki_len: usize) -> usize {
        self.tag_len() + INDEX_LEN + mki_len
    }

    /// Returns the master key identifier of a packet. In counter mode the tag comes behind it
    /// (RFC 3711 3.1), in Galois/counter mode nothing does (RFC 7714 13.1).
    pub(super) fn mki<'a>(&self, packet: &'a [u8], mki_len: usize) -> Option<&'a [u8]> {
        let behind = match self {
            Self::CounterMode { tag_len, .. } => *tag_len,
            Self::Gcm { .. } => 0,
        };
        let end = packet.len().checked_sub(behind)?;
        packet.get(end.checked_sub(mki_len)?..end)
    }

    /// Protects the first `length` octets of the buffer and returns the length of what is to be sent.
    pub(super) fn seal_rtp(
        &self,
        buffer: &mut [u8],
        (length, header_len): (usize, usize),
        (ssrc, index): (u32, u64),
        mki: &[u8],
    ) -> Result<usize, SrtpError> {
        let end = length + self.rtp_overhead(mki.len());
        let packet = buffer.get_mut(..end).ok_or(SrtpError::TooLong)?;
        let (packet, trailer) = packet.split_at_mut(length);
        match self {
            Self::CounterMode { cipher, salt, mac: key, tag_len } => {
                key_stream(cipher, &counter_block(salt, ssrc, index), &mut packet[header_len..]);
                let tag = mac(key, [packet, &rollover(index)]);
                trailer[..mki.len()].copy_from_slice(mki);
                trailer[mki.len()..].copy_from_slice(&tag.as_ref()[..*tag_len]);
            }
            Self::Gcm { key, salt } => {
                let (header, payload) = packet.split_at_mut(header_len);
                let tag = key
                    .seal_in_place_separate_tag(nonce(salt, ssrc, index), Aad::from(&*header), payload)
                    .map_err(|_| SrtpError::TooLong)?;
                trailer[..GCM_TAG_LEN].copy_from_slice(tag.as_ref());
                trailer[GCM_TAG_LEN..].copy_from_slice(mki);
            }
        }
        Ok(end)
    }

    /// Authenticates and decrypts a packet in place and returns its length without the trailer. On an
    /// error the payload is lost.
    pub(super) fn open_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        (ssrc, index): (u32, u64),
        mki_len: usize,
    ) -> Result<usize, SrtpError> {
        let length = packet.len().checked_sub(self.rtp_overhead(mki_len)).ok_or(SrtpError::Malformed)?;
        if length < header_len {
            return Err(SrtpError::Malformed);
        }
        let (packet, trailer) = packet.split_at_mut(length);
        match self {
            Self::CounterMode { cipher, salt, mac: key, tag_len } => {
                let tag = mac(key, [packet, &rollover(index)]);
                verify_slices_are_equal(&tag.as_ref()[..*tag_len], &trailer[mki_len..]).map_err(authentic)?;
                key_stream(cipher, &counter_block(salt, ssrc, index), &mut packet[header_len..]);
            }
            Self::Gcm { key, salt } => {
                let (header, payload) = packet.split_at_mut(header_len);
                let (nonce, tag) = (nonce(salt, ssrc, index), &trailer[..GCM_TAG_LEN]);
                key.open_in_place_separate_tag(nonce, Aad::from(&*header), tag, payload)
                    .map_err(authentic)?;
            }
        }
        Ok(length)
    }

    /// As [`seal_rtp`](Self::seal_rtp) for RTCP. The packet is encrypted.
    pub(super) fn seal_rtcp(
        &self,
        buffer: &mut [u8],
        length: usize,
        (ssrc, index): (u32, u32),
        mki: &[u8],
    ) -> Result<usize, SrtpError> {
        let end = length + self.rtcp_overhead(mki.len());
        let packet = buffer.get_mut(..end).ok_or(SrtpError::TooLong)?;
        let word = (ENCRYPTED | index).to_be_bytes();
        match self {
            Self::CounterMode { cipher, salt, mac: key, tag_len } => {
                let block = counter_block(salt, ssrc, u64::from(index));
                key_stream(cipher, &block, &mut packet[RTCP_HEADER_LEN..length]);
                let tag = mac(key, [&packet[..length], &word]);
                let trailer = &mut packet[length..];
                trailer[..INDEX_LEN].copy_from_slice(&word);
                trailer[INDEX_LEN..INDEX_LEN + mki.len()].copy_from_slice(mki);
                trailer[INDEX_LEN + mki.len()..].copy_from_slice(&tag.as_ref()[..*tag_len]);
            }
            Self::Gcm { key, salt } => {
                let (packet, trailer) = packet.split_at_mut(length);
                let (header, body) = packet.split_at_mut(RTCP_HEADER_LEN);
                let nonce = nonce(salt, ssrc, u64::from(index));
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(rtcp_aad(header, word)), body)
                    .map_err(|_| SrtpError::TooLong)?;
                trailer[..GCM_TAG_LEN].copy_from_slice(tag.as_ref());
                trailer[GCM_TAG_LEN..GCM_TAG_LEN + INDEX_LEN].copy_from_slice(&word);
                trailer[GCM_TAG_LEN + INDEX_LEN..].copy_from_slice(mki);
            }
        }
        Ok(end)
    }

    /// Returns the word of E flag and SRTCP index, not yet authenticated.
    pub(super) fn rtcp_word(&self, packet: &[u8], mki_len: usize) -> Option<u32> {
        let behind = match self {
            Self::CounterMode { tag_len, .. } => mki_len + tag_len,
            Self::Gcm { .. } => mki_len,
        };
        let word = packet.get(..packet.len().checked_sub(behind)?)?.last_chunk()?;
        Some(u32::from_be_bytes(*word))
    }

    /// As [`open_rtp`](Self::open_rtp) for RTCP. `word` is what [`rtcp_word`](Self::rtcp_word) says.
    pub(super) fn open_rtcp(
        &self,
        packet: &mut [u8],
        (ssrc, word): (u32, u32),
        mki_len: usize,
    ) -> Result<usize, SrtpError> {
        let length = packet.len().checked_sub(self.rtcp_overhead(mki_len)).ok_or(SrtpError::Malformed)?;
        if length < RTCP_HEADER_LEN {
            return Err(SrtpError::Malformed);
        }
        let (encrypted, index) = (word & ENCRYPTED != 0, u64::from(word & !ENCRYPTED));
        let word = word.to_be_bytes();
        let (packet, trailer) = packet.split_at_mut(length);
        match self {
            Self::CounterMode { cipher, salt, mac: key, tag_len } => {
                let tag = mac(key, [packet, &word]);
                let theirs = &trailer[INDEX_LEN + mki_len..];
                verify_slices_are_equal(&tag.as_ref()[..*tag_len], theirs).map_err(authentic)?;
                if encrypted {
                    key_stream(cipher, &counter_block(salt, ssrc, index), &mut packet[RTCP_HEADER_LEN..]);
                }
            }
            Self::Gcm { key, salt } => {
                let (nonce, tag) = (nonce(salt, ssrc, index), &trailer[..GCM_TAG_LEN]);
                if encrypted {
                    let (header, body) = packet.split_at_mut(RTCP_HEADER_LEN);
                    let aad = Aad::from(rtcp_aad(header, word));
                    key.open_in_place_separate_tag(nonce, aad, tag, body).map_err(authentic)?;
                } else {
                    // RFC 7714 9.3: all of it is associated data, and the plaintext is empty.
                    let mut data = [0; MAX_PACKET + INDEX_LEN];
                    let data = data.get_mut(..length + INDEX_LEN).ok_or(SrtpError::TooLong)?;
                    data[..length].copy_from_slice(packet);
                    data[length..].copy_from_slice(&word);
                    key.open_in_place_separate_tag(nonce, Aad::from(&*data), tag, &mut [])
                        .map_err(authentic)?;
                }
            }
        }
        Ok(length)
    }
}

/// RFC 3711 4.2: the rollover counter is authenticated with the packet.
fn rollover(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

/// RFC 7714 9.2: the header, then the word of E flag and index.
fn rtcp_aad(header: &[u8], word: [u8; 4]) -> [u8; RTCP_HEADER_LEN + INDEX_LEN] {
    let mut aad = [0; RTCP_HEADER_LEN + INDEX_LEN];
    aad[..RTCP_HEADER_LEN].copy_from_slice(header);
    aad[RTCP_HEADER_LEN..].copy_from_slice(&word);
    aad
}
