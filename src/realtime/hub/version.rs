//! The versions of the protocol that clients speak.

/// A version, as a client names it in `vsn` when it connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// 1.0.0: JSON objects.
    One,
    /// 2.0.0: JSON arrays, and binary frames for broadcasts.
    Two,
}

impl Version {
    /// Reads `vsn`; a client that does not name one speaks the first.
    pub(super) fn read(vsn: Option<&str>) -> Option<Self> {
        match vsn {
            None | Some("1.0.0") => Some(Self::One),
            Some("2.0.0") => Some(Self::Two),
            Some(_) => None,
        }
    }
}
