//! Takes what is secret out of a SIP message: a capture may be seen by many who may not call.
//!
//! Each octet is masked by another, so that lengths that a message tells of itself stay true.

/// Header fields that prove who somebody is (RFC 3261 22, RFC 7615): all but the scheme is masked.
const PROOFS: [&[u8]; 4] =
    [b"authorization", b"proxy-authorization", b"authentication-info", b"proxy-authentication-info"];

/// Lines of a session description whose value is a key, or a way to one (RFC 8866 5.12, RFC 4567, RFC 8839).
const KEYS: [&[u8]; 3] = [b"k=", b"a=key-mgmt:", b"a=ice-pwd:"];
/// A line with keys among other things (RFC 4568 9.1).
const CRYPTO: &[u8] = b"a=crypto:";
const INLINE: &[u8] = b"inline:";

const MASK: u8 = b'x';

/// Masks credentials, keys of media, passwords in URIs, and all of the body of INFO: digits may be a PIN.
pub(super) fn redact(message: &mut [u8]) {
    let head = head_length(message);
    let is_info = message.starts_with(b"INFO ");
    let (head, body) = message.split_at_mut(head);
    lines(head);
    if is_info {
        mask(body);
    } else {
        lines(body);
    }
}

/// Returns the Call-ID of a message (RFC 3261 20.8), if it is one that may stand elsewhere.
pub(super) fn call_id(message: &[u8]) -> Option<&str> {
    let head = message.get(..head_length(message))?;
    let value = head.split(|&octet| octet == b'\n').find_map(|line| {
        let (name, value) = header(line)?;
        (name.eq_ignore_ascii_case(b"call-id") || name.eq_ignore_ascii_case(b"i")).then_some(value)
    })?;
    let value = std::str::from_utf8(value.trim_ascii()).ok()?;
    (!value.is_empty() && value.len() <= 256).then_some(value)
}

/// Returns the length of start line and header, with the empty line that ends them.
fn head_length(message: &[u8]) -> usize {
    let mut at = 0;
    for line in message.split_inclusive(|&octet| octet == b'\n') {
        at += line.len();
        if line.trim_ascii().is_empty() {
            break;
        }
    }
    at
}

fn header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&octet| octet == b':')?;
    let (name, value) = line.split_at(colon);
    Some((name.trim_ascii_end(), value.get(1..)?))
}

/// A body may hold messages too: every line is looked at as a header field, and as one of a description.
fn lines(text: &mut [u8]) {
    let mut proves = false;
    for line in text.split_inclusive_mut(|&octet| octet == b'\n') {
        // RFC 3261 7.3.1: a line that begins with white space goes on with the one before.
        if line.first().is_some_and(|octet| matches!(octet, b' ' | b'\t')) {
            if proves {
                mask(line);
            }
        } else {
            proves = header(line)
                .is_some_and(|(name, _)| PROOFS.iter().any(|proof| name.eq_ignore_ascii_case(proof)));
            if proves {
                mask_proof(line);
            }
        }
        mask_keys(line);
        mask_in_uris(line);
    }
}

/// Masks the value of a header field but its first word, if more follow: the scheme.
fn mask_proof(line: &mut [u8]) {
    let Some(colon) = line.iter().position(|&octet| octet == b':') else { return };
    let Some(value) = line.get_mut(colon + 1..) else { return };
    let begins = value.iter().position(|octet| !octet.is_ascii_whitespace()).unwrap_or(value.len());
    let word = value.iter().skip(begins).position(u8::is_ascii_whitespace).map_or(begins, |at| begins + at);
    let more = value.iter().skip(word).any(|octet| !octet.is_ascii_whitespace());
    // RFC 7615: the information of the server has no scheme.
    let scheme = value.get(begins..word).is_some_and(|word| word.iter().all(u8::is_ascii_alphanumeric));
    if let Some(secret) = value.get_mut(if more && scheme { word } else { begins }..) {
        mask(secret);
    }
}

fn mask_keys(line: &mut [u8]) {
    let begins = |line: &[u8], with: &[u8]| {
        line.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    if let Some(known) = KEYS.iter().find(|known| begins(line, known)) {
        if let Some(value) = line.get_mut(known.len()..) {
            mask(value);
        }
    } else if begins(line, CRYPTO) {
        let mut from = 0;
        while let Some(at) = find(line, from, INLINE) {
            from = mask_word(line, at + INLINE.len(), |octet| octet.is_ascii_whitespace());
        }
    }
}

/// Masks passwords in URIs (RFC 3261 19.1.1), and credentials in the headers of one.
fn mask_in_uris(line: &mut [u8]) {
    for scheme in [&b"sip:"[..], b"sips:"] {
        let mut from = 0;
        while let Some(at) = find(line, from, scheme) {
            from = at + scheme.len();
            let ends = |octet: &u8| matches!(octet, b'@' | b'>' | b'<' | b'"' | b' ' | b'\r' | b'\n');
            let end = line.iter().skip(from).position(ends).map(|length| from + length);
            let Some(at) = end.filter(|&end| line.get(end) == Some(&b'@')) else { continue };
            let user = line.get(from..at).unwrap_or_default();
            if let Some(colon) = user.iter().position(|&octet| octet == b':')
                && let Some(password) = line.get_mut(from + colon + 1..at)
            {
                mask(password);
            }
        }
    }
    let mut from = 0;
    while let Some(at) = find(line, from, b"authorization=") {
        from = mask_word(line, at + b"authorization=".len(), |octet| {
            matches!(octet, b'&' | b'>' | b'"') || octet.is_ascii_whitespace()
        });
    }
}

/// Masks up to what ends a word. Returns where that is.
fn mask_word(line: &mut [u8], from: usize, ends: impl Fn(&u8) -> bool) -> usize {
    let rest = line.get_mut(from..).unwrap_or_default();
    let length = rest.iter().position(ends).unwrap_or(rest.len());
    if let Some(word) = rest.get_mut(..length) {
        mask(word);
    }
    from + length
}

fn mask(text: &mut [u8]) {
    for octet in text {
        if !octet.is_ascii_whitespace() {
            *octet = MASK;
        }
    }
}

/// Finds a word whatever its case, from an index on.
fn find(line: &[u8], from: usize, word: &[u8]) -> Option<usize> {
    let rest = line.get(from..)?;
    rest.windows(word.len()).position(|part| part.eq_ignore_ascii_case(word)).map(|at| from + at)
}
