//! The kernel's command line on Raspberry Pi OS, whose firmware switches the memory controller off
//! unless it is told otherwise.

/// What the command line must say, so that memory and CPUs can be limited.
pub const FLAGS: [&str; 3] = ["cgroup_enable=cpuset", "cgroup_enable=memory", "cgroup_memory=1"];
/// Controllers without which pods' limits cannot be held.
pub const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// The flags that a command line does not say.
pub fn missing(line: &str) -> Vec<&'static str> {
    FLAGS.into_iter().filter(|flag| !line.split_whitespace().any(|word| word == *flag)).collect()
}

/// The command line with all flags. It stays one line: the firmware reads the first and no other.
/// A `cgroup_disable=memory` goes, since it beats what enables.
pub fn with_flags(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let kept = line.split_whitespace().filter(|word| *word != "cgroup_disable=memory");
    let words: Vec<&str> = kept.chain(missing(line)).collect();
    format!("{}\n", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_added_to_the_one_line_and_nothing_else_changes() {
        let before = "console=serial0,115200 root=PARTUUID=1-02 rootwait cgroup_disable=memory\n";
        let after = "console=serial0,115200 root=PARTUUID=1-02 rootwait cgroup_enable=cpuset \
                     cgroup_enable=memory cgroup_memory=1\n";
        assert_eq!(with_flags(before), after);
        assert_eq!(with_flags(after), after);
        assert!(missing(after).is_empty());
    }
}
