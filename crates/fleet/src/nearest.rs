//! "Did you mean ...?"

/// The candidates, those that are spelt most like the word first.
pub fn by_likeness<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut candidates: Vec<&str> = candidates.into_iter().collect();
    candidates.sort_by_key(|candidate| distance(candidate, word));
    candidates
}

/// The candidate that was probably meant, if one is near enough.
pub fn meant<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let best = by_likeness(&lower, candidates).into_iter().next()?;
    let most = 1 + word.chars().count() / 4;
    (distance(&best.to_lowercase(), &lower) <= most).then_some(best)
}

/// How many letters must change to make one word of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let keys = ["address", "name", "roles", "poweredBy"];
        assert_eq!(meant("adress", keys), Some("address"));
        assert_eq!(meant("role", keys), Some("roles"));
        assert_eq!(meant("poweredby", keys), Some("poweredBy"));
        assert_eq!(meant("colour", keys), None);
    }
}
