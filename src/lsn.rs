//! A position in the write-ahead log.

use std::fmt;
use std::str::FromStr;

use postgres_types::{FromSql, IsNull, PgLsn, ToSql, Type, private::BytesMut};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A log sequence number: a byte position in the write-ahead log, printed as Postgres prints it
/// (`0/16B3748`).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before everything; what Postgres calls an invalid position.
    pub const ZERO: Self = Self(0);

    /// How many bytes of log lie between `earlier` and here; zero when `earlier` is not earlier.
    pub fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whether this is [`Lsn::ZERO`].
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({self})")
    }
}

/// The text is not two hexadecimal halves joined by a slash.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an LSN; one looks like 0/16B3748")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_hexdigit());
            plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
        };
        let halves = text.split_once('/').and_then(|(high, low)| Some((half(high)?, half(low)?)));
        let (high, low) = halves.ok_or_else(|| ParseLsnError(text.to_owned()))?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

type SqlError = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for Lsn {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, SqlError> {
        PgLsn::from(self.0).to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        <PgLsn as ToSql>::accepts(ty)
    }

    postgres_types::to_sql_checked!();
}

impl<'a> FromSql<'a> for Lsn {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, SqlError> {
        PgLsn::from_sql(ty, raw).map(|lsn| Self(u64::from(lsn)))
    }

    fn accepts(ty: &Type) -> bool {
        <PgLsn as FromSql>::accepts(ty)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn printing_and_parsing_an_lsn_gives_it_back(raw: u64) {
            prop_assert_eq!(Lsn(raw).to_string().parse(), Ok(Lsn(raw)));
        }

        #[test]
        fn an_lsn_in_json_is_its_text(raw: u64) {
            let json = serde_json::to_string(&Lsn(raw)).unwrap();

            prop_assert_eq!(&json, &format!("\"{}\"", Lsn(raw)));
            prop_assert_eq!(serde_json::from_str::<Lsn>(&json).unwrap(), Lsn(raw));
        }

        #[test]
        fn any_text_parses_or_is_refused(text: String) {
            if let Ok(lsn) = text.parse::<Lsn>() {
                prop_assert_eq!(lsn.to_string().parse(), Ok(lsn));
            }
        }
    }

    #[test]
    fn what_is_not_an_lsn_is_refused_by_name() {
        for text in ["", "/", "0/", "/0", "0/+1", "123456789/0", "0-0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
