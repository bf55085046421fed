/// First halves of hardware addresses that the IEEE gave to Raspberry Pi (Trading and Foundation).
const RASPBERRY_PI: &[&str] =
    &["28:cd:c1", "2c:cf:67", "88:a2:9e", "b8:27:eb", "d8:3a:dd", "dc:a6:32", "e4:5f:01"];

/// Whether a hardware address is of a Raspberry Pi.
pub(super) fn is_raspberry_pi(mac: &str) -> bool {
    RASPBERRY_PI.iter().any(|start| mac.starts_with(start))
}
