//! What every driver must do, one thing a test.

use store::{
    Compacted, EventKind, Expect, Key, ListError, Page, Range, Recovery, VALUE_MAX_BYTES,
    WriteError,
};

use crate::support::{Medium, copy_folder, key, lease, stamped, text, value};

const PODS: Range<'static> = Range { collection: "pods", namespace: None };

#[tokio::test]
async fn writes_check_what_they_expect() {
    for medium in Medium::all() {
        let (store, recovery) = medium.open().await;
        assert_eq!(recovery, Recovery::Fresh);
        assert!(store.revision() > 0);
        let first = store.put(key("a"), Expect::Absent, value("1")).await.unwrap();
        assert_eq!(first.created, first.revision);
        assert_eq!(text(&first.value), stamped("1", first.revision));
        let again = store.put(key("a"), Expect::Absent, value("2")).await.unwrap_err();
        assert!(
            matches!(again, WriteError::Conflict { current: Some(e) } if e.revision == first.revision)
        );
        let second =
            store.put(key("a"), Expect::Revision(first.revision), value("2")).await.unwrap();
        assert_eq!(second.created, first.created);
        assert!(second.revision > first.revision);
        let stale = store.put(key("a"), Expect::Revision(first.revision), value("3")).await;
        assert!(matches!(stale, Err(WriteError::Conflict { current: Some(_) })));
        let missing = store.put(key("b"), Expect::Revision(1), value("3")).await;
        assert!(matches!(missing, Err(WriteError::Conflict { current: None })));
        let stale = store.delete(&key("a"), Expect::Revision(first.revision)).await;
        assert!(matches!(stale, Err(WriteError::Conflict { .. })));
        let last = store.delete(&key("a"), Expect::Any).await.unwrap();
        assert_eq!(text(&last.value), stamped("2", last.revision));
        assert!(last.revision > second.revision && store.get(&key("a")).is_none());
        let gone = store.delete(&key("a"), Expect::Any).await;
        assert!(matches!(gone, Err(WriteError::NotFound)));
        let large = vec![b' '; VALUE_MAX_BYTES + 1].into();
        let large = store.put(key("a"), Expect::Any, large).await;
        assert!(matches!(large, Err(WriteError::TooLarge { .. })));
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn everything_is_there_after_closing() {
    for medium in Medium::all() {
        let (store, _) = medium.open().await;
        let pod = store.put(key("a"), Expect::Absent, value("1")).await.unwrap();
        let held = store.put(lease("l"), Expect::Absent, value("2")).await.unwrap();
        let revision = store.revision();
        store.close().await.unwrap();
        let (store, recovery) = medium.open().await;
        match medium.is_shared() {
            true => assert!(matches!(recovery, Recovery::Joined { objects: 2, .. })),
            false => assert_eq!(recovery, Recovery::Clean),
        }
        assert!(store.revision() >= revision);
        assert_eq!(store.is_shared(), medium.is_shared());
        for entry in [pod, held] {
            let found = store.get(&entry.key).unwrap();
            assert_eq!((found.created, found.revision), (entry.created, entry.revision));
            assert_eq!(found.value, entry.value);
            assert_eq!(found.labels, entry.labels);
        }
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn pages_show_one_revision() {
    for medium in Medium::all() {
        let (store, _) = medium.open().await;
        for n in 0..10 {
            store.put(key(&format!("p{n}")), Expect::Any, value("old")).await.unwrap();
        }
        store.put(Key::new("pods", "other", "p0"), Expect::Any, value("x")).await.unwrap();
        let range = Range { collection: "pods", namespace: Some("default") };
        let first = store.list(range, Page { limit: 3, ..Page::default() }).unwrap();
        assert_eq!((first.entries.len(), first.remaining), (3, 7));
        store.delete(&key("p4"), Expect::Any).await.unwrap();
        store.put(key("p5"), Expect::Any, value("new")).await.unwrap();
        store.put(key("p55"), Expect::Any, value("new")).await.unwrap();
        let rest = Page { limit: 0, after: first.next.clone(), at: Some(first.revision) };
        let rest = store.list(range, rest).unwrap();
        let seen: Vec<_> = rest.entries.iter().map(|e| &*e.key.name).collect();
        assert_eq!(seen, ["p3", "p4", "p5", "p6", "p7", "p8", "p9"]);
        assert!(rest.entries.iter().all(|e| text(&e.value).contains("old")));
        assert_eq!((rest.remaining, rest.next, rest.revision), (0, None, first.revision));
        let again = Page { limit: 3, after: first.next.clone(), at: Some(first.revision) };
        store.compact(first.revision);
        assert!(store.list(range, again.clone()).is_ok(), "the compacted revision itself is there");
        store.compact(first.revision + 1);
        store.compact(first.revision);
        let refused = Err(ListError::Expired { asked: first.revision, oldest: first.revision + 1 });
        assert_eq!(store.list(range, again).map(drop), refused);
        assert!(store.watch(range, first.revision).is_ok(), "watches go by the window");
        for n in 0..100 {
            store.put(key("churn"), Expect::Any, value(&n.to_string())).await.unwrap();
        }
        let late = Page { limit: 3, after: first.next, at: Some(first.revision) };
        assert!(matches!(store.list(range, late), Err(ListError::Expired { .. })));
        let ahead = Page { at: Some(store.revision() + 1), ..Page::default() };
        assert!(matches!(store.list(range, ahead), Err(ListError::Ahead { .. })));
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn watches_see_what_follows() {
    for medium in Medium::all() {
        let (store, _) = medium.open().await;
        let mut watch = store.watch(PODS, store.revision()).unwrap();
        assert!(watch.try_next().is_none());
        // Not the store's revision, which a write of its own to etcd may have moved on.
        let from = store.put(key("a"), Expect::Any, value("1")).await.unwrap().revision;
        let second = store.put(key("a"), Expect::Any, value("2")).await.unwrap().revision;
        store.put(lease("l"), Expect::Any, value("2")).await.unwrap();
        store.delete(&key("a"), Expect::Any).await.unwrap();
        let mut kinds = Vec::new();
        while let Some(Ok(event)) = watch.try_next() {
            kinds.push((event.kind, event.previous.as_ref().map(|p| p.revision)));
        }
        let (a, b) = (Some(from), Some(second));
        use EventKind::{Created, Deleted, Updated};
        assert_eq!(kinds, [(Created, None), (Updated, a), (Deleted, b)]);
        let mut later = store.watch(PODS, from).unwrap();
        assert_eq!(later.try_next().unwrap().unwrap().revision, second);
        assert_eq!(later.progress(), second);
        assert_eq!(later.try_next().unwrap().unwrap().kind, Deleted);
        store.put(lease("l"), Expect::Any, value("3")).await.unwrap();
        assert_eq!(later.progress(), store.revision(), "moves on with other collections");
        store.close().await.unwrap();
        assert!(later.next().await.is_none(), "ends with the store");
    }
}

#[tokio::test]
async fn a_slow_watch_is_told() {
    for medium in Medium::all() {
        let (store, _) = medium.open().await;
        let from = store.revision();
        let mut slow = store.watch(PODS, from).unwrap();
        let mut written = Vec::new();
        for n in 0..100 {
            let entry = store.put(key("a"), Expect::Any, value(&n.to_string())).await.unwrap();
            written.push(entry.revision);
        }
        let oldest = written[100 - 64 - 1];
        let gone = Compacted { asked: from, oldest };
        assert_eq!(slow.next().await.unwrap().unwrap_err(), gone);
        assert!(slow.next().await.is_none());
        assert_eq!(store.watch(PODS, from).err(), Some(gone));
        assert!(store.watch(PODS, oldest).is_ok());
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_crash_uses_up_its_revisions() {
    let medium = Medium::sqlite();
    let (store, _) = medium.open().await;
    store.put(key("a"), Expect::Any, value("1")).await.unwrap();
    for n in 0..10 {
        store.put(lease("l"), Expect::Any, value(&n.to_string())).await.unwrap();
    }
    let after = Medium::sqlite();
    copy_folder(&medium.path(), &after.path());
    let (again, recovery) = after.open().await;
    assert_eq!(recovery, Recovery::Unclean);
    assert!(again.revision() >= store.revision());
    assert!(again.get(&key("a")).is_some());
    again.close().await.unwrap();
    store.close().await.unwrap();
}
