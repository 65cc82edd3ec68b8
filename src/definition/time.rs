//! Moments: their text, and the calendar in UTC without allocation.

use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;

use crate::event::Timestamp;

/// What `date_trunc` cuts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// 1970-01-01 was a Thursday, three days into its week.
const MONDAY_TO_EPOCH: i64 = 3;

impl Unit {
    /// The words `date_trunc` knows.
    pub(super) const NAMES: &[&str] = &["second", "minute", "hour", "day", "week", "month", "year"];

    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "second" => Self::Second,
            "minute" => Self::Minute,
            "hour" => Self::Hour,
            "day" => Self::Day,
            "week" => Self::Week,
            "month" => Self::Month,
            "year" => Self::Year,
            _ => return None,
        })
    }

    /// Its word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The start of the unit that `time` lies in, in UTC; a week starts on Monday.
    pub(super) fn truncate(self, time: Timestamp) -> Timestamp {
        let to = |size: i64| time.0.div_euclid(size) * size;
        let day = time.0.div_euclid(DAY);
        Timestamp(match self {
            Self::Second => to(SECOND),
            Self::Minute => to(60 * SECOND),
            Self::Hour => to(3_600 * SECOND),
            Self::Day => to(DAY),
            Self::Week => ((day + MONDAY_TO_EPOCH).div_euclid(7) * 7 - MONDAY_TO_EPOCH) * DAY,
            Self::Month => (day - civil(day).day_of_month) * DAY,
            Self::Year => (day - civil(day).day_of_year) * DAY,
        })
    }
}

/// Days since the start of the month and of the year.
struct Civil {
    day_of_month: i64,
    day_of_year: i64,
}

/// Howard Hinnant's `civil_from_days`: years start in March, so that the leap day comes last.
fn civil(day: i64) -> Civil {
    let shifted = day + 719_468;
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let since_march = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * since_march + 2) / 153;
    let day_of_month = since_march - (153 * march_month + 2) / 5;
    let is_leap = year_of_era % 4 == 0 && (year_of_era % 100 != 0 || year_of_era == 0);
    let january_start = 306;
    let day_of_year = match march_month {
        10.. => since_march - january_start,
        _ => since_march + 59 + i64::from(is_leap),
    };
    Civil { day_of_month, day_of_year }
}

/// RFC 3339 in UTC, with as many digits as there are; beyond the year 9999, microseconds.
pub fn text(time: Timestamp) -> String {
    match jiff::Timestamp::from_microsecond(time.0) {
        Ok(it) => it.to_string(),
        Err(_) => format!("{} µs", time.0),
    }
}

/// Reads ISO 8601 with an offset, with `Z`, without either (then UTC), or a date alone.
pub fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let moment = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let civil = text.parse::<DateTime>().ok()?;
        Offset::UTC.to_timestamp(civil).ok()
    })?;
    Some(Timestamp(moment.as_microsecond()))
}

/// Reads a date, or the UTC date of a moment.
pub(super) fn parse_date(text: &str) -> Option<Date> {
    parse(text).and_then(date)
}

/// The UTC date of a moment.
pub(super) fn date(time: Timestamp) -> Option<Date> {
    let moment = jiff::Timestamp::from_microsecond(time.0).ok()?;
    Some(Offset::UTC.to_datetime(moment).date())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> Timestamp {
        parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let noon = time("2026-03-29T12:00:00Z");
        for text in [
            "2026-03-29T12:00:00+00:00",
            "2026-03-29T14:00:00+02:00",
            "2026-03-29 12:00:00",
            "2026-03-29T12:00",
            "2026-03-29T12:00:00.000000",
            "2026-03-29 12:00:00+00",
            " 2026-03-29t12:00:00z ",
        ] {
            assert_eq!(parse(text), Some(noon), "{text}");
        }
        assert_eq!(time("2026-03-29"), Unit::Day.truncate(noon));
        for text in ["", "now", "12:00", "2026-13-01", "1774785600"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_moment_is_cut_to_the_start_of_its_unit() {
        let moment = time("2024-02-29T23:59:58.7Z");
        for (unit, start) in [
            ("second", "2024-02-29T23:59:58Z"),
            ("minute", "2024-02-29T23:59:00Z"),
            ("hour", "2024-02-29T23:00:00Z"),
            ("day", "2024-02-29"),
            ("week", "2024-02-26"),
            ("month", "2024-02-01"),
            ("year", "2024-01-01"),
        ] {
            assert_eq!(Unit::named(unit).unwrap().truncate(moment), time(start), "{unit}");
        }
    }

    proptest! {
        #[test]
        fn months_and_years_start_where_the_calendar_says(micros in -60_000_000_000_000_000i64..200_000_000_000_000_000) {
            let moment = Timestamp(micros);
            let day = date(moment).unwrap();
            let start = |it: Date| time(&it.to_string());

            prop_assert_eq!(Unit::Month.truncate(moment), start(day.first_of_month()));
            prop_assert_eq!(Unit::Year.truncate(moment), start(day.first_of_year()));
            let monday = day.checked_sub(jiff::Span::new().days(i64::from(day.weekday().to_monday_zero_offset()))).unwrap();
            prop_assert_eq!(Unit::Week.truncate(moment), start(monday));
        }
    }
}
