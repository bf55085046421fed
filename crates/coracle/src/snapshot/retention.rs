//! Which snapshots go when there are more than shall be kept.

use super::names::Listed;

/// Those whose names begin with `prefix`, newest first.
pub fn of_prefix(listed: Vec<Listed>, prefix: &str) -> Vec<Listed> {
    let begins =
        |one: &Listed| one.name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'));
    let mut ours: Vec<Listed> = listed.into_iter().filter(begins).collect();
    ours.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| b.name.cmp(&a.name)));
    ours
}

/// How many of so many may go at most. The last one always stays: keeping none would leave nothing
/// to restore.
pub fn too_many(count: usize, keep: usize) -> usize {
    count.saturating_sub(keep.max(1))
}

/// Those of `ours` (newest first) to remove: all but the newest `keep`. The newest that is good
/// stays whatever its age: where all newer ones are damaged, it is the only way back. Where none is
/// good nothing goes: perhaps it is the disk that cannot be read, and removing would make sure of
/// the loss.
pub fn surplus(ours: &[Listed], keep: usize, newest_good: Option<usize>) -> Vec<&Listed> {
    let Some(good) = newest_good else { return Vec::new() };
    let kept = ours.len() - too_many(ours.len(), keep);
    let gone = ours.iter().enumerate().skip(kept).filter(|(place, _)| *place != good);
    gone.map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn listed(names: &str) -> Vec<Listed> {
        let one = |name: &str| Listed {
            name: format!("{name}.snapshot"),
            location: String::new(),
            size: 1,
            created: name
                .rsplit('-')
                .next()
                .and_then(|seconds| Timestamp::from_second(seconds.parse().ok()?).ok())
                .expect("a name ends with seconds"),
            encrypted: false,
        };
        names.split(' ').map(one).collect()
    }

    fn gone(names: &str, keep: usize, bad: &[&str]) -> String {
        let ours = of_prefix(listed(names), "scheduled");
        let is_good = |one: &Listed| !bad.iter().any(|bad| one.name.contains(bad));
        let gone = surplus(&ours, keep, ours.iter().position(is_good));
        let names: Vec<&str> =
            gone.iter().filter_map(|one| one.name.strip_suffix(".snapshot")).collect();
        names.join(" ")
    }

    #[test]
    fn the_oldest_go_and_others_are_left_alone() {
        let names = "scheduled-a-3 scheduled-b-9 on-demand-a-1 scheduled-a-5 scheduledx-a-1";
        assert_eq!(gone(names, 2, &[]), "scheduled-a-3");
        assert_eq!(gone(names, 3, &[]), "");
        assert_eq!(gone(names, 0, &[]), "scheduled-a-5 scheduled-a-3");
    }

    #[test]
    fn the_last_good_one_stays() {
        let names = "scheduled-a-1 scheduled-a-2 scheduled-a-3 scheduled-a-4";
        assert_eq!(gone(names, 2, &["-4"]), "scheduled-a-2 scheduled-a-1");
        assert_eq!(gone(names, 2, &["-4", "-3"]), "scheduled-a-1");
        assert_eq!(gone(names, 2, &["-4", "-3", "-2"]), "scheduled-a-2");
        assert_eq!(gone(names, 2, &["scheduled"]), "", "nothing reads: nothing goes");
    }
}
