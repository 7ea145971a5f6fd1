//! Which codec is sent towards the other side of an overlay leg: G.711, which costs a gateway nothing to pass
//! on, while the path is good, and Opus, which bears loss and needs a quarter of the bandwidth, when it is not.
//!
//! Either side decides for what it sends. The one that hears has to follow: both codecs may come at any time.

mod control;

pub(crate) use control::{EdgeControl, Seen};

use std::fmt;
use std::str::FromStr;

/// Whether G.711 is sent on an overlay leg that negotiated it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EdgeCodec {
    /// G.711 while little is lost, Opus as soon as more is, and back after a time of peace.
    #[default]
    Auto,
    /// G.711 whatever is lost.
    Always,
    /// Opus.
    Never,
}

impl EdgeCodec {
    /// Returns the value as configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            EdgeCodec::Auto => "auto",
            EdgeCodec::Always => "always",
            EdgeCodec::Never => "never",
        }
    }
}

impl fmt::Display for EdgeCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The value is none of `auto`, `always`, `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of auto, always, never")]
pub struct UnknownEdgeCodec;

impl FromStr for EdgeCodec {
    type Err = UnknownEdgeCodec;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [EdgeCodec::Auto, EdgeCodec::Always, EdgeCodec::Never]
            .into_iter()
            .find(|value| value.as_str() == text)
            .ok_or(UnknownEdgeCodec)
    }
}

#[cfg(test)]
mod tests;
