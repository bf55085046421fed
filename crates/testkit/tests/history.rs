//! The workload of the history checker against a cluster in this process, which is right.

use std::time::Duration;

use testkit::Cluster;
use testkit::history::{Workload, judge};

/// Acknowledged writes that are worth a verdict.
const ENOUGH_WRITES: usize = 200;

#[tokio::test]
async fn a_cluster_without_faults_is_linear() {
    let cluster = Cluster::start().await;
    let servers = ["one", "two"].map(|name| (name.to_owned(), cluster.client.clone()));
    let workload = Workload { pace: Duration::from_millis(1), ..Workload::new(7, servers.into()) };
    let run = workload.start().await.expect("a cluster that is well");
    cluster
        .eventually("acknowledged writes", || async {
            (run.acknowledged() >= ENOUGH_WRITES).then_some(())
        })
        .await;
    let history = run.finish(Duration::from_secs(20)).await.expect("a cluster that is well");
    let violations = judge(&history);
    assert!(violations.is_empty(), "{}: {violations:#?}", history.summary());
    assert!(history.listings.len() > 2, "{}", history.summary());
    cluster.stop().await;
}
