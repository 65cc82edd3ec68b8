//! Values of the envelope's types, from their text and their binary form.
//!
//! The text forms are those of a session with `datestyle = ISO`, in which a `timestamptz` is
//! `2026-11-23 20:29:00.123456+00`, with any offset, more than four digits of year and ` BC` where
//! needed.

use uuid::Uuid;

use crate::event::Timestamp;
use crate::pgoutput::Column;

/// A value is not of the type that its column must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotA {
    /// Neither `smallint`, `int` nor `bigint`, or too large.
    #[error("not an integer that fits")]
    Integer,
    /// Not a `uuid`.
    #[error("not a uuid")]
    Uuid,
    /// Not a `timestamptz`.
    #[error("not a timestamptz")]
    Timestamptz,
    /// Not UTF-8.
    #[error("not UTF-8 text")]
    Text,
}

pub(super) fn integer(column: Column<'_>) -> Result<i64, NotA> {
    let number = match column {
        Column::Text(digits) => decimal(digits),
        Column::Binary(bytes) => match *bytes {
            [a, b] => Some(i64::from(i16::from_be_bytes([a, b]))),
            [a, b, c, d] => Some(i64::from(i32::from_be_bytes([a, b, c, d]))),
            _ => bytes.try_into().ok().map(i64::from_be_bytes),
        },
        Column::Null | Column::Unchanged => None,
    };
    number.ok_or(NotA::Integer)
}

pub(super) fn uuid(column: Column<'_>) -> Result<Uuid, NotA> {
    let uuid = match column {
        Column::Text(text) => Uuid::try_parse_ascii(text).ok(),
        Column::Binary(bytes) => Uuid::from_slice(bytes).ok(),
        Column::Null | Column::Unchanged => None,
    };
    uuid.ok_or(NotA::Uuid)
}

pub(super) fn text(column: Column<'_>) -> Result<&str, NotA> {
    match column {
        Column::Text(bytes) | Column::Binary(bytes) => {
            std::str::from_utf8(bytes).map_err(|_| NotA::Text)
        }
        Column::Null | Column::Unchanged => Err(NotA::Text),
    }
}

/// The text of a `json` or `jsonb`.
pub(super) fn json(column: Column<'_>) -> Result<&str, NotA> {
    match column {
        // jsonb's binary form is a version and the text; no JSON text starts with this byte.
        Column::Binary([1, rest @ ..]) => text(Column::Text(rest)),
        other => text(other),
    }
}

pub(super) fn time(column: Column<'_>) -> Result<Timestamp, NotA> {
    let micros = match column {
        Column::Text(text) => postgres_micros(text),
        Column::Binary(bytes) => bytes.try_into().ok().map(i64::from_be_bytes),
        Column::Null | Column::Unchanged => None,
    };
    micros.map(Timestamp::from_postgres).ok_or(NotA::Timestamptz)
}

/// A decimal number, without the detour over `str`.
fn decimal(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    // Counted downwards: the smallest number has no positive counterpart.
    let mut number = 0_i64;
    for digit in digits {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        number = number.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative { Some(number) } else { number.checked_neg() }
}

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// Days from 1970-01-01 to 2000-01-01.
const POSTGRES_EPOCH_DAYS: i64 = 10_957;

/// A `timestamptz` in text form as its binary form: microseconds since 2000-01-01 UTC, or the
/// largest and smallest numbers for the infinities.
fn postgres_micros(text: &[u8]) -> Option<i64> {
    match text {
        b"infinity" => return Some(i64::MAX),
        b"-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (text, before_christ) = match text.strip_suffix(b" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let mut at = Scan { rest: text };
    let year = at.number(4, 6)?;
    let month = at.after(b'-')?.number(2, 2)?;
    let day = at.after(b'-')?.number(2, 2)?;
    let hour = at.after(b' ')?.number(2, 2)?;
    let minute = at.after(b':')?.number(2, 2)?;
    let second = at.after(b':')?.number(2, 2)?;
    let micros = at.fraction()?;
    let offset = at.offset()?;
    // There is no year 0: 1 BC comes before 1 AD.
    let year = if before_christ { 1 - year } else { year };
    if !at.rest.is_empty() || 24 < hour || 59 < minute || 60 < second {
        return None;
    }
    let seconds = hour * 3600 + minute * 60 + second - offset;
    let days = days_from_civil(year, month, day)? - POSTGRES_EPOCH_DAYS;
    let seconds = days.checked_mul(SECONDS_PER_DAY)?.checked_add(seconds)?;
    seconds.checked_mul(MICROS_PER_SECOND)?.checked_add(micros)
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, counted in eras of 400 years that
/// start in March, so that the leap day is the last of its year.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(is_leap),
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || days_of_month < day {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// What of a text is still to be read.
struct Scan<'a> {
    rest: &'a [u8],
}

impl Scan<'_> {
    fn after(&mut self, expected: u8) -> Option<&mut Self> {
        let (first, rest) = self.rest.split_first()?;
        if *first != expected {
            return None;
        }
        self.rest = rest;
        Some(self)
    }

    /// `least` to `most` digits.
    fn number(&mut self, least: usize, most: usize) -> Option<i64> {
        let mut number = 0;
        let mut count = 0;
        while let Some((digit, rest)) = self.rest.split_first()
            && digit.is_ascii_digit()
            && count < most
        {
            number = number * 10 + i64::from(digit - b'0');
            count += 1;
            self.rest = rest;
        }
        (least <= count).then_some(number)
    }

    /// Microseconds from `.123456`, of which trailing zeros may be missing.
    fn fraction(&mut self) -> Option<i64> {
        if self.after(b'.').is_none() {
            return Some(0);
        }
        let before = self.rest.len();
        let mut micros = self.number(1, 6)?;
        for _ in before - self.rest.len()..6 {
            micros *= 10;
        }
        Some(micros)
    }

    /// Seconds east of Greenwich from `+05`, `-03:30` or `+00:19:32`.
    fn offset(&mut self) -> Option<i64> {
        let sign = if self.after(b'+').is_some() { 1 } else { self.after(b'-').map(|_| -1)? };
        let mut seconds = self.number(2, 2)? * 3600;
        if self.after(b':').is_some() {
            seconds += self.number(2, 2)? * 60;
            if self.after(b':').is_some() {
                seconds += self.number(2, 2)?;
            }
        }
        Some(sign * seconds)
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::Offset;
    use proptest::prelude::*;

    use super::*;

    fn micros_since_1970(text: &str) -> Option<i64> {
        time(Column::Text(text.as_bytes())).ok().map(|it| it.0)
    }

    proptest! {
        #[test]
        fn a_time_in_any_offset_is_the_moment_that_jiff_says(
            // years 1 to 9998, so that no offset leads out of jiff's range
            micros in -62_135_596_800_000_000_i64..253_370_764_800_000_000,
            offset in -57_599_i32..57_600,
        ) {
            let offset = Offset::from_seconds(offset).unwrap();
            let moment = jiff::Timestamp::from_microsecond(micros).unwrap();
            let local = offset.to_datetime(moment);
            prop_assume!(1 <= local.year());
            let (sign, east) = if offset.seconds() < 0 { ('-', -offset.seconds()) } else { ('+', offset.seconds()) };
            let text = format!(
                "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}{sign}{:02}:{:02}:{:02}",
                local.year(), local.month(), local.day(), local.hour(), local.minute(), local.second(),
                local.subsec_nanosecond() / 1000, east / 3600, east / 60 % 60, east % 60,
            );

            prop_assert_eq!(micros_since_1970(&text), Some(micros), "{}", text);
        }

        #[test]
        fn any_bytes_are_a_value_or_are_refused(bytes: Vec<u8>) {
            let is_text = std::str::from_utf8(&bytes).is_ok();
            prop_assert_eq!(text(Column::Text(&bytes)).is_ok(), is_text);
            prop_assert!(is_text || integer(Column::Text(&bytes)).is_err());
            prop_assert!(is_text || uuid(Column::Text(&bytes)).is_err());
            prop_assert!(is_text || time(Column::Text(&bytes)).is_err());
            prop_assert_eq!(integer(Column::Binary(&bytes)).is_ok(), [2, 4, 8].contains(&bytes.len()));
            prop_assert_eq!(uuid(Column::Binary(&bytes)).is_ok(), bytes.len() == 16);
            prop_assert_eq!(time(Column::Binary(&bytes)).is_ok(), bytes.len() == 8);
        }

        #[test]
        fn text_and_binary_are_the_same_value(number: i64, small: i16, raw: u128) {
            for number in [number, i64::from(small)] {
                let text = number.to_string();
                prop_assert_eq!(integer(Column::Text(text.as_bytes())), Ok(number));
                prop_assert_eq!(integer(Column::Binary(&number.to_be_bytes())), Ok(number));
            }
            prop_assert_eq!(integer(Column::Binary(&small.to_be_bytes())), Ok(i64::from(small)));
            let id = Uuid::from_u128(raw);
            prop_assert_eq!(uuid(Column::Text(id.to_string().as_bytes())), Ok(id));
            prop_assert_eq!(uuid(Column::Binary(id.as_bytes())), Ok(id));
        }
    }

    #[test]
    fn times_far_away_are_read_as_postgres_writes_them() {
        assert_eq!(micros_since_1970("2026-11-23 20:29:00.1+00"), Some(1_795_465_740_100_000));
        assert_eq!(micros_since_1970("1970-01-01 05:30:00+05:30"), Some(0));
        assert_eq!(micros_since_1970("0001-12-31 23:59:59+00 BC"), Some(-62_135_596_801_000_000));
        assert_eq!(
            micros_since_1970("4714-11-24 00:00:00+00 BC"),
            Some(-210_866_803_200_000_000),
            "the first day that Postgres knows"
        );
        assert_eq!(micros_since_1970("infinity"), Some(i64::MAX));
        assert_eq!(micros_since_1970("-infinity"), Some(i64::MIN));
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23 20:29:00",
            "2026-02-29 00:00:00+00",
            "2026-13-01 00:00:00+00",
            "2026-11-23 20:29:00+00 AD",
            "2026-11-23T20:29:00+00",
            "2026-11-23 20:29:00.1234567+00",
            "9999999-11-23 20:29:00+00",
        ] {
            assert_eq!(micros_since_1970(text), None, "{text}");
        }
    }

    #[test]
    fn binary_jsonb_loses_its_version() {
        assert_eq!(json(Column::Binary(b"\x01{}")), Ok("{}"));
        assert_eq!(json(Column::Binary(b"{}")), Ok("{}"));
        assert_eq!(json(Column::Text(b"{}")), Ok("{}"));
    }
}
