//! A pod that others had to leave for begins when they are gone, or should long have been: until then
//! its memory and ports are still theirs.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::stop;

/// The kubelet gives who leaves at least so long.
const MIN_PATIENCE: Duration = Duration::from_secs(10);

/// A pod that makes room for another.
pub struct Leaver {
    /// Cancelled when it takes no room any more.
    left: CancellationToken,
    /// How long it is waited for.
    patience: Duration,
}

impl Leaver {
    /// `left` is cancelled when the pod takes no room any more.
    pub(super) fn new(pod: &Pod, left: CancellationToken) -> Self {
        let grace = Duration::from_secs(u64::try_from(stop::grace(pod)).unwrap_or(0));
        // Half as much again is for what comes after the grace, as the kubelet counts.
        Self { left, patience: MIN_PATIENCE.max(grace + grace / 2) }
    }
}

/// Returns when all have left, or have had their time for it.
pub(super) async fn all_gone(leavers: &[Leaver]) {
    let each = leavers.iter().map(|leaver| async {
        if tokio::time::timeout(leaver.patience, leaver.left.cancelled()).await.is_err() {
            tracing::warn!("a pod that was to make room has not ended in its time");
        }
    });
    futures::future::join_all(each).await;
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use serde_json::json;

    use super::*;

    #[test]
    fn who_leaves_has_half_its_grace_more() {
        for (grace, seconds) in [(Some(0), 10), (Some(60), 90), (None, 45)] {
            let spec = json!({"containers": [], "terminationGracePeriodSeconds": grace});
            let pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a pod");
            let leaver = Leaver::new(&pod, CancellationToken::new());
            assert_eq!(leaver.patience.as_secs(), seconds, "{grace:?}");
        }
    }

    #[tokio::test]
    async fn all_are_waited_for_and_none_for_ever() {
        let leaver = |seconds| Leaver {
            left: CancellationToken::new(),
            patience: Duration::from_secs(seconds),
        };
        let all = [leaver(60), leaver(60)];
        all[0].left.cancel();
        assert_eq!(all_gone(&all).now_or_never(), None, "one is still there");
        all[1].left.cancel();
        all_gone(&all).await;
        all_gone(&[leaver(0)]).await;
        all_gone(&[]).await;
    }
}
