//! How a trunk is registered with.

use std::net::SocketAddr;
use std::time::Duration;

use sip_trunk::{Outbound, Registration, RegistrationError};

use super::{Check, Checked};
use crate::config::shape;

/// What a registrar is asked for where nothing is written: an hour, as most grant.
const EXPIRES_S: i64 = 3600;

impl Check<'_> {
    /// Reads `[trunks.register]`. The domain is the host of the target where it is not written.
    pub(super) fn registration(&self, at: &str, raw: shape::Register, host: &str) -> Checked<Registration> {
        let key = |name: &str| format!("{at}.{name}");
        let remedy = "write an address and port, such as \"192.0.2.10:5060\"";
        let registrar = raw
            .registrar
            .as_deref()
            .map(|text| self.parsed::<SocketAddr>(&key("registrar"), text, remedy))
            .transpose()?;
        let expires = self.seconds(&key("expires_s"), raw.expires_s, EXPIRES_S, 30..=604_800)?;
        let keep_alive = raw
            .keep_alive_s
            .map(|_| self.within(&key("keep_alive_s"), raw.keep_alive_s, 0, 5..=3600))
            .transpose()?;
        let registration = Registration {
            registrar,
            expires,
            contact_user: raw.contact_user,
            bulk: raw.bulk.unwrap_or(false),
            outbound: raw.instance.map(|instance| Outbound { instance, reg_id: 1 }),
            keep_alive: keep_alive.map(|seconds| Duration::from_secs(seconds as u64)),
            required: raw.required.unwrap_or(false),
            ..Registration::new(raw.user, raw.domain.unwrap_or_else(|| host.to_owned()))
        };
        match registration.check() {
            Ok(()) => Ok(registration),
            Err(error) => {
                let (name, remedy) = match error {
                    RegistrationError::User => {
                        ("user", "write the account as in its SIP address, without the domain")
                    }
                    RegistrationError::Domain => ("domain", "write it as in the account's SIP address"),
                    RegistrationError::Expires => ("expires_s", "write 30 to 604800"),
                    RegistrationError::KeepAlive => ("keep_alive_s", "write 5 to 3600"),
                    RegistrationError::Outbound => {
                        ("instance", "write a URN that stays the same, such as \"urn:uuid:...\"")
                    }
                };
                self.error(key(name), error.to_string(), remedy)
            }
        }
    }
}
