use std::fmt;
use std::str::FromStr;

/// A telephone number in E.164 form: `+`, then 2 to 15 digits of which the first is not 0
/// (ITU-T E.164 6.2.1; the international prefix form of RFC 3966 5.1.4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(String);

impl Number {
    /// Returns the number with its leading `+`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the digits without the leading `+`.
    pub fn digits(&self) -> &str {
        &self.0[1..]
    }

    /// Says whether the number begins with a prefix written as `+44`, `44` or the empty string.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.digits().starts_with(prefix.strip_prefix('+').unwrap_or(prefix))
    }
}

impl FromStr for Number {
    type Err = AddressError;

    /// Reads a number. The visual separators of RFC 3966 5.1.1 (`-`, `.`, `(`, `)`) and spaces
    /// are taken out; anything else is an error.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let Some(rest) = text.strip_prefix('+') else { return Err(AddressError::NumberWithoutPlus) };
        let mut digits = String::with_capacity(16);
        digits.push('+');
        for c in rest.chars() {
            match c {
                '0'..='9' => digits.push(c),
                '-' | '.' | '(' | ')' | ' ' => {}
                _ => return Err(AddressError::NumberCharacter),
            }
            if digits.len() > 16 {
                return Err(AddressError::NumberLength);
            }
        }
        match digits.as_bytes() {
            [_, b'0', ..] => Err(AddressError::NumberLeadingZero),
            bytes if bytes.len() < 3 => Err(AddressError::NumberLength),
            _ => Ok(Self(digits)),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an overlay user: 1 to 32 of `a-z 0-9 . _ -`, beginning with a letter. Upper case
/// is folded when read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(String);

impl Handle {
    /// Returns the handle in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Handle {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let starts_well = text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
        if starts_well && text.len() <= 32 && text.bytes().all(allowed) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(AddressError::Handle)
        }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom a call is for or from: one of the two kinds of address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A telephone number.
    Number(Number),
    /// An overlay user.
    Handle(Handle),
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `+…` as a number and anything else as a handle.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.starts_with('+') {
            text.parse().map(Address::Number)
        } else {
            text.parse().map(Address::Handle)
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Number(number) => number.fmt(f),
            Address::Handle(handle) => handle.fmt(f),
        }
    }
}

/// Who is calling, as one side tells the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The caller's address, if it is known. Kept even where `private` is set.
    pub address: Option<Address>,
    /// The caller's name for display: at most 128 bytes, without control characters.
    pub display_name: Option<String>,
    /// Whether the caller asked not to be shown (RFC 3323 4.1, RFC 3325 7).
    pub private: bool,
}

impl Caller {
    /// Cleans a display name that came from outside: control characters go, 128 bytes remain.
    /// Returns `None` when nothing is left.
    pub fn clean_display_name(raw: &str) -> Option<String> {
        let mut clean = String::new();
        for c in raw.trim().chars().filter(|c| !c.is_control()) {
            if clean.len() + c.len_utf8() > 128 {
                break;
            }
            clean.push(c);
        }
        (!clean.is_empty()).then_some(clean)
    }
}

/// Says what was wrong with a written address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// An E.164 number begins with `+`.
    NumberWithoutPlus,
    /// An E.164 number has 2 to 15 digits.
    NumberLength,
    /// A country code does not begin with 0.
    NumberLeadingZero,
    /// A number holds digits and the separators `- . ( )` only.
    NumberCharacter,
    /// A handle is 1 to 32 of `a-z 0-9 . _ -`, beginning with a letter.
    Handle,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressError::NumberWithoutPlus => "a number is written in E.164 form and begins with +",
            AddressError::NumberLength => "an E.164 number has 2 to 15 digits",
            AddressError::NumberLeadingZero => "a country code does not begin with 0",
            AddressError::NumberCharacter => "a number holds digits and the separators - . ( ) only",
            AddressError::Handle => "a handle is 1 to 32 of a-z 0-9 . _ -, beginning with a letter",
        })
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_e164() {
        let number: Number = "+44 (20) 7946-0018".parse().expect("valid");
        assert_eq!(number.as_str(), "+442079460018");
        assert!(number.has_prefix("+44") && number.has_prefix("44") && number.has_prefix(""));
        assert!(!number.has_prefix("+1"));
        let cases = [
            ("442079460018", AddressError::NumberWithoutPlus),
            ("+0123", AddressError::NumberLeadingZero),
            ("+1", AddressError::NumberLength),
            ("+", AddressError::NumberLength),
            ("+1234567890123456", AddressError::NumberLength),
            ("+12a", AddressError::NumberCharacter),
            ("+12\r\n3", AddressError::NumberCharacter),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Number>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn handles_fold_case_and_refuse_the_rest() {
        assert_eq!("Alice.W".parse::<Handle>().map(|h| h.to_string()), Ok("alice.w".into()));
        for bad in ["", "1a", "-a", "a b", "a@b", "é", &"a".repeat(33)] {
            assert_eq!(bad.parse::<Handle>(), Err(AddressError::Handle), "{bad:?}");
        }
        assert!(matches!("+15551000".parse(), Ok(Address::Number(_))));
        assert!(matches!("bob".parse(), Ok(Address::Handle(_))));
    }

    #[test]
    fn display_names_lose_what_could_smuggle() {
        assert_eq!(Caller::clean_display_name(" Al\r\nice\u{0} "), Some("Alice".into()));
        assert_eq!(Caller::clean_display_name("\r\n"), None);
        assert_eq!(Caller::clean_display_name(&"é".repeat(100)).map(|s| s.len()), Some(128));
    }
}
