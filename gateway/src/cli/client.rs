use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

/// Asks the daemon.
pub(super) struct Client {
    agent: ureq::Agent,
    url: String,
    token: String,
}

/// What the daemon answered.
pub(super) struct Answer(serde_json::Value);

impl Answer {
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.0.clone()).context("the daemon speaks another version of the API")
    }

    pub(super) fn pretty(&self) -> String {
        format!("{:#}\n", self.0)
    }
}

impl Client {
    pub(super) fn new(url: &str, token_file: Option<&Path>) -> Result<Self> {
        let token = match (std::env::var("CAUSEWAY_TOKEN"), token_file) {
            (_, Some(file)) => std::fs::read_to_string(file).with_context(|| file.display().to_string())?,
            (Ok(token), None) => token,
            (Err(_), None) => bail!("no token: set CAUSEWAY_TOKEN, or name its file with --token-file"),
        };
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .build()
            .into();
        Ok(Self { agent, url: url.trim_end_matches('/').to_owned(), token: token.trim().to_owned() })
    }

    fn finish(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
        any: bool,
    ) -> Result<Answer> {
        let remedy = || format!("{}: is causewayd running, and is this its admin.listen?", self.url);
        let mut response = answer.with_context(remedy)?;
        let good = response.status().is_success() || any;
        let text = response.body_mut().read_to_string().context("the answer broke off")?;
        let value: serde_json::Value = if text.is_empty() {
            serde_json::Value::Null
        } else {
            serde_json::from_str(&text).with_context(|| format!("{} is no Causeway daemon", self.url))?
        };
        if !good {
            let part =
                |name: &str| value.get(name).and_then(serde_json::Value::as_str).unwrap_or("").to_owned();
            bail!("{}: {}", part("title"), part("detail"));
        }
        Ok(Answer(value))
    }

    fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer> {
        let request =
            self.agent.get(format!("{}{path}", self.url)).header("Authorization", self.authorization());
        self.finish(request.call(), false)
    }

    pub(super) fn get_any_status(&self, path: &str) -> Result<Answer> {
        let request =
            self.agent.get(format!("{}{path}", self.url)).header("Authorization", self.authorization());
        self.finish(request.call(), true)
    }

    /// Asks with POST. Returns the answer, and whether it is a refusal of what was asked.
    pub(super) fn post(&self, path: &str) -> Result<(Answer, bool)> {
        let request =
            self.agent.post(format!("{}{path}", self.url)).header("Authorization", self.authorization());
        let answer = request.send_empty();
        let refused = answer.as_ref().is_ok_and(|answer| answer.status() == 422);
        Ok((self.finish(answer, refused)?, refused))
    }

    pub(super) fn delete(&self, path: &str) -> Result<Answer> {
        let request =
            self.agent.delete(format!("{}{path}", self.url)).header("Authorization", self.authorization());
        self.finish(request.call(), false)
    }
}

/// Escapes a value for a query (RFC 3986 2.1).
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped += &format!("%{byte:02X}");
        }
    }
    escaped
}
