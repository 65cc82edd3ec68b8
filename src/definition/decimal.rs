//! JSON numbers as decimal text, exact where floats are not.

/// The integer that a JSON number stands for: `12`, `12.0` and `1.2e1` are one. `None` when it has
/// a fraction or does not fit.
pub(super) fn to_i64(text: &str) -> Option<i64> {
    if let Ok(it) = text.parse() {
        return Some(it);
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (sign, magnitude) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    // where the point stands after the exponent, counted in digits from the left
    let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let point = usize::try_from(point).ok()?;
    let leading = significant.len() - significant.trim_start_matches('0').len();
    if point < significant.len() || 20 < point.saturating_sub(leading) {
        return None;
    }
    let padded = format!("{sign}{significant:0<point$}");
    padded.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_an_integer_whatever_way_it_is_written() {
        for (text, number) in [
            ("0", 0),
            ("-0.0", 0),
            ("0e999999999", 0),
            ("1.0", 1),
            ("1e3", 1_000),
            ("-12.50e1", -125),
            ("0.001e3", 1),
            ("1000e-3", 1),
            ("9223372036854775807.000", i64::MAX),
            ("-9.223372036854775808e18", i64::MIN),
        ] {
            assert_eq!(to_i64(text), Some(number), "{text}");
        }
        for text in [
            "1.5",
            "1e-1",
            "1e19",
            "1e308",
            "9223372036854775808",
            "",
            "-",
            "e",
            "1e",
            "x",
            "1e99999999999999999999",
        ] {
            assert_eq!(to_i64(text), None, "{text}");
        }
        assert_eq!(to_i64(&"9".repeat(400)), None);
    }

    proptest! {
        #[test]
        fn any_text_is_an_integer_or_not(text in "[-0-9.eE+]{0,30}") {
            let _ = to_i64(&text);
        }
    }
}
