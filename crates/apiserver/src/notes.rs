//! What is to be said of a request beside its answer: texts for `Warning` headers and audit
//! annotations. They come up deep inside (an admission webhook, a policy) and are wanted far
//! outside, so that they go with the request's task instead of through every signature.

use std::cell::RefCell;
use std::future::Future;

/// Warnings longer than this are cut, as upstream does, where there are many.
const WARNING_BYTES_MAX: usize = 256;
/// All warnings of an answer together, before and after cutting (upstream's limits).
const WARNINGS_BYTES_MAX: usize = 4096;
/// Audit annotations of a request.
const ANNOTATIONS_MAX: usize = 256;

/// What was noted.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Texts for `Warning` headers, in their order, each once.
    pub warnings: Vec<String>,
    /// Key and value of audit annotations; the first of a key stays.
    pub annotations: Vec<(String, String)>,
}

tokio::task_local! {
    static NOTES: RefCell<Notes>;
}

/// Runs `work` and gives what was noted meanwhile. Work in tasks of its own notes nothing.
pub(crate) async fn collect<T>(work: impl Future<Output = T>) -> (T, Notes) {
    let noted = async {
        let done = work.await;
        (done, NOTES.with(RefCell::take))
    };
    NOTES.scope(RefCell::default(), noted).await
}

/// Notes a text for the client.
pub(crate) fn warn(text: impl Into<String>) {
    let text = text.into();
    // Outside of a request nobody listens.
    let _ = NOTES.try_with(|notes| {
        let warnings = &mut notes.borrow_mut().warnings;
        if !text.is_empty() && !warnings.contains(&text) {
            warnings.push(text);
        }
    });
}

/// Notes a fact for the audit log.
pub(crate) fn annotate(key: impl Into<String>, value: impl Into<String>) {
    let (key, value) = (key.into(), value.into());
    let _ = NOTES.try_with(|notes| {
        let annotations = &mut notes.borrow_mut().annotations;
        if annotations.len() < ANNOTATIONS_MAX && annotations.iter().all(|(own, _)| *own != key) {
            annotations.push((key, value));
        }
    });
}

/// Warnings as they fit into an answer's headers.
pub(crate) fn fitting(warnings: Vec<String>) -> Vec<String> {
    let total: usize = warnings.iter().map(String::len).sum();
    if total <= WARNINGS_BYTES_MAX {
        return warnings;
    }
    let mut left = WARNINGS_BYTES_MAX;
    let cut = warnings.into_iter().map(|mut text| {
        text.truncate(text.floor_char_boundary(WARNING_BYTES_MAX));
        text
    });
    cut.take_while(|text| {
        let fits = text.len() <= left;
        left = left.saturating_sub(text.len());
        fits
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn notes_are_kept_by_request() {
        warn("nobody hears this");
        let ((), notes) = collect(async {
            warn("a");
            tokio::task::yield_now().await;
            warn("b");
            warn("a");
            annotate("k", "1");
            annotate("k", "2");
        })
        .await;
        assert_eq!(notes.warnings, ["a", "b"]);
        assert_eq!(notes.annotations, [("k".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn many_warnings_are_cut() {
        let long = "x".repeat(3000);
        let cut = fitting(vec![long.clone(), long.clone()]);
        assert_eq!(cut.iter().map(String::len).collect::<Vec<_>>(), [256, 256]);
        assert_eq!(fitting(vec![long.clone()]), [long]);
        assert!(fitting(vec!["y".repeat(256); 40]).len() <= 16);
    }
}
