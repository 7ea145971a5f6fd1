//! The header fields of a received message, in their order, and their names.

macro_rules! names {
    ($( $variant:ident $long:literal $($short:literal)?; )*) => {
        /// The name of a header field, as far as this crate asks for it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Name {
            $( $variant, )*
            /// Any other; see [`Fields::all_named`].
            Other,
        }

        impl Name {
            /// Reads a name in any case, compact or not (RFC 3261 7.3.1, 7.3.3).
            pub(crate) fn of(raw: &[u8]) -> Self {
                match raw {
                    &[letter] => match letter.to_ascii_lowercase() {
                        $( $( $short => Self::$variant, )? )*
                        _ => Self::Other,
                    },
                    $(
                        _ if raw.len() == $long.len() && raw.eq_ignore_ascii_case($long) => Self::$variant,
                    )*
                    _ => Self::Other,
                }
            }
        }
    };
}

// Compact forms: RFC 3261 20, RFC 3515, RFC 3892, RFC 4028, RFC 6665.
names! {
    Via b"Via" b'v';
    From b"From" b'f';
    To b"To" b't';
    CallId b"Call-ID" b'i';
    CSeq b"CSeq";
    Contact b"Contact" b'm';
    MaxForwards b"Max-Forwards";
    ContentLength b"Content-Length" b'l';
    ContentType b"Content-Type" b'c';
    ContentEncoding b"Content-Encoding" b'e';
    Supported b"Supported" b'k';
    Require b"Require";
    Unsupported b"Unsupported";
    Allow b"Allow";
    Accept b"Accept";
    UserAgent b"User-Agent";
    RecordRoute b"Record-Route";
    Authorization b"Authorization";
    ProxyAuthorization b"Proxy-Authorization";
    WwwAuthenticate b"WWW-Authenticate";
    ProxyAuthenticate b"Proxy-Authenticate";
    Event b"Event" b'o';
    Expires b"Expires";
    MinExpires b"Min-Expires";
    MinSe b"Min-SE";
    SessionExpires b"Session-Expires" b'x';
    FlowTimer b"Flow-Timer";
    PAssertedIdentity b"P-Asserted-Identity";
    PPreferredIdentity b"P-Preferred-Identity";
    Path b"Path";
    ServiceRoute b"Service-Route";
    Privacy b"Privacy";
    RAck b"RAck";
    RSeq b"RSeq";
    Reason b"Reason";
    ReferSub b"Refer-Sub";
    ReferTo b"Refer-To" b'r';
    ReferredBy b"Referred-By" b'b';
    Replaces b"Replaces";
    RetryAfter b"Retry-After";
    SubscriptionState b"Subscription-State";
}

/// Where something is in the text.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: u32,
    to: u32,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    name: Name,
    spelt: Span,
    value: Span,
}

/// The header fields of a message: one text, and where names and values are in it. Values are unfolded
/// and trimmed; bytes that are not UTF-8 are replaced.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    text: String,
    index: Vec<Field>,
}

impl Fields {
    /// Begins with a text that holds the fields already; see [`Self::note`].
    pub(crate) fn of_text(text: String) -> Self {
        // An INVITE of a carrier has about so many.
        Self { text, index: Vec::with_capacity(20) }
    }

    /// Notes a field of the text, by byte offsets: the name, then the value. Says which it is.
    pub(crate) fn note(&mut self, spelt: (usize, usize), value: (usize, usize)) -> Option<Name> {
        let name = Name::of(self.text.as_bytes().get(spelt.0..spelt.1)?);
        let span = |(from, to): (usize, usize)| {
            Some(Span { from: u32::try_from(from).ok()?, to: u32::try_from(to).ok()? })
        };
        self.index.push(Field { name, spelt: span(spelt)?, value: span(value)? });
        Some(name)
    }

    /// Adds a field.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        let from = self.text.len();
        self.text.push_str(&String::from_utf8_lossy(name));
        let end = self.text.len();
        self.text.push_str(&String::from_utf8_lossy(value));
        // The limits of a message are far below what an offset can say.
        let _ = self.note((from, end), (end, self.text.len()));
    }

    fn part(&self, span: Span) -> &str {
        self.text.get(span.from as usize..span.to as usize).unwrap_or_default()
    }

    /// Returns the first value of a field.
    pub(crate) fn first(&self, name: Name) -> Option<&str> {
        self.all(name).next()
    }

    /// Returns the value of every field of this name.
    pub(crate) fn all(&self, name: Name) -> impl Iterator<Item = &str> {
        self.index.iter().filter(move |field| field.name == name).map(|field| self.part(field.value))
    }

    /// Returns the value of every field of this name, which may be one without a variant of [`Name`].
    pub(crate) fn all_named(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let known = Name::of(name.as_bytes());
        let is = move |field: &&Field| {
            field.name == known && (known != Name::Other || self.part(field.spelt).eq_ignore_ascii_case(name))
        };
        self.index.iter().filter(is).map(|field| self.part(field.value))
    }

    /// Returns every field: what it is, how that is spelt, its value.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Name, &str, &str)> {
        self.index.iter().map(|field| (field.name, self.part(field.spelt), self.part(field.value)))
    }
}
