//! Reads one JSON value that is no list and no object, for options given as `KEY:=JSON`.

/// A JSON value without parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    /// `null`.
    Null,
    /// `true`, `false` or a number, as written.
    Literal(String),
    /// A string, its escapes resolved.
    Text(String),
}

/// Reads one value; white space around it is ignored.
pub(super) fn scalar(json: &[u8]) -> Result<Scalar, String> {
    let json = core::str::from_utf8(json).map_err(|_| "not valid UTF-8".to_owned())?;
    let json = json.trim_matches([' ', '\t', '\n', '\r']);
    match json.as_bytes() {
        [] => Err("not a JSON value".to_owned()),
        b"null" => Ok(Scalar::Null),
        b"true" | b"false" => Ok(Scalar::Literal(json.to_owned())),
        [b'[' | b'{', ..] => Err("a list or an object is no value for an option".to_owned()),
        [b'"', ..] => string(json).map(Scalar::Text).ok_or_else(|| "not a JSON string".to_owned()),
        _ if is_number(json) => Ok(Scalar::Literal(json.to_owned())),
        _ => Err("not a JSON value".to_owned()),
    }
}

/// Whether this is `-? int frac? exp?` of RFC 8259.
fn is_number(json: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let rest = json.strip_prefix('-').unwrap_or(json);
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (rest, None),
    };
    let (int, fraction) = match mantissa.split_once('.') {
        Some((int, fraction)) => (int, Some(fraction)),
        None => (mantissa, None),
    };
    digits(int)
        && (int == "0" || !int.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

/// Reads a string with its quotes. `None` if it is none.
fn string(json: &str) -> Option<String> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' | '\0'..='\x1f' => return None,
            '\\' => text.push(match chars.next()? {
                c @ ('"' | '\\' | '/') => c,
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => unicode(&mut chars)?,
                _ => return None,
            }),
            c => text.push(c),
        }
    }
    Some(text)
}

/// Reads what follows `\u`: four hexadecimal digits, and a second escape where the first is half of a pair.
fn unicode(chars: &mut core::str::Chars<'_>) -> Option<char> {
    let unit = |chars: &mut core::str::Chars<'_>| {
        (0..4).try_fold(0, |unit, _| Some(unit * 16 + chars.next()?.to_digit(16)?))
    };
    let first = unit(chars)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first);
    }
    (chars.next()? == '\\' && chars.next()? == 'u').then_some(())?;
    let second = unit(chars)?;
    (0xdc00..0xe000).contains(&second).then_some(())?;
    char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_read_as_they_are_written() {
        assert_eq!(scalar(b" null\n"), Ok(Scalar::Null));
        for literal in ["true", "false", "0", "-7", "10.5", "1e3", "-0.1E+9"] {
            assert_eq!(scalar(literal.as_bytes()), Ok(Scalar::Literal(literal.to_owned())));
        }
        assert_eq!(
            scalar(br#""a\"b\\c\/\n\u00e9\ud83d\ude00""#),
            Ok(Scalar::Text("a\"b\\c/\n\u{e9}\u{1f600}".to_owned()))
        );
        assert_eq!(scalar(br#""""#), Ok(Scalar::Text(String::new())));
    }

    #[test]
    fn everything_else_is_refused() {
        for json in [
            "",
            "nul",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "-",
            "\"",
            "\"a",
            "\"a\"b\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"a\nb\"",
            "[1]",
            "{}",
            "a",
            "\"a\\\"",
        ] {
            assert!(scalar(json.as_bytes()).is_err(), "{json}");
        }
        assert!(scalar(b"\"\xff\"").is_err());
    }
}
