//! Sets of completion indexes and their text, such as `0-2,5`.

use std::collections::BTreeSet;

/// Parses the text; what is beyond `limit` (the completions) is dropped.
pub fn parse(text: &str, limit: i32) -> BTreeSet<i32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (i32, i32) = (first.parse().ok()?, last.parse().ok()?);
        Some(first.max(0)..last.saturating_add(1).min(limit))
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Writes the set; neighbours become ranges.
pub fn format(indexes: &BTreeSet<i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for &index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => ranges.push((index, index)),
        }
    }
    let text = ranges.into_iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        // Upstream writes two neighbours apart.
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    text.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for text in ["", "0", "0-2,5", "1,2,4-9"] {
            assert_eq!(format(&parse(text, 10)), text);
        }
        assert_eq!(format(&parse("0-20", 5)), "0-4");
    }
}
