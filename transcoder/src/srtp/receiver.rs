//! The receiving side.

use call_model::SrtpKey;

use super::transform::{ENCRYPTED, SessionKeys};
use super::window::{SPAN, Window, estimate};
use super::{MAX_PACKET, MAX_RTCP_LIFETIME, MAX_SOURCES, RtpHeader, SrtpError, rtcp_source};

/// One master key of the other side's.
struct Key {
    session: SessionKeys,
    mki: Box<[u8]>,
    lifetime: u64,
    rtp_packets: u64,
    rtcp_packets: u64,
}

/// The master keys of one description, told apart by identifiers of one length.
struct Generation {
    number: u32,
    keys: Vec<Key>,
    mki_len: usize,
    /// Packets that were authentic under these keys.
    accepted: u64,
}

impl Generation {
    fn new(number: u32, keys: &[SrtpKey]) -> Self {
        let key = |key: &SrtpKey| Key {
            session: SessionKeys::derive(key),
            mki: key.mki().into(),
            lifetime: key.lifetime().unwrap_or(SrtpKey::LIFETIME_MAX),
            rtp_packets: 0,
            rtcp_packets: 0,
        };
        let mki_len = keys.first().map_or(0, |key| key.mki().len());
        // Others could not be told apart from these.
        let keys = keys.iter().filter(|key| key.mki().len() == mki_len).map(key).collect();
        Self { number, keys, mki_len, accepted: 0 }
    }

    /// Finds the key that a packet names.
    fn find(&self, packet: &[u8], rtcp: bool) -> Result<usize, SrtpError> {
        let first = self.keys.first().ok_or(SrtpError::UnknownKey)?;
        if self.mki_len == 0 {
            return Ok(0);
        }
        let transform = if rtcp { &first.session.rtcp } else { &first.session.rtp };
        let mki = transform.mki(packet, self.mki_len).ok_or(SrtpError::Malformed)?;
        self.keys.iter().position(|key| *key.mki == *mki).ok_or(SrtpError::UnknownKey)
    }
}

/// What has come of one source.
#[derive(Clone, Copy)]
struct Source {
    ssrc: u32,
    rtp: Option<Window>,
    rtcp: Option<Window>,
    /// The generation of keys that its last RTP and RTCP packets were under.
    rtp_generation: u32,
    rtcp_generation: u32,
}

/// Unprotects what a leg receives. Sources are told apart by their SSRC, and each has its own
/// rollover counter and replay list.
///
/// After [`rekey`](Self::rekey) the keys before are good until as many packets came under the new
/// ones as the replay list is long: nothing that is still under way is lost.
pub struct SrtpReceiver {
    current: Generation,
    previous: Option<Generation>,
    sources: Vec<Source>,
    refused: [u64; SrtpError::ALL.len()],
}

impl std::fmt::Debug for SrtpReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SrtpReceiver")
            .field("sources", &self.sources.len())
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

/// A way to read a packet that may be right.
#[derive(Clone, Copy)]
struct Reading {
    /// Whether it is under the keys before.
    previous: bool,
    key: usize,
    index: u64,
    /// Whether source and key have met before, so that the replay list counts.
    known: bool,
}

impl SrtpReceiver {
    /// Begins with the other side's master keys: one, or several told apart by identifiers of one
    /// length. Without any, nothing is accepted.
    pub fn new(keys: &[SrtpKey]) -> Self {
        Self {
            current: Generation::new(0, keys),
            previous: None,
            sources: Vec::with_capacity(2),
            refused: [0; SrtpError::ALL.len()],
        }
    }

    /// Goes on with other master keys. Rollover counters are kept (RFC 3711 3.3.1); a sender that
    /// began its own anew with the new key is understood too.
    pub fn rekey(&mut self, keys: &[SrtpKey]) {
        let next = Generation::new(self.current.number.wrapping_add(1), keys);
        let before = std::mem::replace(&mut self.current, next);
        // Keys that nothing was ever protected with give way; those in use stay.
        if before.accepted > 0 || self.previous.is_none() {
            self.previous = Some(before);
        }
    }

    /// Authenticates and decrypts an RTP packet in place and returns it without its trailer. On an
    /// error the packet's contents are lost.
    ///
    /// # Errors
    /// What [`SrtpError`] says; it is counted.
    pub fn unprotect_rtp<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a mut [u8], SrtpError> {
        let length = self.open(packet, false).inspect_err(|&error| self.refused[error as usize] += 1)?;
        Ok(&mut packet[..length])
    }

    /// As [`unprotect_rtp`](Self::unprotect_rtp) for a compound RTCP packet.
    ///
    /// # Errors
    /// What [`SrtpError`] says; it is counted.
    pub fn unprotect_rtcp<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a mut [u8], SrtpError> {
        let length = self.open(packet, true).inspect_err(|&error| self.refused[error as usize] += 1)?;
        Ok(&mut packet[..length])
    }

    /// Returns the number of packets refused for one reason.
    pub fn refused_for(&self, error: SrtpError) -> u64 {
        self.refused[error as usize]
    }

    /// Returns the number of packets refused for any reason.
    pub fn refused(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// Returns the rollover counter of a source, 0 before its first packet.
    pub fn rollover_counter(&self, ssrc: u32) -> u32 {
        let source = self.sources.iter().find(|source| source.ssrc == ssrc);
        source.and_then(|source| source.rtp).map_or(0, |window| (window.highest() >> 16) as u32)
    }

    fn open(&mut self, packet: &mut [u8], rtcp: bool) -> Result<usize, SrtpError> {
        if packet.len() > MAX_PACKET {
            return Err(SrtpError::TooLong);
        }
        let header = if rtcp {
            RtpHeader { len: 0, sequence: 0, ssrc: rtcp_source(packet)? }
        } else {
            RtpHeader::read(packet)?
        };
        let position = self.sources.iter().position(|source| source.ssrc == header.ssrc);
        if position.is_none() && self.sources.len() >= MAX_SOURCES {
            return Err(SrtpError::TooManySources);
        }
        let (readings, count) = self.readings(packet, header, position, rtcp)?;
        let mut result = Err(SrtpError::Authentication);
        let mut reading = readings[0];
        if count == 1 {
            result = self.try_reading(packet, header, reading, rtcp);
        } else {
            // What cannot be authenticated is lost, so each attempt has a copy.
            let mut copy = [0; MAX_PACKET];
            let copy = &mut copy[..packet.len()];
            for candidate in &readings[..count] {
                copy.copy_from_slice(packet);
                result = self.try_reading(copy, header, *candidate, rtcp);
                if result.is_ok() {
                    packet.copy_from_slice(copy);
                    reading = *candidate;
                    break;
                }
            }
        }
        let length = result?;
        self.accept(header.ssrc, position, reading, rtcp);
        Ok(length)
    }

    /// Lists how a packet may have to be read: as a rule in one way; while keys change, under both.
    fn readings(
        &self,
        packet: &[u8],
        header: RtpHeader,
        position: Option<usize>,
        rtcp: bool,
    ) -> Result<([Reading; 4], usize), SrtpError> {
        let mut readings = [Reading { previous: false, key: 0, index: 0, known: false }; 4];
        let mut count = 0;
        let mut refused = SrtpError::UnknownKey;
        let source = position.map(|at| self.sources[at]);
        let state = source.and_then(|source| {
            let (window, generation) = if rtcp {
                (source.rtcp, source.rtcp_generation)
            } else {
                (source.rtp, source.rtp_generation)
            };
            window.map(|window| (window, generation))
        });
        let generations = [Some(&self.current), self.previous.as_ref()];
        for (previous, generation) in generations.into_iter().enumerate() {
            let Some(generation) = generation else { continue };
            let found = generation.find(packet, rtcp).and_then(|at| {
                let sequence = header.sequence;
                let key = &generation.keys[at];
                let index = if rtcp {
                    let transform = &key.session.rtcp;
                    let word = transform.rtcp_word(packet, generation.mki_len).ok_or(SrtpError::Malformed)?;
                    u64::from(word & !ENCRYPTED)
                } else {
                    state.map_or(u64::from(sequence), |(window, _)| estimate(window.highest(), sequence))
                };
                // A packet under the keys before is held against the same list: its source went on
                // counting. Under new keys nothing has come that could be replayed.
                let known = state.is_some_and(|(_, last)| previous == 1 || last == generation.number);
                if let Some((window, _)) = state.filter(|_| known) {
                    window.check(index)?;
                }
                let (used, lifetime) = if rtcp {
                    (key.rtcp_packets, key.lifetime.min(MAX_RTCP_LIFETIME))
                } else {
                    (key.rtp_packets, key.lifetime)
                };
                if used < lifetime { Ok((at, index, known)) } else { Err(SrtpError::Expired) }
            });
            let (key, index, known) = match found {
                Ok(found) => found,
                Err(error) => {
                    // What the present keys say weighs more.
                    refused = if previous == 0 || refused == SrtpError::UnknownKey { error } else { refused };
                    continue;
                }
            };
            readings[count] = Reading { previous: previous == 1, key, index, known };
            count += 1;
            // A sender that keeps its source but begins its rollover counter anew with its key.
            if !known && !rtcp && index > u64::from(header.sequence) {
                let index = u64::from(header.sequence);
                readings[count] = Reading { previous: previous == 1, key, index, known };
                count += 1;
            }
        }
        if count == 0 { Err(refused) } else { Ok((readings, count)) }
    }

    fn try_reading(
        &self,
        packet: &mut [u8],
        header: RtpHeader,
        reading: Reading,
        rtcp: bool,
    ) -> Result<usize, SrtpError> {
        let generation = match &self.previous {
            Some(previous) if reading.previous => previous,
            _ => &self.current,
        };
        let session = &generation.keys.get(reading.key).ok_or(SrtpError::UnknownKey)?.session;
        if rtcp {
            let word = session.rtcp.rtcp_word(packet, generation.mki_len).ok_or(SrtpError::Malformed)?;
            session.rtcp.open_rtcp(packet, (header.ssrc, word), generation.mki_len)
        } else {
            session.rtp.open_rtp(packet, header.len, (header.ssrc, reading.index), generation.mki_len)
        }
    }

    /// Notes an authentic packet.
    fn accept(&mut self, ssrc: u32, position: Option<usize>, reading: Reading, rtcp: bool) {
        let generation = match &mut self.previous {
            Some(previous) if reading.previous => previous,
            _ => &mut self.current,
        };
        let number = generation.number;
        generation.accepted += 1;
        if let Some(key) = generation.keys.get_mut(reading.key) {
            *(if rtcp { &mut key.rtcp_packets } else { &mut key.rtp_packets }) += 1;
        }
        if self.current.accepted >= SPAN {
            self.previous = None;
        }
        let position = position.unwrap_or_else(|| {
            // There is room: `open` has looked.
            self.sources.push(Source {
                ssrc,
                rtp: None,
                rtcp: None,
                rtp_generation: number,
                rtcp_generation: number,
            });
            self.sources.len() - 1
        });
        let source = &mut self.sources[position];
        let (window, generation) = if rtcp {
            (&mut source.rtcp, &mut source.rtcp_generation)
        } else {
            (&mut source.rtp, &mut source.rtp_generation)
        };
        match window {
            // Under new keys a source goes on counting, ...
            Some(window) if reading.known || reading.index + SPAN > window.highest() => {
                window.accept(reading.index);
            }
            // ... or begins anew. Then nothing of the keys before is good any more, for the list that
            // told what had come under them is gone.
            Some(_) => {
                *window = Some(Window::new(reading.index));
                self.previous = None;
            }
            None => *window = Some(Window::new(reading.index)),
        }
        if !reading.previous {
            *generation = number;
        }
    }
}
