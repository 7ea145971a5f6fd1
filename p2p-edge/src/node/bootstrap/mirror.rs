//! The signed list by HTTPS, from several hosts at once. A mirror may be anybody's: what it hands
//! out is signed by the root, so that it can withhold it and nothing else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::super::task::unix_now;
use crate::identity::{BootstrapList, MAX_BOOTSTRAP_BYTES, MAX_BOOTSTRAP_SOURCES, SignedBootstrap, Trust};

/// How long one mirror may take, with everything.
const PATIENCE: Duration = Duration::from_secs(10);
/// Redirections that are followed.
const REDIRECTS: u32 = 3;
/// The longest body: a list in PEM.
const MAX_BODY: u64 = 2 * MAX_BOOTSTRAP_BYTES as u64;

/// Asks every mirror. Returns the list with the highest sequence.
///
/// # Errors
/// What is wrong with each, where none has a list that is good.
pub(super) async fn ask(
    mirrors: &[String],
    ca_file: Option<PathBuf>,
    trust: &Trust,
) -> Result<BootstrapList, String> {
    let roots = match ca_file {
        Some(file) => {
            let text =
                tokio::fs::read(&file).await.map_err(|error| format!("{}: {error}", file.display()))?;
            authorities(&text).ok_or_else(|| format!("{}: holds no certificate", file.display()))?
        }
        None => RootCerts::WebPki,
    };
    let agent = agent(roots);
    let fetches = mirrors.iter().take(2 * MAX_BOOTSTRAP_SOURCES).map(|mirror| {
        let (agent, address) = (agent.clone(), mirror.clone());
        async move {
            let fetched = tokio::task::spawn_blocking(move || fetch(&agent, &address)).await;
            let text = fetched.map_err(|error| error.to_string())??;
            let signed = SignedBootstrap::from_pem(&text).map_err(|error| error.to_string())?;
            signed.verify(trust, unix_now()).cloned().map_err(|error| error.to_string())
        }
    });
    let (mut best, mut problems) = (None::<BootstrapList>, Vec::new());
    for (mirror, answer) in mirrors.iter().zip(join_all(fetches).await) {
        match answer {
            Ok(list) if best.as_ref().is_none_or(|best| list.sequence > best.sequence) => best = Some(list),
            Ok(_) => {}
            Err(problem) => problems.push(format!("{mirror}: {problem}")),
        }
    }
    best.ok_or_else(|| problems.join("; "))
}

fn agent(roots: RootCerts) -> Agent {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .https_only(true)
        .max_redirects(REDIRECTS)
        .timeout_global(Some(PATIENCE))
        .build();
    config.into()
}

fn authorities(pem: &[u8]) -> Option<RootCerts> {
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    let all: Vec<Certificate<'static>> = parse_pem(pem).filter_map(certificate).collect();
    (!all.is_empty()).then(|| RootCerts::new_with_certs(&all))
}

fn fetch(agent: &Agent, address: &str) -> Result<String, String> {
    let mut response = agent.get(address).call().map_err(|error| error.to_string())?;
    let body = response.body_mut().with_config().limit(MAX_BODY);
    body.read_to_string().map_err(|error| error.to_string())
}
