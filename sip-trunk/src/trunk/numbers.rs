//! How a trunk writes telephone numbers: every form to canonical E.164 and back.

use call_model::{Address, Handle, Number};

use crate::text;

/// The form in which numbers are sent to a trunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NumberFormat {
    /// `+442079460018`.
    #[default]
    E164Plus,
    /// `442079460018`.
    E164NoPlus,
    /// `02079460018` at home, `0012025550100` abroad: national and international prefixes.
    National,
}

impl NumberFormat {
    /// Returns the name used in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            NumberFormat::E164Plus => "+E.164",
            NumberFormat::E164NoPlus => "E.164 without +",
            NumberFormat::National => "national",
        }
    }
}

/// The number rules of one trunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumberRules {
    /// Country code without `+`, 1 to 3 digits, for example `44`.
    pub country_code: Option<String>,
    /// What is dialled before a national number, for example `0`, in North America `1`.
    pub national_prefix: Option<String>,
    /// What is dialled before a country code, for example `00` or `011`.
    pub international_prefix: Option<String>,
    /// The form towards the trunk.
    pub format: NumberFormat,
    /// Whether SIP URIs of numbers carry `;user=phone` (RFC 3261 19.1.1).
    pub user_phone: bool,
}

/// Says what is wrong with number rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberRulesError {
    /// A country code has 1 to 3 digits and does not begin with 0.
    #[error("a country code has 1 to 3 digits and does not begin with 0")]
    CountryCode,
    /// A prefix has 1 to 7 digits.
    #[error("a dialling prefix has 1 to 7 digits")]
    Prefix,
    /// The national format needs a country code and an international prefix.
    #[error("the national format needs country_code and international_prefix")]
    NationalFormat,
}

impl NumberRules {
    /// Checks that the rules make sense together.
    ///
    /// # Errors
    /// The first field that does not.
    pub fn check(&self) -> Result<(), NumberRulesError> {
        if let Some(code) = &self.country_code {
            let digits = code.bytes().all(|b| b.is_ascii_digit());
            if !digits || code.starts_with('0') || !(1..=3).contains(&code.len()) {
                return Err(NumberRulesError::CountryCode);
            }
        }
        for prefix in [&self.national_prefix, &self.international_prefix].into_iter().flatten() {
            if !prefix.bytes().all(|b| b.is_ascii_digit()) || !(1..=7).contains(&prefix.len()) {
                return Err(NumberRulesError::Prefix);
            }
        }
        let lacking = self.country_code.is_none() || self.international_prefix.is_none();
        if self.format == NumberFormat::National && lacking {
            return Err(NumberRulesError::NationalFormat);
        }
        Ok(())
    }

    /// Reads the address out of a `sip:`, `sips:` or `tel:` URI (RFC 3261 19.1, RFC 3966 3).
    /// `None` when its user part is neither a number by these rules nor a handle.
    pub fn address_of_uri(&self, uri: &str) -> Option<Address> {
        self.address_of_user(raw_user(uri)?)
    }

    /// Reads the address out of a user part, which may be escaped, hold visual separators and
    /// carry `;phone-context` (RFC 3966 5.1.5). Other parameters are ignored.
    pub fn address_of_user(&self, user: &str) -> Option<Address> {
        let mut parts = user.split(';');
        let subscriber = text::unescape(parts.next()?)?;
        let context = parts.find_map(|p| {
            let (name, value) = p.split_once('=')?;
            name.eq_ignore_ascii_case("phone-context").then_some(value)
        });
        if let Some(digits) = digits_of(&subscriber) {
            return self.number(&subscriber, &digits, context).map(Address::Number);
        }
        subscriber.parse::<Handle>().ok().map(Address::Handle)
    }

    fn number(&self, subscriber: &str, digits: &str, context: Option<&str>) -> Option<Number> {
        let international = |digits: &str| format!("+{digits}").parse().ok();
        if subscriber.trim_start().starts_with('+') {
            return international(digits);
        }
        match context.and_then(text::unescape) {
            // A global context is the beginning of the number; one by domain name says that
            // the number means something there only.
            Some(context) if context.starts_with('+') => {
                return international(&format!("{}{digits}", digits_of(&context)?));
            }
            Some(_) => return None,
            None => {}
        }
        if let Some(rest) = strip(digits, self.international_prefix.as_deref()) {
            return international(rest);
        }
        let code = self.country_code.as_deref();
        // Digits sent without `+` begin with a country code, and some of those look like a
        // national prefix: only a leading 0 cannot be one.
        let national = self.format != NumberFormat::E164NoPlus || digits.starts_with('0');
        if let (Some(code), true, Some(rest)) =
            (code, national, strip(digits, self.national_prefix.as_deref()))
        {
            return international(&format!("{code}{rest}"));
        }
        match self.format {
            NumberFormat::E164NoPlus => international(digits),
            NumberFormat::National => international(&format!("{}{digits}", code?)),
            // The trunk writes `+` itself, but many forget it on the way in.
            NumberFormat::E164Plus if digits.len() >= 8 && code.is_none_or(|c| digits.starts_with(c)) => {
                international(digits)
            }
            NumberFormat::E164Plus => None,
        }
    }

    /// Writes the user part for an address in the trunk's form.
    pub fn user_of(&self, address: &Address) -> String {
        let number = match address {
            Address::Handle(handle) => return handle.to_string(),
            Address::Number(number) => number,
        };
        match self.format {
            NumberFormat::E164Plus => number.to_string(),
            NumberFormat::E164NoPlus => number.digits().to_owned(),
            NumberFormat::National => {
                let home = self.country_code.as_deref().and_then(|code| number.digits().strip_prefix(code));
                let prefix = self.international_prefix.as_deref().unwrap_or("+");
                let national = home.map(|national| {
                    format!("{}{national}", self.national_prefix.as_deref().unwrap_or_default())
                });
                // A national number that begins as those from abroad do is dialled as one of them.
                national
                    .filter(|user| !user.starts_with(prefix))
                    .unwrap_or_else(|| format!("{prefix}{}", number.digits()))
            }
        }
    }

    /// Writes the SIP URI of an address at `host`, which is a host name or address with an
    /// optional port and comes from configuration.
    pub fn uri_of(&self, address: &Address, host: &str) -> String {
        let phone = self.user_phone && matches!(address, Address::Number(_));
        format!("sip:{}@{host}{}", self.user_of(address), if phone { ";user=phone" } else { "" })
    }
}

/// Returns the decoded user part of a `sip:`, `sips:` or `tel:` URI without its parameters,
/// password and escaped control characters.
pub fn user_part(uri: &str) -> Option<String> {
    let user = raw_user(uri)?;
    let user = user.split(';').next()?;
    text::unescape(user.split(':').next()?).map(|user| text::printable(&user))
}

/// The user part with its parameters. A `tel:` URI is all user part.
pub(crate) fn raw_user(uri: &str) -> Option<&str> {
    let uri = uri.trim();
    let (scheme, rest) = uri.split_once(':')?;
    if scheme.eq_ignore_ascii_case("tel") {
        return Some(rest);
    }
    if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
        return None;
    }
    // `?` may stand in a user part, an `@` may not stand behind it unescaped.
    let (user, _) = rest.split_once('@')?;
    (!user.is_empty()).then_some(user)
}

/// Returns the digits of something written as a telephone number (RFC 3966 3 `phonedigit` and
/// visual separators), or `None` if it is something else.
fn digits_of(text: &str) -> Option<String> {
    let text = text.trim();
    let body = text.strip_prefix('+').unwrap_or(text);
    let allowed = |c: char| c.is_ascii_digit() || matches!(c, '-' | '.' | '(' | ')' | ' ');
    if !body.chars().all(allowed) {
        return None;
    }
    let digits: String = body.chars().filter(char::is_ascii_digit).take(33).collect();
    (!digits.is_empty()).then_some(digits)
}

fn strip<'a>(digits: &'a str, prefix: Option<&str>) -> Option<&'a str> {
    digits.strip_prefix(prefix?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn rules(code: &str, national: &str, international: &str, format: NumberFormat) -> NumberRules {
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        let rules = NumberRules {
            country_code: some(code),
            national_prefix: some(national),
            international_prefix: some(international),
            format,
            user_phone: true,
        };
        rules.check().unwrap();
        rules
    }

    #[test]
    fn uris_become_addresses() {
        use NumberFormat::{E164NoPlus, E164Plus, National};
        let plain = NumberRules::default();
        let uk = rules("44", "0", "00", National);
        let us = rules("1", "1", "011", National);
        let bare = rules("7", "8", "810", E164NoPlus);
        let uk_plus = rules("44", "0", "00", E164Plus);
        let cases: [(&NumberRules, &str, Option<&str>); 33] = [
            (&plain, "sip:+442079460018@gw", Some("+442079460018")),
            (&plain, "sip:+44-20-7946.0018@gw;user=phone", Some("+442079460018")),
            (&plain, "SIPS:%2B442079460018@gw:5061", Some("+442079460018")),
            (&plain, "tel:+44(20)79460018", Some("+442079460018")),
            (&plain, "sip:+442079460018;npdi;rn=+44123@gw", Some("+442079460018")),
            (&plain, "sip:442079460018@gw", Some("+442079460018")),
            (&plain, "sip:200@gw", None),
            (&plain, "tel:7946;phone-context=+4420", Some("+44207946")),
            (&plain, "sip:7946;phone-context=+4420@gw;user=phone", Some("+44207946")),
            (&plain, "tel:7042;phone-context=example.com", None),
            (&plain, "sip:alice@gw", Some("alice")),
            (&plain, "sip:Alice.W@gw;transport=tcp", Some("alice.w")),
            (&plain, "sip:%61lice@gw", Some("alice")),
            (&plain, "sip:gw", None),
            (&plain, "sip:@gw", None),
            (&plain, "sip:+4420x@gw", None),
            (&plain, "sip:*21%23@gw", None),
            (&plain, "mailto:alice@gw", None),
            (&plain, "", None),
            (&plain, "sip:+1234567890123456@gw", None),
            (&uk, "sip:02079460018@gw", Some("+442079460018")),
            (&uk, "sip:0012025550100@gw", Some("+12025550100")),
            (&uk, "sip:2079460018@gw", Some("+442079460018")),
            (&us, "sip:12125550100@gw", Some("+12125550100")),
            (&us, "sip:2125550100@gw", Some("+12125550100")),
            (&us, "sip:011442079460018@gw", Some("+442079460018")),
            (&bare, "sip:8613800138000@gw", Some("+8613800138000")),
            (&bare, "sip:74951234567@gw", Some("+74951234567")),
            (&uk_plus, "sip:02079460018@gw", Some("+442079460018")),
            (&uk_plus, "sip:442079460018@gw", Some("+442079460018")),
            (&uk_plus, "sip:200@gw", None),
            (&uk_plus, "sip:1\u{661}2@gw", None),
            (&uk_plus, "sip:%ff@gw", None),
        ];
        for (rules, uri, expected) in cases {
            let got = rules.address_of_uri(uri).map(|a| a.to_string());
            assert_eq!(got.as_deref(), expected, "{uri} {rules:?}");
        }
    }

    #[test]
    fn addresses_become_uris() {
        use NumberFormat::{E164NoPlus, E164Plus, National};
        let home = "+442079460018".parse().unwrap();
        let abroad = "+12025550100".parse().unwrap();
        let alice = "alice".parse().unwrap();
        let cases = [
            (rules("", "", "", E164Plus), &home, "sip:+442079460018@pbx:5070;user=phone"),
            (rules("44", "0", "00", E164NoPlus), &home, "sip:442079460018@pbx:5070;user=phone"),
            (rules("44", "0", "00", National), &home, "sip:02079460018@pbx:5070;user=phone"),
            (rules("44", "0", "00", National), &abroad, "sip:0012025550100@pbx:5070;user=phone"),
            (rules("1", "1", "011", National), &abroad, "sip:12025550100@pbx:5070;user=phone"),
            (rules("44", "", "00", National), &home, "sip:2079460018@pbx:5070;user=phone"),
            (rules("44", "0", "00", National), &alice, "sip:alice@pbx:5070"),
        ];
        for (rules, address, expected) in cases {
            assert_eq!(rules.uri_of(address, "pbx:5070"), expected, "{rules:?}");
        }
    }

    #[test]
    fn senseless_rules_are_refused() {
        let with = |code: &str, prefix: &str, format| NumberRules {
            country_code: Some(code.into()),
            national_prefix: Some(prefix.into()),
            format,
            ..NumberRules::default()
        };
        assert_eq!(with("044", "0", NumberFormat::E164Plus).check(), Err(NumberRulesError::CountryCode));
        assert_eq!(with("44", "x", NumberFormat::E164Plus).check(), Err(NumberRulesError::Prefix));
        assert_eq!(with("44", "0", NumberFormat::National).check(), Err(NumberRulesError::NationalFormat));
        assert_eq!(with("44", "0", NumberFormat::E164Plus).check(), Ok(()));
    }

    proptest! {
        /// What is written is read back, in every format.
        #[test]
        fn numbers_survive_the_trunk(digits in "[1-9][0-9]{7,12}", which in 0usize..3) {
            let format = [NumberFormat::E164Plus, NumberFormat::E164NoPlus, NumberFormat::National][which];
            let rules = rules("44", "0", "00", format);
            let number: Number = format!("+{digits}").parse().unwrap();
            // A national number never begins with its own trunk prefix.
            prop_assume!(!digits.starts_with("440"));
            let address = Address::Number(number);
            prop_assert_eq!(rules.address_of_uri(&rules.uri_of(&address, "h")), Some(address));
        }

        #[test]
        fn rubbish_is_survived(uri in ".{0,80}") {
            NumberRules::default().address_of_uri(&uri);
            user_part(&uri);
            rules("44", "0", "00", NumberFormat::National).address_of_user(&uri);
        }
    }
}
