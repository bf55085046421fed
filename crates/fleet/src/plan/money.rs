//! Figures as people read them.

/// Two places at the most, and none that say nothing.
pub(super) fn figure(number: f64) -> String {
    let text = format!("{number:.2}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// An amount of money.
pub(super) fn money(amount: f64, currency: &str) -> String {
    format!("{amount:.2} {currency}")
}
