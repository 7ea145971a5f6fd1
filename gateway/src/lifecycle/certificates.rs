//! The certificates of TLS while the daemon runs: read again with the configuration, and watched for their end.

use std::sync::Arc;

use crate::driver::{OwnCertificate, TlsStore};
use crate::telemetry::Metrics;

/// What the certificate of the overlay is called in figures and warnings.
const OVERLAY: &str = "overlay.identity_file";
/// A certificate that ends soon is told of once a day.
const TELL_EVERY: u64 = 86_400;

/// The certificates in use, with whom to tell of them.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    store: Arc<TlsStore>,
    metrics: Arc<Metrics>,
    /// When those that end soon were last told of, in seconds since 1970.
    told: Option<u64>,
}

impl Certificates {
    pub(crate) fn new(store: Arc<TlsStore>, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics, told: None }
    }

    /// Reads the files again. Open connections go on; a file that cannot be used changes nothing.
    ///
    /// # Errors
    /// With key, file and remedy.
    pub(crate) fn reload(&self) -> Result<(), String> {
        if self.store.is_empty() {
            return Ok(());
        }
        let reloaded = self.store.reload();
        self.metrics.tls_reloaded(reloaded.is_ok());
        match &reloaded {
            Ok(()) => tracing::info!("the files of TLS were read again"),
            Err(error) => tracing::error!("the certificates in use stay: {error}"),
        }
        reloaded.map_err(|error| error.to_string())
    }

    /// Brings the figures up to date, and warns of what ends soon. `overlay_ends` is when the
    /// certificate of the overlay ends, 0 where that is not known.
    pub(super) fn look_at(&mut self, unix: u64, overlay_ends: u64) {
        let mut own = self.store.own();
        if overlay_ends > 0 {
            own.push(OwnCertificate { key: OVERLAY.to_owned(), not_after: overlay_ends });
        }
        for certificate in &own {
            self.metrics.certificate_ends(&certificate.key, certificate.not_after);
        }
        if self.told.is_some_and(|told| unix.saturating_sub(told) < TELL_EVERY) {
            return;
        }
        self.told = Some(unix);
        for certificate in own {
            if let Some(days) = certificate.ends_in_days(unix) {
                let key = certificate.key;
                tracing::warn!(days, "{key}: the certificate ends in {days} days; renew it and send SIGHUP");
            }
        }
    }
}
