//! Random names as Kubernetes makes them.

/// Letters and digits that upstream's `rand.String` draws from: no vowels and no look-alikes, so
/// that no word and no misreading comes out (k8s.io/apimachinery/pkg/util/rand).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A random suffix of `length` characters of upstream's alphabet.
pub fn random_suffix(length: usize) -> String {
    (0..length).map(|_| char::from(ALPHABET[fastrand::usize(..ALPHABET.len())])).collect()
}

/// Maps a decimal hash onto upstream's alphabet, digit by digit (`SafeEncodeString`).
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

/// A random version 4 UUID in its usual lower-case form (RFC 9562, section 5.4).
pub fn uuid() -> String {
    let bits = (fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_has_version_and_variant() {
        let id = uuid();
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]), "{id}");
    }

    #[test]
    fn suffix_is_drawn_from_the_alphabet() {
        let suffix = random_suffix(200);
        assert!(suffix.bytes().all(|b| ALPHABET.contains(&b)), "{suffix}");
    }

    #[test]
    fn safe_encode_as_upstream() {
        assert_eq!(safe_encode("0123456789"), "456789bcdf");
    }
}
