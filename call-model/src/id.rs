use std::fmt;
use std::str::FromStr;

/// Identifies one bridged call: 128 bits, the first 48 of them the Unix time in milliseconds, so
/// that ids sort by time. Written as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u128);

impl CallId {
    /// Builds an id from the wall clock in milliseconds and 80 random bits (the rest is ignored).
    pub fn new(unix_ms: u64, random: u128) -> Self {
        Self((u128::from(unix_ms) << 80) | (random & ((1 << 80) - 1)))
    }

    /// Takes the id as 16 bytes, most significant first, as the overlay carries it.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// Returns the id as 16 bytes, most significant first.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CallId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(IdError::CallId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| IdError::CallId)
    }
}

/// Says which of the two legs of a call is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The leg towards the peer-to-peer overlay.
    Overlay,
    /// The leg towards the PBX or carrier; of a call between two trunks, the one it came by.
    Trunk,
    /// The leg towards the trunk by which a call from another trunk goes on.
    Onward,
}

impl Side {
    /// Returns the name used in metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Overlay => "overlay",
            Side::Trunk => "trunk",
            Side::Onward => "onward",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names a trunk as its owner wrote it in the configuration: 1 to 32 of `a-z 0-9 - _`, beginning
/// with a letter. Safe as a metric label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrunkName(String);

impl TrunkName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrunkName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        let starts_well = text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        if starts_well && text.len() <= 32 && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::TrunkName)
        }
    }
}

impl fmt::Display for TrunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says what was wrong with a written id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    /// A call id is 32 hexadecimal digits.
    CallId,
    /// A trunk name is 1 to 32 of `a-z 0-9 - _`, beginning with a letter.
    TrunkName,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IdError::CallId => "a call id is 32 hexadecimal digits",
            IdError::TrunkName => "a trunk name is 1 to 32 of a-z 0-9 - _, beginning with a letter",
        })
    }
}

impl std::error::Error for IdError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_ids_sort_by_time_and_survive_text() {
        let early = CallId::new(1_000, u128::MAX);
        let late = CallId::new(1_001, 0);
        assert!(early < late);
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!(CallId::from_bytes(late.to_bytes()), late);
        assert_eq!("xyz".parse::<CallId>(), Err(IdError::CallId));
        assert_eq!("+0000000000000000000000000000000".parse::<CallId>(), Err(IdError::CallId));
    }

    #[test]
    fn trunk_names_are_safe_labels() {
        assert!("carrier-1".parse::<TrunkName>().is_ok());
        for bad in ["", "1st", "Über", "has space", "has\"quote", &"x".repeat(33)] {
            assert_eq!(bad.parse::<TrunkName>(), Err(IdError::TrunkName), "{bad}");
        }
    }
}
