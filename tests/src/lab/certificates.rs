//! Certificates for SIP over TLS: an authority of the telephone side, which has nothing to do with the overlay's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// An authority with a folder for what it issues.
pub struct TlsAuthority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for TlsAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsAuthority").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl TlsAuthority {
    /// Makes an authority; its certificate is [`TlsAuthority::ca`].
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Telephone authority");
        fs::write(folder.join("ca.pem"), params.self_signed(&key)?.pem())?;
        Ok(Self { folder: folder.canonicalize()?, issuer: Issuer::new(params, key) })
    }

    /// The file of its own certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Issues a certificate for domains and addresses. Returns its file and that of its key.
    ///
    /// # Errors
    /// When a name is none, or the folder cannot be written.
    pub fn issue(&self, file: &str, names: &[&str]) -> Result<(PathBuf, PathBuf)> {
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let at = |end: &str| self.folder.join(format!("{file}.{end}"));
        fs::write(at("pem"), certificate.pem())?;
        fs::write(at("key"), key.serialize_pem())?;
        Ok((at("pem"), at("key")))
    }
}
