//! Formats that schemas name. Unknown ones hold for everything, as upstream has it.
//! Source: k8s.io/kube-openapi/pkg/validation/strfmt.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use jiff::{Timestamp, civil};
use serde_json::Value;

/// Whether a text is of a format.
pub(super) fn text_fits(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<Timestamp>().is_ok(),
        "date" => text.len() == 10 && text.parse::<civil::Date>().is_ok(),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.split_once('/').is_some_and(|(address, bits)| {
            let most = match address.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => 32,
                Ok(IpAddr::V6(_)) => 128,
                Err(_) => return false,
            };
            bits.parse::<u8>().is_ok_and(|bits| bits <= most)
        }),
        "mac" => {
            let parts: Vec<&str> = text.split([':', '-']).collect();
            matches!(parts.len(), 6 | 8 | 20)
                && parts.iter().all(|part| part.len() == 2 && is_hex(part))
        }
        "uuid" | "uuid3" | "uuid4" | "uuid5" => {
            let parts: Vec<&str> = text.split('-').collect();
            let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
            (lengths == [8, 4, 4, 4, 12] || lengths == [32]) && parts.iter().all(|p| is_hex(p))
        }
        "hostname" => {
            let label = |label: &str| {
                (1..=63).contains(&label.len())
                    && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            };
            text.len() <= 253 && text.trim_end_matches('.').split('.').all(label)
        }
        "email" => text.split_once('@').is_some_and(|(who, at)| !who.is_empty() && !at.is_empty()),
        "uri" => text.split_once(':').is_some_and(|(scheme, rest)| {
            !rest.is_empty()
                && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        }),
        "duration" => text.parse::<jiff::SignedDuration>().is_ok(),
        _ => true,
    }
}

fn is_hex(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_hexdigit())
}

/// Whether a number is of a format.
pub(super) fn number_fits(format: &str, number: &Value) -> bool {
    match format {
        "int32" => number.as_i64().is_none_or(|number| i32::try_from(number).is_ok()),
        "int64" => number.is_i64() || number.is_f64(),
        _ => true,
    }
}
