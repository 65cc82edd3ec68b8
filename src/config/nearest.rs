//! The word somebody meant.

/// The candidate that `word` was most likely meant to be, or `None` when none is near: at most a
/// third of its letters, and at least one, may be wrong, missing or too many.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    let near = candidates.into_iter().map(|it| (distance(word, it), it));
    near.filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|it| it.1)
}

/// Levenshtein's distance: the insertions, deletions and replacements between two words.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, letter) in from.chars().enumerate() {
        let mut left = row + 1;
        let mut current = vec![left];
        for (pair, wanted) in above.windows(2).zip(&to) {
            let &[diagonal, up] = pair else { continue };
            left = (diagonal + usize::from(letter != *wanted)).min(up + 1).min(left + 1);
            current.push(left);
        }
        above = current;
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let words = ["batch_events", "batch_bytes", "memory"];

        assert_eq!(nearest("batch_event", words), Some("batch_events"));
        assert_eq!(nearest("memmory", words), Some("memory"));
        assert_eq!(nearest("listen", words), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
