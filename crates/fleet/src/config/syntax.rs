//! How names and amounts are written. Each function says what is needed where a text does not fit.

use std::fmt;

/// A DNS label: host names, names of nodes, of the cluster.
pub(crate) fn dns_label(text: &str) -> Result<(), &'static str> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    fits.then_some(()).ok_or("small letters, digits and `-` between them, 63 at the most")
}

/// The label that a text was probably meant to be.
pub(super) fn as_dns_label(text: &str) -> Option<String> {
    let small = text.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let label = small.trim_matches('-');
    dns_label(label).is_ok().then(|| label.to_owned())
}

/// Labels' keys: a name, with a DNS name and `/` before it where it belongs to somebody.
pub(super) fn label_key(text: &str) -> Result<(), &'static str> {
    let wanted = "a name of letters, digits, `-`, `_` and `.`, or `domain/name`";
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let prefix_fits =
        prefix.is_none_or(|p| p.len() <= 253 && p.split('.').all(|l| dns_label(l).is_ok()));
    (prefix_fits && !name.is_empty() && label_value(name).is_ok()).then_some(()).ok_or(wanted)
}

/// Labels' values; an empty one is one.
pub(super) fn label_value(text: &str) -> Result<(), &'static str> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let fits = text.len() <= 63
        && text.chars().all(inner)
        && edge(text.chars().next())
        && edge(text.chars().last());
    fits.then_some(()).ok_or("letters, digits, and `-`, `_`, `.` between them, 63 at the most")
}

/// A taint as kubectl writes it.
pub(super) fn taint(text: &str) -> Result<(), &'static str> {
    let wanted = "`key=value:effect` with the effect NoSchedule, PreferNoSchedule or NoExecute";
    let (rest, effect) = text.rsplit_once(':').ok_or(wanted)?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let fits = effects.contains(&effect) && label_key(key).is_ok() && label_value(value).is_ok();
    fits.then_some(()).ok_or(wanted)
}

/// A hardware address in its usual form, small letters and colons; one that several devices share
/// (a group's, or all zeros) is none.
pub fn mac(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let bytes: Vec<u8> = parts
        .iter()
        .filter(|part| part.len() == 2)
        .filter_map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    let fits = parts.len() == 6 && bytes.len() == 6 && bytes[0] & 1 == 0 && bytes != [0; 6];
    fits.then(|| parts.join(":").to_lowercase())
}

/// Reads an amount of bytes: `32GB` is decimal as makers of disks count, `4Gi` and `64M` as for
/// memory and journald.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: f64 = match unit.trim() {
        "" | "B" => 1.0,
        "K" | "KiB" | "Ki" => 1024.0,
        "kB" | "KB" => 1e3,
        "M" | "MiB" | "Mi" => 1024f64.powi(2),
        "MB" => 1e6,
        "G" | "GiB" | "Gi" => 1024f64.powi(3),
        "GB" => 1e9,
        "T" | "TiB" | "Ti" => 1024f64.powi(4),
        "TB" => 1e12,
        "PB" => 1e15,
        _ => return None,
    };
    let amount = number.parse::<f64>().ok()? * factor;
    // Above, steps between floating-point numbers are larger than a byte.
    (0.0..=9e15).contains(&amount).then_some(amount as u64)
}

/// A word of these characters only, which may go into configuration files of other programs.
pub(super) fn word(text: &str, further: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || further.contains(c))
}

/// "`name` is ..., and ... is needed".
pub(super) fn needed(what: impl fmt::Display, text: &str, wanted: &str) -> String {
    format!("{what} is {text:?}, and {wanted} is needed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_taints_are_kubernetes_own() {
        for fits in ["a", "example.com/disk", "a_b.c-d", "node-role.kubernetes.io/control-plane"] {
            assert_eq!(label_key(fits), Ok(()), "{fits}");
        }
        for wrong in ["", "/a", "a/", "-a", "a b", "Example.com/a", "a/b/c"] {
            assert!(label_key(wrong).is_err(), "{wrong}");
        }
        for fits in ["a=b:NoSchedule", "a:NoExecute", "x/y=:PreferNoSchedule"] {
            assert_eq!(taint(fits), Ok(()), "{fits}");
        }
        for wrong in ["a=b", "a=b:Sometimes", ":NoSchedule", "a=b c:NoSchedule"] {
            assert!(taint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hardware_addresses_get_one_form() {
        assert_eq!(mac("DC-A6-32-00-00-0F").as_deref(), Some("dc:a6:32:00:00:0f"));
        for wrong in
            ["dc:a6:32:00:00", "dc:a6:32:00:00:0g", "01:00:5e:00:00:01", "00:00:00:00:00:00"]
        {
            assert_eq!(mac(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn amounts_are_read_as_their_makers_mean_them() {
        for (text, amount) in [
            ("32GB", 32_000_000_000),
            ("64M", 67_108_864),
            ("4Gi", 4_294_967_296),
            ("0", 0),
            ("1.5TB", 1_500_000_000_000),
        ] {
            assert_eq!(bytes(text), Some(amount), "{text}");
        }
        for wrong in ["", "GB", "32 gigabytes", "-1GB", "1e3", "99999PB"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
