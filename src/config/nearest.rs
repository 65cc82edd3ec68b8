//! The word somebody meant.

/// The candidate with the fewest edits to `word`, when they are at most a third of it; one is always
/// allowed. Case does not count.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let scored = candidates.into_iter().map(|it| (distance(&lower, &it.to_lowercase()), it));
    let (edits, near) = scored.min_by_key(|(edits, _)| *edits)?;
    let limit = (word.chars().count().max(near.chars().count()) / 3).max(1);
    (edits <= limit).then_some(near)
}

/// Edits between two texts, where swapping neighbours is one edit.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before_previous: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    let mut last = None;
    for (i, x) in a.chars().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&previous, j + 1) + 1).min(at(&row, j) + 1);
            best = best.min(at(&previous, j) + usize::from(x != *y));
            let swapped = 0 < j && last == Some(*y) && b.get(j - 1) == Some(&x);
            if swapped {
                best = best.min(at(&before_previous, j - 1) + 1);
            }
            row.push(best);
        }
        before_previous = std::mem::replace(&mut previous, row);
        last = Some(x);
    }
    previous.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_name_and_another_word_does_not() {
        let names = || ["set", "set_once", "add", "columns", "foreach"];

        assert_eq!(nearest("colunms", names()), Some("columns"));
        assert_eq!(nearest("setonce", names()), Some("set_once"));
        assert_eq!(nearest("Foreach", names()), Some("foreach"));
        assert_eq!(nearest("payload", names()), None);
        assert_eq!(nearest("batch_event", ["memory", "batch_events"]), Some("batch_events"));
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
