//! The keys that DTLS agrees on (RFC 5764), and the path they belong to.
//!
//! str0m runs DTLS, but protects and unprotects packets itself if it gets the keys. So it is given a
//! DTLS implementation that hands the keys to the leg instead. The same place tells the leg which
//! candidate pair is nominated, which str0m says to nobody: an empty record, given to it to be sent,
//! comes back with the addresses of that pair, and goes no further.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use dimpl::{Config, Dtls};
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
};
use str0m::{Rtc, RtcConfig};

use crate::leg::keying::{MasterKeys, with_scratch};

/// What lies between the DTLS implementation inside of str0m and the leg around it.
#[derive(Default)]
pub(super) struct Handover {
    keys: Mutex<Option<MasterKeys>>,
    path_wanted: AtomicBool,
}

impl std::fmt::Debug for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handover")
    }
}

impl Handover {
    /// Takes the keys, once DTLS is connected.
    pub(super) fn take_keys(&self) -> Option<MasterKeys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Asks for an empty datagram on the nominated pair. Only once there is one.
    pub(super) fn ask_for_path(&self) {
        self.path_wanted.store(true, Ordering::Relaxed);
    }
}

thread_local! {
    /// str0m asks a provider of the whole process for a DTLS instance, and does not say for whom. It
    /// does so while an `Rtc` is built, on the same thread.
    static LATEST: RefCell<Option<Arc<Handover>>> = const { RefCell::new(None) };
}

/// Builds an `Rtc` whose provider is [`crypto_provider`].
pub(super) fn build(config: RtcConfig, now: Instant) -> Option<(Rtc, Arc<Handover>)> {
    LATEST.take();
    let rtc = config.build(now);
    LATEST.take().map(|handover| (rtc, handover))
}

/// Returns str0m's cryptography with DTLS as this module has it.
pub(super) fn crypto_provider() -> CryptoProvider {
    CryptoProvider { dtls_provider: &KeyedProvider, ..str0m::crypto::from_feature_flags() }
}

/// Octets of a record that is sent at most: what goes through tunnels as well.
const MTU: usize = 1_150;

/// Returns the settings that all instances share. dimpl tries out every algorithm whenever settings are made, which takes
/// several times as long as a handshake: so they are made once.
fn settings() -> Result<Arc<Config>, CryptoError> {
    static SETTINGS: OnceLock<Option<Arc<Config>>> = OnceLock::new();
    // Neither ICE nor a described address leaves a cookie anything to prove (RFC 6347 4.2.1).
    let made = || Config::builder().use_server_cookie(false).mtu(MTU).build().ok().map(Arc::new);
    let settings = SETTINGS.get_or_init(made).clone();
    settings.ok_or_else(|| CryptoError::Other("the cryptography fails its own tests".to_owned()))
}

/// Builds an instance of DTLS 1.2. OpenSSL, which most PBXs have, knows no later version. It keeps its keys for its
/// caller, for a leg without ICE.
pub(super) fn new_instance(certificate: &DtlsCert, now: Instant) -> Result<Dtls, CryptoError> {
    Ok(Dtls::new_12(settings()?, certificate.clone(), now))
}

#[derive(Debug)]
struct KeyedProvider;

impl DtlsProvider for KeyedProvider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        str0m::crypto::from_feature_flags().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        _: DtlsVersion,
        _: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let instance = new_instance(certificate, now)?;
        let handover = Arc::new(Handover::default());
        LATEST.set(Some(Arc::clone(&handover)));
        Ok(Box::new(KeyedInstance { instance, handover, now }))
    }
}

struct KeyedInstance {
    instance: Dtls,
    handover: Arc<Handover>,
    now: Instant,
}

impl std::fmt::Debug for KeyedInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyedInstance")
    }
}

impl DtlsInstance for KeyedInstance {
    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        if self.handover.path_wanted.swap(false, Ordering::Relaxed) {
            return DtlsOutput::Packet(&buffer[..0]);
        }
        with_scratch(|scratch| match self.instance.poll_output(scratch) {
            DtlsOutput::KeyingMaterial(material, profile) => {
                let keys = MasterKeys::split(&material, profile, self.instance.is_active());
                *self.handover.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
                // Nothing of this for str0m; it is to ask again at once.
                DtlsOutput::Timeout(self.now)
            }
            DtlsOutput::Packet(packet) => DtlsOutput::Packet(copied(packet, buffer)),
            // One that is too long for str0m is cut, and has no fingerprint that was described.
            DtlsOutput::PeerCert(certificate) => DtlsOutput::PeerCert(copied(certificate, buffer)),
            DtlsOutput::ApplicationData(data) => DtlsOutput::ApplicationData(copied(data, buffer)),
            DtlsOutput::Connected => DtlsOutput::Connected,
            DtlsOutput::CloseNotify => DtlsOutput::CloseNotify,
            DtlsOutput::Timeout(at) => DtlsOutput::Timeout(at),
            // Of what is new there is nothing to be told.
            _ => DtlsOutput::Timeout(self.now),
        })
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.now = now;
        self.instance.handle_timeout(now)
    }

    fn set_active(&mut self, active: bool) {
        self.instance.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.instance.handle_packet(packet)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.instance.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.instance.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.instance.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.instance.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.instance.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.instance.close()
    }
}

/// Copies what fits.
fn copied<'a>(from: &[u8], to: &'a mut [u8]) -> &'a [u8] {
    let length = from.len().min(to.len());
    to[..length].copy_from_slice(&from[..length]);
    &to[..length]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn all_associations_have_the_same_settings() {
        assert!(Arc::ptr_eq(&settings().unwrap(), &settings().unwrap()), "trying them out again is dear");
    }
}
