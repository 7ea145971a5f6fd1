use std::fmt;

/// How available a user is for calls and text: the basic status of RFC 3863 4.1.4 with the two
/// activities of RFC 4480 3.2 that every telephone shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Availability {
    /// No device is on, or none that the watcher may see.
    #[default]
    Offline,
    /// A device is on and nobody is at it.
    Away,
    /// The user does not want to be disturbed.
    Busy,
    /// The user takes calls.
    Available,
}

impl Availability {
    /// What a device may say of itself. That it is gone needs no word.
    pub const SHOWN: [Availability; 3] = [Availability::Available, Availability::Away, Availability::Busy];

    /// Returns the number used on the wire.
    pub fn code(self) -> u8 {
        match self {
            Availability::Offline => 0,
            Availability::Available => 1,
            Availability::Away => 2,
            Availability::Busy => 3,
        }
    }

    /// Returns the availability with a number.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Availability::Offline),
            1 => Some(Availability::Available),
            2 => Some(Availability::Away),
            3 => Some(Availability::Busy),
            _ => None,
        }
    }

    /// Returns the name used in events, for example `available`.
    pub fn as_str(self) -> &'static str {
        match self {
            Availability::Offline => "offline",
            Availability::Away => "away",
            Availability::Busy => "busy",
            Availability::Available => "available",
        }
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_distinct_and_of_several_devices_the_most_available_counts() {
        for code in 0..=u8::MAX {
            assert_eq!(Availability::from_code(code).map(Availability::code).unwrap_or(code), code);
        }
        let mut by_name: Vec<_> = Availability::SHOWN.map(Availability::as_str).to_vec();
        by_name.push(Availability::Offline.as_str());
        by_name.sort_unstable();
        by_name.dedup();
        assert_eq!(by_name.len(), 4);
        assert!(Availability::Available > Availability::Busy && Availability::Away > Availability::Offline);
    }
}
