/// Makes text from the network fit for a terminal, a log or a page: without control characters,
/// without the marks that turn the direction of what follows (Unicode TR 36 2.5), and at most
/// `longest` characters, the last of them `…` where more was there.
pub fn printable(raw: &str, longest: usize) -> String {
    if raw.len() <= longest && raw.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return raw.to_owned(); // as most of it is
    }
    let mut rest = raw.chars().filter(|c| !c.is_control() && !turns_direction(*c));
    let mut text: String = rest.by_ref().take(longest).collect();
    if rest.next().is_some() && text.pop().is_some() {
        text.push('…');
    }
    text
}

fn turns_direction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_drive_a_terminal_goes() {
        assert_eq!(printable("\u{1b}[2Jbusy\r\n\u{9b}here\u{202e}", 128), "[2Jbusyhere");
        assert_eq!(printable("naïve 東京", 128), "naïve 東京");
    }

    #[test]
    fn what_is_long_is_cut_and_shows_it() {
        assert_eq!(printable("abcd", 4), "abcd");
        assert_eq!(printable("abcde", 4), "abc…");
        assert_eq!(printable(&"é".repeat(1000), 128).chars().count(), 128);
        assert_eq!(printable("abc", 0), "");
    }
}
