//! Numbers as people read them: three digits and a unit.

/// `1.2 MiB`
pub(super) fn bytes(count: u64) -> String {
    scaled(float(count), 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB"])
}

/// `4.1 k`, of a number that may have a fraction.
pub(super) fn thousands(value: f64) -> String {
    scaled(value, 1000.0, &["", " k", " M"])
}

/// `12 ms`, `41 s`, `3 min`
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1000.0)
    } else if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 7200.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.0} h", seconds / 3600.0)
    }
}

/// A count for arithmetic on a few digits of it.
#[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// Two digits at least, and never more than four.
fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = units.first().copied().unwrap_or_default();
    let whole = value < step;
    for larger in units.iter().skip(1) {
        if value < step {
            break;
        }
        value /= step;
        unit = larger;
    }
    if whole || 9.95 <= value { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") }
}
