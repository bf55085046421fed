//! A disk that is really full: a small one in a mount namespace of its own. An etcd that is full.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use store::{Datastore, DriverError, Expect, Recovery, Sqlite, Store, WriteError};

use crate::etcds::Etcds;
use crate::support::{Json, key, lease, options, value};

const FOLDER: &str = "STORE_TEST_FULL_FOLDER";

/// Not a test of its own: runs where [`FOLDER`] is a small disk.
#[tokio::test]
async fn on_a_small_disk() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let ballast = folder.join("ballast");
    std::fs::write(&ballast, vec![1; 300 << 10]).expect("there is room for this");
    let open = || Store::open(Sqlite::driver(folder.join("data")), Arc::new(Json), options());
    let (store, _) = open().await.expect("it opens");
    let mut written = 0;
    let error = loop {
        let content = value(&"x".repeat(20_000));
        match store.put(key(&format!("p{written}")), Expect::Absent, content).await {
            Ok(_) => written += 1,
            Err(WriteError::Storage(error)) => break error,
            Err(other) => panic!("{other}"),
        }
    };
    assert!(matches!(&*error, DriverError::Full { .. }), "{error:?}");
    assert!(written > 5);
    store.put(lease("l"), Expect::Any, value("1")).await.expect("heartbeats go on");
    assert!(store.get(&key("p0")).is_some() && store.get(&key(&format!("p{written}"))).is_none());
    std::fs::remove_file(&ballast).expect("make room");
    store.put(key("late"), Expect::Absent, value("1")).await.expect("it heals by itself");
    store.close().await.expect("close");
    let (store, recovery) = open().await.expect("it opens again");
    assert_eq!(recovery, Recovery::Clean);
    for n in 0..written {
        assert!(store.get(&key(&format!("p{n}"))).is_some());
    }
    assert!(store.get(&key("late")).is_some() && store.get(&lease("l")).is_some());
    store.close().await.expect("close");
}

#[test]
fn a_full_disk_is_survived() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mount = "mount -t tmpfs -o size=1m none \"$0\"";
    let may = |script: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["-m", "sh", "-c", script]).arg(folder.path());
        unshare
    };
    if !may(mount).output().is_ok_and(|o| o.status.success()) {
        println!("skipped: no right to mount");
        return;
    }
    let script = format!("{mount} && exec \"$@\"");
    let mut test = may(&script);
    test.arg(std::env::current_exe().expect("the test binary"));
    test.args(["--exact", "full::on_a_small_disk", "--nocapture"]).env(FOLDER, folder.path());
    let output = test.output().expect("run the test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[tokio::test]
async fn a_full_etcd_takes_deletions_and_opens_again() {
    let etcds = Etcds::start_with(1, &["--quota-backend-bytes=4000000".to_owned()]);
    let datastore = Datastore::Etcd(etcds.options());
    let open = || Store::open(datastore.driver(), Arc::new(Json), options());
    let (store, _) = open().await.expect("it opens");
    let mut written = 0;
    let error = loop {
        let content = value(&"x".repeat(400_000));
        match store.put(key(&format!("p{written}")), Expect::Absent, content).await {
            Ok(_) => written += 1,
            Err(WriteError::Storage(error)) => break error,
            Err(other) => panic!("{other}"),
        }
    };
    let said = base::chain(&*error).to_string();
    assert!(said.contains("its database is full"), "{said}");
    assert!(store.get(&key("p0")).is_some());
    let gone = store.delete(&key("p0"), Expect::Any).await.expect("deleted");
    assert!(store.get(&key("p0")).is_none() && gone.revision <= store.revision());
    let again = store.delete(&key("p0"), Expect::Any).await;
    assert!(matches!(again, Err(WriteError::NotFound)), "{again:?}");
    store.close().await.expect("close");

    let (store, _) = open().await.expect("it opens while it is full");
    assert!(store.get(&key("p0")).is_none() && store.get(&key("p1")).is_some());
    store.close().await.expect("close");
}
