//! Renewal: request in, the next certificate out.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use p2p_edge::identity::{Credential, Renewal, RevocationList, Trust, Utc, Validity};

use super::{REVOKED, ROOT, USER, enrolment, next_serial, note, now, read, write_new};

/// Issues the certificate that follows the one in a request.
pub(super) fn renew(dir: &Path, request: &Path, days: Option<u64>, out: &Path) -> Result<String> {
    let authority = enrolment(dir)?;
    let text = fs::read_to_string(request).with_context(|| request.display().to_string())?;
    let request = Renewal::from_pem(&text).with_context(|| request.display().to_string())?;
    let unix = now();
    let trust = Trust::from_pem(&read(dir, ROOT)?)?;
    let revocations = match fs::read_to_string(dir.join(REVOKED)) {
        Ok(text) => RevocationList::from_pem(&text, &trust, unix).with_context(|| REVOKED)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => RevocationList::default(),
        // Taken for an empty list, it would renew what was revoked.
        Err(error) => return Err(error).context(dir.join(REVOKED).display().to_string()),
    };
    let (kind, name, old) = match request.credential() {
        Credential::Handle(old) => (USER, old.claims().handle.to_string(), old.claims().validity),
        Credential::Node(old) => {
            let role = old.claims().map_or("node", |claims| claims.role.as_str());
            (role, old.name().to_owned(), old.validity())
        }
    };
    let validity = Validity::days_from(unix, days.unwrap_or_else(|| old.days()));
    let serial = next_serial(dir)?;
    let credential = authority.renew(&request, (&trust, &revocations), serial, validity)?;
    let pem = match &credential {
        Credential::Handle(certificate) => certificate.to_pem(),
        Credential::Node(chain) => chain.to_pem(),
    };
    write_new(out, &pem, false)?;
    note(dir, serial, kind, &name, validity)?;
    let mut said = format!("{}\n  {kind} {name}, certificate {serial}", out.display());
    said += &format!(", good until {}\n", Utc(validity.not_after));
    if request.new_key().is_some() {
        let serial = match request.credential() {
            Credential::Handle(old) => old.claims().serial,
            Credential::Node(old) => old.serial(),
        };
        said += &format!(
            "  once the new key is in use: causeway authority revoke {serial} --reason superseded\n"
        );
    }
    Ok(said)
}
