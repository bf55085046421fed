use std::error::Error;

/// Prints an error and everything that caused it in one line, outermost first, as
/// `opening the store: reading /var/lib/...: No such file or directory`.
///
/// Our errors never repeat their cause in their own message, so joining is all it takes; a
/// foreign error that does repeat it is printed once.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("opening the store")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("reading db: {0}")]
    struct Inner(#[source] std::io::Error);

    #[test]
    fn joins_causes_and_prints_a_repeated_one_once() {
        let error = Outer(Inner(std::io::Error::other("disk on fire")));
        assert_eq!(chain(&error), "opening the store: reading db: disk on fire");
    }
}
