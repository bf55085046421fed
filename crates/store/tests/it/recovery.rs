//! Damage, and what the start makes of it.

use std::path::Path;
use std::sync::Arc;

use store::{
    DriverError, Expect, FALL_BACK_LEAP, OpenError, REVISION_BLOCK, Recovery, Sqlite,
    SqliteOptions, Store, WriteError,
};

use crate::support::{Json, Medium, copy_folder, key, lease, options, value};

async fn open(folder: &Path) -> Result<(Store, Recovery), OpenError> {
    Store::open(Sqlite::driver(folder), Arc::new(Json), options()).await
}

/// A store with 200 objects copied and one more after the copy, as a power cut leaves it.
async fn cut(damage: impl FnOnce(&Path)) -> (Medium, u64) {
    let (medium, after) = (Medium::sqlite(), Medium::sqlite());
    let (store, _) = medium.open().await;
    for n in 0..200 {
        store.put(key(&format!("p{n}")), Expect::Any, value(&"x".repeat(500))).await.unwrap();
    }
    store.copy().await.unwrap();
    store.put(key("late"), Expect::Any, value("1")).await.unwrap();
    let revision = store.revision();
    store.close().await.unwrap();
    copy_folder(&medium.path(), &after.path());
    copy_folder(&medium.path().join("copies"), &after.path().join("copies"));
    damage(&after.path());
    (after, revision)
}

fn overwrite(path: &Path, at: usize, bytes: &[u8]) {
    let mut file = std::fs::read(path).unwrap();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    std::fs::write(path, file).unwrap();
}

#[tokio::test]
async fn the_newest_copy_takes_over() {
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 5] = [
        ("header", |f| overwrite(&f.join("store.db"), 0, &[0xAA; 100])),
        ("page", |f| overwrite(&f.join("store.db"), 5 * 4096, &[0xAA; 4096])),
        ("missing", |f| std::fs::remove_file(f.join("store.db")).unwrap()),
        ("empty", |f| std::fs::write(f.join("store.db"), "").unwrap()),
        ("value", |f| {
            let file = std::fs::read(f.join("store.db")).unwrap();
            let at = file.windows(8).rposition(|w| w == b"xxxxxxxx").unwrap();
            overwrite(&f.join("store.db"), at, b"y");
        }),
    ];
    for (name, damage) in damages {
        let (medium, revision) = cut(damage).await;
        let (store, recovery) = medium.open().await;
        let Recovery::Restored { damaged, salvaged, .. } = &recovery else {
            panic!("{name}: {recovery:?}");
        };
        assert!(damaged.exists());
        assert!(recovery.to_string().contains("restored the verified copy"), "{recovery}");
        assert!((0..200).all(|n| store.get(&key(&format!("p{n}"))).is_some()), "{name}");
        let late = store.get(&key("late"));
        assert_eq!(late.is_some(), *salvaged == 1, "{name}");
        match name {
            "value" => assert!(late.is_some(), "one bad object costs nothing else"),
            "page" => {}
            _ => assert!(late.is_none(), "{name}: nothing can be read"),
        }
        assert!(store.revision() >= revision, "{name}");
        assert!(store.revision() <= revision + REVISION_BLOCK, "{name}: the counter is known");
        store.put(key("later"), Expect::Absent, value("1")).await.unwrap();
        store.close().await.unwrap();
        assert_eq!(medium.open().await.1, Recovery::Clean);
    }
}

#[tokio::test]
async fn a_damaged_copy_is_passed_over() {
    let (medium, _) = cut(|folder| {
        let copies = folder.join("copies");
        let good = std::fs::read_dir(&copies).unwrap().next().unwrap().unwrap().path();
        std::fs::copy(&good, copies.join("store-9999999999999.db")).unwrap();
        overwrite(&copies.join("store-9999999999999.db"), 5 * 4096, &[0xAA; 4096]);
        overwrite(&folder.join("store.db"), 0, &[0xAA; 100]);
    })
    .await;
    let (store, recovery) = medium.open().await;
    assert!(
        matches!(recovery, Recovery::Restored { copy, .. } if !copy.ends_with("store-9999999999999.db"))
    );
    assert!(store.get(&key("p0")).is_some());
}

#[tokio::test]
async fn an_unknown_counter_leaps() {
    let (medium, revision) = cut(|folder| {
        overwrite(&folder.join("store.db"), 0, &[0xAA; 100]);
        std::fs::write(folder.join("revision"), "12").unwrap();
    })
    .await;
    let (store, _) = medium.open().await;
    assert!(store.revision() >= revision + FALL_BACK_LEAP - REVISION_BLOCK);
}

#[tokio::test]
async fn damage_without_a_copy_stops_the_start() {
    let (medium, _) = cut(|folder| {
        std::fs::remove_dir_all(folder.join("copies")).unwrap();
        overwrite(&folder.join("store.db"), 0, &[0xAA; 100]);
    })
    .await;
    let error = open(&medium.path()).await.err().unwrap();
    let OpenError::Driver(error @ DriverError::Damaged { .. }) = error else { panic!("{error}") };
    assert!(error.to_string().contains("no verified copy"));
    assert!(medium.path().join("store.db").exists(), "nothing was touched");
}

#[tokio::test]
async fn a_folder_in_use_is_refused() {
    let medium = Medium::sqlite();
    let (store, _) = medium.open().await;
    let error = open(&medium.path()).await.err().unwrap();
    let pid = std::process::id();
    assert!(
        matches!(&error, OpenError::Driver(DriverError::InUse { holder: Some(p), .. }) if *p == pid),
        "{error:?}"
    );
    store.close().await.unwrap();
    assert!(open(&medium.path()).await.is_ok());
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let error = open(Path::new("/proc/no/such")).await.err().unwrap();
    let OpenError::Driver(error @ DriverError::Unwritable { .. }) = error else {
        panic!("{error}")
    };
    assert_eq!(error.to_string(), "/proc/no/such is not writable");
    assert!(error.hint().is_some_and(|hint| hint.contains("--data-dir")));
}

#[tokio::test]
async fn collections_move_when_their_class_changes() {
    let medium = Medium::sqlite();
    let (store, _) = medium.open().await;
    store.put(lease("l"), Expect::Any, value("1")).await.unwrap();
    store.put(key("p"), Expect::Any, value("1")).await.unwrap();
    store.close().await.unwrap();
    for volatile in [vec![], vec!["pods".to_owned()], vec!["leases".to_owned()]] {
        let (store, _) = medium.open_with(store::Options { volatile, ..options() }).await;
        for key in [lease("l"), key("p")] {
            let now = store.get(&key).unwrap().revision;
            store.put(key, Expect::Revision(now), value("2")).await.unwrap();
        }
        store.close().await.unwrap();
    }
    let (store, _) = medium.open().await;
    assert_eq!(store.counts().iter().map(|c| c.objects).sum::<usize>(), 2);
}

#[tokio::test]
async fn copies_roll() {
    let medium = Medium::sqlite();
    let (store, _) = medium.open().await;
    for n in 0..5 {
        store.put(key("p"), Expect::Any, value(&n.to_string())).await.unwrap();
        store.copy().await.unwrap();
    }
    let copies = std::fs::read_dir(medium.path().join("copies")).unwrap();
    let names: Vec<_> = copies.map(|c| c.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(store.stats().copies, 5);
}

#[tokio::test]
async fn copies_come_by_themselves_after_changes_only() {
    let medium = Medium::sqlite();
    let often = SqliteOptions {
        copy_interval: std::time::Duration::from_millis(10),
        copies_max_bytes_per_hour: u64::MAX,
        ..SqliteOptions::default()
    };
    let driver = Sqlite::with(medium.path(), often);
    let (store, _) = Store::open(driver, Arc::new(Json), options()).await.unwrap();
    for round in 1..3 {
        store.put(lease("l"), Expect::Any, value("1")).await.unwrap();
        store.flush().await.unwrap();
        assert!(store.stats().copies < round, "a volatile change is not worth a copy");
        store.put(key("p"), Expect::Any, value("1")).await.unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while store.stats().copies < round {
            assert!(std::time::Instant::now() < deadline, "no copy");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn no_revision_is_handed_out_unless_it_is_reserved() {
    let medium = Medium::sqlite();
    let (store, _) = medium.open().await;
    // What a full disk would do to the high-water file.
    let blocked = medium.path().join("revision.new");
    std::fs::create_dir(&blocked).unwrap();
    for key in [key("p"), lease("l")] {
        let refused = store.put(key.clone(), Expect::Any, value("1")).await;
        assert!(matches!(refused, Err(WriteError::Storage(_))), "{refused:?}");
        assert!(store.get(&key).is_none());
    }
    std::fs::remove_dir(&blocked).unwrap();
    store.put(lease("l"), Expect::Any, value("1")).await.unwrap();
    store.put(key("p"), Expect::Any, value("1")).await.unwrap();
    store.close().await.unwrap();
}
