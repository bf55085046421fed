//! What texts and numbers have to look like: a function for each format gives upstream's
//! messages, none where all is well (k8s.io/apimachinery/pkg/util/validation).

use std::net::IpAddr;

pub(super) use crate::selector::{
    label_key_errors as qualified_name, label_value_errors as label_value,
};

const LABEL_LIMIT_BYTES: usize = 63;
const SUBDOMAIN_LIMIT_BYTES: usize = 253;
const CONFIG_KEY_LIMIT_BYTES: usize = 253;
const PORT_NAME_LIMIT_BYTES: usize = 15;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const SUBDOMAIN_UNDERSCORE: &str = r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?(\.[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?)*')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_NAME: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";
const HEADER_NAME: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";

/// A check of a text: its messages.
pub(super) type Format = fn(&str) -> Vec<String>;

fn too_long(text: &str, limit_bytes: usize) -> Vec<String> {
    let wrong = text.len() > limit_bytes;
    wrong.then(|| format!("must be no more than {limit_bytes} bytes")).into_iter().collect()
}

fn is_label(text: &str, extra: &[u8]) -> bool {
    let good = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || extra.contains(b);
    let bytes = text.as_bytes();
    bytes.first().is_some_and(good)
        && bytes.last().is_some_and(good)
        && bytes.iter().all(|b| good(b) || *b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(|part| is_label(part, b""))
}

pub(super) fn dns_label(text: &str) -> Vec<String> {
    let mut errors = too_long(text, LABEL_LIMIT_BYTES);
    if !is_label(text, b"") {
        let dots = is_subdomain(text);
        errors.push(if dots { "must not contain dots" } else { LABEL }.to_owned());
    }
    errors
}

pub(super) fn dns1035_label(text: &str) -> Vec<String> {
    let mut errors = too_long(text, LABEL_LIMIT_BYTES);
    if !is_label(text, b"") || text.starts_with(|c: char| c.is_ascii_digit()) {
        errors.push(LABEL_1035.to_owned());
    }
    errors
}

pub(super) fn dns_subdomain(text: &str) -> Vec<String> {
    let mut errors = too_long(text, SUBDOMAIN_LIMIT_BYTES);
    if !is_subdomain(text) {
        errors.push(SUBDOMAIN.to_owned());
    }
    errors
}

/// What DNS search paths may be.
pub(super) fn dns_subdomain_underscore(text: &str) -> Vec<String> {
    let mut errors = too_long(text, SUBDOMAIN_LIMIT_BYTES);
    if !text.split('.').all(|part| is_label(part, b"_")) {
        errors.push(SUBDOMAIN_UNDERSCORE.to_owned());
    }
    errors
}

/// A name that is nothing but one segment of a path.
pub(super) fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    let found = ["/", "%"].into_iter().filter(|part| text.contains(part));
    found.map(|part| format!("may not contain '{part}'")).collect()
}

/// The key of a ConfigMap or a Secret.
pub(super) fn config_key(text: &str) -> Vec<String> {
    let mut errors = too_long(text, CONFIG_KEY_LIMIT_BYTES);
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if text.is_empty() || !text.bytes().all(good) {
        errors.push(CONFIG_KEY.to_owned());
    }
    match text {
        "." => errors.push("must not be '.'".to_owned()),
        ".." => errors.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

/// The name of an environment variable.
pub(super) fn env_name(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    let good = |c: char| c.is_ascii_graphic() || c == ' ';
    let wrong = !text.chars().all(|c| good(c) && c != '=');
    wrong.then(|| ENV_NAME.to_owned()).into_iter().collect()
}

pub(super) fn header_name(text: &str) -> Vec<String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let wrong = text.is_empty() || !text.bytes().all(good);
    wrong.then(|| HEADER_NAME.to_owned()).into_iter().collect()
}

/// The name of a port (IANA_SVC_NAME).
pub(super) fn port_name(text: &str) -> Vec<String> {
    let mut errors = too_long(text, PORT_NAME_LIMIT_BYTES);
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    for (wrong, why) in [
        (
            text.is_empty() || !text.bytes().all(good),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (!text.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (text.contains("--"), "must not contain consecutive hyphens"),
        (text.starts_with('-') || text.ends_with('-'), "must not begin or end with a hyphen"),
    ] {
        if wrong {
            errors.push(why.to_owned());
        }
    }
    errors
}

pub(super) fn port_number(number: i64) -> Option<String> {
    (!(1..=65535).contains(&number)).then(|| between(1, 65535))
}

/// A user's or group's number.
pub(super) fn id_number(number: i64) -> Option<String> {
    let most = i64::from(i32::MAX);
    (!(0..=most).contains(&number)).then(|| between(0, most))
}

/// What a number out of its bounds is told.
pub(super) fn between(least: i64, most: i64) -> String {
    format!("must be between {least} and {most}, inclusive")
}

pub(super) fn ip(text: &str) -> Vec<String> {
    let wrong = text.parse::<IpAddr>().is_err();
    let why = || "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned();
    wrong.then(why).into_iter().collect()
}

/// The name of an IPAddress: its address as it is usually written.
pub(super) fn ip_name(text: &str) -> Vec<String> {
    match text.parse::<IpAddr>() {
        Ok(ip) if ip.to_string() == text => Vec::new(),
        Ok(ip) => vec![format!("must be in canonical form (\"{ip}\")")],
        Err(_) => ip(text),
    }
}

/// A range of addresses: its first and the length of what they share.
pub(super) fn parsed_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    length.parse().ok().filter(|length| *length <= most).map(|length| (address, length))
}

/// Whether an address lies in a range.
pub(super) fn holds(range: (IpAddr, u8), address: IpAddr) -> bool {
    let (network, length) = range;
    let (a, b, width): (u128, u128, u8) = match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.into(), b.into(), 128),
        _ => return false,
    };
    (a ^ b).checked_shr((width - length).into()).unwrap_or(0) == 0
}

pub(super) fn cidr(text: &str) -> Vec<String> {
    let why = || "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned();
    parsed_cidr(text).is_none().then(why).into_iter().collect()
}

/// A range that begins where its addresses begin.
pub(super) fn canonical_cidr(text: &str) -> Vec<String> {
    let Some((address, length)) = parsed_cidr(text) else { return cidr(text) };
    let bits = match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => address.into(),
    };
    let beyond = bits.checked_shl(length.into()).unwrap_or(0) != 0;
    let why = || "must not have bits set beyond the prefix length".to_owned();
    beyond.then(why).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let long = "a".repeat(254);
        let rows: &[(Format, &str, &[&str])] = &[
            (dns_label, "a-1", &[]),
            (dns_label, "a.b", &["must not contain dots"]),
            (dns_label, "A", &[LABEL]),
            (dns_label, "", &[LABEL]),
            (dns_subdomain, "a.b-c", &[]),
            (dns_subdomain, "a..b", &[SUBDOMAIN]),
            (dns_subdomain, &long, &["must be no more than 253 bytes"]),
            (dns_subdomain_underscore, "_tcp.x", &[]),
            (path_segment, "system:node", &[]),
            (path_segment, "..", &["may not be '..'"]),
            (path_segment, "a/b%", &["may not contain '/'", "may not contain '%'"]),
            (config_key, "a.B_c-", &[]),
            (config_key, "..x", &["must not start with '..'"]),
            (config_key, "a b", &[CONFIG_KEY]),
            (env_name, "a b-c", &[]),
            (env_name, "a=b", &[ENV_NAME]),
            (port_name, "http-2", &[]),
            (port_name, "80", &["must contain at least one letter (a-z)"]),
            (
                port_name,
                "-much-too--long-a-name",
                &[
                    "must be no more than 15 bytes",
                    "must not contain consecutive hyphens",
                    "must not begin or end with a hyphen",
                ],
            ),
            (ip, "::1", &[]),
            (ip, "1.2.3", &["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]),
            (cidr, "10.0.0.0/8", &[]),
            (
                cidr,
                "10.0.0.0/33",
                &["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"],
            ),
        ];
        for (format, text, expected) in rows {
            assert_eq!(format(text), *expected, "{text}");
        }
        assert_eq!(port_number(80), None);
        assert_eq!(port_number(0).unwrap(), "must be between 1 and 65535, inclusive");
        assert_eq!(id_number(-1).unwrap(), "must be between 0 and 2147483647, inclusive");
    }
}
