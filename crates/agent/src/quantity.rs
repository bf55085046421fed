//! Amounts out of objects; validation has let them in, so what does not parse counts as zero.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

fn parsed(quantity: &Quantity) -> base::Quantity {
    quantity.0.parse().unwrap_or_default()
}

/// Whole units (bytes, pods), rounded up.
pub fn units(quantity: &Quantity) -> i64 {
    parsed(quantity).units()
}

/// Thousandths (of a CPU), rounded up.
pub fn millis(quantity: &Quantity) -> i64 {
    parsed(quantity).millis()
}

/// The amount `milli` thousandths as Kubernetes writes it.
pub fn from_millis(milli: i64) -> Quantity {
    Quantity(base::Quantity::from_millis(milli).to_string())
}

/// An amount of bytes in kibibytes, as the kubelet writes memory and disk.
pub fn from_bytes(bytes: i64) -> Quantity {
    Quantity(format!("{}Ki", bytes / 1024))
}

/// An amount as short as it can be written: `100Mi` for `102400Ki`.
pub fn canonical(quantity: &Quantity) -> String {
    parsed(quantity).to_string()
}
