//! What happens to requests on their way.

use serde_json::{Value, json};

/// Deeper than any decoder follows.
const DEEP: usize = 2_000;
const HUGE_KEY_BYTES: usize = 100_000;

/// Puts something else in the place of one value of the tree.
pub fn change(random: &mut fastrand::Rng, value: &mut Value) {
    let below = random.u8(..) > 60;
    match value {
        Value::Object(fields) if below && !fields.is_empty() => {
            let at = random.usize(..fields.len());
            if let Some(field) = fields.values_mut().nth(at) {
                return change(random, field);
            }
        }
        Value::Array(items) if below && !items.is_empty() => {
            let at = random.usize(..items.len());
            return change(random, &mut items[at]);
        }
        _ => {}
    }
    *value = match random.u8(..12) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(u64::MAX),
        4 => json!(1.5e300),
        5 => json!(""),
        6 => json!("\u{0}\u{7f}é\u{1F6F6}/../%00"),
        7 => json!([[], {}, null]),
        8 => json!({"": {"": null}, "$patch": "delete"}),
        9 => json!({"k".repeat(HUGE_KEY_BYTES): 1}),
        10 => json!([i64::MIN, "a", "a"]),
        _ => json!("9".repeat(400)),
    };
}

/// Damages bytes: cuts them, changes some, repeats a part, nests them deeply.
pub fn damage(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        bytes.extend_from_slice(b"\xff{");
        return;
    }
    match random.u8(..6) {
        0 => bytes.truncate(random.usize(..bytes.len())),
        1 => {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        2 => {
            for _ in 0..8 {
                let at = random.usize(..bytes.len());
                bytes[at] ^= 1 << random.u8(..8);
            }
        }
        3 => {
            let at = random.usize(..bytes.len());
            let part = bytes[at..].to_vec();
            bytes.splice(at..at, part);
        }
        4 => {
            let at = random.usize(..bytes.len());
            bytes.splice(at..at, b"\xc3\x28\xed\xa0\x80".iter().copied());
        }
        _ => {
            let open = *random.choice([&b"["[..], b"{\"a\":", b"- "].iter()).unwrap_or(&&b"["[..]);
            *bytes = open.repeat(DEEP);
        }
    }
}

/// A query with one of its characters changed.
pub fn damage_path(random: &mut fastrand::Rng, path: &str) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut query: Vec<char> = query.chars().collect();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=query.len());
        let one = *random.choice("=&,()!%2Ff\"'~-0aA".as_bytes()).unwrap_or(&b'=');
        match query.get_mut(at) {
            Some(place) if random.bool() => *place = one.into(),
            _ => query.insert(at.min(query.len()), one.into()),
        }
    }
    format!("{path}?{}", query.into_iter().collect::<String>())
}
