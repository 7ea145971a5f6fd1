use std::fmt;
use std::net::SocketAddr;

/// What an image stream is: facsimile by ITU-T T.38 over UDPTL, as one side describes it (ITU-T T.38 annex D,
/// RFC 3362).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMedia {
    /// Where UDPTL datagrams go, and the only place they come from.
    pub remote_udptl: SocketAddr,
    /// What the side says of its facsimile, for the other side.
    pub attributes: ImageAttributes,
}

/// The T.38 attributes of an image stream (ITU-T T.38 D.2.3), in their order and as they were written: `T38FaxVersion:0`
/// or `T38FaxFillBitRemoval`. A gateway that passes UDPTL on does not speak T.38 itself, so those it has never heard of
/// are kept too. At most [`MAX_ATTRIBUTES`](Self::MAX_ATTRIBUTES), of at most
/// [`MAX_LENGTH`](Self::MAX_LENGTH) octets each.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ImageAttributes(Vec<Box<str>>);

impl ImageAttributes {
    /// Most attributes that are kept.
    pub const MAX_ATTRIBUTES: usize = 24;
    /// Most octets of one, name and value.
    pub const MAX_LENGTH: usize = 96;

    /// What the names of all of them begin with.
    const PREFIX: &'static str = "T38";

    /// Adds an attribute: its name and, after the colon, its value, if it has one. Returns false for what is not kept:
    /// an attribute of something else than T.38, one that is too long or has other than printable ASCII in it, and
    /// what is more than fits.
    pub fn push(&mut self, name: &str, value: Option<&str>) -> bool {
        let of_fax =
            name.get(..Self::PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(Self::PREFIX));
        let token = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let printable = value.is_none_or(|value| value.bytes().all(|b| (b' '..=b'~').contains(&b)));
        let length = name.len() + value.map_or(0, |value| 1 + value.len());
        if !of_fax
            || !token
            || !printable
            || length > Self::MAX_LENGTH
            || self.0.len() >= Self::MAX_ATTRIBUTES
        {
            return false;
        }
        let text = match value {
            Some(value) => [name, ":", value].concat(),
            None => name.to_owned(),
        };
        self.0.push(text.into_boxed_str());
        true
    }

    /// Returns them as they stand behind `a=`.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|text| &**text)
    }
}

impl fmt::Debug for ImageAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // ITU-T T.38 D.2.3.
    #[test]
    fn f14_attributes_of_t38_are_kept_as_they_were_written_and_bounded() {
        let mut kept = ImageAttributes::default();
        assert!(kept.push("T38FaxVersion", Some("0")));
        assert!(kept.push("T38FaxFillBitRemoval", None));
        assert!(kept.push("T38FaxFillBitRemoval", Some("0")));
        assert!(kept.push("t38faxudpec", Some("t38UDPRedundancy")));
        assert!(kept.push("T38VendorInfo", Some("0 0 0")));
        let written = [
            "T38FaxVersion:0",
            "T38FaxFillBitRemoval",
            "T38FaxFillBitRemoval:0",
            "t38faxudpec:t38UDPRedundancy",
            "T38VendorInfo:0 0 0",
        ];
        assert!(kept.iter().eq(written));
        let long = "x".repeat(ImageAttributes::MAX_LENGTH - "T38X:".len());
        assert!(kept.push("T38X", Some(&long)));
        for (name, value) in [
            ("T38XY", Some(long.as_str())),
            ("sendrecv", None),
            ("T3", None),
            ("T38 X", None),
            ("T38X\r\nm=audio 1 RTP/AVP 0", None),
            ("T38X", Some("1\r\nc=IN IP4 192.0.2.1")),
            ("T38\u{e9}", None),
            ("\u{e9}\u{e9}", None),
        ] {
            assert!(!kept.push(name, value), "{name:?} {value:?}");
        }
        assert_eq!(kept.iter().count(), 6);
        while kept.push("T38Y", None) {}
        assert_eq!(kept.iter().count(), ImageAttributes::MAX_ATTRIBUTES);
    }
}
